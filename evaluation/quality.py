"""Whether pictures are still what they should be: kernel inception distance, diversity, and what else has moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import bootstrap_weights, interval
from ..errors import HandscopeError

SHIFTS = ("brightness", "contrast", "saturation", "area", "height", "centre_x", "centre_y", "angle")


def kernel_distance(
    pictures: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """The unbiased squared MMD with the kernel ``(x·y / d + 1)³``, and its 95% interval.

    Of Inception's features it is the kernel inception distance (KID) of Binkowski et al. 2018 (arXiv 1801.01401); of
    other features its numbers compare with each other only. Near 0, and below it half of the time, for two samples of
    one distribution.

    Parameters
    ----------
    pictures : array of shape (n, d)
        Features.
    reference : array of shape (m, d)
    groups : array of shape (n,), optional
        The prompt of each picture: drawn together for the interval, and by default each on its own. The reference is
        held fixed.

    Raises
    ------
    HandscopeError
        There are fewer than two rows of either, their widths differ, or a feature is not finite.
    """
    x, y = np.asarray(pictures, np.float64), np.asarray(reference, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise HandscopeError(
            f"Expected features of at least two pictures each, of one width, found shapes {x.shape} and {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise HandscopeError("Expected finite features, found NaN or infinity.")
    n, m, d = len(x), len(y), x.shape[1]
    within, cross, other = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (x, y), (y, y)))
    np.fill_diagonal(within, 0)
    fixed = (other.sum() - np.trace(other)) / (m * (m - 1))
    whole = within.sum() / (n * (n - 1)) + fixed - 2 * cross.mean()
    group = codes(np.arange(n) if groups is None else groups)
    weights = bootstrap_weights(group, draws, seed)[:, group]
    drawn = weights.sum(1)
    # A picture that is drawn twice is no pair with itself.
    between = np.einsum("di,ij,dj->d", weights, within, weights, optimize=True)
    pairs = drawn**2 - (weights**2).sum(1)
    values = between / pairs + fixed - 2 * (weights @ cross.mean(1)) / drawn
    return float(whole), *interval(values)


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
