"""A kinematic hand: 21 joints, 15 flexion angles, plausible poses, and deliberate faults.

Frame: a right hand with the palm towards +z (the viewer), fingers along +y, thumb on +x; millimetres and degrees.
Joints are in MediaPipe's order: wrist, then four for each digit, thumb first, base to tip.

Sources. Bone lengths: Buryanov and Kotiuk 2010 (66 adults, X-ray). Active limits of motion: clinical tables after Eaton
and the AAOS, which treat extension beyond straight as negative flexion. Coupling DIP = 2/3 PIP: common in kinematic
hand models.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import HandscopeError
from .captions import GESTURES

DIGITS = ("thumb", "index", "middle", "ring", "little")
JOINTS = tuple(
    f"{digit} {joint}"
    for digit in DIGITS
    for joint in (("CMC", "MCP", "IP") if digit == "thumb" else ("MCP", "PIP", "DIP"))
)
# Active limits in degrees of flexion, in the order of JOINTS.
LIMITS = torch.tensor([(-25.0, 35.0), (-10.0, 55.0), (-15.0, 80.0)] + [(-45.0, 90.0), (-5.0, 110.0), (-10.0, 90.0)] * 4)

# Metacarpal heads (the thumb's row is its CMC joint), and the three moving bones of each digit; the last includes the
# pulp.
BASES = torch.tensor([(21.0, 28.0, 6.0), (25.0, 91.0, 0.0), (5.0, 95.0, 1.0), (-14.0, 89.0, 0.0), (-31.0, 79.0, -1.0)])
LENGTHS = torch.tensor(
    [(46.2, 31.6, 27.3), (39.8, 22.4, 19.7), (44.6, 26.3, 21.4), (41.4, 25.7, 21.3), (32.6, 18.1, 19.7)]
)
RADII = torch.tensor(
    [(14.0, 12.0, 10.8, 8.8), (10.5, 9.6, 8.9, 7.6), (10.7, 9.8, 9.1, 7.8), (10.3, 9.4, 8.7, 7.4), (9.2, 8.3, 7.7, 6.6)]
)
FAULTS = ("six", "four", "fused", "backward", "proportion", "detached")
N_DIGITS = 6  # five, and a slot for one too many


@dataclass(frozen=True)
class PosedHands:
    """A batch of posed right hands, before side, view and camera.

    Attributes
    ----------
    joints : (n, 21, 3) float, millimetres, of the five proper digits.
    angles : (n, 15) float, degrees of flexion, in the order of JOINTS.
    ratios : (n, 5) float, length of each digit (its phalanges; for the thumb its last two) over the middle finger's.
    raised : (n, 5) bool.
    count : (n,) int, the raised digits that the picture should show, extra and missing ones counted.
    fault : list of n names from FAULTS, or "" for a plausible hand.
    start, end : (n, n_parts, 3); radii : (n, n_parts, 2); exists : (n, n_parts) bool: the tapered capsules that make
        the hand.
    digit : (n_parts,) int, which digit a part belongs to; -1 palm and forearm. bone : (n_parts,) int, 0 to 2; -1 palm.
    dorsal : (n, n_parts, 3), unit, away from the palm.
    """

    joints: Tensor
    angles: Tensor
    ratios: Tensor
    raised: Tensor
    count: Tensor
    fault: list[str]
    start: Tensor
    end: Tensor
    radii: Tensor
    exists: Tensor
    digit: Tensor
    bone: Tensor
    dorsal: Tensor


def _uniform(generator: torch.Generator, low: Tensor, high: Tensor) -> Tensor:
    return low + (high - low) * torch.rand(low.shape, generator=generator)


def sample_pose(gestures: list[str], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Angles (n, 15), abductions (n, 5) and raised digits (n, 5) of plausible hands that show `gestures`."""
    n = len(gestures)
    raised = torch.tensor([GESTURES[gesture] for gesture in gestures], dtype=torch.bool)
    up = raised[:, :, None]
    straight = torch.tensor([[(-6.0, 6.0), (-4.0, 14.0), (-6.0, 16.0)]] + [[(-6.0, 14.0), (0.0, 14.0), (0.0, 8.0)]] * 4)
    folded = torch.tensor(
        [[(26.0, 34.0), (38.0, 52.0), (40.0, 60.0)]] + [[(72.0, 86.0), (94.0, 104.0), (56.0, 66.0)]] * 4
    )
    bounds = torch.where(up[..., None], straight, folded)
    angles = _uniform(generator, bounds[..., 0], bounds[..., 1])
    # A folded finger's last joint follows the one before it.
    angles[:, 1:, 2] = torch.where(up[:, 1:, 0], angles[:, 1:, 2], angles[:, 1:, 1] * (2 / 3))
    spread = _uniform(generator, torch.full((n, 1), 0.75), torch.full((n, 1), 1.3))
    neutral = torch.tensor([0.0, 10.0, 1.0, -8.0, -18.0])
    jitter = _uniform(generator, torch.full((n, 5), -2.0), torch.full((n, 5), 2.0))
    abduction = neutral * spread + jitter
    thumb = _uniform(generator, torch.full((n,), 40.0), torch.full((n,), 56.0))
    abduction[:, 0] = torch.where(raised[:, 0], thumb, 20 + jitter[:, 0])
    # Folded fingers lie side by side: there is no room to spread them.
    abduction[:, 1:] = torch.where(raised[:, 1:], abduction[:, 1:], abduction[:, 1:] * 0.25)
    return angles.reshape(n, 15), abduction, raised


