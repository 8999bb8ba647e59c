"""What is wrong with a hand, or why nothing can be told of it, in words."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..measure.examine import Examined
from ..measure.excess import angle_excess, ratio_deviation
from ..measure.limits import JOINT_LIMITS, Limit, bounds, reference_ratios
from ..read.skeleton import DIGITS

RATIO_SPREADS = 3.0  # a digit's length may be this many spreads from the reference


OUTSIDE = {
    "points_size": ("too small to tell: fewer than {pixels:.0f} pixels across", ""),
    "presence": ("hardly looks like a hand", ""),
    "straight_digits": ("a fist, or all digits are folded", ""),
    "picture_strange": ("", "unlike the photographs it learnt from"),
    "count_more": ("", "more than five digits are counted"),
    "count_fewer": ("", "fewer than five digits are counted"),
}
"""What is said of a hand whose evidence is below, or above, a calibration's limits."""


def outside_limits(read: Examined, limits: Mapping[str, Sequence[float | None]]) -> list[list[str]]:
    """For each of m hands what of its evidence leaves the limits, in words."""
    said: list[list[str]] = [[] for _ in range(len(read.hands))]
    for name, (low, high) in limits.items():
        below, above = OUTSIDE.get(name, (f"{name} is too low", f"{name} is too high"))
        for i, value in enumerate(read.matrix([name])[:, 0].tolist()):
            if low is not None and value < low:
                said[i].append(below.format(pixels=100 * math.exp(low)))
            elif high is not None and value > high:
                said[i].append(above)
    return said


def joint_reason(limit: Limit, degrees: float, kind: str = "passive") -> str:
    """For instance ``"index PIP bent back 40° (limit −10°)"``."""
    low, high = getattr(limit, kind)
    if degrees < low:
        return f"{limit.name} bent back {-degrees:.0f}° (limit {_signed(low)}°)"
    return f"{limit.name} bent {degrees:.0f}° (limit {_signed(high)}°)"


def ratio_reason(digit: str, ratio: float) -> str:
    """For instance ``"thumb 1.10 of the middle finger's length (usual 0.52 to 0.94)"``."""
    low, high = (float(end[DIGITS.index(digit)]) for end in ratio_bounds())
    return f"{digit} {ratio:.2f} of the middle finger's length (usual {low:.2f} to {high:.2f})"


def count_reason(count: int) -> str:
    """For instance ``"6 fingers counted (expected 5)"``."""
    return f"{count} finger{'' if count == 1 else 's'} counted (expected 5)"


def _signed(value: float) -> str:
    return f"{value:.0f}".replace("-", "−")


def ratio_bounds() -> tuple[Tensor, Tensor]:
    """The range of each digit's ratio that counts as usual, each (5,)."""
    reference, spread = reference_ratios()
    room = (RATIO_SPREADS * spread).exp()
    return reference / room, reference * room


def outside(angles: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Which joints (m, 15) leave the passive range and its tolerance, and which ratios (m, 5) the usual range."""
    low, high = (end.to(angles) for end in bounds("passive", tolerance=True))
    least, most = (end.to(ratios) for end in ratio_bounds())
    bad = (ratios < least) | (ratios > most)
    bad[:, DIGITS.index("middle")] = False
    return (angles < low) | (angles > high), bad


def violations(count: Tensor, angles: Tensor, ratios: Tensor) -> list[list[str]]:
    """Everything about each hand that breaks a limit by more than its tolerance.

    Parameters
    ----------
    count : (m,) int, fingers seen, -1 where unknown; an unknown count breaks nothing.
    angles : (m, 15) degrees, from `joint_angles`. ratios : (m, 5), from `digit_ratios`.

    Returns
    -------
    list of m lists of reasons, the count first, then by how many tolerances (or spreads) it is beyond the limit; empty
    for a hand that breaks none.
    """
    joints, digits = outside(angles, ratios)
    excess = torch.where(joints, angle_excess(angles), 0.0)
    deviation = torch.where(digits, ratio_deviation(ratios).abs(), 0.0)
    said = []
    for i, number in enumerate(count.tolist()):
        weighted = [
            (float(excess[i, j]), joint_reason(JOINT_LIMITS[j], float(angles[i, j])))
            for j in joints[i].nonzero()[:, 0].tolist()
        ]
        weighted += [
            (float(deviation[i, d]) - RATIO_SPREADS + 1, ratio_reason(DIGITS[d], float(ratios[i, d])))
            for d in digits[i].nonzero()[:, 0].tolist()
        ]
        counted = [count_reason(number)] if number not in (-1, 5) else []
        said.append(counted + [reason for _, reason in sorted(weighted, key=lambda pair: -pair[0])])
    return said
