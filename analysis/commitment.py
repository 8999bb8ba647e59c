"""When a shape is decided: the noisiest step whose predicted clean picture already has it within a tolerance.

The source study (document 2604.01321) defines it as the smallest timestep at which the skeleton is within 5 pixels of
those of the next 50 timesteps. The smallest timestep is the last of the generation, "stays" is not in the definition,
and a sampler of 20 steps has one or two steps in such a window: `literal` has it for comparison. Here a shape is
committed at the noisiest step from which the distance to every later one is below the tolerance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import directed_hausdorff

from ..errors import HandscopeError


@dataclass(frozen=True)
class Commitment:
    """When one shape was decided; indices count from 0, the noisiest step.

    Attributes
    ----------
    index : int or None
        The noisiest step at which it is; where shapes are missing between, they are taken to be no change. None where
        the last step has no shape, or where nothing before the last has the last one's.
    at_latest : int or None
        The same if every gap counts as a change: the truth lies between.
    reason : str
        Why there is no index: ``no shape at the end`` or ``changes to the end``; else empty.
    found : int
        At how many steps there is a shape.
    """

    index: int | None
    at_latest: int | None
    reason: str
    found: int

    @property
    def from_the_start(self) -> bool:
        """It was decided at the first step, or would have been before."""
        return self.index == 0


def commitment(distances: ArrayLike, tolerance: float) -> Commitment:
    """When a shape is decided, from the distances between all steps.

    Parameters
    ----------
    distances : array of shape (steps, steps)
        Between the shapes at two steps, the noisiest first; NaN where either has none. As of `distances_between`.
    tolerance : float
        In units of the distances.
    """
    d = np.asarray(distances, np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or not len(d):
        raise HandscopeError(f"Expected distances of shape (steps, steps), found {d.shape}.")
    if not tolerance > 0:
        raise HandscopeError(f"Expected a tolerance above 0, found {tolerance}.")
    present = ~np.isnan(np.diagonal(d))
    seen, last = int(present.sum()), len(d) - 1
    if not present[last]:
        return Commitment(None, None, "no shape at the end", seen)
    later = np.triu(np.ones(d.shape, bool), 1)
    with np.errstate(invalid="ignore"):
        far = later & (d >= tolerance)
        gap = later & ~present[None, :]
    stays = present & ~far.any(1)
    whole = stays & ~gap.any(1)
    first, certain = int(np.flatnonzero(stays)[0]), int(np.flatnonzero(whole)[0])
    if first == last and last > 0:
        return Commitment(None, None, "changes to the end", seen)
    return Commitment(first, certain if certain < last or last == 0 else None, "", seen)


def literal(distances: ArrayLike, timesteps: ArrayLike, tolerance: float, reach: float = 50.0) -> int | None:
    """The source study's definition to the letter: ``min {t : d(t, t - dt) < tolerance for all dt in [1, reach]}``.

    Parameters
    ----------
    distances : as of `commitment`
    timesteps : array of shape (steps,), 1000 (noise) to 0
    reach : float
        In timesteps.

    Returns
    -------
    int or None
        The index of that step; None where none qualifies. A step without another in its reach says nothing and is left
        out.
    """
    d, t = np.asarray(distances, np.float64), np.asarray(timesteps, np.float64)
    close = []
    for i in range(len(t)):
        later = [j for j in range(i + 1, len(t)) if 0 < t[i] - t[j] <= reach]
        if later and all(d[i, j] < tolerance for j in later):
            close.append(i)
    return max(close, key=lambda i: -t[i], default=None)


def distances_between(shapes: Sequence[NDArray | None]) -> NDArray[np.float64]:
    """Hausdorff distances in pixels between the shapes of all steps, (steps, steps); NaN where one is missing.

    Parameters
    ----------
    shapes : sequence of arrays of shape (points, 2), or None
        Points in pixels, any number: a skeleton's as of `along_bones`, or those of an outline.
    """
    distances = np.full((len(shapes), len(shapes)), np.nan)
    for i, one in enumerate(shapes):
        for j, other in enumerate(shapes[: i + 1]):
            if one is not None and other is not None and len(one) and len(other):
                distances[i, j] = distances[j, i] = hausdorff(one, other)
    return distances


def hausdorff(one: ArrayLike, other: ArrayLike) -> float:
    """The largest distance from a point of either set (points, 2) to the nearest of the other."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(max(directed_hausdorff(one, other)[0], directed_hausdorff(other, one)[0]))


def along_bones(points: ArrayLike, bones: Sequence[tuple[int, int]], spacing: float = 1.0) -> NDArray[np.float64]:
    """Points along a skeleton's bones, no further than `spacing` pixels apart: shape (points, 2).

    The distance between two skeletons is one of lines; their joints alone would give a longer one.

    Parameters
    ----------
    points : array of shape (joints, 2), in pixels
    bones : pairs of joints
    """
    points = np.asarray(points, np.float64)
    lines = []
    for a, b in bones:
        steps = max(1, int(np.ceil(np.linalg.norm(points[b] - points[a]) / spacing)))
        lines.append(points[a] + np.linspace(0, 1, steps + 1)[:, None] * (points[b] - points[a]))
    return np.unique(np.concatenate(lines), axis=0)
