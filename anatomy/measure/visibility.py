"""Which digits can be seen: inside the picture, on foreground, and not behind another part of the hand."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ..read.capsules import Shape, along_digits
from ..read.skeleton import CHAINS, DIGIT_BONES, PALM_BONES
from .webbing import sample

SAMPLES = 8
BEHIND = 0.12  # palm lengths by which something else must be nearer to hide a point


def coverage(silhouette: Tensor, shape: Shape) -> Tensor:
    """Share of each digit's axis, from its first moving joint to its tip, that lies on foreground: (m, 5)."""
    at, _ = along_digits(shape, SAMPLES)
    return (sample(silhouette.float(), at) > 0.5).float().mean(-1)


def visibility(points: Tensor, shape: Shape, inside: Tensor) -> Tensor:
    """Share of each digit that is inside the picture and not hidden by another part of the same hand: (m, 5).

    Parameters
    ----------
    points : (m, 21, 3) landmarks in pixels of the crop, z smaller is nearer. shape : their skeletons on it.
    inside : (m, size, size) bool, pixels that belong to the picture.
    """
    at, _ = along_digits(shape, SAMPLES)
    depth = torch.linspace(0, 2, SAMPLES, device=points.device, dtype=points.dtype)
    low = depth.long().clamp_max(1)
    part = depth - low
    z = points[:, CHAINS[:, 1:], 2]
    z = z[..., low] * (1 - part) + z[..., low + 1] * part
    seen = sample(inside.float(), at) > 0.5
    bones = torch.cat([DIGIT_BONES, PALM_BONES]).to(points.device)
    digit = torch.cat([torch.arange(15) // 3, torch.full((len(PALM_BONES),), -1)]).to(points.device)
    for bone, owner in zip(bones, digit.tolist()):
        start, end = points[:, bone[0]], points[:, bone[1]]
        axis = end[:, :2] - start[:, :2]
        away = at - start[:, None, None, :2]
        t = (away * axis[:, None, None]).sum(-1) / axis.square().sum(-1).clamp_min(1e-6)[:, None, None]
        t = t.clamp(0, 1)
        near = vector_norm(away - t[..., None] * axis[:, None, None], dim=-1) < 0.09 * shape.palm[:, None, None]
        front = start[:, 2, None, None] + t * (end[:, 2] - start[:, 2])[:, None, None]
        hides = near & (front < z - BEHIND * shape.palm[:, None, None])
        if owner >= 0:
            hides[:, owner] = False
        seen = seen & ~hides
    return seen.float().mean(-1)
