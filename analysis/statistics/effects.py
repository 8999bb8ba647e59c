"""How large a difference is, whatever its p: standardised differences of held-out scores, and what AUCs are in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from scipy.stats import t as student

from ...errors import HandscopeError
from .arrays import binary, numbers
from .folds import codes
from .intervals import bootstrap_weights, rarer_groups, widening


@dataclass(frozen=True)
class Effect:
    """A standardised mean difference of held-out scores, bad less good, with its 95% interval."""

    d: float
    interval: tuple[float, float]


def d_of_auc(auc: ArrayLike) -> NDArray[np.float64]:
    """Standardised difference of two normals of equal spread that gives this AUC: sqrt(2) times its normal quantile.

    >>> d_of_auc([0.5, 0.6, 0.76]).round(2).tolist()
    [0.0, 0.36, 1.0]
    """
    return np.sqrt(2) * norm.ppf(np.asarray(auc, np.float64))


def auc_of_d(d: ArrayLike) -> NDArray[np.float64]:
    """The AUC of two normals of equal spread whose means are `d` standard deviations apart; `d_of_auc` undone."""
    return norm.cdf(np.asarray(d, np.float64) / np.sqrt(2))


def effect_size(
    scores: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    fold: ArrayLike,
    null: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Effect:
    """Standardised mean difference of held-out scores.

    Parameters
    ----------
    scores : array of shape (n,), held-out projections or log-odds, larger for bad
    y : array of shape (n,), 1 for bad and 0 for good
    groups : array of shape (n,), the prompt of each sample
    fold : int array of shape (n,); scores are compared inside their fold, whose fit gave them their scale
    null : AUCs of fits to permuted labels, which widen the interval as in `bootstrap_auc`

    Raises
    ------
    HandscopeError
        No fold has two samples of each class, or the scores do not vary.

    Notes
    -----
    Hedges' g: the difference of means over the pooled standard deviation of the classes, times 1 - 3 / (4 n - 9)
    (Hedges 1981), in each fold; folds count as their numbers of pairs n_bad n_good / (n_bad + n_good). The interval is
    g ± t s, s from drawing prompts.
    """
    y = binary(y)
    groups, fold = codes(groups, len(y)), codes(fold, len(y))
    weights = np.concatenate([np.ones((1, groups.max() + 1)), bootstrap_weights(groups, draws, seed)])[:, groups]
    values = _pooled(numbers(scores, "scores").astype(np.float64), y, fold, weights)
    if np.isnan(values[0]):
        raise HandscopeError(
            f"An effect size needs a fold with two good and two bad samples whose scores vary; {int(y.sum())} of "
            f"{len(y)} samples are bad, in {fold.max() + 1} folds. Ask for fewer folds, or label more samples."
        )
    held = rarer_groups(y, groups)
    widened = 1.0 if null is None else widening(scores, y, groups, null, fold, seed=seed)
    half = float(widened * student.ppf(0.975, max(held - 1, 1)) * np.nanstd(values[1:]))
    return Effect(float(values[0]), (float(values[0]) - half, float(values[0]) + half))


def _pooled(
    scores: NDArray[np.float64], y: NDArray[np.float64], fold: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Hedges' g over folds, for each row of `weights` (draws, n): shape (draws,), NaN where no fold can tell."""
    total, size = np.zeros((2, len(weights)))
    for one in np.unique(fold):
        inside = fold == one
        s, w = scores[inside], weights[:, inside]
        count, mean, square = [], [], []
        for label in (1, 0):
            part = w * (y[inside] == label)
            n = part.sum(1)
            m = part @ s / np.maximum(n, 1)
            count.append(n)
            mean.append(m)
            square.append((part * np.square(s - m[:, None])).sum(1))
        n = count[0] + count[1]
        spread = np.sqrt((square[0] + square[1]) / np.maximum(n - 2, 1))
        usable = (np.minimum(*count) >= 2) & (spread > 1e-12 * np.abs(s).max())
        g = (mean[0] - mean[1]) / np.where(usable, spread, 1) * (1 - 3 / np.maximum(4 * n - 9, 1))
        size_here = np.where(usable, count[0] * count[1] / np.maximum(n, 1), 0)
        total += size_here * g
        size += size_here
    return np.divide(total, size, out=np.full(len(total), np.nan), where=size > 0)
