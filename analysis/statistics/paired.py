"""Rates before and after an intervention, on the same prompts and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from ...errors import HandscopeError
from .folds import codes

EXACT = 14
"""Up to so many prompts all signs are tried; beyond, `FLIPS` of them at random."""

FLIPS = 9999


@dataclass(frozen=True)
class Paired:
    """Two arms on the same n pairs.

    Attributes
    ----------
    n : int, pairs judged in both arms
    left_out : int, pairs without a judgement in one of them
    before, after : float, rates of bad
    difference, low, high : float, after minus before, with its 95% interval over prompts
    ratio, ratio_low, ratio_high : float, after over before, with its interval; NaN where nothing is bad in an arm
    mended, broken : int, pairs that went from bad to good, and from good to bad
    p : float, two-sided, of exchanging the arms prompt by prompt
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


def paired_rates(
    before: ArrayLike, after: ArrayLike, groups: ArrayLike, seed: int = 0, tested: bool = True
) -> Paired:
    """Compare two arms.

    Parameters
    ----------
    before, after : arrays of shape (n,)
        1 bad, 0 good, NaN not judged, of the same prompts and seeds in the same order.
    groups : array of shape (n,)
        The prompt of each pair. Pairs of one prompt are alike: prompts are the unit of interval and test.
    tested : bool
        Without the test, which is most of the time, p is NaN.

    Raises
    ------
    HandscopeError
        The shapes differ, a value is none of these, or no pair is judged in both arms.

    Notes
    -----
    Intervals are linearised and clustered: the standard error is that of the sum of what each prompt contributes to the
    difference, or to the log of the ratio, times Student's t with one degree of freedom less than there are prompts.
    From one prompt nothing is known of others; where no prompt differs from another, m prompts that all agree leave a
    rate of 1 - 0.025 to the power 1/m possible. The test exchanges the arms of all pairs of a prompt at once. McNemar's
    takes pairs as independent, and rejects 14% at 5% where prompts answer differently and nothing changes on average.
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
    size, bad_before, bad_after = (np.bincount(group, values) for values in (np.ones(len(a)), a, b))
    change = bad_after - bad_before
    difference = float(change.sum() / len(a))
    half = half_width((change - size * difference) / len(a))
    low, high = max(-1.0, difference - half), min(1.0, difference + half)
    ratio = ratio_low = ratio_high = float("nan")
    if a.any():
        ratio = float(b.mean() / a.mean())
    if a.any() and b.any():
        half = half_width(bad_after / b.sum() - bad_before / a.sum())
        ratio_low, ratio_high = ratio * np.exp(-half), ratio * np.exp(half)
    return Paired(
        n=len(a),
        left_out=int((~judged).sum()),
        before=float(a.mean()),
        after=float(b.mean()),
        difference=difference,
        low=low,
        high=high,
        ratio=ratio,
        ratio_low=float(ratio_low),
        ratio_high=float(ratio_high),
        mended=mended,
        broken=broken,
        p=exchange_p(change, seed) if tested else float("nan"),
    )


def exchange_p(change: ArrayLike, seed: int = 0) -> float:
    """How often arms that are exchanged prompt by prompt differ as much as they were found to; two-sided.

    Parameters
    ----------
    change : array of shape (prompts,), bad pairs after less bad pairs before

    Notes
    -----
    Exact for up to `EXACT` prompts that changed; else Monte Carlo, the observed sign counted in, and never 0.
    """
    changed = np.asarray(change, np.float64)
    changed = changed[changed != 0]
    if not len(changed):
        return 1.0
    observed = abs(changed.sum()) - 1e-9
    if len(changed) <= EXACT:
        signs = 1 - 2 * (np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed)) & 1)
        return float((np.abs(signs @ changed) >= observed).mean())
    signs = np.random.default_rng([seed, 4]).choice([-1, 1], size=(FLIPS, len(changed)))
    return float((1 + (np.abs(signs @ changed) >= observed).sum()) / (1 + FLIPS))


def half_width(influence: NDArray[np.float64]) -> float:
    """Half of a 95% interval, from what each prompt contributes to the deviation of an estimate: shape (prompts,)."""
    m = len(influence)
    if m < 2:
        return float("inf")
    spread = np.sqrt(m / (m - 1) * np.square(influence).sum())
    if spread == 0:
        return float(1 - 0.025 ** (1 / m))
    return float(student.ppf(0.975, m - 1) * spread)
