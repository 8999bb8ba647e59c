"""Folds keep groups whole."""

import numpy as np
import pytest
from handscope.analysis import grouped_folds
from handscope.analysis.statistics.folds import check_folds
from handscope.errors import HandscopeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)


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
