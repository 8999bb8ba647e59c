"""Paired rates beside statsmodels, their coverage, and what is refused."""

from itertools import product

import numpy as np
import pytest
from handscope.analysis.statistics.paired import exchange_p, paired_rates
from handscope.errors import HandscopeError
from statsmodels.stats.contingency_tables import mcnemar

RANDOM = np.random.default_rng(0)


def test_counts_and_rates() -> None:
    before, after = RANDOM.integers(0, 2, 300).astype(float), RANDOM.integers(0, 2, 300).astype(float)
    groups = np.arange(300) % 20
    before[5] = after[9] = np.nan
    found = paired_rates(before, after, groups)
    judged = ~np.isnan(before) & ~np.isnan(after)
    a, b = before[judged].astype(int), after[judged].astype(int)
    table = np.zeros((2, 2), int)
    np.add.at(table, (a, b), 1)
    assert (found.n, found.left_out, found.mended, found.broken) == (298, 2, table[1, 0], table[0, 1])
    assert found.difference == pytest.approx(found.after - found.before)
    assert found.low < found.difference < found.high
    assert found.ratio == pytest.approx(b.mean() / a.mean()) and found.ratio_low < found.ratio < found.ratio_high


def test_with_one_pair_a_prompt_it_is_mcnemars_exact_test() -> None:
    for n in (12, 300):
        before, after = RANDOM.integers(0, 2, n).astype(float), RANDOM.integers(0, 2, n).astype(float)
        table = np.zeros((2, 2), int)
        np.add.at(table, (before.astype(int), after.astype(int)), 1)
        found = paired_rates(before, after, np.arange(n)).p
        assert found == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-12 if n == 12 else 0.02)


def test_exchanging_prompts_is_that_of_a_loop_over_all_signs() -> None:
    change = RANDOM.integers(-4, 5, 9)
    sums = [abs(np.dot(signs, change)) for signs in product((-1, 1), repeat=9)]
    assert exchange_p(change) == pytest.approx(np.mean([one >= abs(change.sum()) for one in sums]))
    many = RANDOM.integers(-1, 3, 40)
    assert 0 < exchange_p(many) == exchange_p(many)


@pytest.mark.parametrize(("prompts", "pairs"), [(8, 20), (32, 13)])
def test_intervals_cover_and_nothing_is_called_where_prompts_differ(prompts: int, pairs: int) -> None:
    covered, rejected, trials = np.zeros(2), 0, 200
    answer = np.random.default_rng(1).normal(size=10**6)
    rate = np.clip(0.2 + 0.15 * answer, 0, 1).mean()
    for seed in range(trials):
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(prompts), pairs)
        effect = 0.15 * random.normal(size=prompts)[groups]  # prompts answer differently
        before = (random.random(len(groups)) < 0.3).astype(float)
        after = (random.random(len(groups)) < np.clip(0.2 + effect, 0, 1)).astype(float)
        found = paired_rates(before, after, groups, seed)
        covered += found.low <= rate - 0.3 <= found.high, found.ratio_low <= rate / 0.3 <= found.ratio_high
        before = (random.random(len(groups)) < 0.5).astype(float)
        after = (random.random(len(groups)) < np.clip(0.5 + effect, 0, 1)).astype(float)
        rejected += paired_rates(before, after, groups, seed).p <= 0.05  # McNemar's rejects 14%
    assert (covered >= 0.91 * trials).all() and rejected <= 0.08 * trials


def test_one_prompt_says_nothing_of_others_and_agreement_is_not_certainty() -> None:
    bad = np.array([1, 0, 1, 0.0])
    one = paired_rates(bad, np.zeros(4), np.zeros(4))
    assert (one.low, one.high) == (-1, 1)
    same = paired_rates(bad, bad, np.arange(4))
    assert same.high == -same.low == pytest.approx(1 - 0.025 ** (1 / 4))


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
