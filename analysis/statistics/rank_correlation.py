"""Kendall's tau-b and Spearman's rho with intervals over groups: whether one order of samples follows another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ...errors import HandscopeError
from .arrays import numbers
from .folds import codes
from .intervals import jackknife_interval

Array = NDArray[np.float64]
ROWS = 1024
"""Rows of a matrix of pairs that are in memory at a time."""


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with its 95% interval over groups; NaN where nothing varies."""

    value: float
    lo: float
    hi: float


def kendall(x: ArrayLike, y: ArrayLike, groups: ArrayLike, within: bool = False) -> Correlation:
    """Kendall's tau-b: pairs that both put in one order less those they do not, over the root of the pairs they tell.

    Parameters
    ----------
    x, y : arrays of shape (n,)
    groups : array of shape (n,), the prompt of each sample
    within : count pairs of one group only

    Notes
    -----
    (C - D) / sqrt(T_x T_y), T the pairs without a tie (Kendall 1945). The interval is `jackknife_interval` over groups.
    """
    x, y, group = _given(x, y, groups)
    count = int(group.max()) + 1
    every, own = np.zeros((2, 3, count))
    for first in range(0, len(x), ROWS):
        rows = slice(first, first + ROWS)
        one, other = (np.sign(v[rows, None] - v) for v in (x, y))
        same = group[rows, None] == group
        for k, pairs in enumerate((one * other, np.square(one), np.square(other))):
            every[k] += np.bincount(group[rows], pairs.sum(1), count)
            own[k] += np.bincount(group[rows], (pairs * same).sum(1), count)
    if within:
        every = own
    whole = every.sum(1)
    # Without a group: its pairs with all others count twice in the sum over ordered pairs, those of its own once.
    without = whole[:, None] - (own if within else 2 * every - own)
    return _correlation(_tau(whole), _tau(without))


def _tau(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[0] / np.sqrt(sums[1] * sums[2])


def spearman(x: ArrayLike, y: ArrayLike, groups: ArrayLike) -> Correlation:
    """Spearman's rho: Pearson's correlation of ranks, ties at their mean rank; ranks are made anew without each group.

    Parameters
    ----------
    x, y, groups : as for `kendall`
    """
    x, y, group = _given(x, y, groups)
    weights = 1.0 - np.eye(int(group.max()) + 1)[:, group]
    values = _weighted_rho(x, y, np.concatenate([np.ones((1, len(x))), weights]))
    return _correlation(values[0], values[1:])


def _weighted_rho(x: Array, y: Array, weights: Array) -> Array:
    """Spearman's rho where samples count so often: weights (k, n) to (k,)."""
    sides = []
    for values in (x, y):
        ranks = _weighted_ranks(values, weights)
        sides.append(ranks - (weights * ranks).sum(1, keepdims=True) / weights.sum(1, keepdims=True))
    products = [(weights * a * b).sum(1) for a, b in ((sides[0], sides[1]), (sides[0], sides[0]), (sides[1], sides[1]))]
    with np.errstate(divide="ignore", invalid="ignore"):
        return products[0] / np.sqrt(products[1] * products[2])


def _weighted_ranks(values: Array, weights: Array) -> Array:
    """Mean ranks of samples that count so often: (n,) and (k, n) to (k, n)."""
    level = np.unique(values, return_inverse=True)[1].ravel()
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(sizes, 1) - sizes / 2 + 0.5)[:, level]


def spearman_null(x: ArrayLike, labellings: ArrayLike) -> Array:
    """Rho of x (n,) with each of many permuted y (permutations, n), which all have the same values: (permutations,)."""
    one = rankdata(numbers(x, "scores"))
    others = rankdata(np.asarray(labellings, np.float64), axis=1)
    one, others = one - one.mean(), others - others.mean(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return others @ one / np.sqrt(np.square(one).sum() * np.square(others).sum(1))


def _given(x: ArrayLike, y: ArrayLike, groups: ArrayLike) -> tuple[Array, Array, NDArray[np.intp]]:
    one, other = (numbers(v, what).astype(np.float64) for v, what in ((x, "scores"), (y, "ratings")))
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise HandscopeError(f"Expected scores and ratings of one shape (n,), found {one.shape} and {other.shape}.")
    return one, other, codes(groups, len(one))


def _correlation(value: Array, without: Array) -> Correlation:
    if np.isnan(value) or len(without) < 2:
        return Correlation(float(value), float("nan"), float("nan"))
    return Correlation(float(value), *jackknife_interval(float(value), without, (-1.0, 1.0)))
