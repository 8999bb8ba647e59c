"""Many tests at once: the false discovery rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """False discovery rate at which each hypothesis would be called, of the same shape.

    NaN stays NaN and is not counted.

    Notes
    -----
    Benjamini and Hochberg (1995), as in ``scipy.stats.false_discovery_control``. It holds for independent tests and for
    ones that depend positively (Benjamini and Yekutieli 2001, https://doi.org/10.1214/aos/1013699998): cells of one run
    are read from the same samples, so that what makes one cell's statistic large by chance makes its neighbours' large
    too, and every test is one-sided. bench/validity/false_positives.py counts what it lets through.
    """
    p = np.asarray(p, np.float64)
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q
