"""Permuted labellings keep what they must, and p values count the observed value in."""

import numpy as np
import pytest
from handscope.analysis import p_floor, p_value, permuted_labels
from handscope.errors import HandscopeError
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


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 30), min_size=2, max_size=8))
def test_prompts_of_unlike_sizes_keep_their_labels(seed, sizes):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = rng.integers(0, 2, len(groups))
    bad = np.bincount(groups, y)
    alike = [[s for s in range(len(sizes)) if max(sizes[s], size) <= 1.25 * min(sizes[s], size)] for size in sizes]
    for labels in permuted_labels(y, groups, 5, seed):
        assert labels.sum() == y.sum() and set(labels) <= {0, 1}
        for prompt, others in enumerate(alike):
            if others == [prompt]:
                assert labels[groups == prompt].sum() == bad[prompt]


def test_prompts_of_about_one_size_change_places():
    """Prompts of 4 and 5 with one class each: the longer one's last label is dealt to the shorter one's place."""
    groups = np.repeat(np.arange(3), [4, 5, 20])
    y = np.r_[np.ones(4), np.zeros(5), np.tile([0, 1], 10)]
    found = permuted_labels(y, groups, 2000)
    first = found[:, :4].sum(1)
    assert set(first) == {0, 4} and np.mean(first == 4) == pytest.approx(0.5, abs=0.04)
    assert set(found[first == 0][:, 4:9].sum(1)) == {4} and (found[:, 9:].sum(1) == 10).all()
    np.testing.assert_allclose(found[first == 0][:, 4:9].mean(0), 0.8, atol=0.05)


def pictures_of(labels, groups, picture):
    """The labels of each picture, in order, gathered by prompt."""
    return [sorted(sorted(labels[picture == p]) for p in set(picture[groups == g])) for g in sorted(set(groups))]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 5))
def test_instances_of_a_picture_move_together(seed, prompts):
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(prompts), 4)
    picture = rng.permutation(np.repeat(np.arange(len(of)), np.tile([1, 1, 2, 3], prompts)))
    groups = of[picture]
    y = rng.integers(0, 2, len(picture))
    whole = pictures_of(y, groups, picture)
    for labels in permuted_labels(y, np.stack([groups, picture], 1), 4, seed, within=True):
        assert pictures_of(labels, groups, picture) == whole
    for labels in permuted_labels(y, np.stack([groups, picture], 1), 4, seed):
        assert sorted(pictures_of(labels, groups, picture)) == sorted(whole)


def test_two_instances_of_a_picture_exchange_their_labels():
    groups = [[0, 0], [0, 0], [0, 1], [0, 1], [0, 2]]
    found = permuted_labels([1, 0, 1, 1, 0], groups, 4000, within=True)
    assert (found[:, 4] == 0).all()  # of one instance: no other picture is like it
    both, half = found[:, :2].sum(1) == 2, found[:, :2].sum(1) == 1
    assert (both | half).all() and both.mean() == pytest.approx(0.5, abs=0.03)
    assert found[half][:, 0].mean() == pytest.approx(0.5, abs=0.03)
    with pytest.raises(HandscopeError, match="a picture under two"):
        permuted_labels([0, 1, 1], [[0, 0], [1, 0], [1, 1]], 3)


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
