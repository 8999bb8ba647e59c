"""What labels that mean nothing would give: permuted labellings, and p values against them.

Permuted labels keep the clustering that prompts give them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from .arrays import numbers
from .folds import codes

ALIKE = 8
"""At least so many prompts of about one size exchange labels, where prompts have different numbers of samples."""


def permuted_labels(
    y: ArrayLike,
    groups: ArrayLike,
    permutations: int,
    seed: int = 0,
    fold: ArrayLike | None = None,
    within: bool = False,
) -> NDArray[np.float64]:
    """Labellings that would be as likely as the observed one if the labels had nothing to do with the samples.

    Parameters
    ----------
    y : array of shape (n,)
    groups : array of shape (n,), the prompt of each sample
    fold : int array of shape (n,), optional; leave out labellings with only one class outside some fold, since nothing
        can be fitted to them
    within : permute inside each prompt only, so that a prompt keeps its rate; this is the null of a within-prompt AUC

    Returns
    -------
    float64 array of shape (permutations, n), or fewer rows where `fold` leaves some out

    Notes
    -----
    Unless `within`, labels are permuted inside prompts and then whole prompts change places, so that the labels stay as
    clustered as they were: permuting them freely would make the null too narrow wherever prompts differ in their rates.
    Prompts change places with others of about their size: one that takes the place of a larger one gives some labels
    twice, and in place of a smaller one not all. With one sample a prompt it is the plain permutation.
    """
    y = numbers(y, "labels").astype(np.float64)
    group = codes(groups, len(y))
    if permutations < 0:
        raise HandscopeError(f"Expected a number of permutations of at least 0, found {permutations}.")
    rng = np.random.default_rng([seed, int(within)])
    size = np.bincount(group)
    start = np.cumsum(size) - size
    rank = np.empty(len(y), np.intp)
    rank[np.argsort(group, kind="stable")] = np.arange(len(y)) - np.repeat(start, size)
    sizes = np.array_split(np.argsort(size, kind="stable"), max(1, len(size) // ALIKE if np.ptp(size) else 1))
    out = np.empty((permutations, len(y)))
    for row in out:
        shuffled = y[np.lexsort((rng.random(len(y)), group))]
        donor = np.arange(len(size))
        if not within:
            for alike in sizes:
                donor[alike] = rng.permutation(alike)
        row[:] = shuffled[start[donor[group]] + rank % size[donor[group]]]
    if fold is None:
        return out
    outside = np.stack([out[:, np.asarray(fold) != one].mean(1) for one in np.unique(fold)])
    return out[((outside > 0) & (outside < 1)).all(0)]


def p_value(observed: float, null: ArrayLike) -> float:
    """One-sided permutation p value: the share of the null, the observed value counted in, that is at least as large.

    Phipson and Smyth (2010): it is never 0. NaN when the observed value is.
    """
    values = np.asarray(null, np.float64)
    values = values[~np.isnan(values)]
    if np.isnan(observed) or len(values) == 0:
        return float("nan")
    return float((1 + (values >= observed).sum()) / (1 + len(values)))


def p_floor(observed: ArrayLike, labellings: ArrayLike, null: ArrayLike) -> float:
    """The smallest p that a null could have given: the share of labellings, the observed one among them, that are it.

    Parameters
    ----------
    observed : array of shape (n,)
    labellings : array of shape (permutations, n)
    null : array of shape (permutations,); labellings without a value, NaN, are left out

    Returns
    -------
    float; 1 where nothing can be permuted, NaN where there is no null

    >>> p_floor([0, 1, 1], [[1, 0, 1], [0, 1, 1], [1, 1, 0]], [0.4, 0.6, 0.5])
    0.5
    """
    valued = ~np.isnan(np.asarray(null, np.float64))
    if not valued.any():
        return float("nan")
    same = (np.asarray(labellings)[valued] == np.asarray(observed)).all(1)
    return float((1 + same.sum()) / (1 + valued.sum()))


def p_values(observed: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `p_value`, for many at once without NaN: shape (...) and a null of shape (permutations, ...) to (...)."""
    return (1 + (null >= observed).sum(0)) / (1 + len(null))
