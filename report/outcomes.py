"""Claims of the stages that look at when pictures are decided, at what mends them, and at what carries a fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from ..analysis.statistics.multiple import benjamini_hochberg
from ..labeling.subject import Subject
from .claims import Claim, Columns, claim_of

STEPS = Columns("difference", name="difference", null=0.0, unit="steps")
FALL = Columns("fall", name="a fall of", null=0.0, unit="points")
MOVED = Columns("moved", name="probability of bad moved by", null=0.0)


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


def patched(table: pd.DataFrame) -> Claim:
    """Whether activations of the other class move the verdict, and more than the latents of the same region do."""
    every = table[(table["arm"] == "donor") & (table["direction"] == "both")]
    moved = _moved(every, "moved", "the donor's activations")
    parts = [_moved(every, f"beyond_{name}", words) for name, words in BEYOND.items() if f"beyond_{name}" in every]
    beyond = next((part for part in parts if part.topic == BEYOND["latents"]), None)
    if beyond is None:
        return moved
    return replace(
        beyond,
        question="Which activations carry the fault?",
        topic="interchange",
        says="a donor's activations, put into a sample at one block and step, move the verdict further towards the "
        "donor's class than the donor's noisy latents of the same region do, put in at that step",
        parts=(moved, *(part for part in parts if part is not beyond)),
        notes=("By the organism's judge; one cell at a time, and a later block may write anew what was changed.",),
    )


BEYOND = {
    "latents": "beyond the latents of the region",
    "own_class": "beyond a donor of the recipient's own class",
    "other_prompt": "beyond a donor of another prompt",
    "elsewhere": "beyond as many tokens elsewhere",
}


def _moved(every: pd.DataFrame, name: str, words: str) -> Claim:
    rows = every.dropna(subset=[name])
    kept = {"block": rows["block"], "step": rows["step"], "moved": rows[name]}
    test = "" if name == "moved" else f"{name}_"
    ends = {"lo": rows[f"{name}_lo"], "hi": rows[f"{name}_hi"]}
    # A cell that moves less than its control does not speak for the claim, however surely.
    ends |= {one: rows[f"{test}{one}"].where(rows[name] > 0, 1.0) for one in ("p", "q")}
    n = rows["n" if name == "moved" else f"{name}_n"].max() if len(rows) else 0
    says = f"{words} move the judged verdict towards the donor's class"
    return claim_of(words, words, says, f"n = {int(n)} pairs", pd.DataFrame({**kept, **ends}), MOVED)
