"""Intervals cover the truth in simulation, and stay within their bounds."""

import numpy as np
import pytest
from handscope.analysis import auc, bootstrap_auc, grouped_folds, permuted_labels
from handscope.analysis.directions import held_out_projections
from handscope.analysis.statistics.intervals import jackknife_interval, widening
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

SEEDS = st.integers(0, 2**32 - 1)


def test_interval_covers_the_truth_at_about_its_rate():
    rng = np.random.default_rng(0)
    truth, hits = 0.6915, 0  # two unit normals, 1/sqrt(2) apart: Phi(1/2)
    for seed in range(200):
        groups = np.repeat(np.arange(40), 5)
        y = rng.integers(0, 2, 200)
        low, high = bootstrap_auc(y / np.sqrt(2) + rng.normal(size=200), y, groups, draws=300, seed=seed)
        hits += low <= truth <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_intervals_of_held_out_scores_cover_only_when_the_null_widens_them():
    hits = np.zeros(2)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x, y, groups = rng.normal(size=(120, 100)), np.arange(120) % 2, np.arange(120)
        fold = grouped_folds(groups, 5, seed)
        null = permuted_labels(y, groups, 40, seed, fold)
        scores = held_out_projections(x, np.concatenate([y[None], null]), fold)
        for place, nulls in enumerate((None, auc(scores[1:], null, fold))):
            low, high = bootstrap_auc(scores[0], y, groups, fold, draws=200, seed=seed, null=nulls)
            hits[place] += low <= 0.5 <= high
    assert hits[0] / 150 < 0.91 and hits[1] / 150 >= 0.91, hits


def test_given_scores_are_not_widened():
    rng = np.random.default_rng(0)
    y, groups = np.arange(200) % 2, np.arange(200)
    scores = rng.normal(size=200)
    null = auc(scores, permuted_labels(y, groups, 400, seed=1))
    assert widening(scores, y, groups, null) == pytest.approx(1, abs=0.12)
    assert widening(scores, y, groups, 0.5 + 1.5 * (null - 0.5)) == pytest.approx(1.5, abs=0.2)
    assert widening(np.zeros(200), y, groups, null) == 1  # scores that are all alike say nothing of width


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(6, 40), st.floats(0, 6))
def test_an_interval_holds_its_auc_and_stays_between_0_and_1(seed, n, gap):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    groups = rng.integers(0, max(2, n // 3), n)
    scores = gap * y + rng.normal(size=n)
    low, high = bootstrap_auc(scores, y, groups, draws=100, seed=seed)
    assert 0 <= low <= auc(scores, y) <= high <= 1 and low < high


def test_pairs_of_one_group_say_nothing_of_other_groups():
    y, groups = np.array([0, 1, 0, 1, 0, 0]), np.array([0, 0, 0, 0, 1, 1])
    scores = np.array([0.0, 1, 2, 3, 4, 5])
    assert auc(scores, y, groups) == 0.75
    assert bootstrap_auc(scores, y, groups, within=True) == (0, 1)
    assert bootstrap_auc(scores[:4], y[:4], groups[:4]) == (0, 1)


def test_perfect_separation_is_not_certainty():
    y = np.array([0] * 30 + [1] * 10)
    assert bootstrap_auc(y, y, np.arange(40)) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    assert bootstrap_auc(-y, y, np.arange(40)) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    low, high = bootstrap_auc(y, y, y)  # each prompt has one class: no pair within one
    assert (low, high) == (pytest.approx(0.025), 1.0)
    assert np.isnan(bootstrap_auc(y, y, y, within=True)).all()


@pytest.mark.parametrize(("distance", "groups"), [(1.5, 6), (3.5, 6), (1.5, 20)])
def test_intervals_of_given_scores_cover_with_few_groups_and_near_one(distance, groups):
    covered, group = 0, np.repeat(np.arange(groups), 10)
    truth = norm.cdf(distance / np.sqrt(2))
    for seed in range(200):
        rng = np.random.default_rng([seed, groups])
        y = (rng.random(10 * groups) < 0.3).astype(int)
        low, high = bootstrap_auc(rng.normal(size=10 * groups) + distance * y, y, group, draws=300, seed=seed)
        covered += low <= truth <= high
    assert covered >= 182  # percentiles of the draws cover 168 with 6 groups, and 136 near 1


def test_the_jackknife_is_students_interval_of_a_mean_where_the_scale_hardly_bends():
    values = np.random.default_rng(0).normal(0.5, 0.001, 10)
    without = (values.sum() - values) / 9
    expected = student.interval(0.95, 9, values.mean(), values.std(ddof=1) / np.sqrt(10))
    assert jackknife_interval(values.mean(), without) == pytest.approx(expected, abs=1e-7)
    assert jackknife_interval(0.5, [0.5]) == jackknife_interval(0.5, [0.5, 0.5]) == (0, 1)
