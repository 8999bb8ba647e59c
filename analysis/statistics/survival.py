"""Kaplan and Meier's estimate of when something has happened, where for some it never did while one watched."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

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
    at = np.unique(t[event])
    risk = np.array([(t >= x).sum() for x in at], float)
    deaths = np.array([(event & (t == x)).sum() for x in at], float)
    share = np.cumprod(1 - deaths / risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(deaths / (risk * (risk - deaths)))
        spread = norm.ppf(0.975) * np.sqrt(variance) / np.abs(np.log(share))
        low, high = share ** np.exp(spread), share ** np.exp(-spread)
    ended = share == 0  # nobody is left, and the variance of the logarithm has no value
    return Survival(at, share, np.where(ended, 0.0, low), np.where(ended, 0.0, high), len(t), int(event.sum()))
