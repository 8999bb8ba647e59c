"""The paired analysis against slow obvious versions, its null by all signs, and runs of pairs."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.analysis.paired import PairedComparison, sign_flips
from handscope.analysis.pairs import PairTokens, compare_pairs, pair_table
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.labeling.database.labels import Annotation, Labels
from handscope.run.folder import Run
from handscope.study import Study
from made_tiny import PROMPTS, STEPS


def slow_along(first: np.ndarray, second: np.ndarray, fold: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Held-out differences of the kept pairs, fold by fold; NaN elsewhere."""
    out = np.full(len(first), np.nan)
    for one in np.unique(fold):
        direction = (second - first)[(fold != one) & kept].mean(0)
        test = (fold == one) & kept
        out[test] = (second - first)[test] @ direction / np.linalg.norm(direction)
    return out


def made(n: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, 6))
    second = first + rng.normal(size=(n, 6))
    second[:, 0] += shift
    return first, second


def test_the_effect_is_that_of_directions_fitted_to_other_pairs() -> None:
    first, second = made(11, 1.0)
    comparison = PairedComparison.of(np.zeros(11), folds=4)
    found = comparison.effect(first, second)
    every = np.ones(11, bool)
    slow = slow_along(first, second, comparison.fold, every)
    np.testing.assert_allclose(found.difference, slow)
    assert found.mean == pytest.approx(slow.mean())
    assert found.dz == pytest.approx(slow.mean() / slow.std(ddof=1))
    assert found.within_auc == pytest.approx((slow > 0).mean())
    without = [np.nanmean(slow_along(first, second, comparison.fold, np.arange(11) != k)) for k in range(11)]
    half = 2.2281388519649385 * np.sqrt(10 / 11 * np.square(without - np.mean(without)).sum())  # t of 10 degrees
    np.testing.assert_allclose(found.mean_interval, (slow.mean() - half, slow.mean() + half))


def test_all_signs_are_tried_where_they_are_few() -> None:
    first, second = made(7, 1.0)
    comparison = PairedComparison.of(np.zeros(7))
    found = comparison.effect(first, second)
    values = []
    for signs in product((1, -1), repeat=7):
        flipped = first + np.array(signs)[:, None] * (second - first)
        along = slow_along(first, flipped, comparison.fold, np.ones(7, bool))
        values.append(along.mean() / (along.std(ddof=1) / np.sqrt(7)))
    assert found.p == pytest.approx((np.array(values) >= values[0] - 1e-9).mean())
    assert len(comparison.signs) == 2**6 and comparison.p_floor == 1 / 2**6
    np.testing.assert_array_equal(np.unique(sign_flips(6, 10)[:, 1:], axis=0), list(product((-1, 1), repeat=5)))
    assert sign_flips(40, 10).shape == (11, 40) and (sign_flips(40, 10)[0] == 1).all()


def test_pairs_of_one_prompt_pair_turn_and_are_held_out_together() -> None:
    of = np.repeat(np.arange(6), 3)
    comparison = PairedComparison.of(of, folds=3)
    assert comparison.units == 6 and all(len(set(comparison.fold[of == k])) == 1 for k in range(6))
    rng = np.random.default_rng(0)
    first = rng.normal(size=(18, 40))
    second = first + rng.normal(size=(6, 40))[of] + 0.01 * rng.normal(size=(18, 40))
    # Each prompt pair has a shift of its own, and nothing in common: as pairs of one kind they would be "told apart".
    apart = PairedComparison.of(np.zeros(18)).effect(first, second)
    assert apart.p < 0.01 < 0.05 < comparison.effect(first, second).p
    with pytest.raises(HandscopeError, match="at least 5 pairs of prompts .* there are 4"):
        PairedComparison.of(np.repeat(np.arange(4), 9))
    with pytest.raises(HandscopeError, match="at least 5 pairs, and there are 4: with 4, no p below 0.12"):
        PairedComparison.of(np.zeros(4))


def test_what_cannot_be_compared_is_refused() -> None:
    comparison = PairedComparison.of(np.zeros(6))
    first, second = made(6, 1.0)
    with pytest.raises(HandscopeError, match="are equal"):
        comparison.effect(first, first)
    with pytest.raises(HandscopeError, match="both members of 6 pairs, found arrays of shape"):
        comparison.effect(first[:5], second[:5])
    with pytest.raises(HandscopeError, match="NaN or infinite"):
        comparison.effect(first, np.where(second > second.max() - 1e-9, np.nan, second))


def test_a_null_of_pairs_holds_its_size() -> None:
    rng, low = np.random.default_rng(1), 0
    comparison = PairedComparison.of(np.zeros(9))
    for _ in range(200):
        first = rng.normal(size=(9, 20))
        low += comparison.effect(first, first + rng.standard_t(3, size=(9, 20))).p <= 0.05
    assert low <= 19  # of 200; 19 or fewer with a probability of 0.997


