"""Cross-validation that noise cannot pass: grouped folds, permuted labels, draws of prompts, pairs within prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from sklearn.base import clone

from ..analysis.statistics.arrays import binary
from ..analysis.statistics.auc import PairWins, auc
from ..analysis.statistics.folds import check_folds, codes, grouped_folds
from ..analysis.statistics.intervals import bootstrap_auc, bootstrap_weights, interval, rarer_groups
from ..analysis.statistics.nulls import p_floor, p_value, permuted_labels
from ..brief import brief
from ..errors import HandscopeError
from .calibration import rising
from .linear import features
from .nested import GRID, best_threshold, nested_scores

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CrossValidation:
    """What an estimator does on samples of prompts that it was not fitted to.

    Attributes
    ----------
    auc : over pairs of held-out samples of the same fold, whose scores come from one fit
    interval : its 95% bootstrap interval over prompts, as wide as the null shows held-out scores to make it
    null : array of shape (permutations,), `auc` after fitting to permuted labels
    within_auc : over held-out pairs of one prompt; NaN when no prompt has both a good and a bad sample
    within_interval, within_null : likewise, with labels permuted inside prompts
    p_floor, within_p_floor : the smallest p that the nulls could have given
    scores : array of shape (n,), held-out log-odds of bad, as the fits give them
    inner : array of shape (folds, n), as of `Nested`: what may be looked at to choose something for a fold
    fold : int array of shape (n,)
    balanced_accuracy : mean of the shares of held-out good and bad samples named rightly, with the threshold that was
        best on held-out scores inside the training folds
    balanced_interval : its 95% bootstrap interval over prompts
    log_odds : array of shape (n,), `scores` calibrated by Platt's method inside the training folds
    l2 : array of shape (folds,), the penalty that was chosen inside the training folds; NaN where none was chosen
    """

    auc: float
    interval: tuple[float, float]
    null: Array
    within_auc: float
    within_interval: tuple[float, float]
    within_null: Array
    p_floor: float
    within_p_floor: float
    scores: Array
    inner: Array
    fold: NDArray[np.intp]
    balanced_accuracy: float
    balanced_interval: tuple[float, float]
    log_odds: Array
    l2: Array

    __repr__ = brief

    @property
    def p(self) -> float:
        return p_value(self.auc, self.null)

    @property
    def within_p(self) -> float:
        return p_value(self.within_auc, self.within_null)


def held_out_scores(estimator: Any, x: ArrayLike, labels: ArrayLike, fold: ArrayLike) -> Array:
    """Score every sample by a fit that has not seen its fold.

    Parameters
    ----------
    estimator : with ``fit`` and ``decision_function``; `LogisticProbe` fits all labellings at once
    x : array of shape (n, width); labels : array of shape (fits, n); fold : int array of shape (n,)

    Returns
    -------
    array of shape (fits, n)
    """
    x, labels, fold = np.asarray(x), np.asarray(labels), np.asarray(fold)
    scores = np.empty(labels.shape)
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        if hasattr(estimator, "score_many"):
            scores[:, test] = estimator.score_many(x[train], labels[:, train], x[test])
        else:
            for row, y in zip(scores, labels, strict=True):
                row[test] = clone(estimator).fit(x[train], y[train]).decision_function(x[test])
    return scores


def cross_validate(
    estimator: Any,
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    l2: Sequence[float] | None = None,
    folds: int = 5,
    permutations: int = 100,
    bootstraps: int = 2000,
    seed: int = 0,
) -> CrossValidation:
    """Cross-validate an estimator with folds by group, and its null with it.

    Parameters
    ----------
    estimator : as for `held_out_scores`
    x : array of shape (n, width), one row a sample
    y : array of shape (n,), 1 for bad and 0 for good
    groups : array of shape (n,), the prompt of each sample; each sample is its own group when left out. Where rows are
        instances, of which a picture may have several, of shape (n, 2): prompt and picture
    l2 : penalties to choose from, inside the training folds of each fold and for each permuted labelling anew; left
        out, the estimator's own is taken, which must not have been chosen on the same samples
    permutations : fits to permuted labels, as many again to labels permuted inside prompts; 0 for none

    Raises
    ------
    HandscopeError
        There are fewer groups than folds, or a fold leaves only one class to fit to.

    Notes
    -----
    Where the prompt predicts the label, `auc` and its null do not tell knowledge of the prompt from knowledge of the
    picture: `within_auc` does.
    """
    x, y = features(x), binary(y)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise HandscopeError(f"Expected x of shape (n, width) and n labels, found {x.shape} and {y.shape}.")
    if not hasattr(estimator, "decision_function"):
        raise HandscopeError(
            f"Expected an estimator with a decision_function, found {type(estimator).__name__}: wrap it, and give its "
            "log-odds."
        )
    if hasattr(estimator, "check"):
        estimator.check(x, y)
    groups = np.arange(len(y)) if groups is None else groups
    codes(groups, len(y))
    fold = grouped_folds(groups, folds, seed)
    check_folds(y, fold)
    free, inside = labellings(y, groups, fold, permutations, seed)
    labels = np.concatenate([y[None], free, inside])
    nested = nested_scores(estimator, x, labels, codes(groups), fold, l2, seed=seed)
    scores = nested.scores
    named, log_odds = judge(scores[0] - nested.centre, y, fold, nested.inner)
    null = auc(scores[1 : 1 + len(free)], free, fold)
    within_null = auc(scores[1 + len(free) :], inside, groups)
    weights = bootstrap_weights(groups, bootstraps, seed)
    right = [np.bincount(codes(groups), (y == k) * (named == k)) for k in (0, 1)]
    of = [np.bincount(codes(groups), y == k) for k in (0, 1)]
    with np.errstate(invalid="ignore"):  # a draw without one of the classes says nothing, and is left out
        rates = [(weights @ a) / (weights @ b) for a, b in zip(right, of, strict=True)]
    return CrossValidation(
        auc=float(auc(scores[0], y, fold)),
        interval=bootstrap_auc(scores[0], y, groups, fold, bootstraps, seed, null=null),
        null=null,
        within_auc=float(auc(scores[0], y, groups)),
        within_interval=bootstrap_auc(scores[0], y, groups, fold, bootstraps, seed, within=True, null=within_null),
        within_null=within_null,
        p_floor=p_floor(y, free, null),
        within_p_floor=p_floor(y, inside, within_null),
        scores=scores[0],
        inner=nested.inner,
        fold=fold,
        balanced_accuracy=float(0.5 * sum(a.sum() / b.sum() for a, b in zip(right, of, strict=True))),
        balanced_interval=interval(0.5 * (rates[0] + rates[1])),
        log_odds=log_odds,
        l2=nested.chosen[0],
    )


def labellings(
    y: Array, groups: ArrayLike, fold: NDArray[np.intp], permutations: int, seed: int
) -> tuple[Array, Array]:
    """The permuted labellings of both nulls of `cross_validate`, of any prompts and inside prompts.

    They are kept: who forks processes that will ask for them should ask first.
    """
    return (
        permuted_labels(y, groups, permutations, seed, fold),
        permuted_labels(y, groups, permutations, seed, fold, within=True),
    )


def nested_cross_validate(
    estimator: Any,
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    l2: Sequence[float] = GRID,
    **settings: Any,
) -> CrossValidation:
    """`cross_validate` with the penalty chosen inside the training folds, from `GRID` unless others are given."""
    return cross_validate(estimator, x, y, groups, l2=l2, **settings)


def judge(scores: Array, y: Array, fold: NDArray[np.intp], inner: Array) -> tuple[NDArray[np.intp], Array]:
    """Name every unit 1 or 0, and calibrate its score, by what the units of the other folds tell.

    `scores`, less the centre of their fits, `y` and `fold` are arrays of shape (units,), and `inner` one of shape
    (folds, units), as of `nested_scores`.
    """
    named, log_odds = np.zeros(len(y), np.intp), np.empty(len(y))
    for one, seen in zip(np.unique(fold), inner, strict=True):
        scored, test = ~np.isnan(seen), fold == one
        slope, intercept = rising(seen[scored], y[scored])
        log_odds[test] = slope * scores[test] + intercept
        named[test] = scores[test] > best_threshold(seen[scored], y[scored])
    return named, log_odds


WIDER = 1.15
"""How many times the standard error of a gain is that of a jackknife, which takes held-out scores as given."""


@dataclass(frozen=True)
class Comparison:
    """Held-out AUC of a larger set of features less that of a smaller one, on the same folds.

    `interval` and `p` come from prompts left out one at a time, the same for both; `p` is one-sided, of no gain. It is
    of a distribution and not of draws, so that its floor is 0.
    """

    auc_baseline: float
    auc_both: float
    interval: tuple[float, float]
    p: float
    p_floor: float = 0.0

    @property
    def added(self) -> float:
        return self.auc_both - self.auc_baseline


def compare(
    baseline: ArrayLike,
    both: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    fold: ArrayLike,
    *,
    within: bool = False,
) -> Comparison:
    """Compare two sets of held-out scores, arrays of shape (n,), over pairs of a fold or, `within`, of a prompt.

    Notes
    -----
    The standard error is that of a jackknife over prompts, `WIDER` times as large: each sample is scored by fits to the
    others and is among those that these are scored by, so that differences of two sets of held-out scores vary 1.1 to
    1.3 times as much as a jackknife or bootstrap of them says. Interval and p are of Student's t with one degree of
    freedom less than there are prompts of the rarer class, or of prompts with both. The gain to be expected of such
    fits is covered in 94 to 98 of 100 data sets of 8, 12 and 32 prompts (bench/validity/coverage.py); percentiles of a
    bootstrap covered it in 79 to 95. NaN where fewer than two prompts tell anything.
    """
    y, group = binary(y), codes(groups)
    whole = np.ones((1, group.max() + 1))
    pairs = [PairWins.of(scores, y, group, fold) for scores in (baseline, both)]
    first, second = (float((one.within_auc(whole) if within else one.auc(whole))[0]) for one in pairs)
    gains = pairs[1].without_each(within) - pairs[0].without_each(within)
    gains, added = gains[~np.isnan(gains)], second - first
    mixed = np.intersect1d(group[y == 1], group[y == 0])
    freedom = (len(mixed) if within else rarer_groups(y, group)) - 1
    if np.isnan(added) or freedom < 1 or len(gains) < 2:
        return Comparison(first, second, (float("nan"), float("nan")), float("nan"))
    error = WIDER * float(np.sqrt((len(gains) - 1) / len(gains) * np.square(gains - gains.mean()).sum()))
    half = float(student.ppf(0.975, freedom)) * error
    p = float(student.sf(added / error, freedom)) if error > 0 else float(added <= 0)
    return Comparison(first, second, (added - half, added + half), p)
