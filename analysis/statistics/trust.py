"""How far verdicts agree with labels, with intervals over groups, and what a rate is once their error is taken off.

Hands of one prompt, or of one generator, are alike, so that a bootstrap draws groups and not hands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

DRAWS = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counts:
    """Verdicts against labels in each group.

    Attributes
    ----------
    table : (n_groups, 4): bad hands that were flagged, bad ones that were not, good ones flagged, good ones not.
    """

    table: Floats

    @classmethod
    def of(cls, flagged: ArrayLike, bad: ArrayLike, groups: ArrayLike) -> Counts:
        """From verdicts and labels (m,) bool, and groups (m,)."""
        flagged, bad = np.asarray(flagged, bool), np.asarray(bad, bool)
        group = np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
        kind = np.where(bad, np.where(flagged, 0, 1), np.where(flagged, 2, 3))
        table = np.zeros((int(group.max(initial=-1)) + 1, 4))
        np.add.at(table, (group, kind), 1)
        return cls(table)

    def total(self) -> Floats:
        """(4,) over all groups."""
        return self.table.sum(0)

    def draws(self, seed: int = 0, draws: int = DRAWS) -> Floats:
        """Totals of bootstrap samples of as many groups as there are: (draws, 4)."""
        n = len(self.table)
        return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) @ self.table


def sensitivity(counts: Floats) -> Floats:
    """Share of bad hands that are flagged: (..., 4) to (...); NaN without a bad hand."""
    return _share(counts[..., 0], counts[..., 0] + counts[..., 1])


def specificity(counts: Floats) -> Floats:
    """Share of good hands that are not flagged; NaN without a good hand."""
    return _share(counts[..., 3], counts[..., 2] + counts[..., 3])


def accuracy(counts: Floats) -> Floats:
    """Share of hands on which verdict and label agree."""
    return _share(counts[..., 0] + counts[..., 3], counts.sum(-1))


def kappa(counts: Floats) -> Floats:
    """Cohen's kappa of verdicts and labels: (agreement - chance) / (1 - chance) (Cohen 1960); NaN where chance is 1."""
    n = counts.sum(-1)
    agreed = accuracy(counts)
    bad, flagged = _share(counts[..., 0] + counts[..., 1], n), _share(counts[..., 0] + counts[..., 2], n)
    chance = bad * flagged + (1 - bad) * (1 - flagged)
    return _share(agreed - chance, 1 - chance)


def with_interval(measure, counts: Counts, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    """A measure of counts and its bootstrap interval over groups.

    Notes
    -----
    Where all agree the draws do not differ. The bound is then what g groups that all agree leave possible: a share of
    ``(1 - level) / 2`` to the power 1/g, g the number of groups that the measure looks at.
    """
    observed = float(measure(counts.total()))
    if np.isnan(observed):
        return (float("nan"),) * 3
    if observed == 1.0 or (observed == 0.0 and measure in (sensitivity, specificity, accuracy)):
        looked_at = int((~np.isnan(measure(counts.table))).sum()) if measure is not kappa else len(counts.table)
        bound = ((1 - level) / 2) ** (1 / max(looked_at, 1))
        return (observed, bound, 1.0) if observed else (observed, 0.0, 1 - bound)
    low, high = np.nanquantile(measure(counts.draws(seed)), [(1 - level) / 2, (1 + level) / 2])
    return observed, float(low), float(high)


def auc(score: ArrayLike, bad: ArrayLike) -> float:
    """How often a bad hand has a higher score than a good one; ties count half; NaN without either."""
    score, bad = np.asarray(score, float), np.asarray(bad, bool)
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    if not n_bad or not n_good:
        return float("nan")
    return float((rankdata(score)[bad].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * n_good))


def auc_interval(
    score: ArrayLike, bad: ArrayLike, groups: ArrayLike, level: float = 0.95, draws: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of `auc` over groups."""
    score, bad, groups = np.asarray(score, float), np.asarray(bad, bool), np.asarray(groups)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng, values = np.random.default_rng(seed), []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        values.append(auc(score[rows], bad[rows]))
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def rogan_gladen(flagged: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> Floats:
    """The rate of bad hands behind a rate of flagged ones: (flagged + sp - 1) / (se + sp - 1), within 0..1.

    NaN where se + sp is not above 1: verdicts that tell nothing cannot be corrected (Rogan and Gladen 1978).
    """
    flagged, se, sp = (np.asarray(value, float) for value in (flagged, sensitivity, specificity))
    told = se + sp - 1
    return np.clip(_share(flagged + sp - 1, np.where(told > 1e-9, told, 0.0)), 0, 1)


def corrected_rate(
    flagged: int, n: int, counts: Counts, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Rogan and Gladen's rate of `flagged` of `n` hands, and its interval.

    The interval holds both uncertainties: hands are drawn again with replacement, and so are the groups that
    sensitivity and specificity come from. It assumes that these hold for the new hands too.
    """
    total = counts.total()
    rate = float(rogan_gladen(flagged / n, sensitivity(total), specificity(total)))
    if np.isnan(rate):
        return (float("nan"),) * 3
    drawn = counts.draws(seed)
    shares = np.random.default_rng([seed, 1]).binomial(n, flagged / n, size=len(drawn)) / n
    low, high = np.nanquantile(
        rogan_gladen(shares, sensitivity(drawn), specificity(drawn)), [(1 - level) / 2, (1 + level) / 2]
    )
    return rate, float(low), float(high)


def wilson(part: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's interval of a share, for independent cases: (p + z²/2n ± z sqrt(p (1-p)/n + z²/4n²)) / (1 + z²/n)."""
    part, n = np.asarray(part, float), np.asarray(n, float)
    z = norm.ppf(0.5 + level / 2)
    share = part / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def reliability(probability: ArrayLike, bad: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """What share of hands is bad among those given about the same probability.

    Bins hold equally many hands, as nearly as can be. Columns: predicted (mean probability), observed, lo, hi (Wilson),
    n.
    """
    probability, bad = np.asarray(probability, float), np.asarray(bad, float)
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    n = np.array([len(part) for part in parts])
    seen = np.array([bad[part].sum() for part in parts])
    low, high = wilson(seen, n)
    predicted = [float(probability[part].mean()) for part in parts]
    return pd.DataFrame({"predicted": predicted, "observed": seen / n, "lo": low, "hi": high, "n": n})


def calibration_error(table: pd.DataFrame) -> float:
    """Mean distance of observed from predicted over the hands of a `reliability` table."""
    return float(np.average((table["observed"] - table["predicted"]).abs(), weights=table["n"]))


def _share(part: ArrayLike, whole: ArrayLike) -> Floats:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
