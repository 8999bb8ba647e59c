"""Kaplan and Meier's estimate of when something has happened, where for some it never did while one watched."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import CensoredData, ecdf

from ...brief import brief
from ...errors import HandscopeError
from .arrays import binary, numbers
from .folds import codes
from .intervals import jackknife_interval


@dataclass(frozen=True, eq=False)
class Survival:
    """The share in which it has not happened yet.

    Attributes
    ----------
    times : float array of shape (k,), ascending: where it happened at least once
    share : float array of shape (k,), after each of these times
    low, high : float arrays of shape (k,), pointwise 95% intervals (log-log, Greenwood's variance; or over groups)
    n, events : int
    """

    times: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: int
    events: int

    __repr__ = brief

    @property
    def median(self) -> float | None:
        """The first time at which it has happened in half; None where that was not seen."""
        below = np.flatnonzero(self.share <= 0.5)
        return float(self.times[below[0]]) if len(below) else None


def kaplan_meier(times: ArrayLike, happened: ArrayLike, groups: ArrayLike | None = None) -> Survival:
    """The product-limit estimate (Kaplan and Meier 1958).

    Parameters
    ----------
    times : array of shape (n,)
        When it happened, or until when it was watched without happening.
    happened : bool array of shape (n,)
    groups : array of shape (n,), optional
        The prompt of each: bounds are then those of `jackknife_interval` over prompts. Greenwood's variance takes
        samples as independent, and covers 72 to 85 of 100 where those of a prompt are alike.

    Raises
    ------
    HandscopeError
        There is nothing to estimate from, or a time is not finite.
    """
    t, event = numbers(times, "times").astype(np.float64), binary(happened, "whether it happened") > 0
    if t.ndim != 1 or t.shape != event.shape or not len(t):
        raise HandscopeError(
            f"Expected times and whether it happened, of one shape (n,), found {t.shape} and {event.shape}."
        )
    left = ecdf(CensoredData(uncensored=t[event], right=t[~event])).sf
    with warnings.catch_warnings():
        # Where nobody is left the variance of the logarithm has no value; the bounds are then 0.
        warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
        bounds = left.confidence_interval(0.95, method="log-log")
    seen = np.isin(left.quantiles, t[event])  # it also has the times at which one was only watched until then
    share = left.probabilities[seen]
    low, high = (np.where(share == 0, 0.0, bound.probabilities[seen]) for bound in (bounds.low, bounds.high))
    if groups is not None:
        low, high = _over_groups(t, event, codes(groups, len(t)), left.quantiles[seen], share)
    return Survival(left.quantiles[seen], share, low, high, len(t), int(event.sum()))


def _over_groups(
    t: NDArray[np.float64],
    event: NDArray[np.bool_],
    group: NDArray[np.intp],
    at: NDArray[np.float64],
    share: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    without = []
    for one in range(group.max() + 1):
        kept = group != one
        left = ecdf(CensoredData(uncensored=t[kept & event], right=t[kept & ~event])).sf if kept.any() else None
        without.append(left.evaluate(at) if left is not None else np.full(len(at), np.nan))
    bounds = [
        jackknife_interval(value, column) if 0 < value < 1 else (value, value)
        for value, column in zip(share, np.array(without).T)
    ]
    low, high = np.array(bounds).reshape(-1, 2).T
    return low, high
