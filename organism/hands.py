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
class Hands:
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


def pose_hands(
    angles: Tensor, abduction: Tensor, raised: Tensor, generator: torch.Generator, faults: list[str] | None = None
) -> Hands:
    """Build hands from a pose, each with its own bone lengths, and a fault where one is named.

    Parameters
    ----------
    angles, abduction, raised : as `sample_pose` returns them, (n, 15), (n, 5), (n, 5).
    faults : n names from FAULTS, or "" for none. A fault is put on a raised digit, where it can be seen.
    """
    n = len(angles)
    faults = faults or [""] * n
    angles, abduction = angles.clone().reshape(n, 5, 3), abduction.clone()
    size = 1 + 0.05 * torch.randn(n, 1, 1, generator=generator).clamp(-2, 2)
    lengths = LENGTHS * size * (1 + 0.03 * torch.randn(n, 5, 1, generator=generator).clamp(-2, 2))
    thick = (1 + 0.05 * torch.randn(n, 1, 1, generator=generator).clamp(-2, 2)) * size
    bases = (BASES * size).clone()
    exists = torch.ones(n, N_DIGITS, dtype=torch.bool)
    exists[:, 5] = False
    gap = torch.zeros(n, 5)
    count = raised.sum(1)
    partner = torch.full((n,), -1)  # the neighbour that an extra digit or a web belongs to
    victim = torch.full((n,), -1)
    for i, fault in enumerate(faults):
        if not fault:
            continue
        if raised[i].sum() < 2:
            found = int(raised[i].sum())
            raise HandscopeError(f"The fault {fault!r} needs a hand with two raised digits or more, found {found}.")
        up = raised[i].nonzero()[:, 0]
        up = up[up > 0] if fault != "detached" else up
        k = int(up[torch.randint(len(up), (1,), generator=generator)])
        amount = float(torch.rand(1, generator=generator))
        victim[i] = k
        if fault == "four":
            exists[i, k] = False
            count[i] -= 1
        elif fault == "backward":
            angles[i, k, 1] = -45 - 30 * amount
            angles[i, k, 2] = -10
        elif fault == "proportion":
            lengths[i, k] *= 1.55 + 0.3 * amount if amount > 0.5 else 0.4 + 0.3 * amount
        elif fault == "detached":
            gap[i, k] = 26 + 10 * amount
        elif fault in ("six", "fused"):
            near = [j for j in (k - 1, k + 1) if 1 <= j <= 4 and raised[i, j]]
            partner[i] = near[0] if near else k
            if fault == "fused":
                abduction[i, k] = abduction[i, partner[i]] = (abduction[i, k] + abduction[i, partner[i]]) / 2
            else:
                exists[i, 5] = True
                count[i] += 1
                # Make room: the digits beside the extra one lean apart.
                abduction[i, 1:] *= 1.25
    chains = [_chain(bases[:, d], angles[:, d], abduction[:, d], lengths[:, d], d == 0) for d in range(5)]
    joints = torch.stack([chain[0] for chain in chains], 1)
    dorsal = torch.stack([chain[1] for chain in chains], 1)
    shown = joints.clone()
    lift = torch.nn.functional.normalize(joints[:, :, 1] - joints[:, :, 0], dim=-1) * gap[..., None]
    shown += lift[:, :, None]
    radii = RADII * thick
    extra, extra_dorsal, extra_radii = shown[:, 2].clone(), dorsal[:, 2].clone(), radii[:, 2].clone()
    webs = torch.zeros(n, 2, 2, 3)
    has_web = torch.zeros(n, dtype=torch.bool)
    for i, fault in enumerate(faults):
        k, j = int(victim[i]), int(partner[i])
        if fault == "six":
            middle = (shown[i, k] + shown[i, j]) / 2 if k != j else shown[i, k]
            shift = torch.tensor([10.0 if k == j else 0.0, 0.0, 0.0])
            extra[i], extra_dorsal[i], extra_radii[i] = middle + shift, dorsal[i, k], radii[i, k] * 0.9
        elif fault == "fused" and k != j:
            middle = (shown[i, k] + shown[i, j]) / 2
            webs[i] = torch.stack([middle[:2], middle[1:3]])
            has_web[i] = True
    wrist = torch.zeros(n, 1, 3)
    landmarks = torch.cat([wrist, shown.reshape(n, 20, 3)], 1)

    digits = torch.cat([shown, extra[:, None]], 1)
    digit_radii = torch.cat([radii, extra_radii[:, None]], 1)
    s = size[:, 0]
    palm_start = torch.stack(
        [
            torch.stack([x * s[:, 0], y * s[:, 0], 0 * s[:, 0]], -1)
            for x, y in ((0.0, -90.0), (13.0, 12.0), (4.0, 10.0), (-6.0, 10.0), (-14.0, 12.0), (10.0, 20.0))
        ],
        1,
    )
    palm_end = torch.cat(
        [(torch.tensor([[0.0, 8.0, 0.0]]) * s)[:, None], bases[:, 1:], joints[:, 0, 1:2] * 0.55 + bases[:, :1] * 0.45],
        1,
    )
    palm_radii = (
        torch.tensor([(25.0, 26.0), (18.0, 12.5), (18.0, 12.5), (18.0, 12.0), (17.0, 11.0), (15.0, 12.0)]) * thick
    )
    web_radii = (digit_radii[:, 1, :2] * 0.9)[:, None].expand(n, 2, 2)
    start = torch.cat([palm_start, digits[:, :, :3].reshape(n, -1, 3), webs[:, :, 0]], 1)
    end = torch.cat([palm_end, digits[:, :, 1:].reshape(n, -1, 3), webs[:, :, 1]], 1)
    part_radii = torch.cat(
        [palm_radii, torch.stack([digit_radii[..., :3], digit_radii[..., 1:]], -1).reshape(n, -1, 2), web_radii], 1
    )
    parts = torch.cat(
        [torch.ones(n, 6, dtype=torch.bool), exists.repeat_interleave(3, 1), has_web[:, None].expand(n, 2)], 1
    )
    part_dorsal = torch.cat(
        [
            torch.tensor([0.0, 0.0, -1.0]).expand(n, 6, 3),
            dorsal.reshape(n, 15, 3),
            extra_dorsal,
            torch.tensor([0.0, 0.0, -1.0]).expand(n, 2, 3),
        ],
        1,
    )
    digit = torch.tensor([-1] * 6 + [d for d in range(N_DIGITS) for _ in range(3)] + [-1] * 2)
    bone = torch.tensor([-1] * 6 + [0, 1, 2] * N_DIGITS + [-1] * 2)
    length = lengths.sum(2)
    length[:, 0] -= lengths[:, 0, 0]  # the thumb's first bone is its metacarpal
    return Hands(
        landmarks,
        angles.reshape(n, 15),
        length / length[:, 2:3],
        raised,
        count,
        list(faults),
        start,
        end,
        part_radii,
        parts,
        digit,
        bone,
        part_dorsal,
    )
