"""Squared maximum mean discrepancies: the kernel inception distance, and one with a Gaussian kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from . import Distance
from .sets import Array, checked, few_groups, jackknife_half

Kernel = Callable[[Array, Array], Array]
ROWS = 1024
"""Rows of a kernel matrix that are in memory at a time."""


def kid(features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None) -> Distance:
    """The unbiased squared MMD with the kernel ``(x·y / d + 1)³``.

    Of Inception's features it is the kernel inception distance (KID) of Binkowski et al. 2018 (arXiv 1801.01401), of
    all pictures and not of random subsets; of other features its numbers compare with each other only. Near 0, and
    below it half of the time, for two samples of one distribution.

    Parameters
    ----------
    features : array of shape (n, d)
    reference : array of shape (m, d)
    groups : array of shape (n,), optional
        The prompt of each picture, by default its own: the interval is the jackknife's over them.

    Raises
    ------
    HandscopeError
        There are fewer than two rows of either, their widths differ, or a feature is not finite.
    """
    x, y, group = checked(features, reference, groups)
    return _mmd(x, y, group, lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3)


def mmd(
    features: ArrayLike,
    reference: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    sigma: float | None = None,
) -> Distance:
    """The unbiased squared MMD with the kernel ``exp(-|x - y|² / 2 sigma²)`` (Gretton et al. 2012).

    Parameters
    ----------
    features, reference, groups : as for `kid`
    sigma : the kernel's width; by default the median distance between two of at most 1,000 reference pictures, so that
        distances to one reference compare. CMMD (Jayasumana et al. 2024, arXiv 2401.09603) is 1,000 times this with
        sigma 10 on CLIP's unit vectors.

    Raises
    ------
    HandscopeError
        As `kid`, or `sigma` is not above 0.
    """
    x, y, group = checked(features, reference, groups)
    if sigma is None:
        some = y[np.linspace(0, len(y) - 1, min(len(y), 1000)).astype(int)]
        sigma = float(np.sqrt(np.median(_squares(some, some)[np.triu_indices(len(some), 1)])))
    if not sigma > 0:
        raise HandscopeError(f"Expected a kernel's width above 0, found {sigma:g}: is the reference one picture?")
    width = 2 * sigma**2
    return _mmd(x, y, group, lambda a, b: np.exp(-_squares(a, b) / width))


def _squares(a: Array, b: Array) -> Array:
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T, 0)


def _mmd(x: Array, y: Array, group: NDArray[np.intp], kernel: Kernel) -> Distance:
    n, m, size = len(x), len(y), np.bincount(group)
    every, own, cross = np.zeros((3, len(size)))  # of a group's pictures: with all others, with its own, with reference
    for first in range(0, n, ROWS):
        rows = slice(first, first + ROWS)
        part = kernel(x[rows], x)
        part[np.arange(len(part)), np.arange(first, first + len(part))] = 0  # a picture is no pair with itself
        every += np.bincount(group[rows], part.sum(1), len(size))
        own += np.bincount(group[rows], (part * (group[rows, None] == group)).sum(1), len(size))
        cross += np.bincount(group[rows], kernel(x[rows], y).mean(1), len(size))
    other = 0.0
    for first in range(0, m, ROWS):
        part = kernel(y[first : first + ROWS], y)
        other += part.sum() - part[np.arange(len(part)), np.arange(first, first + len(part))].sum()
    # All pictures, and all but one group: what is left of each sum once its rows and columns are taken out.
    left = np.array([every.sum(), *(every.sum() - 2 * every + own)])
    count = np.array([n, *(n - size)])
    far = np.array([cross.sum(), *(cross.sum() - cross)])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = left / (count * (count - 1)) + other / (m * (m - 1)) - 2 * far / count
    half = jackknife_half(values[1:])
    return Distance(float(values[0]), float(values[0] - half), float(values[0] + half), n, m, few_groups(group))