def _chain(base: Tensor, angles: Tensor, abduction: Tensor, lengths: Tensor, thumb: bool) -> tuple[Tensor, Tensor]:
    """Joints (n, 4, 3) of one digit, base to tip, and the dorsal direction (n, 3, 3) of its bones.

    Each bone turns, by the sum of the flexions up to it, from the digit's straight direction towards its flexion
    direction.
    """
    n = len(angles)
    a = torch.deg2rad(abduction)
    zero = torch.zeros(n)
    straight = torch.stack([a.sin(), a.cos(), zero], -1)
    if thumb:  # the thumb flexes across the palm, rather than towards the viewer
        straight = torch.nn.functional.normalize(straight + torch.tensor([0.0, 0.0, 0.25]), dim=-1)
        across = torch.stack([-a.cos(), a.sin(), zero], -1)
        towards = torch.nn.functional.normalize(across + torch.tensor([0.0, 0.0, 0.6]), dim=-1)
        towards = torch.nn.functional.normalize(towards - (towards * straight).sum(-1, True) * straight, dim=-1)
    else:
        towards = torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    turn = torch.deg2rad(angles.cumsum(1))[..., None]
    bones = turn.cos() * straight[:, None] + turn.sin() * towards[:, None]
    dorsal = turn.sin() * straight[:, None] - turn.cos() * towards[:, None]
    joints = torch.cat([base[:, None], base[:, None] + (bones * lengths[..., None]).cumsum(1)], 1)
    return joints, dorsal


@dataclass
class _Pose:
    """n hands as bones, before parts are laid around them; a fault changes one of them in place.

    Attributes
    ----------
    angles : (n, 5, 3); abduction : (n, 5); raised : (n, 5) bool
    size, thick : (n, 1, 1), of the whole hand, and of what is around its bones
    lengths : (n, 5, 3); bases : (n, 5, 3)
    exists : (n, N_DIGITS) bool; count : (n,), raised digits that exist
    gap : (n, 5), millimetres between a digit and its base
    faulty, neighbour : (n,) int, the digit that the fault is on, and the one that an extra digit or a web lies beside;
        -1 where there is none
    """

    angles: Tensor
    abduction: Tensor
    raised: Tensor
    size: Tensor
    thick: Tensor
    lengths: Tensor
    bases: Tensor
    exists: Tensor
    count: Tensor
    gap: Tensor
    faulty: Tensor
    neighbour: Tensor


