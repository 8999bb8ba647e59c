"""Joint angles with signs from 21 points in space: in the palm's frame, each digit in its own plane of flexion.

A hand is first turned, and mirrored where it is a left one, into one frame: wrist at the origin, palm towards +z,
fingers along +y, thumb on +x. The palm's plane goes through the wrist and the heads of the index's and the ring
finger's metacarpals; the middle finger's stands out of it by the arch of the hand, and the little finger's moves.

Flexion is positive, bending back negative. Each finger turns about one axis, a hinge's, which is estimated from all of
its bones at once: a straight finger shows it by where it points, a bent one by the plane in which it bends.
"""

import math

import torch
from torch import Tensor
from torch.linalg import cross, vector_norm

from ...errors import HandscopeError
from ..read.skeleton import CHAINS

# As in the kinematic hand that draws the project's renders: the long axis goes through this point between the two
# metacarpal heads of the palm's plane; the straight thumb is lifted out of that plane by this share of its length, and
# flexes across the palm and towards its front in this proportion.
AXIS_INDEX, AXIS_RING = 14 / 39, 25 / 39
THUMB_LIFT, THUMB_SLANT = 0.25, 0.6
_FACING = 1e-5  # weight of "fingers flex about the palm's width" where a finger itself shows no axis
_VOTE = 0.25  # how much one joint may say about the side; one finger bent back must not outvote the others
_TRUST = 1.0  # what a sure network may say about it


def _unit(vector: Tensor) -> Tensor:
    return vector / vector_norm(vector, dim=-1, keepdim=True).clamp_min(1e-9)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _degrees(sine: Tensor, cosine: Tensor) -> Tensor:
    """atan2 in degrees, 0 with no gradient where both are nothing (a bone without length)."""
    nothing = sine.abs() + cosine.abs() < 1e-9
    return torch.rad2deg(torch.atan2(sine.masked_fill(nothing, 0.0), cosine.masked_fill(nothing, 1.0)))


def checked(world: Tensor) -> Tensor:
    if world.ndim != 3 or world.shape[1:] != (21, 3) or not world.is_floating_point():
        raise HandscopeError(
            f"World landmarks must be a float tensor of shape (hands, 21, 3); found {world.dtype} of shape "
            f"{tuple(world.shape)}."
        )
    return world


def palm_frame(world: Tensor, right: Tensor) -> Tensor:
    """Landmarks in the palm's frame, as of a right hand.

    Parameters
    ----------
    world : (m, 21, 3), any unit, in a right-handed frame (MediaPipe's: x right, y down, z away from the camera).
    right : (m,) bool, or the probability that it is a right hand.

    Returns
    -------
    (m, 21, 3), same unit: wrist at 0, palm towards +z, fingers along +y, thumb on +x.
    """
    world = checked(world)
    points = world - world[:, :1]
    mirror = torch.where(right > 0.5, 1.0, -1.0).to(points)
    points = torch.cat([points[..., :1] * mirror[:, None, None], points[..., 1:]], -1)
    z = _unit(cross(points[:, 5], points[:, 13], dim=-1))
    y = _unit(AXIS_INDEX * points[:, 5] + AXIS_RING * points[:, 13])
    x = cross(y, z, dim=-1)
    return points @ torch.stack([x, y, z], -1)


def bend_votes(world: Tensor) -> Tensor:
    """Which hand it is, judged by its shape alone: (m,), positive for a right one, at most 4.25 either way.

    Fingers bend, and the thumb stands out, towards the palm. A flat hand does not say; neither answer then makes a
    difference to its angles that matters.
    """
    n = len(checked(world))
    as_right = palm_frame(world, torch.ones(n, device=world.device))
    bones = _unit(as_right[:, CHAINS[:, 1:]] - as_right[:, CHAINS[:, :-1]])
    bend = cross(bones[:, 1:, :-1], bones[:, 1:, 1:], dim=-1)[..., 0].flatten(1)
    votes = torch.cat([bend, bones[:, 1:, 0, 2], bones[:, 0, :1, 2]], 1)
    return votes.clamp(-_VOTE, _VOTE).sum(1)


def side(world: Tensor, right: Tensor) -> Tensor:
    """Whether each is a right hand: the network's word, unless the fingers' bending speaks clearly against it.

    Parameters
    ----------
    world : (m, 21, 3). right : (m,) the network's probability of a right hand.

    Returns
    -------
    (m,) bool
    """
    return bend_votes(world) + _TRUST * (2 * right.to(world) - 1) >= 0


