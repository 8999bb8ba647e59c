"""Intervals of shares, against statsmodels."""

import numpy as np
from handscope.analysis.statistics.rates import wilson
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=5), st.floats(0.5, 0.999))
def test_wilson_is_that_of_statsmodels(rows: list[tuple[int, int]], level: float) -> None:
    part, n = np.array([(min(part, n), n) for part, n in rows]).T
    np.testing.assert_allclose(wilson(part, n, level), proportion_confint(part, n, 1 - level, "wilson"), atol=1e-12)
