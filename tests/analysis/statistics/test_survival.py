"""Kaplan and Meier's estimate beside statsmodels and its own formula."""

import numpy as np
import pytest
from handscope.analysis.statistics.survival import kaplan_meier
from handscope.errors import HandscopeError
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.duration.survfunc import SurvfuncRight

RANDOM = np.random.default_rng(0)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30))
def test_survival_is_the_product_over_those_at_risk(watched: list[tuple[int, bool]]) -> None:
    times, happened = np.array([t for t, _ in watched], float), np.array([event for _, event in watched])
    at = np.unique(times[happened])
    risk = np.array([(times >= t).sum() for t in at])
    events = np.array([(happened & (times == t)).sum() for t in at])
    found = kaplan_meier(times, happened)
    assert found.times.tolist() == at.tolist()
    np.testing.assert_allclose(found.share, np.cumprod(1 - events / risk), atol=1e-12)
    assert ((found.low <= found.share) & (found.share <= found.high)).all()


def test_survival_is_statsmodels() -> None:
    times = RANDOM.integers(0, 15, 200).astype(float)
    happened = RANDOM.random(200) < 0.7
    found, expected = kaplan_meier(times, happened), SurvfuncRight(times, happened)
    np.testing.assert_allclose(found.share, expected.surv_prob)
    np.testing.assert_allclose(found.times, expected.surv_times)
    some = found.share > 0
    error = np.abs(np.log(found.share[some])) * 0 + expected.surv_prob_se[some]
    # The standard error of log(-log share), from that of the share.
    loglog = 1.959964 * error / (found.share[some] * np.abs(np.log(found.share[some])))
    np.testing.assert_allclose(found.low[some], found.share[some] ** np.exp(loglog), rtol=1e-5)
    np.testing.assert_allclose(found.high[some], found.share[some] ** np.exp(-loglog), rtol=1e-5)
    assert found.median == expected.quantile(0.5) and (found.n, found.events) == (200, happened.sum())


def test_the_band_of_survival_covers_where_samples_of_a_prompt_are_alike() -> None:
    groups, covered = np.repeat(np.arange(16), 8), np.zeros(2)
    truth = norm.sf(0.2)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        times = 10 + np.sqrt(0.3) * rng.normal(size=16)[groups] + np.sqrt(0.7) * rng.normal(size=128)
        happened = rng.random(128) < 0.9
        for place, found in enumerate((kaplan_meier(times, happened, groups), kaplan_meier(times, happened))):
            at = np.flatnonzero(found.times <= 10.2)[-1]
            covered[place] += found.low[at] <= truth <= found.high[at]
    assert covered[0] >= 180 > covered[1]  # Greenwood's takes samples as independent


def test_survival_at_its_edges() -> None:
    all_gone = kaplan_meier([1, 2, 2], [True, True, True])
    assert all_gone.share[-1] == 0 and all_gone.high[-1] == 0 and all_gone.median == 2
    none = kaplan_meier([3, 3], [False, False])
    assert none.median is None and none.events == 0 and none.n == 2
    for times, happened in (([], []), ([np.nan], [True]), ([1, 2], [True])):
        with pytest.raises(HandscopeError):
            kaplan_meier(times, happened)
