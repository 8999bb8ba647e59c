"""Shares of bad samples, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm


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


def rates_by(factors: pd.DataFrame, bad: ArrayLike) -> pd.DataFrame:
    """Share of bad samples at each level of each factor.

    Parameters
    ----------
    factors : DataFrame, a row a sample and a column a factor
    bad : array of shape (n,), 1 for bad and 0 for good

    Returns
    -------
    DataFrame with factor, level, bad, n, rate, lo, hi; levels in the order in which they come
    """
    verdict = pd.Series(np.asarray(bad, np.float64), index=factors.index)
    parts = []
    for factor in factors.columns:
        part = verdict.groupby(factors[factor], sort=False).agg(bad="sum", n="count").rename_axis("level").reset_index()
        part.insert(0, "factor", factor)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["factor", "level", "bad", "n"])
    table = table.astype({"bad": int, "n": int})
    table["rate"] = table["bad"] / table["n"]
    table["lo"], table["hi"] = wilson(table["bad"], table["n"])
    return table
