"""How far joints go and how long digits are: numbers with their sources, as data.

`docs/anatomy_scores.md` prints these tables; a test keeps it equal. All sources were read in tables and code that quote
them, not in the papers themselves. The source study cites An et al. 1979 for its limits; that paper gives joint centres
and tendons, not ranges of motion.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..read.skeleton import DIGITS, JOINTS, PAIRS

AAOS = "AAOS/ASHT goniometry tables"
EATON = "clinical tables after Eaton (e-hand)"
MODEL = "kinematic hand models after Peña-Pitarch and Sancho-Bru"
FUNCTIONAL = "26-degree-of-freedom functional model, after AAOS and papers"
ENVELOPE = "chosen here: the widest source and a little more, since contact pushes fingers further"
CHATZIOGLOU = "Chatzioglou 2024, 51 adults, mean + 3 sd"


@dataclass(frozen=True)
class Limit:
    """The range of one angle, degrees of flexion (or of spread, for two digits).

    Attributes
    ----------
    name : of `JOINTS`, or two digits.
    active : what a hand does by itself. passive : what it can be pushed to.
    tolerance : the reading error that is allowed beyond either. Landmarks of photographs are off by 2 degrees in the
        median and 10 in one of twenty between two implementations of one network, and by more against the truth.
    active_source, passive_source : where the numbers come from.
    """

    name: str
    active: tuple[float, float]
    passive: tuple[float, float]
    tolerance: float
    active_source: str
    passive_source: str


def _joint(name: str) -> Limit:
    digit, joint = name.split()
    if joint == "CMC":
        # As read here, flexion of this joint holds palmar abduction too, so its upper end is that of abduction.
        return Limit(name, (-25, 35), (-30, 75), 20, MODEL, f"{ENVELOPE}; palmar abduction (60 to 75) included")
    if digit == "thumb":
        active, passive = {"MCP": ((-10, 55), (-20, 90)), "IP": ((-15, 80), (-30, 95))}[joint]
        return Limit(name, active, passive, 15, EATON, ENVELOPE)
    if joint == "MCP":
        return Limit(name, (-45, 90), (-50, 105) if digit == "little" else (-45, 100), 15, AAOS, ENVELOPE)
    if joint == "PIP":
        return Limit(name, (-5, 110), (-15, 120), 15, FUNCTIONAL, ENVELOPE)
    return Limit(name, (-10, 90), (-30, 95), 15, MODEL, ENVELOPE)


JOINT_LIMITS = tuple(_joint(name) for name in JOINTS)
_SPREAD = {"thumb": (53.4, 6.5), "index": (17.2, 2.6), "middle": (14.3, 2.3), "ring": (32.1, 7.0)}
# Fingers can cross a little; the thumb crosses the whole palm.
SPREAD_LIMITS = tuple(
    Limit(
        f"{a}-{b}",
        (-60 if a == "thumb" else 0, _SPREAD[a][0]),
        (-60 if a == "thumb" else -15, round(_SPREAD[a][0] + 3 * _SPREAD[a][1], 1)),
        15,
        "Chatzioglou 2024, 51 adults, mean",
        CHATZIOGLOU,
    )
    for a, b in PAIRS
)


@dataclass(frozen=True)
class Ratio:
    """Length of a digit over the middle finger's: by X-ray, and as this detector reads it.

    Attributes
    ----------
    digit : of `DIGITS`. xray : Buryanov and Kotiuk 2010, 66 adults, phalanges and pulp.
    reference, deviation : median, and spread (1.4826 × median absolute deviation, of the logarithm), of readings of
        photographs of sound hands by this package's detector (`docs/anatomy_scores.md`).
    """

    digit: str
    xray: float
    reference: float
    deviation: float


RATIOS = tuple(
    Ratio(*row)
    for row in zip(
        DIGITS, (0.64, 0.89, 1.0, 0.96, 0.76), (0.65, 0.87, 1.0, 0.89, 0.71), (0.24, 0.10, 0.0, 0.10, 0.14), strict=True
    )
)


def bounds(kind: str, limits: tuple[Limit, ...] = JOINT_LIMITS, tolerance: bool = False) -> tuple[Tensor, Tensor]:
    """Lower and upper ends, each (n_limits,), of the "active" or the "passive" range, with its tolerance if wished."""
    ends = torch.tensor([getattr(limit, kind) for limit in limits], dtype=torch.float32)
    room = torch.tensor([limit.tolerance for limit in limits]) * float(tolerance)
    return ends[:, 0] - room, ends[:, 1] + room


def reference_ratios() -> tuple[Tensor, Tensor]:
    """Reference ratios and their spread in the logarithm, each (5,); the middle finger's spread is 0."""
    return torch.tensor([r.reference for r in RATIOS]), torch.tensor([r.deviation for r in RATIOS])
