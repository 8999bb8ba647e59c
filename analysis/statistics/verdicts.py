"""How far verdicts agree with labels, with intervals over groups, and what a rate is once their error is taken off.

Instances of one prompt, or of one generator, are alike, so that a bootstrap draws groups and not instances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from ...errors import HandscopeError
from .agreement import cohen_kappa
from .arrays import binary
from .folds import codes
from .intervals import drawn_groups, jackknife_interval

DRAWS = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counts:
    """Verdicts against labels in each group.

    Attributes
    ----------
    table : (n_groups, 4): bad instances that were flagged, bad ones that were not, good ones flagged, good ones not.
    """

    table: Floats

    @classmethod
    def of(cls, flagged: ArrayLike, bad: ArrayLike, groups: ArrayLike) -> Counts:
        """From verdicts and labels (m,) bool, and groups (m,)."""
        flagged, bad = binary(flagged, "verdicts") > 0, binary(bad) > 0
        group = codes(groups, len(bad))
        kind = np.where(bad, np.where(flagged, 0, 1), np.where(flagged, 2, 3))
        table = np.zeros((int(group.max(initial=-1)) + 1, 4))
        np.add.at(table, (group, kind), 1)
        return cls(table)

    def total(self) -> Floats:
        """(4,) over all groups."""
        return self.table.sum(0)

    def draws(self, seed: int = 0, draws: int = DRAWS) -> Floats:
        """Totals of bootstrap samples of as many groups as there are: (draws, 4)."""
        return drawn_groups(len(self.table), draws, np.random.default_rng(seed)) @ self.table


def sensitivity(counts: Floats) -> Floats:
    """Share of bad instances that are flagged: (..., 4) to (...); NaN without a bad instance."""
    return _share(counts[..., 0], counts[..., 0] + counts[..., 1])


def specificity(counts: Floats) -> Floats:
    """Share of good instances that are not flagged; NaN without a good instance."""
    return _share(counts[..., 3], counts[..., 2] + counts[..., 3])


def accuracy(counts: Floats) -> Floats:
    """Share of instances on which verdict and label agree."""
    return _share(counts[..., 0] + counts[..., 3], counts.sum(-1))


def kappa(counts: Floats) -> Floats:
    """Cohen's kappa of verdicts and labels; see `cohen_kappa`."""
    return cohen_kappa(counts.reshape(*counts.shape[:-1], 2, 2))


def with_interval(
    measure: Callable[[Floats], Floats], counts: Counts, level: float = 0.95
) -> tuple[float, float, float]:
    """A measure of counts and its interval over groups: `jackknife_interval`.

    Notes
    -----
    Where all agree no group matters. The bound is then what g groups that all agree leave possible: a share of
    ``(1 - level) / 2`` to the power 1/g, g the number of groups that the measure looks at.
    """
    observed = float(measure(counts.total()))
    if np.isnan(observed):
        return (float("nan"),) * 3
    if observed == 1.0 or (observed == 0.0 and measure in (sensitivity, specificity, accuracy)):
        looked_at = int((~np.isnan(measure(counts.table))).sum()) if measure is not kappa else len(counts.table)
        bound = ((1 - level) / 2) ** (1 / max(looked_at, 1))
        return (observed, bound, 1.0) if observed else (observed, 0.0, 1 - bound)
    bounds = (-1.0, 1.0) if measure is kappa else (0.0, 1.0)
    return observed, *jackknife_interval(observed, measure(counts.total() - counts.table), bounds, level)


