"""What may settle in a picture while it is drawn: a skeleton, an outline, the colour of a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..analysis.commitment import distances_between
from ..errors import HandscopeError

Pictures = NDArray[np.uint8]
"""The predicted clean pictures of one sample, (steps, height, width, 3), the noisiest step first."""

Shapes = Callable[[Pictures], list[NDArray | None]]
"""Points in pixels, (points, 2), of what is looked for in each picture; None where it is not found."""


@dataclass(frozen=True)
class Region:
    """Something whose commitment is asked for.

    Attributes
    ----------
    name : str
    distances : function
        From the pictures of a sample to distances between all steps, (steps, steps); NaN where there is none.
    tolerance : float
        Below it, two steps show the same.
    unit : str
        Of distances and tolerance.
    shapes : function or None
        Where the distances are between shapes: what finds them, to be drawn.
    """

    name: str
    distances: Callable[[Pictures], NDArray[np.float64]]
    tolerance: float
    unit: str
    shapes: Shapes | None = None


def of_shapes(name: str, shapes: Shapes, tolerance: float) -> Region:
    """A region from any keypoint function, such as of faces or bodies; by Hausdorff distance in pixels."""
    return Region(name, lambda pictures: distances_between(shapes(pictures)), tolerance, "pixels", shapes)


def of_colour(name: str, mask: Callable[[Pictures], NDArray[np.bool_]], tolerance: float) -> Region:
    """A region by what is seen in it: the root mean square difference of its colours, in levels of 0 to 255.

    Parameters
    ----------
    mask : function
        From the pictures of a sample to the region's pixels, (height, width): one region for all steps.
    """

    def distances(pictures: Pictures) -> NDArray[np.float64]:
        inside = mask(pictures)
        if not inside.any():
            return np.full((len(pictures),) * 2, np.nan)
        flat = pictures[:, inside].reshape(len(pictures), -1).astype(np.float64)
        square = (flat**2).sum(1)
        between = square[:, None] + square[None] - 2 * flat @ flat.T
        return np.sqrt(np.maximum(between, 0) / flat.shape[1])

    return Region(name, distances, tolerance, "levels")


def outlines(silhouette: Callable[[NDArray[np.uint8]], NDArray[np.bool_]], least: int = 30) -> Shapes:
    """The border pixels of a silhouette; None where it has fewer than `least` pixels.

    Parameters
    ----------
    silhouette : function
        From a picture (height, width, 3) to its pixels, (height, width).
    """

    def shapes(pictures: Pictures) -> list[NDArray | None]:
        borders: list[NDArray | None] = []
        for picture in pictures:
            mask = silhouette(picture)
            border = mask & ~ndimage.binary_erosion(mask)
            borders.append(np.argwhere(border)[:, ::-1].astype(float) if mask.sum() >= least else None)
        return borders

    return shapes


def check_regions(regions: Sequence[Region]) -> None:
    """Refuse an empty list, and two regions of one name."""
    names = [region.name for region in regions]
    if not names or len(set(names)) < len(names):
        raise HandscopeError(f"Expected regions with a name each, found {names}.")
