"""Bounds within which an effect lies, against statsmodels' two one-sided tests and a simulation."""

import numpy as np
import pytest
from handscope.analysis.statistics.equivalence import Estimate
from handscope.errors import HandscopeError
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.stats.weightstats import ztost

Z = norm.ppf(0.975)


def test_it_is_the_two_one_sided_tests_of_others() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 400)
    mean, error = values.mean(), values.std(ddof=1) / 20
    ours = Estimate(mean, mean - Z * error, mean + Z * error)
    for bound in (0.1, 0.2, 0.4):
        assert ours.equivalence_p(bound) == pytest.approx(ztost(values, -bound, bound)[0], abs=1e-9)


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.6, 0.99))
def test_the_bound_is_where_the_test_just_rejects(value: float, below: float, above: float, confidence: float) -> None:
    found = Estimate(value, value - below, value + above)
    bound = found.within(confidence)
    assert found.equivalence_p(bound) == pytest.approx(1 - confidence, abs=1e-6)
    assert found.at(found.level) == pytest.approx((found.low, found.high), abs=1e-9)
    assert found.within(confidence, 0.3) == pytest.approx(
        Estimate(value - 0.3, value - 0.3 - below, value - 0.3 + above).within(confidence)
    )


def test_an_effect_at_the_bound_is_called_absent_in_one_of_twenty() -> None:
    drawn = np.random.default_rng(1).normal(0.5, 0.1, 4000)
    called = [Estimate(x, x - Z * 0.1, x + Z * 0.1).within() < 0.5 for x in drawn]
    assert np.mean(called) == pytest.approx(0.05, abs=0.01)


def test_what_is_no_estimate_is_refused() -> None:
    for values in ((0.5, 0.6, 0.7), (float("nan"), 0.1, 0.2), (0.5, 0.4, 0.6, 95)):
        with pytest.raises(HandscopeError, match="inside its interval"):
            Estimate(*values)
    with pytest.raises(HandscopeError, match="above 0"):
        Estimate(0.0, -1.0, 1.0).equivalence_p(0.0)
    assert Estimate(0.0, 0.0, 0.0).equivalence_p(0.1) == 0
