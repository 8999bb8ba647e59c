"""How far judges agree beyond chance: Cohen's kappa and Krippendorff's alpha, from counts that add up over samples.

Both are functions of a table of counts. Tables of single samples add up to those of prompts and of bootstrap draws, so
that an interval costs one matrix product, however many tokens were counted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from .arrays import numbers
from .folds import codes
from .intervals import jackknife_interval

Array = NDArray[np.float64]


def confusion(a: ArrayLike, b: ArrayLike, categories: int) -> Array:
    """How often judge a said i where judge b said j: int arrays of shape (n,) to counts of shape (n, K, K), summable.

    >>> confusion([0, 1, 1], [0, 1, 0], 2).sum(0)
    array([[1., 0.],
           [1., 1.]])
    """
    one = np.eye(categories)
    first, second = (numbers(votes, "votes") for votes in (a, b))
    for votes in (first, second):
        if ((votes < 0) | (votes >= categories) | (votes != np.floor(votes))).any():
            raise HandscopeError(f"Expected votes of 0 to {categories - 1}, found {votes.min():g} to {votes.max():g}.")
    return np.einsum("ni,nj->nij", one[first.astype(np.intp)], one[second.astype(np.intp)])


def cohen_kappa(counts: ArrayLike) -> Array:
    """Cohen's kappa of confusion counts: shape (..., K, K) to (...).

    Notes
    -----
    (p_o - p_e) / (1 - p_e), with the judges' own rates in p_e (Cohen 1960,
    https://doi.org/10.1177/001316446002000104). NaN where both always say the same one thing, or there is nothing: how
    far that goes beyond chance cannot be told.
    """
    table = np.asarray(counts, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = table / table.sum((-2, -1), keepdims=True)
        agree = np.trace(share, axis1=-2, axis2=-1)
        chance = (share.sum(-1) * share.sum(-2)).sum(-1)
        return np.where(1 - chance > 1e-12, (agree - chance) / (1 - chance), np.nan)


def coincidences(votes: ArrayLike) -> Array:
    """Pairs of values that judges gave to one sample: votes (n, V), how many said each, to counts (n, V, V), summable.

    A sample with m votes gives m (m - 1) ordered pairs, each with the weight 1 / (m - 1); with fewer than two, none.
    """
    votes = numbers(votes, "numbers of votes").astype(np.float64)
    pairs = votes[:, :, None] * votes[:, None, :] - votes[:, :, None] * np.eye(votes.shape[1])
    return pairs / np.maximum(votes.sum(1) - 1, 1)[:, None, None]


def krippendorff_alpha(counts: ArrayLike, ordinal: bool = False) -> Array:
    """Krippendorff's alpha of coincidence counts: shape (..., V, V) to (...).

    Parameters
    ----------
    counts : as `coincidences` makes them, summed over samples
    ordinal : values are in order, and those further apart disagree more; else all that differ disagree alike

    Notes
    -----
    1 - D_o / D_e (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability). The ordinal difference of two values
    is the number of votes from one to the other, half of those at the ends, squared. NaN where all votes are the same.
    """
    table = np.asarray(counts, np.float64)
    votes = table.sum(-1)
    if ordinal:
        middle = np.cumsum(votes, -1) - votes / 2
        difference = (middle[..., :, None] - middle[..., None, :]) ** 2
    else:
        difference = 1.0 - np.eye(table.shape[-1])
    total = votes.sum(-1)
    expected = (votes[..., :, None] * votes[..., None, :] * difference).sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (total - 1) * (table * difference).sum((-2, -1)) / expected
        return np.where(expected > 1e-12, 1 - ratio, np.nan)


def over_groups(
    statistic: Callable[[Array], Array],
    counts: ArrayLike,
    groups: ArrayLike,
) -> tuple[float, float, float]:
    """A statistic of summed counts, and its 95% interval over groups: prompts, where they repeat.

    Parameters
    ----------
    statistic : function from counts of shape (..., *) to (...), 1 where all agree
    counts : array of shape (n, *), those of each sample
    groups : array of shape (n,)

    Returns
    -------
    The value and the bounds; NaN where it is not defined, NaN bounds where one group leaves nothing to draw

    Notes
    -----
    It is `jackknife_interval` between -1 and 1. Where nobody disagreed no group matters: the lower bound is the value
    if the share 1 - 0.025 ** (1 / m) of all counts were disagreements, spread as chance spreads them: m groups without
    one leave that possible at 2.5%.
    """
    counts = np.asarray(counts, np.float64)
    if not len(counts):
        return float("nan"), float("nan"), float("nan")
    group = codes(groups)
    m = int(group.max()) + 1
    summed = np.zeros((m, *counts.shape[1:]))
    np.add.at(summed, group, counts)
    value = float(statistic(summed.sum(0)))
    if np.isnan(value) or m < 2:
        return value, float("nan"), float("nan")
    if value > 1 - 1e-12:
        return 1.0, _unseen(statistic, summed.sum(0), 1 - 0.025 ** (1 / m)), 1.0
    return value, *jackknife_interval(value, statistic(summed.sum(0) - summed), (-1.0, 1.0))


def _unseen(statistic: Callable[[Array], Array], counts: Array, share: float) -> float:
    """The statistic if a share of all counts were disagreements spread as chance spreads them."""
    if counts.ndim < 2:
        return 1 - share
    total = counts.sum((-2, -1), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = counts.sum(-1)[..., :, None] * counts.sum(-2)[..., None, :] / total
        apart = chance * (1 - np.eye(counts.shape[-1]))
        return float(statistic((1 - share) * counts + share * total * apart / apart.sum((-2, -1), keepdims=True)))
