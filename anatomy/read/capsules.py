"""The skeleton as a shape: tapered capsules around the bones, and what a crop's pixels have to do with them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .regions import turned
from .skeleton import CHAINS, DIGIT_BONES, PALM_BONES, WRIST

# Half-widths of the digits at their four landmarks, and of the palm's rays, in palm lengths (wrist to middle knuckle,
# 95 mm in the kinematic hand, from which they are).
DIGIT_RADII = torch.tensor(
    [
        (0.147, 0.126, 0.114, 0.093),
        (0.110, 0.101, 0.094, 0.080),
        (0.113, 0.103, 0.096, 0.082),
        (0.108, 0.099, 0.092, 0.078),
        (0.097, 0.087, 0.081, 0.069),
    ]
)
PALM_RADIUS = 0.15
WIDTH_TO_LENGTH = 1.6  # palm length over the distance of the index's and the little finger's knuckles
FOREARM = 0.12  # palm lengths above the wrist at which the forearm may begin


@dataclass(frozen=True)
class Shape:
    """Skeletons on the pixels of square crops.

    Attributes
    ----------
    points : (m, 21, 2), pixels of the crop. palm : (m,), palm length in pixels, foreshortening allowed for.
    radius : (m, 5, 4), half-widths of the digits at their landmarks, pixels.
    nearness : (m, size, size): distance from the nearest bone in half-widths of it; below 1 the skeleton explains it.
    forearm : (m, size, size) bool: beyond the wrist, where anything may be.
    """

    points: Tensor
    palm: Tensor
    radius: Tensor
    nearness: Tensor
    forearm: Tensor


def in_crop(points: Tensor, region: Tensor, size: int) -> Tensor:
    """Points (m, k, 2) of a picture in pixels of the crops (m, size, size) of their regions (m, 4)."""
    offset = turned(points[..., :2] - region[:, None, :2], -region[:, 3])
    return (offset / region[:, 2, None, None] + 0.5) * size


def shape_of(points: Tensor, size: int) -> Shape:
    """The skeleton's shape: points (m, 21, 2) in pixels of a crop of `size`."""
    length = (points[:, 9] - points[:, WRIST]).norm(dim=-1)
    width = (points[:, 5] - points[:, 17]).norm(dim=-1)
    palm = torch.maximum(length, WIDTH_TO_LENGTH * width).clamp_min(1.0)
    radius = DIGIT_RADII.to(points) * palm[:, None, None]
    digit = torch.stack([radius[..., :-1], radius[..., 1:]], -1).reshape(-1, 15, 2)
    rays = (PALM_RADIUS * palm)[:, None, None].expand(-1, len(PALM_BONES), 2)
    bones = torch.cat([DIGIT_BONES, PALM_BONES]).to(points.device)
    step = torch.arange(size, device=points.device, dtype=points.dtype)
    nearness = _nearness(points[:, bones], torch.cat([digit, rays], 1), step)
    up = points[:, [5, 9, 13]].mean(1) - points[:, WRIST]
    up = up / up.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    x, y = step[None, None, :] - points[:, WRIST, 0, None, None], step[None, :, None] - points[:, WRIST, 1, None, None]
    height = x * up[:, 0, None, None] + y * up[:, 1, None, None]
    return Shape(points, palm, radius, nearness, height < FOREARM * palm[:, None, None])


def _nearness(ends: Tensor, radii: Tensor, step: Tensor) -> Tensor:
    """Distance from bones (m, b, 2 ends, 2) in their half-widths (m, b, 2 ends), the least of all: (m, size, size)."""
    least = torch.full((len(ends), len(step), len(step)), torch.inf, device=step.device, dtype=step.dtype)
    for bone, radius in zip(ends.unbind(1), radii.unbind(1)):
        axis = bone[:, 1] - bone[:, 0]
        x, y = step[None, None, :] - bone[:, 0, 0, None, None], step[None, :, None] - bone[:, 0, 1, None, None]
        ax, ay = axis[:, 0, None, None], axis[:, 1, None, None]
        t = (x * ax + y * ay).div_(axis.square().sum(-1).clamp_min(1e-6)[:, None, None]).clamp_(0, 1)
        away = (x - t * ax).square_().add_((y - t * ay).square_())
        wide = radius[:, 0, None, None] + t * (radius[:, 1] - radius[:, 0])[:, None, None]
        least = torch.minimum(least, away.div_(wide.square_()))
    return least.sqrt_()


def along_digits(shape: Shape, count: int, first: int = 1) -> tuple[Tensor, Tensor]:
    """Points evenly along each digit from its `first` landmark to its tip: (m, 5, count, 2), and half-widths there."""
    chain = shape.points[:, CHAINS[:, first:]]
    at = torch.linspace(0, chain.shape[2] - 1, count, device=chain.device, dtype=chain.dtype)
    low = at.long().clamp_max(chain.shape[2] - 2)
    part = (at - low)[:, None]
    points = chain[:, :, low] * (1 - part) + chain[:, :, low + 1] * part
    wide = shape.radius[:, :, first:]
    return points, wide[:, :, low] * (1 - part[:, 0]) + wide[:, :, low + 1] * part[:, 0]