@pytest.fixture(scope="module")
def paired_run(tiny_model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight pairs of the tiny model, all tokens read, nothing labelled."""
    run = Run(tmp_path_factory.mktemp("paired"))
    generate(tiny_model, run, PROMPTS[:2], range(8), steps=STEPS, design="paired")
    extract(tiny_model, run, Plan(["double.1", "single.2"], [4, 1], of=4), tokens="all")
    return run


def test_a_paired_run_needs_no_labels(paired_run: Run) -> None:
    pairs = pair_table(paired_run)
    samples = paired_run.samples().set_index("sample")
    assert (samples.loc[pairs["first"], "prompt"] == PROMPTS[0]).all()
    assert (samples.loc[pairs["second"], "prompt"] == PROMPTS[1]).all()
    noise = samples["noise_sha256"]
    assert (noise[pairs["first"]].to_numpy() == noise[pairs["second"]].to_numpy()).all() and noise.nunique() == 8

    table = compare_pairs(paired_run, permutations=50)
    assert list(zip(table["block"], table["step"], strict=True)) == [
        ("double.1", 4), ("double.1", 1), ("single.2", 4), ("single.2", 1)
    ]  # fmt: skip
    assert (table["tokens"] == 16).all() and (table["units"] == 8).all()
    assert (table["p"] >= 1 / 2**7).all() and (table["p_family"] >= table["p"]).all()
    pictures = pd.read_csv(paired_run.analysis_dir / "pair_pictures.csv")
    assert set(zip(pictures["baseline"], pictures["step"], strict=True)) == {("x_t", 1), ("x0", 4), ("x0", 1)}
    before = (paired_run.analysis_dir / "pairs.csv").stat().st_mtime_ns
    assert compare_pairs(paired_run, permutations=50).equals(table)
    assert (paired_run.analysis_dir / "pairs.csv").stat().st_mtime_ns == before


def test_only_tokens_that_both_members_have_are_read(paired_run: Run, run_copy) -> None:
    from handscope.extract.store.store import ActivationStore

    run = run_copy(paired_run)
    rows = run.samples()
    pairs = pair_table(run)
    annotations = []
    for row in rows.itertuples():
        hand = np.zeros((4, 4), np.uint8)
        hand[:2] = 1
        if row.sample in set(pairs["second"]):
            hand[0], hand[3] = 0, 1
        verdict = "bad" if row.sample in set(pairs["second"][:5]) else "good"
        label = np.where(hand > 0, 3 if verdict == "bad" else 2, 1)
        annotations.append(Annotation(row.sample, row.image_sha256, label, hand, verdict, (), "test", "hand"))
    Labels(run.labels_path).add(annotations)
    store = ActivationStore(run.activations_dir)
    tokens = PairTokens(store, pairs)
    assert tokens.shared == 4
    cell = store.cells[0]
    first, second = tokens.read(cell)
    x, of = store.read(cell.block, cell.step)
    for members, name in ((first, "first"), (second, "second")):
        wanted = x[((of["sample"] == pairs[name][3]) & (of["row"] == 1)).to_numpy()].mean(0)
        np.testing.assert_allclose(members[3], wanted, rtol=1e-5)
    compare_pairs(run, permutations=50)
    verdicts = pd.read_csv(run.analysis_dir / "pair_verdicts.csv").iloc[0]
    assert (verdicts["rate_first"], verdicts["rate_second"], verdicts["n"]) == (0, 5 / 8, 8)
    assert verdicts["p"] == pytest.approx(2 / 2**5)


def test_a_run_of_another_design_is_refused(finished_run: Run) -> None:
    with pytest.raises(HandscopeError, match="Expected pairs, .* found the design own: run analyze and probe"):
        pair_table(finished_run)


def test_a_paired_study_goes_to_its_page(
    tiny_pipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handscope.figures.style.FORMATS", {"png": {"Software": None}})
    path = tmp_path / "study.yaml"
    path.write_text(
        f"run: {tmp_path / 'run'}\nmodel: {tiny_pipe_folder}\npairs:\n- [{PROMPTS[0]!r}, {PROMPTS[1]!r}]\n"
        f"seeds: {{first: 0, count: 6}}\nsteps: {STEPS}\nblocks: [single.2]\nread_steps: [4]\ntokens: all\n"
    )
    study = Study.from_yaml(path)
    assert study.prompts == tuple(PROMPTS[:2]) and study.design == "paired"
    assert [result.stage for result in study.run()] == ["generate", "extract", "pairs", "report"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "What does the difference between “light” and “brown”, “blue” and “green” do at equal noise?" in page
    assert not any(result.ran for result in study.run())
