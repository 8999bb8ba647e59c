"""A distance that assumes no distribution: how well a classifier tells new samples of two classes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from ..brief import brief
from ..errors import HandscopeError
from .statistics.arrays import binary, numbers
from .statistics.auc import auc
from .statistics.folds import check_folds, codes, grouped_folds
from .statistics.intervals import bootstrap_auc
from .statistics.nulls import p_value, permuted_labels

Array = NDArray[np.float64]

RIDGE = 1.0


@dataclass(frozen=True, eq=False)
class TwoSampleTest:
    """Held-out performance of a classifier of two classes of samples, beside its permutation null.

    Attributes
    ----------
    auc : float, of held-out scores compared inside their fold; 0.5 where the classes are of one distribution
    interval : 95% bootstrap interval of `auc`
    accuracy : float, balanced: the mean of the shares of good and of bad held-out samples that are told right
    null : array of shape (permutations,), AUCs under permuted labels
    scores : array of shape (n,), held-out, growing from good to bad
    """

    auc: float
    interval: tuple[float, float]
    accuracy: float
    null: Array
    scores: Array

    __repr__ = brief

    @property
    def p(self) -> float:
        return p_value(self.auc, self.null)

    @property
    def total_variation(self) -> float:
        """An estimate from below of the total variation distance of the classes, 2 accuracy - 1, not below 0."""
        return max(0.0, 2 * self.accuracy - 1)


def classifier_two_sample_test(
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    folds: int = 5,
    permutations: int | Array = 1000,
    seed: int = 0,
    fold: ArrayLike | None = None,
) -> TwoSampleTest:
    """Ask whether two classes of samples are of one distribution, whatever that is.

    Parameters
    ----------
    x : array of shape (n, width), one row a sample
    y : array of shape (n,), 1 for bad and 0 for good
    groups : array of shape (n,), the prompt of each sample
    folds : of prompts
    permutations : number of permuted labellings, or the labellings themselves, as of `permuted_labels` with `fold`
    fold : int array of shape (n,), optional: the fold of each sample, in place of `folds`

    Raises
    ------
    HandscopeError
        Only one class, fewer prompts than folds, a fold without which one class is missing, or NaN or infinity.

    Notes
    -----
    Lopez-Paz and Oquab 2017, https://arxiv.org/abs/1610.06545, with folds in place of their single split. The
    classifier is kernel ridge regression on the labels, which for all labellings needs one factorisation a fold; its
    kernel is Gaussian, as wide as the median distance between samples, so that with enough of them any difference is
    found, in means or not. Channels are standardised on the samples fitted to; constant ones fall out. The penalty is
    settled beforehand: chosen on the same samples, it would need nested folds.
    """
    x, y = numbers(x, "features").astype(np.float64), binary(y)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise HandscopeError(f"Expected a row for each of {len(y)} labels, found an array of shape {x.shape}.")
    codes(groups, len(y))
    fold = grouped_folds(groups, folds, seed) if fold is None else np.asarray(fold)
    check_folds(y, fold)
    if isinstance(permutations, int):
        permutations = permuted_labels(y, groups, permutations, seed, fold)
    labels = np.concatenate([y[None], permutations])
    scores = np.empty(labels.shape)
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        scores[:, test] = _ridge(x[train], x[test], labels[:, train])
    values = auc(scores, labels, fold)
    told = (scores[0] > 0) == (y == 1)
    return TwoSampleTest(
        auc=float(values[0]),
        interval=bootstrap_auc(scores[0], y, groups, fold, seed=seed, null=values[1:]),
        accuracy=float((told[y == 1].mean() + told[y == 0].mean()) / 2),
        null=values[1:],
        scores=scores[0],
    )


def _ridge(train: Array, test: Array, labels: Array) -> Array:
    """Scores (labellings, test rows) of kernel ridge regressions on labels (labellings, train rows).

    Each class weighs as much as the other. Of the first labelling, a score of 0 lies between the classes however rare
    one is; of the others the order alone is asked for.
    """
    deviation = train.std(0)
    moving = deviation > 1e-12 * max(float(np.abs(train).max(initial=0)), np.finfo(float).tiny)
    centre = train[:, moving].mean(0)
    train, test = (train[:, moving] - centre) / deviation[moving], (test[:, moving] - centre) / deviation[moving]
    inner, crossed = _squared_distances(train, train), _squared_distances(test, train)
    width = max(float(np.median(inner[np.triu_indices(len(inner), 1)])), np.finfo(float).tiny)
    kernel, reach = np.exp(-inner / (2 * width)), np.exp(-crossed / (2 * width))
    share = labels.mean(1, keepdims=True)
    targets = (labels - share) / (share * (1 - share))
    kernel[np.diag_indices(len(kernel))] += RIDGE
    factor = cho_factor(kernel, lower=True, check_finite=False)
    # One solve for the rows left out serves all labellings.
    scores: Array = targets @ cho_solve(factor, reach.T, check_finite=False)
    # The midpoint of both classes' mean scores on the samples fitted to.
    fitted = targets[0] - RIDGE * cho_solve(factor, targets[0], check_finite=False)
    scores[0] -= (fitted[labels[0] == 1].mean() + fitted[labels[0] == 0].mean()) / 2
    return scores


def _squared_distances(first: Array, second: Array) -> Array:
    crossed = first @ second.T
    return np.maximum(np.square(first).sum(1)[:, None] + np.square(second).sum(1) - 2 * crossed, 0)
