"""Agreement of verdicts with labels, and corrected rates, against closed forms, scikit-learn and statsmodels."""

import numpy as np
import pytest
from handscope.analysis.statistics import verdicts
from handscope.analysis.statistics.verdicts import Counts
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

TABLES = st.tuples(*[st.integers(1, 60)] * 4)


def labels_of(table: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts and labels with these counts: flagged bad, missed bad, flagged good, passed good."""
    flagged = np.repeat([1, 0, 1, 0], table).astype(bool)
    return flagged, np.repeat([1, 1, 0, 0], table).astype(bool)


@given(TABLES)
def test_kappa_and_shares_are_those_of_others(table: tuple[int, ...]) -> None:
    flagged, bad = labels_of(table)
    counts = Counts.of(flagged, bad, np.arange(len(bad)) % 3).total()
    assert counts.tolist() == list(table)
    assert verdicts.kappa(counts) == pytest.approx(cohen_kappa_score(bad, flagged))
    grid = np.array([[table[0], table[1]], [table[2], table[3]]])
    assert verdicts.kappa(counts) == pytest.approx(cohens_kappa(grid, return_results=False))
    assert verdicts.sensitivity(counts) == table[0] / (table[0] + table[1])
    assert verdicts.specificity(counts) == table[3] / (table[2] + table[3])
    assert verdicts.accuracy(counts) == pytest.approx((flagged == bad).mean())


def test_interval_of_a_share_in_groups_of_one_is_the_normal_one() -> None:
    flagged, bad = labels_of((300, 100, 50, 550))
    counts = Counts.of(flagged, bad, np.arange(1000))
    share, low, high = verdicts.with_interval(verdicts.sensitivity, counts)
    half = norm.ppf(0.975) * np.sqrt(0.75 * 0.25 / 400)
    assert share == 0.75 and (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.008)


def test_groups_that_are_alike_widen_an_interval() -> None:
    """100 groups of 10 hands, each group all right or all wrong: worth 100 hands, not 1,000."""
    flagged = np.repeat(np.arange(100) < 75, 10)
    bad = np.ones(1000, bool)
    _, low, high = verdicts.with_interval(verdicts.sensitivity, Counts.of(flagged, bad, np.repeat(np.arange(100), 10)))
    _, low_1, high_1 = verdicts.with_interval(verdicts.sensitivity, Counts.of(flagged, bad, np.arange(1000)))
    assert (high - low) / (high_1 - low_1) == pytest.approx(np.sqrt(10), rel=0.1)


def test_agreement_without_exception_is_not_certainty() -> None:
    flagged, bad = labels_of((20, 0, 0, 20))
    for measure in (verdicts.kappa, verdicts.sensitivity, verdicts.specificity):
        value, low, high = verdicts.with_interval(measure, Counts.of(flagged, bad, np.arange(40)))
        assert value == high == 1 and 0.8 < low < 0.95
    # 20 of 20 sound hands passed: 0.025 ** (1/20), the exact one-sided bound.
    exact = proportion_confint(20, 20, method="beta")[0]
    low = verdicts.with_interval(verdicts.specificity, Counts.of(flagged, bad, np.arange(40)))[1]
    assert low == pytest.approx(exact)


@given(st.floats(0, 1), st.floats(0.55, 1), st.floats(0.55, 1))
def test_rogan_gladen_undoes_what_errors_do(rate: float, se: float, sp: float) -> None:
    flagged = rate * se + (1 - rate) * (1 - sp)
    assert verdicts.rogan_gladen(flagged, se, sp) == pytest.approx(rate, abs=1e-9)


def test_rogan_gladen_of_the_source_study() -> None:
    """Sensitivity and specificity .942 turn its 38.7% and 9.4% into 37.2% and 4.1%."""
    assert verdicts.rogan_gladen([0.387, 0.094], 0.942, 0.942) == pytest.approx([0.372, 0.041], abs=5e-4)
    assert np.isnan(verdicts.rogan_gladen(0.3, 0.4, 0.6))  # a coin cannot be corrected
    assert verdicts.rogan_gladen(0.01, 0.9, 0.9) == 0 and verdicts.rogan_gladen(0.99, 0.9, 0.9) == 1


def test_interval_of_the_corrected_rate_is_that_of_the_delta_method() -> None:
    """Var = (q(1-q)/n + p² Var(se) + (1-p)² Var(sp)) / (se + sp - 1)², for independent hands."""
    flagged, bad = labels_of((240, 60, 70, 630))
    counts = Counts.of(flagged, bad, np.arange(1000))
    n, k = 800, 300
    rate, low, high = verdicts.corrected_rate(np.arange(n) < k, np.arange(n), counts)
    q, se, sp = k / n, 0.8, 0.9
    p = (q + sp - 1) / (se + sp - 1)
    variance = (q * (1 - q) / n + p**2 * se * (1 - se) / 300 + (1 - p) ** 2 * sp * (1 - sp) / 700) / (se + sp - 1) ** 2
    half = norm.ppf(0.975) * np.sqrt(variance)
    assert rate == pytest.approx(p) and (low, high) == pytest.approx((p - half, p + half), abs=0.01)
    useless = Counts.of(*labels_of((10, 10, 10, 10)), np.arange(40))
    assert np.isnan(verdicts.corrected_rate(np.arange(10) < 5, np.arange(10), useless)).all()


@pytest.mark.slow
def test_coverage_of_the_corrected_rate() -> None:
    """In 200 repeats with a known rate the 95% interval holds it about 95% of the time."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        bad = np.arange(300) < 100
        flagged = np.where(bad, rng.random(300) < 0.8, rng.random(300) < 0.12)
        new = rng.random(400) < 0.25
        seen = np.where(new, rng.random(400) < 0.8, rng.random(400) < 0.12)
        _, low, high = verdicts.corrected_rate(seen, np.arange(400), Counts.of(flagged, bad, np.arange(300)))
        held += low <= 0.25 <= high
    assert 180 <= held <= 199


def test_a_corrected_rate_of_hands_that_are_alike_is_known_less_well() -> None:
    """Ten hands of each of 80 prompts, all flagged or none: worth 80 hands; so are labelled hands of one group."""
    flagged, bad = labels_of((240, 60, 70, 630))
    alone, new = Counts.of(flagged, bad, np.arange(1000)), np.repeat(np.arange(80) < 30, 10)
    low, high = verdicts.corrected_rate(new, np.repeat(np.arange(80), 10), alone)[1:]
    free = verdicts.corrected_rate(new, np.arange(800), alone)[1:]
    of_80 = verdicts.corrected_rate(new[::10], np.arange(80), alone)[1:]
    assert (low, high) == pytest.approx(of_80, abs=0.01) and high - low > 2 * (free[1] - free[0])
    tenfold = Counts(np.kron(alone.table[::10], np.full((1, 1), 10.0)))
    assert np.ptp(verdicts.corrected_rate(new, np.arange(800), tenfold)[1:]) > 1.3 * (free[1] - free[0])
    assert verdicts.corrected_rate(new, np.zeros(800), alone)[1:] == (0.0, 1.0)  # of one prompt: nothing of others
    never = verdicts.corrected_rate(np.zeros(50), np.arange(50), alone)
    assert never[:2] == (0.0, 0.0) and 0 < never[2] < 0.15
