"""The Bhattacharyya distance against its definition, and its test against stores without a difference."""

import numpy as np
import pytest
from handscope.analysis import Moments, bhattacharyya, bhattacharyya_test
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm


def gaussian_moments(mean, sd):
    return Moments(np.asarray(10.0), np.array(mean, float), 10 * np.square(np.array(sd, float)))


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(0.3, 3), st.floats(-3, 3), st.floats(0.3, 3))
def test_closed_form_is_the_integral_of_the_root_of_both_densities(m1, s1, m2, s2):
    points = sorted({m1, m2})
    coefficient = quad(lambda t: np.sqrt(norm.pdf(t, m1, s1) * norm.pdf(t, m2, s2)), -40, 40, points=points, limit=200)[
        0
    ]
    found = bhattacharyya(gaussian_moments([m1, 0], [s1, 1]), gaussian_moments([m2, 0], [s2, 1]))
    assert found.distance == pytest.approx(-np.log(coefficient), abs=1e-6)


def test_closed_form_agrees_with_monte_carlo():
    rng = np.random.default_rng(0)
    m1, m2 = rng.normal(size=(2, 5)) / 2
    s1, s2 = rng.uniform(0.7, 1.4, (2, 5))
    x = rng.normal(m1, s1, (200_000, 5))
    ratio = np.exp(0.5 * (norm.logpdf(x, m2, s2) - norm.logpdf(x, m1, s1)).sum(1))
    found = bhattacharyya(gaussian_moments(m1, s1), gaussian_moments(m2, s2))
    assert found.distance == pytest.approx(-np.log(ratio.mean()), abs=0.01)
    assert found.mean_term > 0 and found.variance_term > 0


def test_arrays_and_their_moments_give_the_same():
    good, bad = np.random.default_rng(0).normal(size=(2, 40, 3))
    assert bhattacharyya(good, bad).distance == pytest.approx(bhattacharyya(Moments.of(good), Moments.of(bad)).distance)


def test_a_channel_constant_everywhere_counts_for_nothing_and_in_one_class_is_refused():
    good, bad = np.random.default_rng(0).normal(size=(2, 40, 3))
    expected = bhattacharyya(good[:, :2], bad[:, :2]).distance
    good[:, 2] = bad[:, 2] = 7
    assert bhattacharyya(good, bad).distance == pytest.approx(expected)
    bad[0, 2] = 8
    with pytest.raises(HandscopeError, match="Channel 2 is constant in one class"):
        bhattacharyya(good, bad)
    with pytest.raises(HandscopeError, match="at least two tokens"):
        bhattacharyya(good[:1], bad)


def correlated(rng, prompts=15, seeds=4, tokens=20, width=16):
    """Tokens of which 30% of the variance is their sample's, and 10% their prompt's; no class anywhere."""
    groups = np.repeat(np.arange(prompts), seeds)
    prompt = rng.normal(size=(prompts, width))[groups] * np.sqrt(0.1)
    sample = prompt + rng.normal(size=(len(groups), width)) * np.sqrt(0.3)
    x = sample[:, None] + rng.normal(size=(len(groups), tokens, width)) * np.sqrt(0.6)
    return x.reshape(-1, width), np.repeat(np.arange(len(groups)), tokens), groups


@pytest.mark.parametrize("uneven", [False, True])
def test_p_values_are_uniform_where_correlated_tokens_have_no_class(uneven):
    rng = np.random.default_rng(0)
    p, raw, covered = [], [], []
    for seed in range(120):
        x, index, groups = correlated(rng, 24, rng.integers(1, 8, 24)) if uneven else correlated(rng)
        rate = rng.uniform(0.2, 0.8, groups.max() + 1)  # prompts differ in how often they fail
        bad = (rng.random(len(groups)) < rate[groups]).astype(int)
        test = bhattacharyya_test(Moments.by(x, index, len(groups)), bad, groups, 99, 50, seed)
        p.append(test.p)
        covered.append(test.interval[0] <= 0 <= test.interval[1])
        raw.append((test.observed.distance, test.excess))
    p, (distance, excess) = np.array(p), np.mean(raw, axis=0)
    assert abs(excess) < 0.1 * distance  # the raw distance is all bias here
    assert 0 <= (p <= 0.05).mean() <= 0.1
    assert 0.42 < p.mean() < (0.62 if uneven else 0.58)  # with prompts of uneven size it errs on the safe side
    assert np.mean(covered) >= 0.9


def test_a_planted_shift_is_found_above_the_null():
    rng = np.random.default_rng(1)
    x, index, groups = correlated(rng)
    bad = np.tile([0, 1, 0, 1], 15)
    x[bad[index] == 1] += 0.5 * (np.arange(16) < 4)
    test = bhattacharyya_test(Moments.by(x, index, len(groups)), bad, groups, 199)
    assert test.p == pytest.approx(1 / 200) and test.z > 3
    assert test.interval[0] < test.excess < test.interval[1]
    assert test.interval[0] > 0


def test_the_null_is_that_of_distances_computed_from_the_tokens():
    rng = np.random.default_rng(2)
    x, index, groups = correlated(rng, prompts=6)
    bad = np.tile([0, 1, 0, 1], 6)
    test = bhattacharyya_test(Moments.by(x, index, len(groups)), bad, groups, 3)
    from handscope.analysis import permuted_labels

    for labels, found in zip(permuted_labels(bad, groups, 3), test.null, strict=True):
        slow = bhattacharyya(x[labels[index] == 0], x[labels[index] == 1]).distance
        assert found == pytest.approx(slow, rel=1e-9)
