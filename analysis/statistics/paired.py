"""Rates before and after an intervention, on the same prompts and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from ...errors import HandscopeError
from .folds import codes
from .intervals import bootstrap_weights, interval


@dataclass(frozen=True)
class Paired:
    """Two arms on the same n pairs.

    Attributes
    ----------
    n : int, pairs judged in both arms
    left_out : int, pairs without a judgement in one of them
    before, after : float, rates of bad
    difference, low, high : float, after minus before, with its 95% interval (draws of prompts)
    ratio, ratio_low, ratio_high : float, after over before, with its interval; NaN where nothing is bad before
    mended, broken : int, pairs that went from bad to good, and from good to bad
    p : float, McNemar's exact test, two-sided
    """

    n: int
    left_out: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    mended: int
    broken: int
    p: float


def paired_rates(before: ArrayLike, after: ArrayLike, groups: ArrayLike, draws: int = 4000, seed: int = 0) -> Paired:
    """Compare two arms.

    Parameters
    ----------
    before, after : arrays of shape (n,)
        1 bad, 0 good, NaN not judged, of the same prompts and seeds in the same order.
    groups : array of shape (n,)
        The prompt of each pair. Pairs of one prompt are drawn together; McNemar's test takes pairs as independent,
        which the interval does not.

    Raises
    ------
    HandscopeError
        The shapes differ, a value is none of these, or no pair is judged in both arms.
    """
    a, b, group = np.asarray(before, np.float64), np.asarray(after, np.float64), np.asarray(groups)
    if a.ndim != 1 or a.shape != b.shape or a.shape != group.shape:
        raise HandscopeError(
            f"Expected both arms and the prompts of one shape (n,), found {a.shape}, {b.shape} and {group.shape}."
        )
    for name, values in (("before", a), ("after", b)):
        odd = values[~np.isnan(values) & ~np.isin(values, (0, 1))]
        if len(odd):
            raise HandscopeError(f"Expected 1 (bad), 0 (good) or NaN in the arm {name}, found {odd[0]:g}.")
    judged = ~np.isnan(a) & ~np.isnan(b)
    if not judged.any():
        raise HandscopeError(f"None of the {len(a)} pairs is judged in both arms: there is nothing to compare.")
    a, b, group = a[judged], b[judged], codes(group[judged])
    mended, broken = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    sums = np.stack([np.bincount(group, values) for values in (np.ones(len(a)), a, b)], 1)
    drawn = bootstrap_weights(group, draws, seed) @ sums
    low, high = interval((drawn[:, 2] - drawn[:, 1]) / drawn[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(drawn[:, 1] > 0, drawn[:, 2] / drawn[:, 1], np.nan)
    ratio_low, ratio_high = interval(ratios)
    p = binomtest(mended, mended + broken).pvalue if mended + broken else 1.0
    return Paired(
        n=len(a),
        left_out=int((~judged).sum()),
        before=float(a.mean()),
        after=float(b.mean()),
        difference=float((b - a).mean()),
        low=low,
        high=high,
        ratio=float(b.mean() / a.mean()) if a.any() else float("nan"),
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        mended=mended,
        broken=broken,
        p=float(p),
    )
