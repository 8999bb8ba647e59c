"""Power, needed numbers and effect sizes, against scipy, Monte Carlo and small stores with and without a difference."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.effects import auc_of_d, d_of_auc, effect_size
from handscope.analysis.statistics.folds import grouped_folds
from handscope.analysis.statistics.power import (
    auc_sd,
    design_effect,
    detectable,
    held_out_auc,
    needed,
    null_sd,
    power,
    power_table,
)
from handscope.errors import HandscopeError
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

COUNTS = st.integers(5, 400)


def drawn_aucs(true: float, n_bad: int, n_good: int, draws: int, folds: int = 1) -> np.ndarray:
    """AUCs of samples of two normals; `folds` compares inside folds of equal size."""
    y = np.concatenate([np.tile([1] * (n_bad // folds) + [0] * (n_good // folds), folds)])
    scores = np.random.default_rng(0).normal(size=(draws, len(y))) + y * float(d_of_auc(true))
    return auc(scores, y, np.repeat(np.arange(folds), len(y) // folds))


@pytest.mark.parametrize(("true", "n_bad", "n_good", "folds"), [(0.5, 20, 50, 1), (0.7, 30, 60, 1), (0.85, 20, 40, 5)])
def test_the_spread_of_an_auc_is_that_of_simulated_ones(true, n_bad, n_good, folds):
    found = drawn_aucs(true, n_bad, n_good, 6000, folds)
    assert found.std() == pytest.approx(float(auc_sd(true, n_bad, n_good, folds)), rel=0.04)
    assert found.mean() == pytest.approx(true, abs=0.005)


@given(COUNTS, COUNTS, st.integers(1, 5))
def test_at_one_half_it_is_the_null(n_bad, n_good, folds):
    assert float(auc_sd(0.5, n_bad, n_good, folds)) == pytest.approx(float(null_sd(n_bad, n_good, folds)), rel=1e-9)


def test_two_wins_at_once_are_the_bivariate_normals():
    for true in (0.55, 0.7, 0.95):
        h = norm.ppf(true)
        both = multivariate_normal.cdf([h, h], cov=[[1, 0.5], [0.5, 1]])
        n_bad, n_good = 7, 11
        expected = (true * (1 - true) + (n_bad + n_good - 2) * (both - true**2)) / (n_bad * n_good)
        assert float(auc_sd(true, n_bad, n_good)) ** 2 == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.001, 0.999))
def test_an_auc_and_its_d_are_one_another_undone(value):
    assert float(auc_of_d(d_of_auc(value))) == pytest.approx(value, rel=1e-9)


@given(st.floats(0.52, 0.95), st.floats(0.3, 0.95), st.floats(0.05, 0.5), st.floats(1, 4))
def test_needed_is_the_fewest_with_the_power(target, wanted, bad, design):
    n = needed(target, wanted, bad, design)
    least = 2 * 5 / bad
    assert power(target, n * bad, n * (1 - bad), design) >= wanted - 1e-6
    assert n <= np.ceil(least) or power(target, (n - 1) * bad, (n - 1) * (1 - bad), design) <= wanted + 1e-6


def test_the_known_answers():
    assert needed(0.6) == 208  # of one fit to other data, half of the hands bad
    assert float(power(0.5, 100, 100)) == pytest.approx(0.05)
    assert float(design_effect(1.3 * null_sd(40, 60, 5), 40, 60)) == pytest.approx(1.69)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"auc": 0.5}, "auc"),
        ({"auc": 1.0}, "auc"),
        ({"target": 0.01}, "power"),
        ({"bad": 0.0}, "share"),
        ({"auc": 0.50001}, "too near"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, word):
    with pytest.raises(HandscopeError, match=word):
        needed(**arguments)


def test_a_fitted_direction_reaches_what_is_predicted_of_it():
    rng = np.random.default_rng(0)
    width, n, d = 40, 100, 1.2
    y = np.arange(n) % 2
    fold = grouped_folds(np.arange(n), 5)
    found = []
    for _ in range(150):
        x = rng.normal(size=(n, width)) + np.outer(y, np.full(width, d / np.sqrt(width)))
        scores = np.empty(n)
        for one in range(5):
            train = fold != one
            scores[~train] = x[~train] @ (x[train & (y == 1)].mean(0) - x[train & (y == 0)].mean(0))
        found.append(auc(scores, y, fold))
    assert np.mean(found) == pytest.approx(float(held_out_auc(auc_of_d(d), 50, 50, width)), abs=0.015)


def test_an_effect_size_is_hedges_g_and_its_interval_covers():
    rng = np.random.default_rng(0)
    y, groups = np.arange(60) % 2, np.arange(60)
    scores = rng.normal(size=60) + 0.8 * y
    a, b = scores[y == 1], scores[y == 0]
    pooled = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    g = (a.mean() - b.mean()) / pooled * (1 - 3 / (4 * 60 - 9))
    found = effect_size(scores, y, groups, np.zeros(60, int))
    assert found.d == pytest.approx(g) and found.interval[0] < g < found.interval[1]
    hits = 0
    for _ in range(200):
        low, high = effect_size(rng.normal(size=60) + 0.8 * y, y, groups, np.zeros(60, int), draws=200).interval
        hits += low <= 0.8 <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_an_effect_size_knows_nothing_of_the_scales_of_folds():
    rng = np.random.default_rng(1)
    y, fold = np.arange(100) % 2, np.arange(100) // 2 % 5
    scores = rng.normal(size=100) + y
    stretched = scores * 10.0**fold + 5 * fold
    plain, far = (effect_size(one, y, np.arange(100), fold).d for one in (scores, stretched))
    assert far == pytest.approx(plain)
    with pytest.raises(HandscopeError, match="two good and two bad"):
        effect_size(np.ones(100), y, np.arange(100), fold)


def test_a_run_is_asked_for_what_its_nulls_allow():
    cells = pd.DataFrame({"n_bad": [40] * 6, "n_good": [60] * 6, "dom_null_sd": [0.08] * 6})
    probes = pd.DataFrame({"n_bad": [40] * 6, "n_good": [60] * 6, "null_sd": 0.07, "within_null_sd": 0.09})
    tables = [("direction", cells, "dom_"), ("probe", probes, ""), ("probe within prompts", probes, "within_")]
    table = power_table(tables, 0.6).set_index("test")
    assert list(table.index) == ["direction", "probe", "probe within prompts"]
    assert table["needed"].is_monotonic_increasing is False and (table["needed_first"] > table["needed"]).all()
    assert table.loc["probe", "needed"] < table.loc["direction", "needed"] < table.loc["probe within prompts", "needed"]
    assert (table["power_first"] < table["power"]).all()
    coarse, fine = (
        power_table([(name, rows.assign(**{f"{prefix}p_floor": floor}), prefix) for name, rows, prefix in tables])
        for floor in (1 / 101, 1 / 121)
    )
    assert (coarse["power_first"] == 0).all() and (coarse["power"].to_numpy() == table["power"].to_numpy()).all()
    assert (fine["power_first"].to_numpy() == table["power_first"].to_numpy()).all()


# The simulation of bench/validity/false_positives.py, small.


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[3] / "bench" / "validity" / "false_positives.py"
    spec = importlib.util.spec_from_file_location("false_positives", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Means:
    """As much of `Moments` as a direction looks at."""

    def __init__(self, mean: np.ndarray) -> None:
        self.mean = mean


def small(bench, **changes):
    return bench.World(
        **{"samples": 80, "width": 24, "prompts": 20, "prompt_share": 0.5, "label_icc": 0.2, "cells": 2} | changes
    )


@pytest.mark.slow
def test_stores_without_a_difference_fool_no_test_more_often_than_they_may(bench):
    rows = [row for seed in range(30) for row in bench.fooled(small(bench), 39, seed)]
    table = bench.false_positives(pd.DataFrame(rows).assign(world="small"))
    assert len(table) >= 5
    # 60 cells at 5% in pairs: 8 and more of them would come in fewer than one of a hundred sets of such stores.
    assert (table["rate"] * table["cells"] <= 8).all(), table


def test_tokens_as_the_unit_would_be_fooled(bench):
    """What the tests above would say of such stores if five tokens of a sample were five samples."""
    world = small(bench, prompts=None, prompt_share=0.0, label_icc=0.0, cells=1)
    fooled = 0
    for seed in range(20):
        store = bench.draw(world, seed)
        x, y = np.repeat(store.cells[0].mean, 5, axis=0), np.repeat(store.y, 5)
        tokens = bench.Store([x], y, np.arange(len(y)))
        comparison = bench.compared(tokens, grouped_folds(tokens.groups, 5), 39, seed)
        fooled += comparison.direction(bench.sums_of(Means(x)), seed)[0]["dom_p"] <= 0.05
    assert fooled >= 18


@pytest.mark.parametrize(("alpha", "target"), [(0.05, 0.8), (0.05 / 48, 0.8), (0.05, 0.95)])
def test_what_is_detectable_has_that_power(alpha: float, target: float) -> None:
    auc = detectable(float(null_sd(190, 319, 5)), 0.5, alpha, target)
    assert power(auc, 190, 319, alpha=alpha) == pytest.approx(target, abs=0.02)


@pytest.mark.slow
def test_stores_with_a_planted_direction_are_covered_and_seen_as_predicted(bench):
    world = small(bench, effect=0.7)
    rows = pd.DataFrame([row for seed in range(40) for row in bench.covered(world, 39, seed)])
    truths = pd.DataFrame([row for seed in range(150) for row in bench.expected(world, seed)])
    named = {"world": "small", "effect": 0.7}
    table = bench.coverage(rows.assign(**named), truths.assign(**named)).set_index("test")
    assert (table["cover_fitted"] >= 0.875).all() and (table["cover_expected"] >= 0.875).all(), table
    assert (abs(table["power"] - table["predicted"]) < 0.2).all(), table
