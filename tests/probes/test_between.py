"""Paired comparisons of cells: against a slow jackknife, and against cells of which the better one is known."""

from typing import NamedTuple

import numpy as np
import pytest
from handscope.analysis import auc
from handscope.analysis.statistics.auc import PairWins
from handscope.analysis.statistics.folds import check_folds, grouped_folds
from handscope.probes import MassMeanProbe, cross_validate, pairs_of_cells
from hypothesis import given, settings
from hypothesis import strategies as st

GROUPS = np.repeat(np.arange(12), 12)


class At(NamedTuple):
    """A cell, without a plan."""

    block: str
    step: int


def labels(rng: np.random.Generator) -> np.ndarray:
    y = (rng.random(len(GROUPS)) < rng.uniform(0.2, 0.7, 12)[GROUPS]).astype(float)
    check_folds(y, grouped_folds(GROUPS))
    return y


def cell(rng: np.random.Generator, y: np.ndarray, shift: float, common: np.ndarray):
    x = common + 0.5 * rng.normal(size=(len(y), 8))
    x[:, 0] += shift * y
    return cross_validate(MassMeanProbe(), x, y, GROUPS, permutations=30, bootstraps=2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_jackknife_leaves_one_prompt_out_after_the_other(seed: int, within: bool) -> None:
    rng = np.random.default_rng(seed)
    groups, fold = rng.integers(0, 6, 40), rng.integers(0, 2, 6)
    scores, y = rng.integers(0, 9, 40), rng.integers(0, 2, 40)
    fold = fold[groups]
    found = PairWins.of(scores, y, groups, fold).without_each(within)
    strata = groups if within else fold
    expected = [auc(scores[groups != g], y[groups != g], strata[groups != g]) for g in np.unique(groups)]
    np.testing.assert_allclose(found, expected)


@pytest.fixture(scope="module")
def table():
    """Three blocks at three steps: the middle step is better than its neighbours, the last block than the others."""
    rng = np.random.default_rng(0)
    y, common = labels(rng), rng.normal(size=(len(GROUPS), 8))
    shift = {20: 0.0, 8: 3.0, 1: 0.0}
    cells = {
        At(block, step): cell(rng, y, shift[step] + more, common)
        for block, more in (("double.0", 0.0), ("double.1", 0.0), ("single.0", 1.5))
        for step in (1, 20, 8)
    }
    return cells, pairs_of_cells(cells, y, GROUPS)


def test_what_is_compared(table) -> None:
    cells, found = table
    assert list(found.columns)[:11] == [
        "block_a", "step_a", "block_b", "step_b", "auc_a", "auc_b", "difference", "lo", "hi", "p", "q",
    ]  # fmt: skip
    assert list(found.columns)[11:] == [f"within_{name}" for name in found.columns[4:11]]
    steps = found[found["block_a"] == found["block_b"]]
    assert steps[["step_a", "step_b"]].to_numpy().tolist() == [[20, 8], [8, 1], [20, 1]] * 3
    blocks = found[found["block_a"] != found["block_b"]].dropna(subset="p")
    assert (blocks["step_a"] == blocks["step_b"]).all() and (blocks["difference"] >= 0).all()
    assert blocks.groupby("step_a").size().tolist() == [2, 2, 2]
    for row in found.dropna(subset="p").itertuples():
        first, second = cells[At(row.block_a, row.step_a)], cells[At(row.block_b, row.step_b)]
        assert (row.auc_a, row.auc_b) == (first.auc, second.auc)
        assert row.difference == pytest.approx(second.auc - first.auc) and row.lo < row.difference < row.hi
        assert (row.p <= 0.05) == (row.lo > 0 or row.hi < 0) and row.p <= row.q


def test_the_better_step_and_the_better_block_are_called(table) -> None:
    found = table[1]
    steps = found[(found["block_a"] == "double.0") & (found["block_b"] == "double.0")]
    up, down, whole = steps["q"]
    assert up < 0.01 and down < 0.01 and whole > 0.05
    assert steps["difference"].iloc[0] > 0 > steps["difference"].iloc[1]
    assert (steps["within_q"].iloc[:2] < 0.01).all()
    best = found[(found["step_a"] == 20) & (found["step_b"] == 20)].dropna(subset="p")
    assert set(best["block_b"]) == {"single.0"} and (best["p"] < 0.05).all()


def test_a_best_block_that_was_looked_for_must_be_better_than_one_that_was_not() -> None:
    """The p against the best of seven equal blocks is larger than of two that were named beforehand."""
    rng = np.random.default_rng(3)
    y, common = labels(rng), rng.normal(size=(len(GROUPS), 8))
    cells = {At(f"double.{k}", 8): cell(rng, y, 1.5, common) for k in range(7)}
    every = pairs_of_cells(cells, y, GROUPS).dropna(subset="p")
    worst = every.loc[every["difference"].idxmax()]
    named = {key: cells[key] for key in (At(worst["block_a"], 8), At(worst["block_b"], 8))}
    alone = pairs_of_cells(named, y, GROUPS).iloc[0]
    assert alone["difference"] == worst["difference"] and alone["p"] < worst["p"]
    assert alone["hi"] - alone["lo"] < worst["hi"] - worst["lo"]


def test_prompts_of_one_class_say_nothing_within() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(12) % 2)[GROUPS].astype(float)
    common = rng.normal(size=(len(GROUPS), 8))
    found = pairs_of_cells({At("double.0", step): cell(rng, y, 1.0, common) for step in (2, 1)}, y, GROUPS)
    assert len(found) == 1 and found["p"].notna().all() and found["within_p"].isna().all()
