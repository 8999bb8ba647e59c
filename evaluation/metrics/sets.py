"""Two sets of pictures as matrices of features: checked in one place, with what is too few said in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

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


def jackknife_half(without: Array) -> float:
    """Half the width of a 95% interval of a statistic, from its values without one group, or one block of them, each.

    Notes
    -----
    The delete-a-group jackknife, times Student's t with one degree of freedom less than there are groups. Percentiles
    of draws with replacement cover too little where there are few groups, 84 of 100 with 6 in the simulation of
    bench/validity/metric_intervals.py: there pictures that are drawn twice make a sample look smaller, and a statistic
    that is biased in small samples is more so in every draw. This covers 94 to 97. NaN of fewer than three.
    """
    m = len(without)
    if m < 3 or np.isnan(without).any():
        return float("nan")
    spread = np.sqrt((m - 1) / m * np.square(without - without.mean()).sum())
    return float(student.ppf(0.975, m - 1) * spread)


def few_groups(group: NDArray[np.intp]) -> str:
    """A warning, or nothing."""
    many = int(group.max()) + 1
    return f"{many} prompts are few: the interval is rough." if many < FEW else ""


def said(*warnings: str) -> str:
    """Warnings as one text."""
    return " ".join(filter(None, warnings))
