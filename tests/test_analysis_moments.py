"""Moments: exact to merge in any order, and stable where the textbook formula is not."""

import numpy as np
import pytest
from handscope.analysis import Moments
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(0, 2**32 - 1)
)
def test_parts_merge_to_the_whole_in_any_order(sizes, random, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(0, 100), 3, (size, 4)) for size in sizes]
    whole = np.concatenate(parts)
    random.shuffle(parts)
    while len(parts) > 1:
        first, second = parts.pop(random.randrange(len(parts))), parts.pop(random.randrange(len(parts)))
        merged = (first if isinstance(first, Moments) else Moments.of(first)) + (
            second if isinstance(second, Moments) else Moments.of(second)
        )
        parts.insert(random.randrange(len(parts) + 1), merged)
    found = parts[0] if isinstance(parts[0], Moments) else Moments.of(parts[0])
    assert found.count == len(whole)
    if len(whole):
        np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found.m2, whole.var(0) * len(whole), rtol=1e-9, atol=1e-9)


def test_a_massive_channel_keeps_its_variance():
    x = np.random.default_rng(0).normal(0, 10, (4000, 2)) + [6000, 0]
    x = x.astype(np.float32)
    exact = x.astype(np.float64).var(0)
    parts = sum((Moments.of(part) for part in np.array_split(x, 7)[1:]), Moments.of(np.array_split(x, 7)[0]))
    np.testing.assert_allclose(parts.variance, exact, rtol=1e-9)
    pooled = Moments.by(x, np.arange(len(x)) % 50, 50).pool(np.ones(50))
    np.testing.assert_allclose(pooled.variance, exact, rtol=1e-9)
    naive = np.square(x).mean(0) - np.square(x.mean(0))
    assert abs(naive[0] / exact[0] - 1) > 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_pooling_by_weights_is_repeating_the_samples(seed, n):
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(n), rng.integers(0, n, 20)])
    x = rng.normal(50, 1, (len(index), 3))
    weights = rng.integers(0, 3, n)
    weights[rng.integers(n)] = 1
    repeated = np.concatenate([x[np.repeat(np.flatnonzero(index == k), weights[k])] for k in range(n)])
    pooled = Moments.by(x, index, n).pool(weights[None])
    assert pooled.count[0] == len(repeated)
    np.testing.assert_allclose(pooled.mean[0], repeated.mean(0), rtol=1e-10)
    np.testing.assert_allclose(pooled.m2[0], repeated.var(0) * len(repeated), rtol=1e-7, atol=1e-9)


def test_a_set_without_tokens_has_count_zero_and_changes_nothing():
    x = np.random.default_rng(0).normal(size=(6, 2))
    found = Moments.by(x, [0, 0, 2, 2, 2, 2], 3)
    assert found.count.tolist() == [2, 0, 4]
    np.testing.assert_allclose(found.mean[2], x[2:].mean(0))
    np.testing.assert_allclose(found.pool([1, 5, 1]).mean, x.mean(0))


def test_widths_that_differ_are_refused():
    with pytest.raises(HandscopeError, match="widths must agree"):
        Moments.of(np.ones((2, 3))) + Moments.of(np.ones((2, 4)))
