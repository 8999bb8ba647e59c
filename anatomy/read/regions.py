"""Turned squares of a picture: from a palm or a box to the region of a hand, its crop, and back.

A region is (centre x, centre y, size, rotation): pixels of the picture, whole numbers at the centres of pixels, and
radians, clockwise as seen. In the crop the hand stands upright, its fingers up. The constants and the placing of
samples are MediaPipe's (mediapipe 0.10.21), bilinear, black outside the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .networks import LANDMARK_INPUT

PALM_TO_HAND = 2.6  # a hand's square over a palm's
PALM_SHIFT = -0.5  # and how far up its own axis a palm's square moves, in its own heights
WRIST, MIDDLE = 0, 2  # of a palm's points: the wrist and the middle finger's MCP
LANDMARKS_TO_HAND = 2.0  # a hand's square over the upright one about its landmarks but the ends of its fingers
LANDMARKS_SHIFT = -0.1
STEADY = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # those landmarks
# The way from wrist to knuckles in a crop. MediaPipe's older API (mp.solutions) has this; its Tasks API asks for 90
# degrees in a field that takes radians, and so reads each hand turned by a further 26.6 degrees (0.10.21).
UPRIGHT = math.pi / 2
BOX_TO_HAND = 1.3  # a hand's square over the longer side of a box about the hand


def crop(
    images: Tensor | Sequence[Tensor], region: Tensor, size: int = LANDMARK_INPUT, image: Tensor | None = None
) -> Tensor:
    """Regions as upright squares; differentiable in the pictures and in the regions.

    Parameters
    ----------
    images : float (n, 3, h, w), or n of (3, h, w)
    region : (m, 4)
    size : of the crops, pixels
    image : (m,) long: which picture a region is of; region i is of picture i unless given

    Returns
    -------
    Tensor of shape (m, 3, size, size)
    """
    chosen = range(len(region)) if image is None else image.tolist()
    at = place(_grid(region, size), region)
    # One picture at a time: sampling a batch would copy the picture for each of its regions.
    crops = [_sample(images[i], at[k]) for k, i in enumerate(chosen)]
    return torch.stack(crops) if crops else region.new_zeros(0, 3, size, size)


def place(points: Tensor, region: Tensor) -> Tensor:
    """Points (m, k, 2 or 3) in [0, 1] of their regions (m, 4), in pixels of the picture; depth is scaled alike."""
    centre, size, turn = region[:, None, :2], region[:, 2, None, None], region[:, 3]
    offset = turned(points[..., :2] - 0.5, turn) * size
    return torch.cat([centre + offset, points[..., 2:] * size], -1)


def turned(points: Tensor, angle: Tensor) -> Tensor:
    """Points (m, k, 2 or 3) turned about the origin, in the picture's plane, by an angle (m,)."""
    sine, cosine = angle.sin()[:, None], angle.cos()[:, None]
    x, y = points[..., 0], points[..., 1]
    return torch.cat([torch.stack([x * cosine - y * sine, x * sine + y * cosine], -1), points[..., 2:]], -1)


def hand_region(box: Tensor, points: Tensor) -> Tensor:
    """The regions (k, 4) of hands whose palms have these boxes (k, 4) and points (k, 7, 2): up is wrist to knuckles."""
    turn = _turn(points[:, MIDDLE] - points[:, WRIST])
    width, height = (box[:, 2:] - box[:, :2]).unbind(-1)
    shift = PALM_SHIFT * height
    centre = (box[:, :2] + box[:, 2:]) / 2 + torch.stack([-shift * turn.sin(), shift * turn.cos()], -1)
    size = torch.maximum(width, height) * PALM_TO_HAND
    return torch.cat([centre, size[:, None], turn[:, None]], -1)


def landmark_region(points: Tensor) -> Tensor:
    """The regions (m, 4) in which to look again for hands that have these landmarks (m, 21, 2 or 3), pixels.

    This is how MediaPipe follows a hand through a video.
    """
    points = points[..., :2]
    turn = _turn(((points[:, 6] + points[:, 14]) / 2 + points[:, 10]) / 2 - points[:, 0])
    steady = points[:, STEADY]
    middle = (steady.amin(1) + steady.amax(1)) / 2
    upright = turned(steady - middle[:, None], -turn)
    low, high = upright.amin(1), upright.amax(1)
    width, height = (high - low).unbind(-1)
    offset = (low + high) / 2 + torch.stack([torch.zeros_like(height), LANDMARKS_SHIFT * height], -1)
    centre = middle + turned(offset[:, None], turn)[:, 0]
    size = torch.maximum(width, height) * LANDMARKS_TO_HAND
    return torch.cat([centre, size[:, None], turn[:, None]], -1)


def box_region(boxes: Tensor) -> Tensor:
    """Upright regions (k, 4) about boxes of hands (k, 4), x0, y0, x1, y1."""
    size = (boxes[:, 2:] - boxes[:, :2]).amax(-1, keepdim=True) * BOX_TO_HAND
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, size, torch.zeros_like(size)], -1)


def _turn(along: Tensor) -> Tensor:
    """The turn, within half a circle either way, of a hand whose wrist and knuckles lie along (k, 2)."""
    turn = UPRIGHT - torch.atan2(-along[:, 1], along[:, 0])
    return turn - 2 * math.pi * torch.floor((turn + math.pi) / (2 * math.pi))


def _grid(region: Tensor, size: int) -> Tensor:
    """Where the pixels of a crop lie in [0, 1] of their region, (m, size * size, 2)."""
    step = torch.arange(size, dtype=region.dtype, device=region.device) / size
    y, x = torch.meshgrid(step, step, indexing="ij")
    return torch.stack([x, y], -1).reshape(1, -1, 2).expand(len(region), -1, -1)


def _sample(image: Tensor, at: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    side = math.isqrt(len(at))
    scaled = (2 * at + 1) / at.new_tensor([width, height]) - 1
    grid = scaled.reshape(1, side, side, 2).to(image.dtype)
    return F.grid_sample(image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
