"""What else has moved in pictures that should be as they were: their diversity, and how they look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..analysis.statistics.folds import codes
from ..errors import HandscopeError

SHIFTS = ("brightness", "contrast", "saturation", "area", "height", "centre_x", "centre_y", "angle")


def diversity(features: ArrayLike, groups: ArrayLike) -> float:
    """The mean distance between two pictures of one prompt, over prompts with at least two.

    Parameters
    ----------
    features : array of shape (n, d)
    groups : array of shape (n,), the prompt of each
    """
    x, group = np.asarray(features, np.float64), codes(groups)
    means = []
    for one in range(group.max() + 1):
        some = x[group == one]
        if len(some) > 1:
            square = (some**2).sum(1)
            between = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * some @ some.T, 0))
            means.append(between.sum() / (len(some) * (len(some) - 1)))
    if not means:
        raise HandscopeError("No prompt has two pictures: there is no diversity to speak of.")
    return float(np.mean(means))


def appearance(pictures: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]]) -> pd.DataFrame:
    """What an intervention may move without mending anything: one row a picture, the columns `SHIFTS`.

    brightness, contrast (mean and standard deviation of luminance) and saturation of what the mask shows, 0 to 1; its
    area, height and centre as shares of the picture's; angle of its long axis in degrees, 0 upright.

    Parameters
    ----------
    pictures : uint8 array of shape (n, height, width, 3)
    masks : n bool arrays of shape (height, width), what is looked at; an empty one gives NaN
    """
    rows = []
    for picture, mask in zip(pictures, masks, strict=True):
        height, width = mask.shape
        if not mask.any():
            rows.append([np.nan] * len(SHIFTS))
            continue
        colours = picture[mask] / 255
        luminance = colours @ [0.2126, 0.7152, 0.0722]
        y, x = ndimage.center_of_mass(mask)
        row, column = np.nonzero(mask)
        spread = np.cov(np.stack([column - x, row - y])) if len(row) > 1 else np.eye(2)
        long = np.linalg.eigh(spread)[1][:, 1]
        angle = np.degrees(np.arctan2(long[0], -long[1]))
        rows.append(
            [
                luminance.mean(),
                luminance.std(),
                (colours.max(1) - colours.min(1)).mean(),
                mask.mean(),
                (row.max() - row.min() + 1) / height,
                x / width,
                y / height,
                (angle + 90) % 180 - 90,
            ]
        )
    return pd.DataFrame(rows, columns=list(SHIFTS))


def shifts(before: pd.DataFrame, after: pd.DataFrame) -> pd.Series:
    """How far each of `SHIFTS` moved on average between paired pictures, in standard deviations of `before`."""
    change = after[list(SHIFTS)].to_numpy() - before[list(SHIFTS)].to_numpy()
    turned = SHIFTS.index("angle")
    change[:, turned] = (change[:, turned] + 90) % 180 - 90  # an axis has no direction
    spread = before[list(SHIFTS)].std().replace(0, np.nan)
    return pd.Series(np.nanmean(change, 0), index=list(SHIFTS)) / spread
