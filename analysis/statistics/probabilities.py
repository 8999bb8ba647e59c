"""How far stated probabilities are right: what share is bad among samples given about the same probability."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .rates import wilson


def calibration_curve(probability: ArrayLike, bad: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Stated against observed shares of bad samples.

    Bins hold equally many samples, as nearly as can be. Columns: predicted (mean probability), observed, lo, hi
    (Wilson), n.
    """
    probability, bad = np.asarray(probability, float), np.asarray(bad, float)
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    n = np.array([len(part) for part in parts])
    seen = np.array([bad[part].sum() for part in parts])
    low, high = wilson(seen, n)
    predicted = [float(probability[part].mean()) for part in parts]
    return pd.DataFrame({"predicted": predicted, "observed": seen / n, "lo": low, "hi": high, "n": n})


def calibration_error(curve: pd.DataFrame) -> float:
    """Mean distance of observed from predicted over the samples of a `calibration_curve`."""
    return float(np.average((curve["observed"] - curve["predicted"]).abs(), weights=curve["n"]))
