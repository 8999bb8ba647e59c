"""Means over models against statsmodels, and how often their intervals hold the truth."""

import numpy as np
import pytest
from handscope.analysis.statistics.random_effects import random_effects
from handscope.errors import HandscopeError
from scipy.stats import t as student
from statsmodels.stats.meta_analysis import combine_effects


@pytest.mark.parametrize("spread", [0.05, 0.6])
def test_the_mean_is_that_of_statsmodels(spread: float) -> None:
    rng = np.random.default_rng(0)
    error = rng.uniform(0.1, 0.3, 7)
    x = 0.4 + spread * rng.normal(size=7) + error * rng.normal(size=7)
    other = combine_effects(x, error**2, method_re="chi2", use_t=True)
    found = random_effects(x, error)
    assert found.heterogeneity_p == pytest.approx(other.test_homogeneity().pvalue)
    if other.tau2 > 0:
        assert found.mean == pytest.approx(other.mean_effect_re)
        assert found.between**2 == pytest.approx(other.tau2)
        deviation = max(other.sd_eff_w_re_hksj, other.sd_eff_w_re)  # never smaller than without the correction
    else:  # statsmodels goes on with a variance below 0
        assert found.mean == pytest.approx(other.mean_effect_fe) and found.between == 0
        deviation = max(other.sd_eff_w_fe_hksj, other.sd_eff_w_fe)
    assert found.high - found.mean == pytest.approx(student.ppf(0.975, 6) * deviation)


def test_intervals_hold_the_truth_with_few_models() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        error = rng.uniform(0.1, 0.3, 5)
        found = random_effects(0.2 * rng.normal(size=5) + error * rng.normal(size=5), error)
        held += found.low <= 0 <= found.high
    assert 930 <= held <= 990


def test_one_model_says_nothing_of_others_and_errors_of_0_are_refused() -> None:
    assert np.isinf(random_effects([0.3], [0.1]).high)
    with pytest.raises(HandscopeError, match="leave those out"):
        random_effects([0.3, 0.2], [0.1, 0.0])
    with pytest.raises(HandscopeError, match="found 2 estimates and 1 errors"):
        random_effects([0.3, 0.2], [0.1])
