"""Penalties chosen where they are not judged, and the scores that thresholds and calibration are set on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from ..analysis.statistics.auc import pair_wins
from ..analysis.statistics.folds import grouped_folds
from ..errors import HandscopeError
from .linear import LinearProbe, Scorer, even_weights, mean_row, penalties

Array = NDArray[Any]

GRID = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
"""Penalties to choose from where each sample counts 1: from hardly any to one that leaves the difference of means."""

AT_ONCE = 1 << 20
"""Scores that are held at a time, so that memory does not grow with the number of labellings."""


def grid_scores(
    estimator: LinearProbe,
    x: Array,
    labels: Array,
    fold: NDArray[np.intp],
    l2: ArrayLike,
    unit: NDArray[np.intp] | None = None,
) -> Array:
    """Held-out scores of every row, as of `Scorer.scores`, for every labelling and penalty.

    Parameters
    ----------
    x : array of shape (n, width); labels : array of shape (labellings, n); fold : int array of shape (n,)
    l2 : array of shape (penalties,)
    unit : int array of shape (n,), optional; the instance or sample of each row where rows are tokens. Each counts 1.

    Returns
    -------
    array of shape (labellings, penalties, n)
    """
    grid = np.tile(np.asarray(l2, np.float64), (len(labels), 1))
    out = np.empty((*grid.shape, len(x)), np.float32)
    for train, test, scorer in _inner(estimator, x, fold, unit):
        out[:, :, test] = scorer.scores(labels[:, train], grid)
    return out


_Inner = Sequence[tuple[NDArray[np.intp], NDArray[np.intp], Scorer]]


def _inner(estimator: LinearProbe, x: Array, fold: NDArray[np.intp], unit: NDArray[np.intp] | None) -> _Inner:
    """Of each fold the rows to fit to, those left out, and what scores these."""
    weights = np.ones(len(x)) if unit is None else even_weights(unit)
    parts = [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in np.unique(fold)]
    return [(train, test, estimator.scorer(x[train], weights[train], x[test])) for train, test in parts]


def _best(
    inner: _Inner, labels: Array, grid: Array, judged: Array, fold: NDArray[np.intp], unit: NDArray[np.intp] | None
) -> NDArray[np.intp]:
    """Which penalty has the highest AUC inside the folds, for each labelling: shape (labellings,).

    `labels` are those of rows, (labellings, n), `judged` those of units; of equals, the first is taken.
    """
    best, labels = np.empty(len(labels), np.intp), labels.astype(np.float32)
    step = max(1, AT_ONCE // (len(grid) * labels.shape[1]))
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        some, tried = labels[part], np.tile(grid, (len(labels[part]), 1))
        wins = pairs = np.zeros(tried.shape)
        for (train, test, scorer), one in zip(inner, np.unique(fold), strict=True):
            scores = scorer.order(some[:, train], tried)
            if unit is not None:
                scores = unit_means(scores, np.unique(unit[test], return_inverse=True)[1])
            won, compared = pair_wins(scores, judged[part, None, fold == one])
            wins, pairs = wins + won, pairs + compared
        best[part] = np.divide(wins, pairs, out=np.zeros(wins.shape), where=pairs > 0).argmax(1)
    return best


def unit_means(scores: Array, unit: NDArray[np.intp] | None) -> Array:
    """Mean score of the rows of each unit 0, 1, ...: shape (..., n) to (..., units); None makes each row a unit."""
    if unit is None:
        return scores
    order = np.argsort(unit, kind="stable")
    count = np.bincount(unit)
    starts = np.cumsum(count) - count
    return np.add.reduceat(scores[..., order].astype(np.float64), starts, axis=-1) / count


@dataclass(frozen=True)
class Nested:
    """Scores of fits that had not seen what they score, and what may be set on them.

    Attributes
    ----------
    scores : array of shape (labellings, n), held-out log-odds of rows; those of permuted labellings, after the first,
        but for a factor above 0 and a constant of each fold, which no AUC inside a fold sees
    chosen : array of shape (labellings, folds), the penalties; NaN without a choice
    centre : array of shape (units,), of the observed labelling: the mean score of a unit's fit over the rows it was
        fitted to
    inner : array of shape (folds, units), the observed labelling's inner held-out scores, each less the mean of its own
        fit over the rows it was fitted to: what thresholds and calibration may look at. NaN for the units of the fold
        itself. They are compared with ``scores - centre``.
    """

    scores: Array
    chosen: Array
    centre: Array
    inner: Array


def nested_scores(
    estimator: Any,
    x: Array,
    labels: Array,
    groups: Array,
    fold: NDArray[np.intp],
    l2: Sequence[float] | None,
    unit: NDArray[np.intp] | None = None,
    seed: int = 0,
) -> Nested:
    """Score every unit by a fit that saw neither it nor, when its penalty was chosen, its fold.

    Parameters
    ----------
    x : array of shape (n, width), float32
    labels : array of shape (labellings, units), the observed one first
    groups, fold : arrays of shape (units,)
    l2 : penalties to choose from in the inner folds, for each labelling and fold anew, by AUC and among equals the
        largest; None for the estimator's own
    unit : int array of shape (n,), the unit of each row; None where each row is a unit
    """
    rows_of = np.arange(len(fold)) if unit is None else unit
    weights = np.ones(len(x)) if unit is None else even_weights(unit)
    number = np.unique(fold)
    scores = np.empty((len(labels), len(x)))
    chosen = np.full((len(labels), len(number)), np.nan)
    inner = np.full((len(number), len(fold)), np.nan)
    centre = np.empty(len(fold))
    if l2 is not None and not isinstance(estimator, LinearProbe):
        raise HandscopeError(
            f"A grid of penalties is for LogisticProbe and RidgeProbe, and the estimator is a "
            f"{type(estimator).__name__}: choose its settings inside its own fit, or leave the grid out."
        )
    grid = None if l2 is None else penalties(l2)  # of equals, the first and largest is taken
    for place, one in enumerate(number):
        kept = np.flatnonzero(fold != one)
        train, test = np.isin(rows_of, kept), fold[rows_of] == one
        within = grouped_folds(groups[kept], min(len(number), len(np.unique(groups[kept]))), seed)
        units = None if unit is None else np.searchsorted(kept, rows_of[train])
        row_fold = within if units is None else within[units]
        own_labels = labels[:, rows_of[train]]
        if isinstance(estimator, LinearProbe):
            part = x[train]
            tried = grid if grid is not None else np.array([getattr(estimator, "l2", 1.0)])
            folds = _inner(estimator, part, row_fold, units)
            best = np.zeros(len(labels), np.intp)
            # One feature is ranked alike by all penalties.
            if len(tried) > 1 and x.shape[1] > 1:
                best = _best(folds, own_labels, tried, labels[:, kept], within, units)
            row_scores = np.empty(len(part))
            for fitted, left, scorer in folds:
                row_scores[left] = scorer.scores(own_labels[:1, fitted], tried[None, best[:1]])[0, 0]
            inner[place, kept] = unit_means(row_scores, units)
            if grid is not None:
                chosen[:, place] = tried[best]
            own = np.zeros(1, np.intp)
            w, b = estimator.fit_many(part, own_labels[:1], weights[train][None], own, tried[best[:1]])
            scores[0, test] = w[0].astype(x.dtype) @ x[test].T + b[0]
            centre[fold == one] = w[0] @ mean_row(part, weights[train]) + b[0]
            scorer = estimator.scorer(part, weights[train], x[test])
            step = max(1, AT_ONCE // x.shape[1])
            for start in range(1, len(labels), step):
                some = slice(start, start + step)
                scores[some, test] = scorer.order(own_labels[some], tried[best[some, None]])[:, 0]
        else:
            inner[place, kept] = unit_means(_centred(estimator, x[train], own_labels[0], row_fold), units)
            for labelling, (row, y) in enumerate(zip(scores, own_labels, strict=True)):
                fitted = clone(estimator).fit(x[train], y)
                row[test] = fitted.decision_function(x[test])
                if labelling == 0:
                    centre[fold == one] = fitted.decision_function(x[train]).mean()
    return Nested(scores, chosen, centre, inner)


def _centred(estimator: Any, x: Array, y: Array, fold: NDArray[np.intp]) -> Array:
    """Held-out scores of rows, less the mean score of the rows of their fit: shape (n,)."""
    scores = np.empty(len(y))
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        fitted = clone(estimator).fit(x[train], y[train])
        scores[test] = fitted.decision_function(x[test]) - fitted.decision_function(x[train]).mean()
    return scores


def best_threshold(scores: ArrayLike, y: ArrayLike) -> float:
    """The score above which to say bad, so that the mean of the shares of good and of bad named rightly is largest.

    Between two scores; in the middle of all that are as good. Arrays of shape (n,).
    """
    scores, y = np.asarray(scores, np.float64), np.asarray(y, np.float64)
    order = np.argsort(scores, kind="stable")
    ranked, bad = scores[order], y[order]
    right = np.cumsum(1 - bad) / max(1, (1 - bad).sum()) - np.cumsum(bad) / max(1, bad.sum())
    possible = np.append(ranked[1:] > ranked[:-1], True)
    right = np.where(possible, right, -np.inf)
    if right.max() <= 0:
        return float(np.median(scores))
    cuts = np.flatnonzero(right >= right.max() - 1e-12)
    cut = cuts[len(cuts) // 2]
    return float(0.5 * (ranked[cut] + ranked[min(cut + 1, len(ranked) - 1)]))
