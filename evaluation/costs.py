"""What an arm's pictures took, and what a good one of them took."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .rates import MAIN, PICTURE


def costs(pictures: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm whose calls of a transformer are known; given pictures took none that is.

    Parameters
    ----------
    pictures : as of `handscope.evaluation.scored.Scored`
    rates : as of `handscope.evaluation.rates.rates`

    Columns
    -------
    arm
    calls, seconds : mean calls of the transformer for each picture, and the median of its seconds
    calls_per_good, calls_per_good_lo, calls_per_good_hi : calls over the share of plausible pictures, with the interval
        of that share
    rate, lo, hi : of implausible pictures
    """
    main = rates[(rates["unit"] == PICTURE) & (rates["measure"] == MAIN)].set_index("arm")
    rows = []
    for arm, own in pictures.groupby("arm", sort=False):
        calls = float(own["calls"].astype(float).mean())
        if not calls > 0 or not main.loc[arm, "n"]:
            continue
        rate, low, high = (float(main.loc[arm, name]) for name in ("rate", "lo", "hi"))
        each = [calls / (1 - share) if share < 1 else np.inf for share in (rate, low, high)]
        rows.append([arm, calls, float(own["seconds"].median()), *each, rate, low, high])
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = ["arm", "calls", "seconds", "calls_per_good", "calls_per_good_lo", "calls_per_good_hi", "rate", "lo", "hi"]
