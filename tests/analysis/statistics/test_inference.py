"""Folds, AUC, nulls, intervals and corrections, against scikit-learn, slow references and simulation."""

import itertools

import numpy as np
import pytest
from handscope.analysis import auc, benjamini_hochberg, bootstrap_auc, grouped_folds, p_value, permuted_labels
from handscope.analysis.directions import held_out_projections
from handscope.analysis.statistics.inference import PairWins, bootstrap_weights, check_folds, widening
from handscope.errors import HandscopeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 40), st.integers(1, 8))
def test_auc_with_ties_is_scikit_learns(seed, n, values):
    rng = np.random.default_rng(seed)
    scores, y = rng.integers(0, values, (3, n)), rng.integers(0, 2, (3, n))
    y[:, 0], y[:, 1] = 0, 1
    expected = [roc_auc_score(labels, row) for labels, row in zip(y, scores, strict=True)]
    np.testing.assert_allclose(auc(scores, y), expected)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 30), st.integers(1, 6))
def test_stratified_auc_pools_pairs_of_one_stratum(seed, n, strata):
    rng = np.random.default_rng(seed)
    scores, y, stratum = rng.integers(0, 5, n), rng.integers(0, 2, n), rng.integers(0, strata, n)
    pairs = [(i, j) for i, j in itertools.product(range(n), repeat=2) if y[i] > y[j] and stratum[i] == stratum[j]]
    found = auc(scores, y, stratum)
    if not pairs:
        assert np.isnan(found)
        return
    assert found == pytest.approx(np.mean([(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for i, j in pairs]))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 40), st.integers(2, 6))
def test_folds_keep_groups_whole_and_are_all_used(seed, n, folds):
    groups = np.random.default_rng(seed).integers(0, max(2, n // 3), n)
    assume(len(set(groups)) >= folds)
    fold = grouped_folds(groups, folds, seed=seed)
    assert set(fold) == set(range(folds))
    assert all(len(set(fold[groups == g])) == 1 for g in set(groups))
    largest = np.bincount(np.unique(groups, return_inverse=True)[1]).max()
    assert np.ptp(np.bincount(fold)) <= largest


def test_fewer_groups_than_folds_and_one_class_are_refused():
    with pytest.raises(HandscopeError, match="there are 3 prompts"):
        grouped_folds(["a", "b", "c", "a"], 5)
    with pytest.raises(HandscopeError, match="outside fold 1 are good"):
        check_folds(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 8), st.integers(1, 5))
def test_permutations_keep_what_they_must(seed, prompts, seeds):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(prompts), seeds))
    y = rng.integers(0, 2, len(groups))
    free = permuted_labels(y, groups, 5, seed)
    inside = permuted_labels(y, groups, 5, seed, within=True)
    assert (free.sum(1) == y.sum()).all()
    rate = np.array([y[groups == g].sum() for g in range(prompts)])
    for labels in free:  # prompts of one size change places whole
        assert sorted(labels[groups == g].sum() for g in range(prompts)) == sorted(rate)
    for labels in inside:
        assert [labels[groups == g].sum() for g in range(prompts)] == rate.tolist()


def test_permutations_reach_every_labelling_equally():
    y, groups = np.array([1, 0, 0, 0]), np.arange(4)
    found = permuted_labels(y, groups, 4000)
    np.testing.assert_allclose(found.mean(0), 0.25, atol=0.03)
    inside = permuted_labels([1, 0, 0, 1], [0, 0, 1, 1], 4000, within=True)
    np.testing.assert_allclose(inside.mean(0), 0.5, atol=0.03)
    assert abs(np.corrcoef(inside[:, 0], inside[:, 2])[0, 1]) < 0.05


def test_bootstrap_from_pairs_is_the_bootstrap_of_samples():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 5)
    strata = grouped_folds(groups, 2)
    y = rng.integers(0, 2, 40)
    scores = y + rng.normal(size=40)
    weights = bootstrap_weights(groups, 20)
    pairs = PairWins.of(scores, y, groups, strata)
    for w, counts, whole, inside in zip(
        weights, weights[:, groups].astype(int), pairs.auc(weights), pairs.within_auc(weights), strict=True
    ):
        drawn = np.repeat(np.arange(40), counts)
        copies = np.concatenate([np.repeat(np.arange(40)[groups == g], 1) for g in range(8) for _ in range(int(w[g]))])
        names = np.concatenate([np.full(5, k) for k in range(int(w.sum()))])
        assert whole == pytest.approx(auc(scores[drawn], y[drawn], strata[drawn]))
        assert inside == pytest.approx(auc(scores[copies], y[copies], names))


def test_interval_covers_the_truth_at_about_its_rate():
    rng = np.random.default_rng(0)
    truth, hits = 0.6915, 0  # two unit normals, 1/sqrt(2) apart: Phi(1/2)
    for seed in range(200):
        groups = np.repeat(np.arange(40), 5)
        y = rng.integers(0, 2, 200)
        low, high = bootstrap_auc(y / np.sqrt(2) + rng.normal(size=200), y, groups, draws=300, seed=seed)
        hits += low <= truth <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_p_counts_the_observed_value_in():
    assert p_value(3, [1, 2, 3, 4]) == 3 / 5
    assert p_value(9, np.zeros(99)) == 0.01
    assert np.isnan(p_value(np.nan, [1.0]))


def test_benjamini_hochberg_by_its_definition_and_past_missing_values():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.2])
    known = p[~np.isnan(p)]
    expected = [min(q * 4 / (known <= q).sum() for q in known[known >= one]) for one in known]
    found = benjamini_hochberg(p)
    np.testing.assert_allclose(found[~np.isnan(p)], expected)
    assert np.isnan(found[1])


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


def test_perfect_separation_is_not_certainty():
    y = np.array([0] * 30 + [1] * 10)
    assert bootstrap_auc(y, y, np.arange(40)) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    assert bootstrap_auc(-y, y, np.arange(40)) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    low, high = bootstrap_auc(y, y, y)  # each prompt has one class: no pair within one
    assert (low, high) == (pytest.approx(0.025), 1.0)
    assert np.isnan(bootstrap_auc(y, y, y, within=True)).all()
