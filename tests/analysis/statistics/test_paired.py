"""Paired rates beside statsmodels, their coverage, and what is refused."""

import numpy as np
import pytest
from handscope.analysis.statistics.paired import paired_rates
from handscope.errors import HandscopeError
from statsmodels.stats.contingency_tables import mcnemar

RANDOM = np.random.default_rng(0)


def test_counts_rates_and_mcnemar() -> None:
    before, after = RANDOM.integers(0, 2, 300).astype(float), RANDOM.integers(0, 2, 300).astype(float)
    groups = np.arange(300) % 20
    before[5] = after[9] = np.nan
    found = paired_rates(before, after, groups)
    judged = ~np.isnan(before) & ~np.isnan(after)
    a, b = before[judged].astype(int), after[judged].astype(int)
    table = np.zeros((2, 2), int)
    np.add.at(table, (a, b), 1)
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert (found.n, found.left_out, found.mended, found.broken) == (298, 2, table[1, 0], table[0, 1])
    assert found.difference == pytest.approx(found.after - found.before)
    assert found.low < found.difference < found.high
    assert found.ratio == pytest.approx(b.mean() / a.mean()) and found.ratio_low < found.ratio < found.ratio_high


def test_intervals_cover_where_prompts_differ() -> None:
    covered = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(32), 13)
        effect = random.normal(-0.1, 0.15, 32)[groups]  # prompts answer differently
        before = (random.random(416) < 0.3).astype(float)
        after = (random.random(416) < np.clip(0.3 + effect, 0, 1)).astype(float)
        found = paired_rates(before, after, groups, draws=400, seed=seed)
        true = np.clip(0.3 + np.random.default_rng(1).normal(-0.1, 0.15, 100_000), 0, 1).mean() - 0.3
        covered += found.low <= true <= found.high
    assert covered >= 130  # 142 expected of 150


def test_pairs_that_do_not_change_say_nothing() -> None:
    bad = np.array([1, 0, 1, 0.0])
    found = paired_rates(bad, bad, [0, 0, 1, 1])
    assert (found.p, found.mended, found.broken, found.difference) == (1.0, 0, 0, 0.0)
    none = paired_rates(np.zeros(4), bad, [0, 0, 1, 1])
    assert np.isnan(none.ratio)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([0, 1], [0], "one shape"),
        ([0, 2], [0, 1], "found 2"),
        ([np.nan, 1], [0, np.nan], "nothing to compare"),
    ],
)
def test_what_makes_no_sense_is_refused(before: list, after: list, words: str) -> None:
    with pytest.raises(HandscopeError, match=words):
        paired_rates(before, after, np.arange(len(before)))
