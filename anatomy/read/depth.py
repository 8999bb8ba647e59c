"""The depth of a hand from its landmarks: what a network that is told depth paints a hand by.

The landmark network gives 21 landmarks with five digits of four each whatever it is shown, so that a malformed hand
gets the depth of a whole one, in about its pose. Where it has read a pose that is none, so will the depth be.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ...organism.render import surface
from .capsules import DIGIT_RADII, PALM_RADIUS, shape_of
from .detect import detect
from .skeleton import DIGIT_BONES, PALM_BONES

LEAST = 0.1  # of the farthest part of a hand; 0 is the background
MARGIN = 0.15  # palm lengths around the hand that are painted anew too


def depth_of(points: Tensor, height: int, width: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """What is to be painted anew, and its depth, 1 nearest: both of shape (height, width).

    Parameters
    ----------
    points : tensor of shape (21, 3)
        Of `handscope.anatomy.read.hands.Hands`: pixels, smaller z is nearer.
    """
    points = points.double()
    palm = shape_of(points[None, :, :2].float(), 1).palm.double()
    wide = DIGIT_RADII.double() * palm
    digits = torch.stack([wide[:, :-1], wide[:, 1:]], -1).reshape(15, 2)
    radii = torch.cat([digits, (PALM_RADIUS * palm).expand(len(PALM_BONES), 2)])
    ends = (points * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))[torch.cat([DIGIT_BONES, PALM_BONES])]
    y, x = torch.meshgrid(torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij")
    top = surface(ends[:, 0], ends[:, 1], radii, x.reshape(-1), y.reshape(-1))[0].amax(0).reshape(height, width)
    inside = top > -torch.inf
    if not inside.any():
        return inside.numpy(), np.zeros((height, width), np.float32)
    low, high = top[inside].min(), top[inside].max()
    near = LEAST + (1 - LEAST) * (top - low) / (high - low).clamp_min(1e-6)
    mask = ndimage.distance_transform_edt(~inside.numpy()) <= MARGIN * float(palm)
    return mask, torch.where(inside, near, 0.0).float().numpy()


def found(picture: NDArray[np.uint8], caption: str) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """What of a picture (height, width, 3) is to be painted anew, and its depth, of all hands in it: (height, width).

    The caption plays no part. The mask is empty where no hand is found.
    """
    height, width = picture.shape[:2]
    mask, depth = np.zeros((height, width), bool), np.zeros((height, width), np.float32)
    for points in detect([picture]).points:
        one, near = depth_of(points, height, width)
        mask, depth = mask | one, np.maximum(depth, near)
    return mask, depth
