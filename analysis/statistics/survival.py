"""Kaplan and Meier's estimate of when something has happened, where for some it never did while one watched."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import CensoredData, ecdf

from ...errors import HandscopeError


@dataclass(frozen=True, eq=False)
class Survival:
    """The share in which it has not happened yet.

    Attributes
    ----------
    times : float array of shape (k,), ascending: where it happened at least once
    share : float array of shape (k,), after each of these times
    low, high : float arrays of shape (k,), pointwise 95% intervals (log-log, Greenwood's variance)
    n, events : int
    """

    times: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: int
    events: int

    @property
    def median(self) -> float | None:
        """The first time at which it has happened in half; None where that was not seen."""
        below = np.flatnonzero(self.share <= 0.5)
        return float(self.times[below[0]]) if len(below) else None


def kaplan_meier(times: ArrayLike, happened: ArrayLike) -> Survival:
    """The product-limit estimate (Kaplan and Meier 1958).

    Parameters
    ----------
    times : array of shape (n,)
        When it happened, or until when it was watched without happening.
    happened : bool array of shape (n,)

    Raises
    ------
    HandscopeError
        There is nothing to estimate from, or a time is not finite.
    """
    t, event = np.asarray(times, np.float64), np.asarray(happened, bool)
    if t.ndim != 1 or t.shape != event.shape or not len(t) or not np.isfinite(t).all():
        raise HandscopeError(
            f"Expected finite times and whether it happened, of one shape (n,), found {t.shape} and {event.shape}."
        )
    left = ecdf(CensoredData(uncensored=t[event], right=t[~event])).sf
    with warnings.catch_warnings():
        # Where nobody is left the variance of the logarithm has no value; the bounds are then 0.
        warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
        bounds = left.confidence_interval(0.95, method="log-log")
    seen = np.isin(left.quantiles, t[event])  # it also has the times at which one was only watched until then
    share = left.probabilities[seen]
    low, high = (np.where(share == 0, 0.0, bound.probabilities[seen]) for bound in (bounds.low, bounds.high))
    return Survival(left.quantiles[seen], share, low, high, len(t), int(event.sum()))