Capsules = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""start, end, radii, exists and dorsal of parts, as `PosedHands` has them."""


def pose_hands(
    angles: Tensor, abduction: Tensor, raised: Tensor, generator: torch.Generator, faults: list[str] | None = None
) -> PosedHands:
    """Build hands from a pose, each with its own bone lengths, and a fault where one is named.

    Parameters
    ----------
    angles, abduction, raised : as `sample_pose` returns them, (n, 15), (n, 5), (n, 5).
    faults : n names from FAULTS, or "" for none. A fault is put on a raised digit, where it can be seen.
    """
    n = len(angles)
    faults = faults or [""] * n
    pose = _proportioned(angles, abduction, raised, generator)
    for i, fault in enumerate(faults):
        if fault:
            _plant(pose, i, fault, generator)
    chains = [
        _chain(pose.bases[:, d], pose.angles[:, d], pose.abduction[:, d], pose.lengths[:, d], d == 0) for d in range(5)
    ]
    attached = torch.stack([joints for joints, _ in chains], 1)
    dorsal = torch.stack([directions for _, directions in chains], 1)
    lift = torch.nn.functional.normalize(attached[:, :, 1] - attached[:, :, 0], dim=-1) * pose.gap[..., None]
    joints = attached + lift[:, :, None]
    radii = RADII * pose.thick
    parts = zip(
        _palm(pose, attached[:, 0, 1]),
        _digits(pose, joints, dorsal, radii, faults),
        _webs(pose, joints, radii, faults),
        strict=True,
    )
    start, end, part_radii, exists, part_dorsal = (torch.cat(part, 1) for part in parts)
    length = pose.lengths.sum(2)
    length[:, 0] -= pose.lengths[:, 0, 0]  # the thumb's first bone is its metacarpal
    return PosedHands(
        joints=torch.cat([torch.zeros(n, 1, 3), joints.reshape(n, 20, 3)], 1),
        angles=pose.angles.reshape(n, 15),
        ratios=length / length[:, 2:3],
        raised=raised,
        count=pose.count,
        fault=list(faults),
        start=start,
        end=end,
        radii=part_radii,
        exists=exists,
        digit=torch.tensor([-1] * 6 + [d for d in range(N_DIGITS) for _ in range(3)] + [-1] * 2),
        bone=torch.tensor([-1] * 6 + [0, 1, 2] * N_DIGITS + [-1] * 2),
        dorsal=part_dorsal,
    )


def _proportioned(angles: Tensor, abduction: Tensor, raised: Tensor, generator: torch.Generator) -> _Pose:
    """Sound hands in this pose, each with sizes of its own."""
    n = len(angles)
    size = 1 + 0.05 * torch.randn(n, 1, 1, generator=generator).clamp(-2, 2)
    lengths = LENGTHS * size * (1 + 0.03 * torch.randn(n, 5, 1, generator=generator).clamp(-2, 2))
    thick = (1 + 0.05 * torch.randn(n, 1, 1, generator=generator).clamp(-2, 2)) * size
    exists = torch.ones(n, N_DIGITS, dtype=torch.bool)
    exists[:, 5] = False
    return _Pose(
        angles=angles.clone().reshape(n, 5, 3),
        abduction=abduction.clone(),
        raised=raised,
        size=size,
        thick=thick,
        lengths=lengths,
        bases=BASES * size,
        exists=exists,
        count=raised.sum(1),
        gap=torch.zeros(n, 5),
        faulty=torch.full((n,), -1),
        neighbour=torch.full((n,), -1),
    )


def _plant(pose: _Pose, i: int, fault: str, generator: torch.Generator) -> None:
    """Put a fault on a raised digit of hand i; what stands beside the digits, `_digits` and `_webs` add."""
    raised = pose.raised[i]
    if raised.sum() < 2:
        raise HandscopeError(
            f"The fault {fault!r} needs a hand with two raised digits or more, found {int(raised.sum())}."
        )
    up = raised.nonzero()[:, 0]
    up = up[up > 0] if fault != "detached" else up
    k = int(up[torch.randint(len(up), (1,), generator=generator)])
    amount = float(torch.rand(1, generator=generator))
    pose.faulty[i] = k
    if fault == "four":
        pose.exists[i, k] = False
        pose.count[i] -= 1
    elif fault == "backward":
        pose.angles[i, k, 1] = -45 - 30 * amount
        pose.angles[i, k, 2] = -10
    elif fault == "proportion":
        pose.lengths[i, k] *= 1.55 + 0.3 * amount if amount > 0.5 else 0.4 + 0.3 * amount
    elif fault == "detached":
        pose.gap[i, k] = 26 + 10 * amount
    elif fault in ("six", "fused"):
        beside = [j for j in (k - 1, k + 1) if 1 <= j <= 4 and raised[j]]
        j = beside[0] if beside else k
        pose.neighbour[i] = j
        if fault == "fused":
            pose.abduction[i, k] = pose.abduction[i, j] = (pose.abduction[i, k] + pose.abduction[i, j]) / 2
        else:
            pose.exists[i, 5] = True
            pose.count[i] += 1
            # Make room: the digits beside the extra one lean apart.
            pose.abduction[i, 1:] *= 1.25


def _palm(pose: _Pose, thumb: Tensor) -> Capsules:
    """The forearm, the four metacarpals and the thumb's web, up to `thumb` (n, 3), its MCP joint: 6 parts."""
    n, s = len(pose.size), pose.size[:, 0]
    start = torch.stack(
        [
            torch.stack([x * s[:, 0], y * s[:, 0], 0 * s[:, 0]], -1)
            for x, y in ((0.0, -90.0), (13.0, 12.0), (4.0, 10.0), (-6.0, 10.0), (-14.0, 12.0), (10.0, 20.0))
        ],
        1,
    )
    wrist, ball = torch.tensor([[0.0, 8.0, 0.0]]) * s, thumb * 0.55 + pose.bases[:, 0] * 0.45
    end = torch.cat([wrist[:, None], pose.bases[:, 1:], ball[:, None]], 1)
    radii = torch.tensor([(25.0, 26.0), (18.0, 12.5), (18.0, 12.5), (18.0, 12.0), (17.0, 11.0), (15.0, 12.0)])
    return start, end, radii * pose.thick, torch.ones(n, 6, dtype=torch.bool), _away(n, 6)


