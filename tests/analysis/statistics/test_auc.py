"""AUCs against scikit-learn and slow references."""

import itertools

import numpy as np
import pytest
from handscope.analysis import auc, grouped_folds
from handscope.analysis.statistics.auc import PairWins
from handscope.analysis.statistics.intervals import bootstrap_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 40), st.integers(1, 8))
def test_auc_with_ties_is_scikit_learns(seed, n, values):
    rng = np.random.default_rng(seed)
    scores, y = rng.integers(0, values, (3, n)), rng.integers(0, 2, (3, n))
    y[:, 0], y[:, 1] = 0, 1
    expected = [roc_auc_score(labels, row) for labels, row in zip(y, scores, strict=True)]
    np.testing.assert_allclose(auc(scores, y), expected)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 30), st.integers(1, 6))
def test_stratified_auc_pools_pairs_of_one_stratum(seed, n, strata):
    rng = np.random.default_rng(seed)
    scores, y, stratum = rng.integers(0, 5, n), rng.integers(0, 2, n), rng.integers(0, strata, n)
    pairs = [(i, j) for i, j in itertools.product(range(n), repeat=2) if y[i] > y[j] and stratum[i] == stratum[j]]
    found = auc(scores, y, stratum)
    if not pairs:
        assert np.isnan(found)
        return
    assert found == pytest.approx(np.mean([(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for i, j in pairs]))


def test_bootstrap_from_pairs_is_the_bootstrap_of_samples():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 5)
    strata = grouped_folds(groups, 2)
    y = rng.integers(0, 2, 40)
    scores = y + rng.normal(size=40)
    weights = bootstrap_weights(groups, 20)
    pairs = PairWins.of(scores, y, groups, strata)
    for w, counts, whole, inside in zip(
        weights, weights[:, groups].astype(int), pairs.auc(weights), pairs.within_auc(weights), strict=True
    ):
        drawn = np.repeat(np.arange(40), counts)
        copies = np.concatenate([np.repeat(np.arange(40)[groups == g], 1) for g in range(8) for _ in range(int(w[g]))])
        names = np.concatenate([np.full(5, k) for k in range(int(w.sum()))])
        assert whole == pytest.approx(auc(scores[drawn], y[drawn], strata[drawn]))
        assert inside == pytest.approx(auc(scores[copies], y[copies], names))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 30), st.sampled_from([np.float32, np.float64]))
def test_auc_of_many_labellings_is_that_of_one_by_one_by_mean_ranks(seed, rows, columns, n, kind):
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=(rows, columns, n)) * 10.0 ** rng.integers(-30, 30)).astype(kind)
    scores = np.where(rng.random(scores.shape) < 0.3, rng.choice([-0.0, 0.0, -1.0, 2.0]), scores).astype(kind)
    labels, strata = rng.integers(0, 2, (rows, 1, n)), rng.integers(0, 4, n)
    found = auc(scores, labels, strata)
    for row, column in itertools.product(range(rows), range(columns)):
        won = pairs = 0.0
        for one in np.unique(strata):
            inside = strata == one
            bad = labels[row, 0, inside] == 1
            won += rankdata(scores[row, column, inside])[bad].sum() - bad.sum() * (bad.sum() + 1) / 2
            pairs += bad.sum() * (~bad).sum()
        expected = won / pairs if pairs else np.nan
        np.testing.assert_allclose(found[row, column], expected, atol=1e-12)
