"""The classifier two-sample test: silent without a difference, loud with any, and never told by a sample's own fold."""

import numpy as np
import pytest
from handscope.analysis import classifier_two_sample_test, grouped_folds, permuted_labels
from handscope.analysis.two_sample import RIDGE
from handscope.errors import HandscopeError
from sklearn.kernel_ridge import KernelRidge

GROUPS = np.repeat(np.arange(15), 4)
Y = np.tile([0, 1, 0, 1], 15)


def slow_scores(x, y, fold):
    """The same classifier by scikit-learn, one fold and one labelling at a time."""
    scores = np.empty(len(y))
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        z = (x - x[train].mean(0)) / x[train].std(0)
        squared = np.square(z[train][:, None] - z[train][None]).sum(-1)
        gamma = 1 / (2 * np.median(squared[np.triu_indices(train.sum(), 1)]))
        share = y[train].mean()
        targets = (y[train] - share) / share / (1 - share)
        fitted = KernelRidge(alpha=RIDGE, kernel="rbf", gamma=gamma).fit(z[train], targets)
        own = fitted.predict(z[train])
        middle = (own[y[train] == 1].mean() + own[y[train] == 0].mean()) / 2
        scores[test] = fitted.predict(z[test]) - middle
    return scores


def test_scores_are_those_of_scikit_learn():
    x = np.random.default_rng(0).normal(size=(60, 7)) + 0.5 * Y[:, None]
    fold = grouped_folds(GROUPS, 5)
    test = classifier_two_sample_test(x, Y, GROUPS, fold=fold, permutations=9)
    np.testing.assert_allclose(test.scores, slow_scores(x, Y, fold), atol=1e-9)
    from handscope.analysis import auc

    labels = permuted_labels(Y, GROUPS, 9, 0, fold)
    np.testing.assert_allclose(test.null, [auc(slow_scores(x, row, fold), row, fold) for row in labels], atol=1e-9)
    same = classifier_two_sample_test(x, Y, GROUPS, fold=fold, permutations=labels)
    np.testing.assert_array_equal(same.null, test.null)


def test_without_a_difference_p_values_are_uniform():
    rng = np.random.default_rng(1)
    p = []
    for seed in range(100):
        x = rng.normal(size=(60, 5)) + rng.normal(size=(15, 5))[GROUPS]
        y = (rng.random(60) < rng.uniform(0.2, 0.8, 15)[GROUPS]).astype(int)
        p.append(classifier_two_sample_test(x, y, GROUPS, permutations=49, seed=seed).p)
    assert (np.array(p) <= 0.05).mean() <= 0.1 and 0.4 < np.mean(p) < 0.62


def test_a_difference_of_spread_alone_is_found():
    """Where a difference of means, and any linear probe, sees nothing."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 6)) * np.where(Y == 1, 3, 1)[:, None]
    test = classifier_two_sample_test(x, Y, GROUPS, permutations=199)
    assert test.p <= 0.01 and test.interval[0] > 0.6
    assert test.total_variation == pytest.approx(2 * test.accuracy - 1) and test.total_variation > 0.3


def test_a_rare_class_does_not_move_the_threshold():
    rng = np.random.default_rng(3)
    y = np.tile([0, 0, 0, 0, 0, 1], 20)
    test = classifier_two_sample_test(rng.normal(size=(120, 4)) + 3 * y[:, None], y, np.arange(120), permutations=9)
    assert test.accuracy > 0.9


def test_constant_channels_and_scales_do_not_matter():
    x = np.random.default_rng(4).normal(size=(60, 5)) + 0.4 * Y[:, None]
    test = classifier_two_sample_test(x, Y, GROUPS, permutations=9)
    scaled = np.concatenate([x * np.geomspace(1e-3, 1e3, 5), np.full((60, 2), 7.0)], 1)
    np.testing.assert_allclose(
        classifier_two_sample_test(scaled, Y, GROUPS, permutations=9).scores, test.scores, atol=1e-9
    )


def test_bad_input_is_refused_in_words():
    x = np.random.default_rng(5).normal(size=(60, 3))
    with pytest.raises(HandscopeError, match="15 prompts"):
        classifier_two_sample_test(x, Y, GROUPS, folds=16)
    with pytest.raises(HandscopeError, match="good"):
        classifier_two_sample_test(x, np.zeros(60), GROUPS)
    x[3, 1] = np.nan
    with pytest.raises(HandscopeError, match="1 of .* are NaN"):
        classifier_two_sample_test(x, Y, GROUPS)
