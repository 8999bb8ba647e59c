"""How far verdicts agree with labels, with intervals over groups, and what a rate is once their error is taken off.

Instances of one prompt, or of one generator, are alike, so that a bootstrap draws groups and not instances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from .agreement import cohen_kappa
from .arrays import binary
from .folds import codes
from .intervals import drawn_groups, interval, jackknife_interval

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
    flagged: int, n: int, counts: Counts, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Rogan and Gladen's rate of `flagged` of `n` instances, and its interval.

    The interval holds both uncertainties: instances are drawn again with replacement, and so are the groups that
    sensitivity and specificity come from. It assumes that these hold for the new instances too, and takes these as
    independent: where instances of a prompt are alike it covers 86 to 89 of 100, not 95.
    """
    if not 0 <= flagged <= n or n < 1:
        raise HandscopeError(f"Expected at most as many flagged as there are, found {flagged} of {n}.")
    total = counts.total()
    rate = float(rogan_gladen(flagged / n, sensitivity(total), specificity(total)))
    if np.isnan(rate):
        return (float("nan"),) * 3
    drawn = counts.draws(seed)
    shares = np.random.default_rng([seed, 1]).binomial(n, flagged / n, size=len(drawn)) / n
    return rate, *interval(rogan_gladen(shares, sensitivity(drawn), specificity(drawn)), level)


def _share(part: ArrayLike, whole: ArrayLike) -> Floats:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
