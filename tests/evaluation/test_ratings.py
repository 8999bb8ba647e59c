"""Scores against ratings: in closed form, under a null, with folds that do not leak, and as the command says it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope import cli
from handscope.errors import HandscopeError
from handscope.evaluation.ratings import followed, held_out_ratings, rated, scores_of
from handscope.labeling.database.labels import Labels
from scipy.stats import kendalltau, spearmanr


def made(seed: int = 0, prompts: int = 12, each: int = 8) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Scores that follow ratings, run against them, say nothing, and know the prompt alone; ratings; prompts."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(prompts), each)
    of_prompt, quality = random.normal(size=prompts)[group], random.normal(size=len(group))
    rating = np.digitize(of_prompt + quality, [-0.7, 0.7]) / 2
    follows = of_prompt + quality + 0.5 * random.normal(size=len(group))
    scores = {"follows": follows, "distance": -follows, "nothing": random.normal(size=len(group))}
    scores |= {
        "prompt": of_prompt,
        "constant": np.ones(len(group)),
        "few": np.where(np.arange(len(group)) < 4, 1, np.nan),
    }
    return pd.DataFrame(scores), rating, group


def test_a_score_that_follows_is_told_from_one_that_does_not() -> None:
    scores, ratings, groups = made()
    table = followed(scores, ratings, groups, lower={"distance"}, permutations=200).set_index("metric")
    for name, sign in (("follows", 1), ("distance", -1), ("nothing", 1)):
        assert table.loc[name, "tau"] == pytest.approx(kendalltau(sign * scores[name], ratings).statistic)
        assert table.loc[name, "rho"] == pytest.approx(spearmanr(sign * scores[name], ratings).statistic)
    assert table.loc["follows", "p_family"] <= 0.02 and table.loc["distance", "p"] == table.loc["follows", "p"]
    assert table.loc["nothing", "p"] > 0.05
    assert table.loc["follows", "within_lo"] > 0.2
    assert np.isnan(table.loc["prompt", "within"]) and table.loc["prompt", "tau"] > 0.2  # within a prompt all are tied
    assert table.loc[["constant", "few"], "tau"].isna().all() and table.loc["few", "n"] == 4
    assert (table["p_family"].dropna() >= table["p"].dropna() - 1e-12).all()
    assert table.index[0] in ("follows", "distance")


def test_of_many_scores_that_say_nothing_one_in_twenty_families_is_called() -> None:
    """Six scores each, some alike within prompts: called at 0.05 by p in most families, by p_family in few."""
    called, alone = 0, 0
    for number in range(40):
        random = np.random.default_rng(number)
        groups = np.repeat(np.arange(10), 4)
        ratings = np.digitize(random.normal(size=10)[groups] + random.normal(size=40), [-0.7, 0.7]) / 2
        noise = random.normal(size=(10, 6))[groups] + random.normal(size=(40, 6))
        table = followed(pd.DataFrame(noise), ratings, groups, permutations=99, seed=number)
        called += (table["p_family"] <= 0.05).any()
        alone += (table["p"] <= 0.05).any()
    assert called <= 7 and alone >= 2 * called  # more than 7 of 40 are drawn once in 1,000 at a rate of 0.05


def test_a_sample_without_a_score_is_left_out_of_that_score_alone() -> None:
    scores, ratings, groups = made()
    holed = scores.assign(holed=scores["follows"].where(np.arange(len(groups)) % 3 > 0))
    row = followed(holed, ratings, groups, permutations=50).set_index("metric").loc["holed"]
    kept = holed["holed"].notna().to_numpy()
    assert row["n"] == kept.sum()
    assert row["tau"] == pytest.approx(kendalltau(scores["follows"][kept], ratings[kept]).statistic)


def test_what_is_refused() -> None:
    scores, ratings, groups = made()
    with pytest.raises(HandscopeError, match="no score clip"):
        followed(scores, ratings, groups, lower={"clip"})
    with pytest.raises(HandscopeError, match="All 96 ratings are 1"):
        followed(scores, np.ones(96), groups)
    with pytest.raises(HandscopeError, match="one prompt"):
        held_out_ratings(np.zeros((20, 2)), np.arange(20) % 2, np.zeros(20), np.arange(20))
    with pytest.raises(HandscopeError, match="too few"):
        held_out_ratings(np.full((20, 2), np.nan), np.arange(20) % 2, np.arange(20), np.arange(20))


def test_predictions_are_held_out_by_prompt_and_by_noise() -> None:
    """A feature that is the rating on all samples but those of one prompt, or one noise, tells nothing of these."""
    random = np.random.default_rng(0)
    prompt, noise = np.divmod(np.arange(96), 8)
    ratings = random.integers(0, 3, 96) / 2
    names = np.eye(12)[prompt]  # a name a prompt: in sample each tells its prompt's mean
    ratings = np.clip(ratings + (prompt % 2), 0, 1)
    alone = held_out_ratings(names, ratings, prompt, np.arange(96))
    leaking = held_out_ratings(names, ratings, np.arange(96), np.arange(96))
    assert kendalltau(leaking, ratings).statistic > 0.4
    assert abs(kendalltau(alone, ratings).statistic) < 0.2  # a name that no fit has seen says nothing
    crossed = held_out_ratings(np.eye(8)[noise], ratings, prompt, noise)
    assert np.allclose(crossed, 0)
    known = held_out_ratings(np.column_stack([ratings, np.full(96, np.nan)])[:, :1], ratings, prompt, noise)
    assert (
        known[ratings == 0].max()
        < known[ratings == 0.5].min()
        < known[ratings == 0.5].max()
        < known[ratings == 1].min()
    )


def test_tables_of_scores_are_read_by_sample_or_file(tmp_path: Path) -> None:
    samples, files = pd.Series(["a-1", "a-2", "b-1"]), pd.Series(["a-1.webp", "a-2.png", "b-1.png"])
    path = tmp_path / "scores.csv"
    path.write_text(
        "path,score,loss,word\nx/a-1.webp,0.5,1,no\nx/a-1.webp,0.25,2,no\nx/b-1.png,1,,no\nx/other.png,1,1,no\n"
    )
    found = scores_of(path, samples, files, lower={"loss"})
    assert found["score"].tolist() == [0.25, pytest.approx(np.nan, nan_ok=True), 1] and list(found) == ["score", "loss"]
    assert found.loc["a-1", "loss"] == 2
    for text, words in (
        ("a,b\n1,2\n", "names no samples"),
        ("sample,b\nz,2\n", "names none"),
        ("sample\na-1\n", "no column"),
    ):
        path.write_text(text)
        with pytest.raises(HandscopeError, match=words):
            scores_of(path, samples, files)
    with pytest.raises(HandscopeError, match="could not be read"):
        scores_of(tmp_path / "none.csv", samples, files)


def test_the_command_says_which_score_follows_people(finished_run, run_copy, tmp_path, capsys) -> None:
    run = run_copy(finished_run)
    samples = run.samples()
    random = np.random.default_rng(0)
    with pytest.raises(HandscopeError, match="0 rated samples"):
        rated(run)
    values = random.integers(0, 3, len(samples)) / 2
    labels = Labels(run.labels_path)
    for row, value in zip(samples.itertuples(), values):
        for rater in ("ann", "bob"):
            labels.rate(row.sample, row.image_sha256, rater, float(value), 1.0, f"{rater}{row.sample}")
    labels.rate(samples["sample"][0], "another picture", "cat", 0.0, 1.0, "stale")
    pd.DataFrame({"sample": samples["sample"], "mine": -values + 0.1 * random.normal(size=len(values))}).to_csv(
        tmp_path / "mine.csv", index=False
    )
    asked = [
        "ratings",
        str(run.path),
        "--scores",
        str(tmp_path / "mine.csv"),
        "--permutations",
        "99",
        "--lower",
        "mine",
    ]
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert "mine: tau-b" in said and "classifier of landmark" in said and "alpha 1.00" in said
    table = pd.read_csv(run.analysis_dir / "ratings.csv").set_index("metric")
    assert table.loc["mine", "tau"] > 0.7 and table.loc["mine", "n"] == len(samples)
    assert (run.figures_dir / "ratings.png").stat().st_size > 1000
    assert cli.main([*asked[:4], "--lower", "yours"]) == 2
    assert "no score yours" in capsys.readouterr().err
