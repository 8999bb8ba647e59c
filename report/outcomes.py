"""Claims of the stages that look at when pictures are decided, and at what mends them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..analysis.statistics.multiple import benjamini_hochberg
from ..labeling.subject import Subject
from .claims import Claim, Columns, claim_of

STEPS = Columns("difference", name="difference", null=0.0, unit="steps")
FALL = Columns("fall", name="a fall of", null=0.0, unit="points")


def own_tolerance(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of commitment_summary.csv at each region's own tolerance, the middle of those that were tried."""
    parts = []
    for _, rows in summary.groupby("region", sort=False):
        tolerances = sorted(rows["tolerance"].unique())
        parts.append(rows[np.isclose(rows["tolerance"], tolerances[len(tolerances) // 2])])
    return pd.concat(parts)


def decided_later(summary: pd.DataFrame, subject: Subject) -> Claim:
    """Whether bad samples are decided later than good ones of the same prompt, region by region."""
    rows = own_tolerance(summary)
    rows = rows[rows["group"] == "bad"].rename(columns={"difference_lo": "lo", "difference_hi": "hi"})
    rows = rows.assign(q=benjamini_hochberg(rows["p"].astype(float)))
    bad, good = (subject.verdicts[side] for side in ("bad", "good"))
    return claim_of(
        f"Are {bad} {subject.plural} decided later?",
        "decided later",
        f"{bad} {subject.plural} are decided later than {good} ones of the same prompt",
        f"n = {int(rows['n'].max())} {bad} ones",
        rows,
        STEPS,
        each="region",
        reason="no prompt has both kinds with a shape at the end",
    )


def mended(arms: pd.DataFrame, subject: Subject) -> Claim:
    """Whether an arm lowers the malformed rate, against the baseline and against each of its controls."""
    rows = arms.iloc[1:]
    rows = rows[rows["family"] != "control"]
    # An arm must beat the baseline and every control, so the largest p is that of the whole.
    p = np.fmax(rows["p"].astype(float), rows["control_p"].astype(float))
    rows = rows.assign(fall=-100 * rows["difference"], lo=-100 * rows["high"], hi=-100 * rows["low"], p=p)
    rows["q"] = benjamini_hochberg(rows["p"])
    before = 100 * float(arms.iloc[0]["before"])
    return claim_of(
        "Can it be mended?",
        "mended",
        f"an arm lowers the share of malformed {subject.plural}, which is {before:.0f}% when nothing is done, and more "
        "so than each of its controls",
        f"n = {int(arms.iloc[0]['n'])} pairs",
        rows,
        FALL,
        each="arm",
        notes=["By the organism's judge: a blind look decides."],
    )
