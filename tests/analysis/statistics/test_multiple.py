"""The false discovery rate by its definition."""

import numpy as np
from handscope.analysis import benjamini_hochberg
from statsmodels.stats.multitest import multipletests


def test_benjamini_hochberg_by_its_definition_and_past_missing_values():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.2])
    known = p[~np.isnan(p)]
    expected = [min(q * 4 / (known <= q).sum() for q in known[known >= one]) for one in known]
    found = benjamini_hochberg(p)
    np.testing.assert_allclose(found[~np.isnan(p)], expected)
    assert np.isnan(found[1])


def test_benjamini_hochberg_is_that_of_statsmodels():
    p = np.random.default_rng(0).uniform(size=60) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])
