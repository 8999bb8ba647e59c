"""Which kinds of fault an implausible hand shows: the names that the subject has for them, from what was measured."""

from __future__ import annotations

from .reasons import outside
from .scoring import LEAST_SHARE, Scores

OF_EVIDENCE = {"web": "fused", "digit": "missing"}
"""Kinds of evidence that speak of one fault."""
OTHER = "other"


def kinds_of(scores: Scores) -> list[tuple[str, ...]]:
    """Of each hand the kinds of fault that speak against it, none for one that is not implausible.

    ``count``: another number than five is counted; ``joint``: a joint beyond its range; ``proportion``: a digit of an
    unusual length; ``fused`` and ``missing``: what the calibrated score weighs of digits that run together, and that
    are not drawn where the skeleton has them; ``other`` where none of these stands out. They are what the scorer sees,
    and no more sure than its verdict.
    """
    read = scores.examined
    joints, digits = outside(read.angles, read.ratios)
    bent, long = joints.any(1).tolist(), digits.any(1).tolist()
    found = []
    for i, (verdict, number) in enumerate(zip(scores.verdicts, read.count.tolist(), strict=True)):
        if verdict.plausible is not False:
            found.append(())
            continue
        said = {"count": number not in (-1, 5), "joint": bent[i], "proportion": long[i]}
        for evidence, kind in OF_EVIDENCE.items():
            said[kind] = scores.method == "calibrated" and -verdict.subscores.get(evidence, 0.0) >= LEAST_SHARE
        found.append(tuple(kind for kind, one in said.items() if one) or (OTHER,))
    return found
