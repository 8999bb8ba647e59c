"""Verdicts as those who know no hands read them: instances with an outcome, and the subject's kinds of fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .reasons import outside
from .scoring import LEAST_SHARE, Scores, score

if TYPE_CHECKING:
    import pandas as pd

OF_EVIDENCE = {"web": "fused", "digit": "missing"}
"""Kinds of evidence that speak of one fault."""
OTHER = "other"


def instance_table(scores: Scores) -> pd.DataFrame:
    """A row a hand, and one for each picture without: image, instance (0 where none was found), outcome, faults, score.

    Faults are those of `kinds_of`, with ``;`` between.
    """
    table = scores.table().rename(columns={"hand": "instance"})
    faults = iter(";".join(kinds) for kinds in kinds_of(scores))
    table["faults"] = [next(faults) if number else "" for number in table["instance"]]
    return table[["image", "instance", "outcome", "faults", "score"]]


def soundness(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The least score of each picture's hands, (n,), higher for more plausible; -inf where none was found."""
    scores = score(list(pictures))
    least = np.full(len(pictures), np.inf)
    for image, verdict in zip(scores.examined.hands.image.tolist(), scores.verdicts, strict=True):
        least[image] = min(least[image], verdict.score if verdict.score is not None else 0.0)
    return np.where(np.isinf(least), -np.inf, least)


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
    found: list[tuple[str, ...]] = []
    for i, (verdict, number) in enumerate(zip(scores.verdicts, read.count.tolist(), strict=True)):
        if verdict.plausible is not False:
            found.append(())
            continue
        said = {"count": number not in (-1, 5), "joint": bent[i], "proportion": long[i]}
        for evidence, kind in OF_EVIDENCE.items():
            said[kind] = scores.method == "calibrated" and -verdict.subscores.get(evidence, 0.0) >= LEAST_SHARE
        found.append(tuple(kind for kind, one in said.items() if one) or (OTHER,))
    return found
