"""Prompt and noise held out at once: folds, fits and nulls against slow obvious versions."""

import numpy as np
import pandas as pd
import pytest
from handscope.analysis.crossed import CrossedComparison
from handscope.analysis.crossing import compare_crossed, crossed_table
from handscope.analysis.statistics.folds import two_way_folds
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.labeling.database.labels import Annotation, Labels
from handscope.report.crossed import crossed_context, crossed_findings
from handscope.run.folder import Run
from hypothesis import given
from hypothesis import strategies as st
from made_tiny import PROMPTS, STEPS


def made(prompts: int, noises: int, signal: float = 0.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features, labels (some NaN), prompts and noises of a full crossing."""
    rng = np.random.default_rng(seed)
    prompt, noise = (one.ravel() for one in np.indices((prompts, noises)))
    y = (rng.random(prompts * noises) < 0.5).astype(float)
    x = rng.normal(size=(len(y), 4))
    x[:, 0] += signal * y
    y[rng.random(len(y)) < 0.1] = np.nan
    return x, y, prompt, noise


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 99), st.data())
def test_a_fit_shares_neither_prompt_nor_noise_with_what_it_is_tested_on(prompts, noises, seed, data) -> None:
    _, _, prompt, noise = made(prompts, noises)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(prompt), max_size=len(prompt))))
    kept[: noises + 1] = True
    prompt, noise = prompt[kept], noise[kept]
    splits = two_way_folds(prompt, noise, 5, seed)
    assert (sum(test.astype(int) for _, test in splits) == 1).all()
    for train, test in splits:
        assert not set(prompt[train]) & set(prompt[test]) and not set(noise[train]) & set(noise[test])
    with pytest.raises(HandscopeError):
        two_way_folds(np.zeros(4), np.arange(4))


def slow_auc(x: np.ndarray, y: np.ndarray, comparison: CrossedComparison, inside: bool) -> float:
    won, pairs = 0.0, 0
    for train, test in comparison.splits:
        mean, spread = x[train].mean(0), x[train].std(0)
        z = (x - mean) / spread
        apart = z[train & (y == 1)].mean(0) - z[train & (y == 0)].mean(0)
        score = z @ np.linalg.solve(z[train].T @ z[train] + train.sum() * np.eye(x.shape[1]), apart)
        for i in np.flatnonzero(test & (y == 1)):
            for j in np.flatnonzero(test & (y == 0)):
                if not inside or comparison.prompt[i] == comparison.prompt[j]:
                    won, pairs = won + (score[i] > score[j]), pairs + 1
    return won / pairs


def test_scores_are_those_of_the_discriminant() -> None:
    x, y, prompt, noise = made(6, 9, 1.0)
    comparison = CrossedComparison.of(y, prompt, noise, permutations=7, folds=3)
    found = comparison.score(x)
    assert found.auc == pytest.approx(slow_auc(x, y, comparison, False))
    assert found.within_auc == pytest.approx(slow_auc(x, y, comparison, True))
    for null, labels, inside in (
        (found.null, comparison.labels[1:8], False), (found.within_null, comparison.labels[8:], True)
    ):  # fmt: skip
        np.testing.assert_allclose(null, [slow_auc(x, row, comparison, inside) for row in labels])
    wide = np.hstack([x, np.random.default_rng(1).normal(size=(len(x), 60))])  # more features than samples
    assert comparison.score(wide).auc == pytest.approx(slow_auc(wide, y, comparison, False))


def test_permuted_labels_keep_both_groupings() -> None:
    _, y, prompt, noise = made(5, 8)
    comparison = CrossedComparison.of(y, prompt, noise, permutations=20)
    grid = y.reshape(5, 8)

    def groups(labels: np.ndarray) -> tuple[list, list]:
        return tuple(sorted(map(tuple, np.sort(side, axis=1).tolist())) for side in (labels, labels.T))

    as_they_are = groups(np.nan_to_num(grid, nan=2))
    for row in comparison.labels[1:21]:
        assert groups(np.nan_to_num(row.reshape(5, 8), nan=2)) == as_they_are
    for row in comparison.labels[21:]:
        table = np.nan_to_num(row.reshape(5, 8), nan=2)
        np.testing.assert_array_equal(np.sort(table, axis=1), np.sort(np.nan_to_num(grid, nan=2), axis=1))


def test_what_is_known_of_a_noise_does_not_help() -> None:
    rng = np.random.default_rng(0)
    prompt, noise = (one.ravel() for one in np.indices((10, 20)))
    y = (rng.random(20) < 0.5).astype(float)[noise]  # the noise decides
    x = rng.normal(size=(20, 30))[noise] + 0.1 * rng.normal(size=(200, 30))  # and is all that is seen
    found = CrossedComparison.of(y, prompt, noise, permutations=99).score(x)
    assert 0.2 < found.auc < 0.8 and found.p > 0.05 and found.within_p > 0.05
    from handscope.analysis.directions import held_out_projections
    from handscope.analysis.statistics.auc import auc
    from handscope.analysis.statistics.folds import grouped_folds

    fold = grouped_folds(prompt)
    assert auc(held_out_projections(x, y[None], fold)[0], y, fold) > 0.95


def test_a_signal_is_found_and_too_little_is_refused() -> None:
    x, y, prompt, noise = made(8, 12, 2.0)
    comparison = CrossedComparison.of(y, prompt, noise, permutations=99)
    found = comparison.score(x)
    assert found.p == found.within_p == comparison.p_floor == 0.01
    assert found.interval[0] > 0.5 and found.within_auc > 0.8
    gain, low, high = found.beyond(comparison.score(np.random.default_rng(5).normal(size=x.shape)))
    assert low < gain < high and gain > 0.1
    with pytest.raises(HandscopeError, match="at least 3 prompts, 5 noises"):
        CrossedComparison.of(y[:24], prompt[:24], noise[:24])
    with pytest.raises(HandscopeError, match="found two"):
        CrossedComparison.of(np.append(y, 1), np.append(prompt, 0), np.append(noise, 0))


def test_a_crossed_run(tiny_model, tmp_path) -> None:
    run = Run(tmp_path)
    generate(tiny_model, run, PROMPTS[:3], range(6), steps=STEPS, design="crossed")
    whole = np.ones((4, 4), np.uint8)
    Labels(run.labels_path).add(
        [
            Annotation(row.sample, row.image_sha256, whole + 1 + (row.Index % 2), whole, ("good", "bad")[row.Index % 2],
                       (), "test", "hand")
            for row in run.samples().itertuples()
        ]
    )  # fmt: skip
    extract(tiny_model, run, Plan(["single.2"], [4, 1], of=4))
    assert crossed_table(run)["bad"].sum() == 9
    table = compare_crossed(run, permutations=19, folds=3)
    assert table["step"].tolist() == [4, 1] and (table["n_noises"] == 6).all() and (table["p"] >= 0.05).all()
    pictures = pd.read_csv(run.analysis_dir / "crossed_pictures.csv")
    assert len(pictures) == 4
    assert "too few permutations to tell" in crossed_findings(run)[0].brief
    assert len(crossed_context(run)["rows"]) == 2
    with pytest.raises(HandscopeError, match="would be of the design own|with more than one prompt"):
        generate(tiny_model, run, PROMPTS[3:5], range(6), steps=STEPS, design="own")
