"""Differences and odds against statsmodels and scipy, which compute them otherwise."""

import numpy as np
import pytest
import statsmodels.api as sm
from handscope.analysis.statistics.paired import paired_rates
from handscope.analysis.statistics.power import groups_for
from handscope.analysis.statistics.two_rates import conditional_odds, corrected_difference, mcnemar_p, two_rates
from handscope.analysis.statistics.verdicts import Counts
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from scipy.stats import t as student
from scipy.stats.contingency import odds_ratio
from statsmodels.stats.contingency_tables import mcnemar

counts = st.integers(0, 30)


@settings(max_examples=40)
@given(st.tuples(counts, counts, counts, counts))
def test_conditional_odds_are_scipys(cells) -> None:
    table = np.reshape(cells, (2, 2))
    found = conditional_odds(table)
    if 0 in (*table.sum(0), *table.sum(1)):
        assert (found.low, found.high, found.p) == (0, np.inf, 1)
        return
    expected = odds_ratio(table[::-1])
    ends = expected.confidence_interval()
    np.testing.assert_allclose(found.ratio, expected.statistic, rtol=1e-5)
    np.testing.assert_allclose((found.low, found.high), (ends.low, ends.high), rtol=1e-5)
    assert found.p == pytest.approx(fisher_exact(table)[1])


def drawn(seed: int, sizes: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Two arms of 12 prompts, which answer differently, and from which either arm has some samples."""
    random = np.random.default_rng(seed)
    hard = random.uniform(0.1, 0.7, 12)
    groups = [np.repeat(np.arange(12), random.integers(low, 7, 12)) for low in sizes]
    return tuple(part for group in groups for part in (random.random(len(group)) < hard[group], group))


def test_a_difference_is_that_of_a_gee() -> None:
    a, of_a, b, of_b = drawn(0, (1, 3))
    found = two_rates(a, of_a, b, of_b)
    arm = np.repeat([0.0, 1.0], [len(a), len(b)])
    model = sm.GEE(np.concatenate([a, b]).astype(float), sm.add_constant(arm), np.concatenate([of_a, of_b]))
    fit = model.fit()  # of the normal family: the identity link, an independence working correlation
    spread = fit.bse[1] * np.sqrt(12 / 11)
    assert found.difference == pytest.approx(fit.params[1]) and found.groups == 12
    half = student.ppf(0.975, 11) * spread
    np.testing.assert_allclose((found.low, found.high), (found.difference - half, found.difference + half))
    assert found.p == pytest.approx(2 * student.sf(abs(found.difference) / spread, 11))


def test_pairs_and_no_pairs_agree_where_every_prompt_has_as_many() -> None:
    random = np.random.default_rng(3)
    group = np.repeat(np.arange(9), 4)
    a, b = random.random(36) < 0.4, random.random(36) < 0.3
    pairs, loose = paired_rates(a, b, group), two_rates(a, group, b, group)
    for name in ("before", "after", "difference", "low", "high", "p"):
        assert getattr(loose, name) == pytest.approx(getattr(pairs, name)), name
    # Whatever the order within an arm.
    order = random.permutation(36)
    assert two_rates(a, group, b[order], group[order]) == loose


def test_prompts_of_one_arm_only_count_as_its_own() -> None:
    a, of_a, b, of_b = drawn(5, (2, 2))
    apart, together = two_rates(a, of_a, b, of_b + 100), two_rates(a, of_a, b, of_b)
    assert apart.groups == 24 and apart.difference == together.difference
    nobody = np.full(len(a), np.nan)
    with pytest.raises(HandscopeError, match="None of"):
        two_rates(nobody, of_a, b, of_b)


def test_a_corrected_difference_covers_what_is_there() -> None:
    """Simulated: two sets of 20 prompts, verdicts that err, and 30 labelled groups that say how."""
    random = np.random.default_rng(11)
    se, sp, covered, values = 0.8, 0.9, 0, []
    group = np.repeat(np.arange(20), 10)

    def flagged(bad: np.ndarray) -> np.ndarray:
        return np.where(bad, random.random(len(bad)) < se, random.random(len(bad)) > sp)

    for _ in range(200):
        hard = random.uniform(0.1, 0.5, 20)[group]
        a, b = (flagged(random.random(200) < hard + more) for more in (0.2, 0.0))
        truth = random.random(300) < 0.4
        counts = Counts.of(flagged(truth), truth, np.repeat(np.arange(30), 10))
        value, low, high = corrected_difference(two_rates(a, group, b, group, tested=False), counts)
        values.append(value)
        covered += low <= -0.2 <= high
    assert np.mean(values) == pytest.approx(-0.2, abs=0.01) and 180 < covered <= 200
    sure = Counts(np.array([[10.0, 0, 0, 10], [7, 0, 0, 9]]))
    plain = two_rates(a, group, b, group)
    np.testing.assert_allclose(corrected_difference(plain, sure), (plain.difference, plain.low, plain.high))
    assert np.isnan(corrected_difference(plain, Counts(np.array([[5.0, 5, 5, 5]])))).all()


def test_mcnemar_is_exact() -> None:
    assert mcnemar_p(3, 9) == pytest.approx(mcnemar([[0, 3], [9, 0]], exact=True).pvalue)
    assert mcnemar_p(0, 0) == 1


def test_as_many_prompts_as_are_needed_are_enough() -> None:
    """Simulated: that many prompts call a difference of 10 points four times in five."""
    random = np.random.default_rng(7)

    def arms(prompts: int) -> tuple[np.ndarray, ...]:
        group = np.repeat(np.arange(prompts), 4)
        hard = random.uniform(0.2, 0.6, prompts)[group]
        return random.random(len(group)) < hard + 0.1, random.random(len(group)) < hard, group

    widths = []
    for _ in range(40):
        a, b, group = arms(40)
        one = paired_rates(a, b, group)
        widths.append((one.high - one.low) / 2)
    needed = groups_for(float(np.sqrt(np.mean(np.square(widths)))), 40, 0.1)
    called = 0
    for _ in range(200):
        a, b, group = arms(needed)
        one = paired_rates(a, b, group)
        called += one.high < 0
    assert 0.7 < called / 200 < 0.9
