"""The false discovery rate and the adjusted p by their definitions, and what a null can resolve."""

import numpy as np
import pytest
from handscope.analysis import benjamini_hochberg, family_p, p_value, resolvable
from handscope.analysis.statistics.multiple import holm
from hypothesis import given, settings
from hypothesis import strategies as st
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


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 30))
def test_an_adjusted_p_is_that_of_the_largest_of_those_not_yet_called(seed, tests, permutations):
    rng = np.random.default_rng(seed)
    observed, null = rng.normal(size=tests), rng.normal(size=(permutations, tests))
    both = np.vstack([observed, null])
    scaled = (both - both.mean(0)) / both.std(0)
    order = np.argsort(-scaled[0])
    slow, last = np.empty(tests), 0.0
    for place, test in enumerate(order):
        rest = order[place:]
        last = max(last, np.mean([row[rest].max() >= scaled[0, test] for row in scaled]))
        slow[test] = last
    found = family_p(observed, null)
    np.testing.assert_allclose(found, slow)
    assert (found >= [p_value(one, column) - 1e-12 for one, column in zip(observed, null.T, strict=True)]).all()


def test_an_adjusted_p_leaves_out_what_was_not_tested():
    rng = np.random.default_rng(0)
    observed, null = rng.normal(size=3), rng.normal(size=(40, 3))
    holes = np.insert(null, 7, [0.0, np.nan, 0.0], axis=0)
    with_a_hole = family_p([*observed, np.nan], np.column_stack([holes, np.full(41, np.nan)]))
    np.testing.assert_array_equal(with_a_hole[:3], family_p(observed, null))
    assert np.isnan(with_a_hole[3]) and np.isnan(family_p(observed, null[:0])).all()


def test_false_calls_by_the_adjusted_p_are_rare_and_one_of_many_can_be_called():
    rng = np.random.default_rng(1)
    null = rng.normal(size=(99, 40)) + rng.normal(size=(99, 1))
    calls = [family_p(rng.normal(size=40) + rng.normal(), null).min() <= 0.05 for _ in range(300)]
    assert np.mean(calls) <= 0.09
    observed = np.append(10.0, np.zeros(39))
    assert family_p(observed, null)[0] == 0.01 and benjamini_hochberg([0.01, *np.full(39, 0.5)])[0] == 0.4


@pytest.mark.parametrize("permutations, family", [(959, 48), (1000, 48), (19, 1), (100, 48), (958, 48), (18, 1)])
def test_what_can_be_resolved_is_what_is_called_alone_at_its_floor(permutations, family):
    p = np.append(1 / (permutations + 1), np.ones(family - 1))
    assert resolvable(p[0], family) == (benjamini_hochberg(p)[0] <= 0.05 + 1e-12)
    assert not resolvable(float("nan"), family)


@settings(max_examples=12)  # an eighth of a second each in statsmodels
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels_and_passes_by_missing_values(p: list[float]) -> None:
    adjusted = holm([*p, np.nan])
    np.testing.assert_allclose(adjusted[:-1], multipletests(p, method="holm")[1], atol=1e-12)
    assert np.isnan(adjusted[-1])