def rogan_gladen(flagged: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> Floats:
    """The rate of bad instances behind a rate of flagged ones: (flagged + sp - 1) / (se + sp - 1), within 0..1.

    NaN where se + sp is not above 1: verdicts that tell nothing cannot be corrected (Rogan and Gladen 1978).
    """
    flagged, se, sp = (np.asarray(value, float) for value in (flagged, sensitivity, specificity))
    told = se + sp - 1
    return np.clip(_share(flagged + sp - 1, np.where(told > 1e-9, told, 0.0)), 0, 1)


def corrected_rate(
    flagged: ArrayLike, groups: ArrayLike, counts: Counts, level: float = 0.95
) -> tuple[float, float, float]:
    """Rogan and Gladen's rate of bad instances behind these verdicts, and its interval.

    Parameters
    ----------
    flagged : array of shape (n,), verdicts on new instances
    groups : array of shape (n,), what makes them alike: their prompt, or the picture that they are in
    counts : verdicts against labels, in groups of their own

    Returns
    -------
    The rate and the bounds; NaN where verdicts tell nothing

    Notes
    -----
    All rates that are no further from what was found than t standard errors (Fieller 1954), with t and the sizes of
    Lang and Reiczigel (2014, https://doi.org/10.1016/j.prevetmed.2013.09.015): counts are drawn a little to the middle.
    What a sample tells is divided by its design effect, the variance between groups over that of independent instances
    and at least 1, for new and for labelled instances alike; t has the degrees of freedom of Welch and Satterthwaite.
    It covers 95 to 97 of 100 with 6 to 32 groups (bench/validity/coverage.py), and assumes that sensitivity and
    specificity hold for the new instances too. Where fewer are flagged than false alarms alone would be, the bound is
    what m groups without a bad instance leave possible, 1 - 0.025 ** (1 / m).

    Raises
    ------
    HandscopeError
        There is no verdict, or no group for each.
    """
    flagged = binary(flagged, "verdicts")
    if not len(flagged):
        raise HandscopeError("Expected verdicts to correct the rate of, found none.")
    group, n = codes(groups, len(flagged)), float(len(flagged))
    (hit, missed, false, passed), share = counts.total(), float(flagged.mean())
    bad, good = hit + missed, false + passed
    rate = float(rogan_gladen(share, sensitivity(counts.total()), specificity(counts.total())))
    if np.isnan(rate):
        return (float("nan"),) * 3
    se, sp = hit / bad, passed / good
    # What each group adds to the deviation of the share, and to that of the errors that are taken off it.
    seen = np.bincount(group, flagged - share) / n
    off = -rate * (counts.table[:, 0] - se * counts.table[:, :2].sum(1)) / bad
    off += (1 - rate) * (counts.table[:, 3] - sp * counts.table[:, 2:].sum(1)) / good
    free = share * (1 - share) / n
    free_off = rate**2 * se * (1 - se) / bad + (1 - rate) ** 2 * sp * (1 - sp) / good
    n, bad, good = n / _design(seen, free), bad / _design(off, free_off), good / _design(off, free_off)
    t = float(student.ppf(0.5 + level / 2, _freedom((seen, free), (off, free_off))))
    share, n = (n * share + t**2 / 2) / (n + t**2), n + t**2
    (se, bad), (sp, good) = ((bad * se + 1) / (bad + 2), bad + 2), ((good * sp + 1) / (good + 2), good + 2)
    told, above = se + sp - 1, share + sp - 1
    missing, wrong = t**2 * se * (1 - se) / bad, t**2 * sp * (1 - sp) / good
    # (above - p told)² <= missing p² + wrong (1 - p)² + t² share (1 - share) / n
    square, middle = told**2 - missing - wrong, told * above - wrong
    if square <= 0:
        return rate, 0.0, 1.0
    half = np.sqrt(max(middle**2 - square * (above**2 - wrong - t**2 * share * (1 - share) / n), 0.0))
    low, high = np.clip([(middle - half) / square, (middle + half) / square], 0, 1)
    if not low < high:  # fewer flagged than false alarms alone would be, or more than all
        beyond = 1 - ((1 - level) / 2) ** (1 / len(seen))
        return (rate, 0.0, float(beyond)) if rate < 0.5 else (rate, float(1 - beyond), 1.0)
    return rate, float(min(low, rate)), float(max(high, rate))


def _between(influence: Floats) -> float:
    """Variance of an estimate, from what each group adds to its deviation; infinite of one group."""
    m = len(influence)
    return float(m / (m - 1) * np.square(influence).sum()) if m > 1 else float("inf")


def _design(influence: Floats, free: float) -> float:
    """How many times the variance between groups is that of independent instances, `free`; at least 1."""
    return max(1.0, _between(influence) / free) if free > 0 else 1.0


def _freedom(*parts: tuple[Floats, float]) -> float:
    """Degrees of freedom of a sum of independent parts, each as for `_design` (Satterthwaite 1946)."""
    variance = np.array([free * _design(influence, free) for influence, free in parts])
    groups = np.array([max(len(influence) - 1, 1) for influence, _ in parts])
    if not variance.sum() > 0 or not np.isfinite(variance.sum()):
        return float(groups.min())
    return float(variance.sum() ** 2 / (variance**2 / groups).sum())


def _share(part: ArrayLike, whole: ArrayLike) -> Floats:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
