"""Two sets of pictures as matrices of features: checked in one place, with what is too few said in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...analysis.statistics.arrays import numbers
from ...analysis.statistics.folds import codes
from ...errors import HandscopeError

Array = NDArray[np.float64]
FEW = 10
"""Prompts below which an interval by draws of prompts is rough."""


def checked(
    features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Features (n, d) and (m, d) as float64, and groups (n,) as 0, 1, …; without groups each picture is its own.

    Raises
    ------
    HandscopeError
        There are fewer than two rows of either, their widths differ, a feature is not finite, or a group is missing.
    """
    x, y = (numbers(one, "features").astype(np.float64) for one in (features, reference))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise HandscopeError(
            f"Expected features of at least two pictures each, of one width, found shapes {x.shape} and {y.shape}."
        )
    return x, y, codes(np.arange(len(x)) if groups is None else groups, len(x))


def few_groups(group: NDArray[np.intp]) -> str:
    """A warning, or nothing."""
    many = int(group.max()) + 1
    return f"{many} prompts are few: the interval is rough." if many < FEW else ""


def said(*warnings: str) -> str:
    """Warnings as one text."""
    return " ".join(filter(None, warnings))
