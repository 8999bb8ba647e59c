"""Intervals of shares, against statsmodels."""

from pathlib import Path

import numpy as np
import pandas as pd
from handscope.analysis.statistics.rates import clustered_share, wilson
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=5), st.floats(0.5, 0.999))
def test_wilson_is_that_of_statsmodels(rows: list[tuple[int, int]], level: float) -> None:
    part, n = np.array([(min(part, n), n) for part, n in rows]).T
    np.testing.assert_allclose(wilson(part, n, level), proportion_confint(part, n, 1 - level, "wilson"), atol=1e-12)


def test_a_share_counts_prompts() -> None:
    labels = pd.read_csv(Path(__file__).parents[3] / "datasets" / "hand_labels.csv").query("verdict != 'unsure'")
    bad = labels["verdict"].isin(["bad", "bad?"])
    share, low, high = clustered_share(bad, labels["prompt"])
    assert (round(share, 2), round(low, 2), round(high, 2)) == (0.37, 0.32, 0.42)  # as README says
    narrow = wilson(bad.sum(), len(bad))
    assert low < narrow[0] and high > narrow[1]


def test_prompts_that_are_all_alike_count_as_one_sample_each_and_one_prompt_tells_nothing() -> None:
    assert clustered_share([0, 1] * 10, np.repeat(np.arange(10), 2)) == (0.5, *wilson(5, 10))
    assert clustered_share([0] * 12, np.repeat(np.arange(4), 3)) == (0.0, *wilson(0, 4))
    assert clustered_share([0, 1, 1], ["a", "a", "a"])[1:] == (0.0, 1.0)


def test_what_one_prompt_alone_has_still_has_an_interval() -> None:
    groups = np.repeat(np.arange(8), 3)
    one = clustered_share(np.arange(24) == 4, groups)
    assert 0 < one[1] < 1 / 24 < one[2] < 0.3  # it was 0 to 1
    np.testing.assert_allclose(clustered_share(np.arange(24) != 4, groups), [1 - one[0], 1 - one[2], 1 - one[1]])
    # Of samples that are groups of their own it is Clopper and Pearson's, with no design effect and the same t.
    low, high = proportion_confint(1, 30, 0.05, "beta")
    np.testing.assert_allclose(clustered_share(np.arange(30) == 2, np.arange(30))[1:], (low, high), rtol=0.12)
    random, covered, asked = np.random.default_rng(5), 0, 0
    for _ in range(400):
        rare = random.random(24) < 0.06
        if len(set(groups[rare])) == 1:
            _, low, high = clustered_share(rare, groups)
            asked, covered = asked + 1, covered + (low <= 0.06 <= high)
    assert asked > 80 and covered > 0.95 * asked


def test_shares_of_clustered_samples_are_covered() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 10)
    covered = 0
    for _ in range(200):
        own = random.beta(2, 3, 12)  # prompts differ: an intraclass correlation of 1/6
        _, low, high = clustered_share(random.random(120) < own[groups], groups)
        covered += low <= 0.4 <= high
    assert covered >= 182  # of 200; below 182 has a chance of 1 in 100 at 95%


@given(st.integers(1, 6), st.integers(0, 40))
def test_samples_that_are_groups_of_their_own_have_about_the_interval_of_wilson(extra: int, bad: int) -> None:
    n = 40 + extra
    bad = min(max(bad, 4), n - 4)
    found = clustered_share(np.arange(n) < bad, np.arange(n))
    np.testing.assert_allclose(found[1:], wilson(bad, n), atol=0.04)
