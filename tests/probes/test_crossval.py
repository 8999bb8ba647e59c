"""Cross-validation: silent on noise, loud on a planted signal, not fooled by prompts."""

import numpy as np
import pytest
from handscope.analysis import auc
from handscope.errors import HandscopeError
from handscope.probes import LogisticProbe, compare, cross_validate, held_out_scores
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PROMPTS, SEEDS, WIDTH = 24, 6, 12
GROUPS = np.repeat(np.arange(PROMPTS), SEEDS)
N = len(GROUPS)


def noise(rng, width=WIDTH):
    """Sample vectors of which half the variance is their prompt's."""
    return rng.normal(size=(PROMPTS, width))[GROUPS] + rng.normal(size=(N, width))


def clustered_labels(rng, low=0.15, high=0.85):
    return (rng.random(N) < rng.uniform(low, high, PROMPTS)[GROUPS]).astype(int)


@pytest.mark.slow
def test_p_values_are_uniform_on_noise_whose_labels_cluster_by_prompt():
    rng = np.random.default_rng(0)
    p, within_p, values = [], [], []
    for seed in range(150):
        result = cross_validate(
            LogisticProbe(10.0), noise(rng), clustered_labels(rng), GROUPS, permutations=39, bootstraps=20, seed=seed
        )
        p.append(result.p)
        within_p.append(result.within_p)
        values.append((result.auc, result.within_auc))
    np.testing.assert_allclose(np.mean(values, axis=0), 0.5, atol=0.02)
    for found in (np.array(p), np.array(within_p)):
        assert (found <= 0.05).mean() <= 0.1
        assert (found <= 0.25).mean() == pytest.approx(0.25, abs=0.1)
        assert found.mean() == pytest.approx(0.5, abs=0.08)


def test_a_planted_signal_is_found_across_and_within_prompts():
    rng = np.random.default_rng(1)
    y = clustered_labels(rng)
    x = noise(rng)
    x[:, 3] += 2.0 * y
    result = cross_validate(LogisticProbe(10.0), x, y, GROUPS, permutations=49)
    assert result.p == result.within_p == 1 / 50
    assert result.interval[0] > 0.6 and result.within_interval[0] > 0.6
    assert result.interval[0] < result.auc < result.interval[1]
    assert abs(result.null.mean() - 0.5) < 0.05 and abs(result.within_null.mean() - 0.5) < 0.05


def test_knowledge_of_the_prompt_is_not_knowledge_within_it():
    rng = np.random.default_rng(2)
    kind = np.arange(PROMPTS) % 2  # say, the background: it sets the rate, and the activations show it
    y = (rng.random(N) < np.where(kind, 0.85, 0.15)[GROUPS]).astype(int)
    x = rng.normal(size=(N, WIDTH))
    x[:, 0] += 4 * kind[GROUPS]
    result = cross_validate(LogisticProbe(10.0), x, y, GROUPS, permutations=49)
    assert result.auc > 0.65 and result.p <= 0.04
    assert result.within_auc == pytest.approx(0.5, abs=0.12) and result.within_p > 0.05


def test_nothing_is_fitted_on_the_fold_it_is_judged_on():
    rng = np.random.default_rng(3)
    x, y = noise(rng, 200), clustered_labels(rng)
    result = cross_validate(LogisticProbe(1.0), x, y, GROUPS, permutations=0)
    for one in range(5):
        train, test = result.fold != one, result.fold == one
        assert not set(GROUPS[train]) & set(GROUPS[test])
        alone = LogisticProbe(1.0).fit(x[train], y[train]).decision_function(x[test])
        assert np.corrcoef(alone, result.scores[test])[0, 1] > 0.9999
    in_sample = auc(LogisticProbe(1.0).fit(x, y).decision_function(x), y)
    assert in_sample > 0.99 > 0.65 > result.auc


def test_agrees_with_the_same_done_by_scikit_learn():
    rng = np.random.default_rng(4)
    x, y = noise(rng), clustered_labels(rng)
    x[:, 0] += y
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=1000))
    ours = cross_validate(LogisticProbe(10.0), x, y, GROUPS, permutations=4)
    slow = cross_validate(theirs, x, y, GROUPS, permutations=4)
    assert ours.auc == pytest.approx(slow.auc, abs=1e-3)
    np.testing.assert_allclose(ours.null, slow.null, atol=2e-3)
    np.testing.assert_allclose(ours.within_null, slow.within_null, atol=2e-3)


def test_without_groups_each_sample_is_its_own_and_within_is_unknown():
    rng = np.random.default_rng(5)
    x, y = noise(rng), clustered_labels(rng)
    result = cross_validate(LogisticProbe(10.0), x, y, permutations=3)
    assert np.isnan(result.within_auc) and np.isnan(result.within_p)
    assert 0 <= result.auc <= 1


def test_too_few_prompts_are_refused():
    with pytest.raises(HandscopeError, match="there are 2 prompts"):
        cross_validate(LogisticProbe(), np.ones((4, 2)), [0, 1, 0, 1], ["a", "a", "b", "b"])


def test_what_a_block_adds_is_told_from_what_it_repeats():
    rng = np.random.default_rng(6)
    y = clustered_labels(rng)
    baseline = np.column_stack([y + rng.normal(size=N), rng.normal(size=N)])
    repeats = baseline @ rng.normal(size=(2, WIDTH)) + 0.3 * rng.normal(size=(N, WIDTH))
    adds = rng.normal(size=(N, WIDTH))
    adds[:, 5] += 4 * y
    fold = cross_validate(LogisticProbe(10.0), baseline, y, GROUPS, permutations=0).fold
    alone, with_repeats, with_adds = (
        held_out_scores(LogisticProbe(10.0), np.hstack(parts), y[None], fold)[0]
        for parts in ([baseline], [baseline, repeats], [baseline, adds])
    )
    for within in (False, True):
        nothing = compare(alone, with_repeats, y, GROUPS, fold, within=within)
        something = compare(alone, with_adds, y, GROUPS, fold, within=within)
        assert nothing.interval[0] < 0.02 and nothing.p > 0.05
        assert something.p < 0.025 and something.interval[0] > 0
        assert something.added == pytest.approx(something.auc_both - something.auc_baseline)
    same = compare(alone, alone, y, GROUPS, fold)
    assert same.added == 0 and same.interval == (0, 0) and same.p == 1
    one_mixed = np.where(GROUPS == 0, y, GROUPS % 2)
    told = compare(alone, with_adds, one_mixed, GROUPS, fold, within=True)
    assert np.isnan([*told.interval, told.p]).all() and not np.isnan(told.added)  # of one prompt: nothing of others