def _digits(pose: _Pose, joints: Tensor, dorsal: Tensor, radii: Tensor, faults: list[str]) -> Capsules:
    """Three parts for each digit, an extra one last: where a hand has six, it stands between two, or beside one."""
    n = len(joints)
    extra, extra_dorsal, extra_radii = joints[:, 2].clone(), dorsal[:, 2].clone(), radii[:, 2].clone()
    for i in (i for i, fault in enumerate(faults) if fault == "six"):
        k, j = int(pose.faulty[i]), int(pose.neighbour[i])
        middle = (joints[i, k] + joints[i, j]) / 2 if k != j else joints[i, k]
        extra[i] = middle + torch.tensor([10.0 if k == j else 0.0, 0.0, 0.0])
        extra_dorsal[i], extra_radii[i] = dorsal[i, k], radii[i, k] * 0.9
    points, thickness = torch.cat([joints, extra[:, None]], 1), torch.cat([radii, extra_radii[:, None]], 1)
    return (
        points[:, :, :3].reshape(n, -1, 3),
        points[:, :, 1:].reshape(n, -1, 3),
        torch.stack([thickness[..., :3], thickness[..., 1:]], -1).reshape(n, -1, 2),
        pose.exists.repeat_interleave(3, 1),
        torch.cat([dorsal.reshape(n, 15, 3), extra_dorsal], 1),
    )


def _webs(pose: _Pose, joints: Tensor, radii: Tensor, faults: list[str]) -> Capsules:
    """Two parts between digits that are fused."""
    n = len(joints)
    webs, exists = torch.zeros(n, 2, 2, 3), torch.zeros(n, dtype=torch.bool)
    for i in (i for i, fault in enumerate(faults) if fault == "fused"):
        k, j = int(pose.faulty[i]), int(pose.neighbour[i])
        if k != j:
            middle = (joints[i, k] + joints[i, j]) / 2
            webs[i] = torch.stack([middle[:2], middle[1:3]])
            exists[i] = True
    thickness = (radii[:, 1, :2] * 0.9)[:, None].expand(n, 2, 2)
    return webs[:, :, 0], webs[:, :, 1], thickness, exists[:, None].expand(n, 2), _away(n, 2)


def _away(n: int, parts: int) -> Tensor:
    """Away from the palm: (n, parts, 3)."""
    return torch.tensor([0.0, 0.0, -1.0]).expand(n, parts, 3)
