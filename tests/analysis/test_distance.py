"""Bhattacharyya distances against their definition, and their test against stores without a difference."""

import numpy as np
import pytest
from handscope.analysis import (
    Gaussian,
    Moments,
    Scatter,
    bhattacharyya,
    bhattacharyya_full,
    bhattacharyya_low_rank,
    bhattacharyya_shrunk,
    bhattacharyya_test,
    low_rank,
    permuted_labels,
    shrunk_covariance,
)
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm


def gaussian_moments(mean, sd):
    return Moments(np.asarray(10.0), np.array(mean, float), 10 * np.square(np.array(sd, float)))


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(0.3, 3), st.floats(-3, 3), st.floats(0.3, 3))
def test_closed_form_is_the_integral_of_the_root_of_both_densities(m1, s1, m2, s2):
    between = (m1 * s2**2 + m2 * s1**2) / (s1**2 + s2**2)  # where the product is largest
    points = sorted({m1, between, m2})
    # To a share of itself: of distributions far apart the integral is as small as quad's usual absolute error.
    coefficient, _ = quad(
        lambda t: np.sqrt(norm.pdf(t, m1, s1) * norm.pdf(t, m2, s2)),
        -40,
        40,
        points=points,
        limit=400,
        epsabs=0,
        epsrel=1e-10,
    )
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
    for labels, found in zip(permuted_labels(bad, groups, 3), test.null, strict=True):
        slow = bhattacharyya(x[labels[index] == 0], x[labels[index] == 1]).distance
        assert found == pytest.approx(slow, rel=1e-9)


@given(st.floats(0, 50), st.floats(0, 50))
def test_bounds_of_the_bayes_error_hold_and_meet_at_both_ends(mean_term, variance_term):
    from handscope.analysis import Bhattacharyya

    found = Bhattacharyya(mean_term, variance_term)
    low, high = found.bayes_error
    assert 0 <= low <= high <= 0.5 and found.coefficient == pytest.approx(np.exp(-mean_term - variance_term))
    assert Bhattacharyya(0.0, 0.0).bayes_error == (0.5, 0.5)


def test_the_bayes_error_of_two_gaussians_lies_between_its_bounds():
    for apart in (0.1, 1.0, 3.0):
        low, high = bhattacharyya(gaussian_moments([0], [1]), gaussian_moments([apart], [1])).bayes_error
        assert low <= norm.cdf(-apart / 2) <= high


def pictures(sample):
    """Groups of instances, where each sample has a prompt of its own."""
    return np.stack([sample, sample], 1)


def mixed_samples(rng, shift=0.0):
    """40 samples, every other one with a good and a bad part; tokens of a sample are alike."""
    sample = np.concatenate([np.arange(40), np.arange(0, 40, 2)])
    bad = np.concatenate([np.arange(40) // 2 % 2, 1 - np.arange(0, 40, 2) // 2 % 2])
    own = rng.normal(size=(40, 6))[sample]
    x = own[:, None] + rng.normal(size=(60, 10, 6)) + shift * bad[:, None, None]
    return Moments.by(x.reshape(-1, 6), np.repeat(np.arange(60), 10), 60), bad, sample


def test_labels_that_vary_within_a_sample_are_permuted_within_it():
    moments, bad, sample = mixed_samples(np.random.default_rng(0))
    labels = permuted_labels(bad, pictures(sample), 200)
    first, second = np.arange(0, 40, 2), np.arange(40, 60)
    assert (labels[:, first] + labels[:, second] == 1).all()
    assert 0.4 < labels[:, first].mean() < 0.6 and (labels[:, 1:40:2].sum(1) == bad[1:40:2].sum()).all()
    p = []
    for seed in range(150):
        moments, bad, sample = mixed_samples(np.random.default_rng(seed))
        p.append(bhattacharyya_test(moments, bad, pictures(sample), 99, 20, seed).p)
    assert (np.array(p) <= 0.05).mean() <= 0.1 and 0.42 < np.mean(p) < 0.58
    moments, bad, sample = mixed_samples(np.random.default_rng(1), shift=0.4)
    respected = bhattacharyya_test(moments, bad, pictures(sample), 199, 20, 0)
    ignored = bhattacharyya_test(moments, bad, np.arange(60), 199, 20, 0)
    assert respected.p <= 0.01 and respected.z > ignored.z  # what samples have of their own cancels within them


def test_memory_of_the_null_does_not_grow_with_its_length():
    import tracemalloc

    rng = np.random.default_rng(0)
    samples = Moments(np.full(40, 9.0), rng.normal(size=(40, 500)), rng.uniform(50, 90, (40, 500)))
    bad, peaks = np.arange(40) % 2, []
    for permutations in (64, 640):
        labels = permuted_labels(bad, np.arange(40), permutations)
        tracemalloc.start()
        bhattacharyya_test(samples, bad, np.arange(40), labels, 20)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def covariances(rng, width=6):
    halves = rng.normal(size=(2, width, width)) / 2
    return [half @ half.T + 0.5 * np.eye(width) for half in halves]


def test_full_covariances_agree_with_monte_carlo_and_with_scipy():
    rng = np.random.default_rng(3)
    m1, m2 = rng.normal(size=(2, 6)) / 2
    s1, s2 = covariances(rng)
    first, second = multivariate_normal(m1, s1), multivariate_normal(m2, s2)
    x = first.rvs(400_000, random_state=0)
    coefficient = np.exp(0.5 * (second.logpdf(x) - first.logpdf(x))).mean()
    found = bhattacharyya_full(m1, s1, m2, s2)
    assert found.coefficient == pytest.approx(coefficient, rel=0.02)
    diagonal = bhattacharyya_full(m1, np.diag(np.diag(s1)), m2, np.diag(np.diag(s2)))
    moments = gaussian_moments(m1, np.sqrt(np.diag(s1))), gaussian_moments(m2, np.sqrt(np.diag(s2)))
    assert diagonal.mean_term == pytest.approx(bhattacharyya(*moments).mean_term)
    assert diagonal.variance_term == pytest.approx(bhattacharyya(*moments).variance_term)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4))