def _fingers(bones: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flexion (m, 4, 3) of the fingers, their straight directions and hinge axes (m, 4, 3).

    An axis is the sum of what shows it (the first bone against the palm's normal, each bone against the one before it),
    each weighed by its own component across the palm, so that the side it bends to does not matter.
    """
    z = torch.zeros_like(bones[:, :, 0])
    z[..., 2] = 1
    shown = torch.stack([cross(bones[:, :, 0], z, dim=-1), *cross(bones[:, :, :-1], bones[:, :, 1:], dim=-1).unbind(2)])
    across = torch.zeros_like(z)
    across[..., 0] = _FACING
    axis = _unit((shown * shown[..., :1]).sum(0) + across)
    straight = _unit(cross(z, axis, dim=-1))
    first = _degrees(bones[:, :, 0, 2], _dot(bones[:, :, 0], straight))
    return torch.cat([first[..., None], _hinges(bones, axis)], -1), straight, axis


def _hinges(bones: Tensor, axis: Tensor) -> Tensor:
    """Signed angles between following bones about one axis: bones (..., 3, 3), axis (..., 3) -> (..., 2)."""
    before, after = bones[..., :-1, :], bones[..., 1:, :]
    return _degrees(_dot(cross(before, after, dim=-1), axis[..., None, :]), _dot(before, after))


def _thumb(bones: Tensor) -> tuple[Tensor, Tensor]:
    """Flexion (m, 3) of the thumb and its abduction (m,) from the long axis, degrees.

    The metacarpal has two ways to move and shows one direction, so its flexion is read from how far it rises out of
    the palm's plane, along the arc from "straight" (lifted 14 degrees) to across the palm; the rest is abduction.
    Beyond 33 degrees of lift, the top of the arc, flexion stays at 63.6.
    """
    lift = math.hypot(1, THUMB_LIFT)
    su, sz = 1 / lift, THUMB_LIFT / lift  # "straight": along the thumb's own direction, and palmar
    slant = math.hypot(1, THUMB_SLANT)
    overlap = THUMB_SLANT / slant * sz
    rest = math.sqrt(1 - overlap**2)
    tu, tv, tz = -overlap * su / rest, 1 / slant / rest, (THUMB_SLANT / slant - overlap * sz) / rest
    top, reach = math.atan2(tz, sz), math.hypot(tz, sz)

    first = bones[:, 0]
    turn = top - torch.acos((first[:, 2] / reach).clamp(-1 + 1e-6, 1 - 1e-6))
    u, v = turn.cos() * su + turn.sin() * tu, turn.sin() * tv
    abduction = torch.deg2rad(_degrees(first[:, 0], first[:, 1])) + torch.atan2(v, u)
    s, c = abduction.sin(), abduction.cos()
    nu, nv, nz = -sz * tv, sz * tu - su * tz, su * tv
    axis = torch.stack([nu * s - nv * c, nu * c + nv * s, torch.full_like(s, nz)], -1)
    shown = cross(bones[:, :-1], bones[:, 1:], dim=-1)
    axis = _unit(axis + (shown * _dot(shown, axis[:, None])[..., None]).sum(1))
    return torch.cat([torch.rad2deg(turn)[:, None], _hinges(bones, axis)], -1), torch.rad2deg(abduction)


def _read(world: Tensor, right: Tensor | None) -> tuple[Tensor, Tensor]:
    points = palm_frame(world, bend_votes(world) >= 0 if right is None else right)
    bones = _unit(points[:, CHAINS[:, 1:]] - points[:, CHAINS[:, :-1]])
    flexion, straight, _ = _fingers(bones[:, 1:])
    thumb, thumb_abduction = _thumb(bones[:, 0])
    fingers = _degrees(straight[..., 0], straight[..., 1])
    abduction = torch.cat([thumb_abduction[:, None], fingers], 1)
    apart = abduction[:, :-1] - abduction[:, 1:]
    apart = torch.remainder(apart + 180, 360) - 180
    return torch.cat([thumb[:, None], flexion], 1).reshape(-1, 15), apart


def joint_angles(world: Tensor, right: Tensor | None = None) -> Tensor:
    """Flexion of the 15 joints.

    Parameters
    ----------
    world : (m, 21, 3) float, metres or any unit: landmarks in space, in a right-handed frame.
    right : (m,) bool or probability that it is a right hand; None to judge it by the shape (`bend_votes`). The
        wrong hand turns every sign.

    Returns
    -------
    (m, 15) degrees in the order of `JOINTS`, positive in flexion, negative beyond straight; finite for any finite
    input, and differentiable. Sideways bending does not count.

    Raises
    ------
    HandscopeError
        If `world` has another shape.
    """
    return _read(world, right)[0]


def abductions(world: Tensor, right: Tensor | None = None) -> Tensor:
    """Angles in the palm's plane between neighbouring digits, thumb to little finger: (m, 4) degrees.

    Positive where they spread, negative where they cross. A finger that is bent by about 90 degrees at its base points
    nowhere in that plane, and its angle means little. Parameters as for `joint_angles`.
    """
    return _read(world, right)[1]
