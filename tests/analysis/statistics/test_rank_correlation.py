"""Rank correlations against scipy, and their intervals against leaving groups out by hand."""

import numpy as np
import pytest
from handscope.analysis.statistics import rank_correlation
from handscope.analysis.statistics.intervals import jackknife_interval
from handscope.analysis.statistics.rank_correlation import kendall, spearman, spearman_null
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

SCIPY = {kendall: lambda x, y: stats.kendalltau(x, y).statistic, spearman: lambda x, y: stats.spearmanr(x, y).statistic}


def drawn(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, three-point ratings that follow them, and prompts of uneven sizes."""
    random = np.random.default_rng(seed)
    x = random.normal(size=n).round(1)
    y = np.clip(np.round(x + random.normal(size=n)), -1, 1) / 2 + 0.5
    return x, y, random.integers(0, 7, n)


@pytest.mark.parametrize("correlation", SCIPY)
@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_values_and_intervals_are_scipys_with_groups_left_out(correlation, seed: int) -> None:
    x, y, groups = drawn(seed)
    plain = SCIPY[correlation]
    found = correlation(x, y, groups)
    assert found.value == pytest.approx(plain(x, y))
    without = [plain(x[groups != one], y[groups != one]) for one in np.unique(groups)]
    assert (found.lo, found.hi) == pytest.approx(jackknife_interval(found.value, without, (-1, 1)))
    turned = correlation(-x, y, groups)
    assert (turned.value, turned.lo, turned.hi) == pytest.approx((-found.value, -found.hi, -found.lo))
    monotone = correlation(np.exp(x), 3 * y, groups)
    assert (monotone.value, monotone.lo) == pytest.approx((found.value, found.lo))


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = drawn(1)
    whole = [kendall(*given), kendall(*given, within=True)]
    monkeypatch.setattr(rank_correlation, "ROWS", 7)
    assert [kendall(*given), kendall(*given, within=True)] == whole


def test_within_groups_what_only_prompts_tell_is_nothing() -> None:
    groups = np.repeat(np.arange(10), 8)
    random = np.random.default_rng(0)
    x, y = groups + random.normal(size=80) * 0.01, groups + random.normal(size=80) * 0.01
    assert kendall(x, y, groups).value > 0.85
    assert abs(kendall(x, y, groups, within=True).value) < 0.25
    pairs = [(i, j) for i in range(80) for j in range(80) if groups[i] == groups[j] and i != j]
    expected = np.mean([np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs])
    assert kendall(x, y, groups, within=True).value == pytest.approx(expected)


def test_the_null_is_rho_of_each_labelling() -> None:
    x, y, _ = drawn(2)
    random = np.random.default_rng(0)
    labellings = np.stack([random.permutation(y) for _ in range(5)])
    assert spearman_null(x, labellings) == pytest.approx([stats.spearmanr(x, one).statistic for one in labellings])


def test_nothing_that_varies_has_no_value_and_other_shapes_are_refused() -> None:
    for correlation in SCIPY:
        assert np.isnan(correlation(np.ones(6), np.arange(6), np.arange(6)).value)
        with pytest.raises(HandscopeError):
            correlation([1, 2], [1, 2, 3], [0, 1])
        with pytest.raises(HandscopeError):
            correlation([1, np.nan], [1, 2], [0, 1])