def test_low_rank_distances_are_those_of_the_matrices_they_stand_for(seed, rank):
    rng = np.random.default_rng(seed)
    good, bad = (
        Gaussian(rng.normal(size=8), rng.uniform(0.3, 2, 8), rng.normal(size=(rank + side, 8))) for side in (0, 1)
    )
    found = bhattacharyya_low_rank(good, bad)
    expected = bhattacharyya_full(good.mean, good.covariance, bad.mean, bad.covariance)
    assert found.mean_term == pytest.approx(expected.mean_term, rel=1e-8)
    assert found.variance_term == pytest.approx(expected.variance_term, rel=1e-8, abs=1e-10)


def test_a_low_rank_model_keeps_variances_and_its_factors_the_leading_components():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 10)) * 3 + rng.normal(size=(400, 10))
    scatter = Scatter.of(x)
    fitted = low_rank(scatter, 3)
    covariance = np.cov(x, rowvar=False, bias=True)
    np.testing.assert_allclose(np.diag(fitted.covariance), np.diag(covariance), rtol=1e-5)
    off = covariance - np.diag(np.diag(covariance))
    assert np.abs(fitted.covariance - np.diag(np.diag(covariance)) - off).max() < 0.2 * np.abs(off).max()
    y = rng.normal(size=(300, 10)) + 0.3
    rank_0 = bhattacharyya_low_rank(low_rank(scatter, 0), low_rank(Scatter.of(y), 0))
    assert rank_0.distance == pytest.approx(bhattacharyya(x, y).distance, rel=1e-5)


def slow_share(x):
    """Schäfer and Strimmer 2005, target D, written out entry by entry."""
    n, width = x.shape
    x = x - x.mean(0)
    above = below = 0.0
    for i in range(width):
        for j in range(width):
            if i != j:
                w = x[:, i] * x[:, j]
                above += n / (n - 1) ** 3 * np.square(w - w.mean()).sum()
                below += (n / (n - 1) * w.mean()) ** 2
    return min(1, above / below)


def test_shrinkage_is_the_published_one_where_tokens_are_independent():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 7)) + rng.normal(size=(50, 7))
    covariance, share = shrunk_covariance(x, np.arange(50))
    assert share == pytest.approx(slow_share(x)) and 0 < share < 1
    whole = np.cov(x, rowvar=False, bias=True)
    np.testing.assert_allclose(covariance, (1 - share) * whole + share * np.diag(np.diag(whole)))


def test_shrinkage_counts_samples_and_not_tokens():
    """Each token twice is no more evidence, and tokens of a sample that are alike are little more."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(40, 9)) @ rng.normal(size=(9, 9))
    _, once = shrunk_covariance(x, np.arange(40))
    _, twice = shrunk_covariance(np.repeat(x, 2, 0), np.repeat(np.arange(40), 2))
    _, fooled = shrunk_covariance(np.repeat(x, 2, 0), np.arange(80))
    assert twice == pytest.approx(once) and fooled < 0.6 * once


def test_a_shrunken_distance_is_defined_where_there_are_fewer_tokens_than_channels():
    rng = np.random.default_rng(7)
    good, bad = rng.normal(size=(2, 30, 50))
    samples = np.arange(30) // 2
    with pytest.raises(HandscopeError, match="singular"):
        bhattacharyya_full(*(array for x in (good, bad) for array in (x.mean(0), np.cov(x, rowvar=False))))
    found = bhattacharyya_shrunk(good, bad, samples, samples)
    assert np.isfinite(found.distance) and 0.5 < found.distance / bhattacharyya(good, bad).distance < 1.5
    with pytest.raises(HandscopeError, match="1 samples"):
        bhattacharyya_shrunk(good, bad, np.zeros(30), samples)
    with pytest.raises(HandscopeError, match="good has 50, bad has 49"):
        bhattacharyya_shrunk(good, bad[:, 1:], samples, samples)


def test_unequal_prompts_do_not_hide_a_shift():
    """Prompts of 1 to 60 samples, half of the variance the prompt's, and a shift of 1.6 standard deviations."""
    groups = np.repeat(np.arange(12), [1, 1, 2, 3, 4, 6, 8, 10, 14, 20, 30, 60])
    sample, called = np.repeat(np.arange(len(groups)), 8), 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = (rng.random(len(groups)) < rng.beta(0.75, 0.75, 12)[groups]).astype(int)
        means = np.sqrt(0.5) * (rng.normal(size=(12, 16))[groups] + rng.normal(size=(len(groups), 16)))
        tokens = (means + y[:, None] * 1.6 / 4)[sample] + 1.5 * rng.normal(size=(len(sample), 16))
        called += bhattacharyya_test(Moments.by(tokens, sample, len(y)), y, groups, 99, 5, seed).p <= 0.05
    assert called >= 7
