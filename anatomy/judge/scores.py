"""Verdicts: the published score as it stands, and "any violation".

The source study gives S = .3 [n = 5] + .4 Π [a_i within limits] + .3 sim(r, r_ref), implausible below .5. It leaves
open, and here is chosen: `sim` (cosine similarity), the limits (active ranges of `limits.py`, no tolerance), which way
an angle counts (flexion positive), where the count comes from and what an unknown one means (the caller's count; an
unknown one passes), and what becomes of a hand that is not found (no score). With a similarity near 1, which is what
nearly every hand has, one wrong thing alone passes: see the truth table.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..measure.limits import JOINT_LIMITS, bounds, reference_ratios
from .reasons import count_reason, joint_reason, outside, violations

WEIGHTS = (0.3, 0.4, 0.3)  # count, joints, similarity
THRESHOLD = 0.5


@dataclass(frozen=True)
class Verdict:
    """What a method says of one hand.

    Attributes
    ----------
    method : "paper", "any-violation" or "calibrated".
    plausible : None where the method cannot tell.
    score : higher is more plausible. Where the method cannot tell, it lies between those that it calls implausible and
        those that it calls plausible; None where there is no hand at all.
    subscores : named parts of the score, higher is more plausible.
    reasons : what speaks against the hand, or why nothing can be said of it, in words, worst kind first; empty if
        nothing does.
    """

    method: str
    plausible: bool | None
    score: float | None
    subscores: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """"plausible", "implausible" or "cannot tell"."""
        return "cannot tell" if self.plausible is None else "plausible" if self.plausible else "implausible"


def _parts(count: Tensor, angles: Tensor, ratios: Tensor) -> Tensor:
    low, high = (end.to(angles) for end in bounds("active"))
    joints = ((angles >= low) & (angles <= high)).all(1)
    five = (count == 5) | (count == -1)
    similarity = F.cosine_similarity(ratios, reference_ratios()[0].to(ratios)[None], dim=1)
    return torch.stack([five.to(similarity), joints.to(similarity), similarity], 1)


def paper_score(count: Tensor, angles: Tensor, ratios: Tensor) -> Tensor:
    """The published score, (m,) in [0, 1].

    Parameters
    ----------
    count : (m,) int, digits that the hand has, folded ones included; -1 where unknown, which passes.
    angles : (m, 15) degrees. ratios : (m, 5).
    """
    parts = _parts(count, angles, ratios)
    return parts @ torch.tensor(WEIGHTS).to(parts)


def paper(count: Tensor, angles: Tensor, ratios: Tensor) -> list[Verdict]:
    """The published verdict of each hand; parameters as for `paper_score`."""
    parts = _parts(count, angles, ratios)
    scores = paper_score(count, angles, ratios).tolist()
    low, high = (end.to(angles) for end in bounds("active"))
    out = ((angles < low) | (angles > high)).tolist()
    verdicts = []
    for i, score in enumerate(scores):
        number = int(count[i])
        reasons = [] if number in (-1, 5) else [count_reason(number)]
        reasons += [
            joint_reason(limit, float(angles[i, j]), "active") for j, limit in enumerate(JOINT_LIMITS) if out[i][j]
        ]
        subscores = dict(zip(("count", "joints", "similarity"), parts[i].tolist(), strict=True))
        verdicts.append(Verdict("paper", score >= THRESHOLD, score, subscores, reasons))
    return verdicts


def any_violation(count: Tensor, angles: Tensor, ratios: Tensor) -> list[Verdict]:
    """Implausible if anything breaks its limit by more than its tolerance; parameters as for `paper_score`.

    Subscores are the shares of joints and digits that are in order; the score is 1 or 0.
    """
    joints, digits = outside(angles, ratios)
    five = ((count == 5) | (count == -1)).float().tolist()
    verdicts = []
    for i, reasons in enumerate(violations(count, angles, ratios)):
        subscores = {
            "count": five[i],
            "joints": 1 - float(joints[i].float().mean()),
            "proportions": 1 - float(digits[i].float().mean()),
        }
        verdicts.append(Verdict("any-violation", not reasons, float(not reasons), subscores, reasons))
    return verdicts


@dataclass(frozen=True)
class Row:
    """A line of the truth table of the published score: score = base + 0.3 × similarity."""

    five: bool
    joints: bool
    base: float
    flagged: str


def truth_table() -> list[Row]:
    """When the published score calls a hand implausible, for each combination of its two indicators."""
    rows = []
    for five in (True, False):
        for joints in (True, False):
            base = WEIGHTS[0] * five + WEIGHTS[1] * joints
            needed = (THRESHOLD - base) / WEIGHTS[2]
            if needed <= 0:
                flagged = "never"
            elif needed > 1:
                flagged = "always"
            else:
                flagged = f"only if the similarity is below {needed:.3f}"
            rows.append(Row(five, joints, round(base, 3), flagged))
    return rows
