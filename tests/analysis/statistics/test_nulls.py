"""Permuted labellings keep what they must, and p values count the observed value in."""

import numpy as np
from handscope.analysis import p_floor, p_value, permuted_labels
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)


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


def test_p_counts_the_observed_value_in():
    assert p_value(3, [1, 2, 3, 4]) == 3 / 5
    assert p_value(9, np.zeros(99)) == 0.01
    assert np.isnan(p_value(np.nan, [1.0]))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(1, 60))
def test_no_p_of_a_null_is_below_its_floor(seed, samples, permutations):
    rng = np.random.default_rng(seed)
    y, groups = rng.permutation(np.arange(samples) % 2), np.zeros(samples, int)
    labels = permuted_labels(y, groups, permutations, seed)
    score = rng.normal(size=2**samples)  # whatever a labelling is scored by
    code = 2 ** np.arange(samples)
    null, observed = score[(labels @ code).astype(int)], score[y @ code]
    floor = p_floor(y, labels, null)
    assert p_value(observed, null) >= floor >= 1 / (1 + permutations)
    assert floor == p_value(observed, np.where((labels == y).all(1), observed, -np.inf))
    if permutations > 1:
        assert p_floor(y, labels, np.append(np.nan, null[1:])) >= 1 / permutations


def test_where_nothing_can_be_permuted_the_floor_is_one():
    y = np.array([0, 1, 1])
    assert p_floor(y, permuted_labels(y, np.arange(3), 20, within=True), np.zeros(20)) == 1
    assert np.isnan(p_floor(y, np.empty((0, 3)), np.empty(0)))
