"""Shares of bad samples, with intervals that know which samples are alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm
from scipy.stats import t as student

from .arrays import binary
from .folds import codes
from .intervals import jackknife_interval


def wilson(bad: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's interval of a share: `bad` of `n`, arrays of one shape, to lower and upper bounds.

    Notes
    -----
    (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)  (Wilson 1927). Samples count as independent.
    """
    bad, n = np.asarray(bad, np.float64), np.asarray(n, np.float64)
    z = norm.ppf(0.5 + level / 2)
    share = bad / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def clustered_share(bad: ArrayLike, groups: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """A share of bad samples with its interval, where samples of a group are alike.

    Parameters
    ----------
    bad : array of shape (n,), 1 for bad and 0 for good
    groups : array of shape (n,), the prompt of each sample; with as many groups as samples, these are independent

    Returns
    -------
    The share, and its lower and upper bound

    Notes
    -----
    `jackknife_interval` over groups; one group tells nothing of others. Where all groups have the same share they do
    not tell how far others may be from it: then groups are counted as one sample each, by `wilson`. Where one group
    alone has all that is bad, or all that is good, the jackknife leaves nothing: then samples are counted by the exact
    interval of Clopper and Pearson, their number divided by the design effect and by the square of t with m - 1 over t
    with n - 1 degrees of freedom (Korn and Graubard 1998, Survey Methodology 24).
    """
    values, group = binary(bad), codes(groups)
    n, some = np.bincount(group), np.bincount(group, values)
    share, m = float(values.mean()), len(n)
    if m < 2:
        return share, 0.0, 1.0
    if np.ptp(some / n) == 0:
        low, high = wilson(share * m, m, level)
        return share, float(low), float(high)
    if min(np.count_nonzero(some), np.count_nonzero(n - some)) == 1:
        return share, *_exact(share, n, some, level)
    return share, *jackknife_interval(share, (some.sum() - some) / (n.sum() - n), level=level)


def _exact(share: float, n: NDArray, some: NDArray, level: float) -> tuple[float, float]:
    """Korn and Graubard's interval of a share, from samples and bad ones of each group, (m,) both."""
    whole, m, tail = n.sum(), len(n), (1 - level) / 2
    spread = m / (m - 1) * np.square((some - share * n) / whole).sum()
    design = max(1.0, spread / (share * (1 - share) / whole))
    told = whole / design * (student.ppf(1 - tail, max(whole - 1, 1)) / student.ppf(1 - tail, m - 1)) ** 2
    bad = share * told
    return float(beta.ppf(tail, bad, told - bad + 1)), float(beta.ppf(1 - tail, bad + 1, told - bad))


def rates_by(factors: pd.DataFrame, bad: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """Share of bad samples at each level of each factor.

    Parameters
    ----------
    factors : DataFrame, a row a sample and a column a factor
    bad : array of shape (n,), 1 for bad and 0 for good
    groups : array of shape (n,), the prompt of each sample

    Returns
    -------
    DataFrame with factor, level, bad, n, groups, rate, lo, hi; levels in the order in which they come, intervals as of
    `clustered_share`
    """
    verdict = np.asarray(bad, np.float64)
    group = np.asarray(groups)
    rows = []
    for factor in factors.columns:
        values = factors[factor].to_numpy()
        for one in factors[factor].dropna().drop_duplicates():
            inside = values == one
            rate, low, high = clustered_share(verdict[inside], group[inside])
            rows.append(
                {
                    "factor": factor, "level": one, "bad": int(verdict[inside].sum()), "n": int(inside.sum()),
                    "groups": len(np.unique(group[inside])), "rate": rate, "lo": low, "hi": high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["factor", "level", "bad", "n", "groups", "rate", "lo", "hi"])
