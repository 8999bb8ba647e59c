"""Two rates that share no noises, or no prompts: their difference over prompts, and the odds of a table of counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import t as student

from ...errors import HandscopeError
from .folds import codes
from .paired import exchange_p, half_width
from .verdicts import Counts, sensitivity, specificity

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TwoRates:
    """Two sets of samples, each with a rate of bad.

    Attributes
    ----------
    n_before, n_after : int, samples that are judged
    groups : int, prompts of either
    before, after : float, rates
    difference, low, high : float, after minus before, with its 95% interval over prompts
    p : float, two-sided, over prompts
    """

    n_before: int
    n_after: int
    groups: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float


def two_rates(
    before: ArrayLike,
    before_groups: ArrayLike,
    after: ArrayLike,
    after_groups: ArrayLike,
    seed: int = 0,
    tested: bool = True,
) -> TwoRates:
    """Compare two rates whose samples are not pairs.

    Parameters
    ----------
    before, after : arrays of shape (n,) and (m,), 1 bad, 0 good, NaN not judged
    before_groups, after_groups : the prompt of each, of the same shapes; prompts of both sets are one group
    tested : without the test, which is most of the time, p is NaN

    Raises
    ------
    HandscopeError
        Nothing is judged in one of them, or a shape does not fit.

    Notes
    -----
    The interval is linearised and clustered: what a prompt contributes to the difference is its deviation in the one
    set less that in the other, so that prompts in both sets count as what they have in common, times Student's t with
    one degree of freedom less than there are prompts. That is a GEE of the identity link with an independence working
    correlation, whose sandwich is multiplied by m / (m - 1). Where both sets have as many samples of each prompt, the
    test exchanges them prompt by prompt, as that of `paired_rates`; else it is Student's t of the same spread.
    """
    (a, group_a), (b, group_b) = (_judged(*side) for side in ((before, before_groups), (after, after_groups)))
    group = codes(np.concatenate([group_a, group_b]))
    count, of_a, of_b = int(group.max()) + 1, group[: len(a)], group[len(a) :]
    n_a, n_b = (np.bincount(one, minlength=count).astype(float) for one in (of_a, of_b))
    bad_a, bad_b = (np.bincount(one, value, count) for one, value in ((of_a, a), (of_b, b)))
    rate_a, rate_b = float(a.mean()), float(b.mean())
    difference = rate_b - rate_a
    influence = (bad_b - n_b * rate_b) / len(b) - (bad_a - n_a * rate_a) / len(a)
    half = half_width(influence)
    if not tested:
        p = float("nan")
    elif (n_a == n_b).all():
        p = exchange_p(bad_b - bad_a, seed)
    else:
        spread = half / student.ppf(0.975, count - 1) if count > 1 and np.isfinite(half) else np.inf
        p = float(2 * student.sf(abs(difference) / spread, count - 1)) if np.isfinite(spread) else 1.0
    low, high = max(-1.0, difference - half), min(1.0, difference + half)
    return TwoRates(len(a), len(b), count, rate_a, rate_b, difference, low, high, p)


def corrected_difference(found: TwoRates, counts: Counts) -> tuple[float, float, float]:
    """The difference of two rates of bad behind one of two rates of flagged, and its 95% interval.

    Parameters
    ----------
    found : of verdicts
    counts : of the verdicts against labels, in groups of their own

    Returns
    -------
    The difference and the bounds; NaN where verdicts tell nothing

    Notes
    -----
    (difference) / (se + sp - 1), since both rates have the errors of Rogan and Gladen (1978) in common, if it errs
    alike in both sets. By the delta method, with the spread of se + sp - 1 from leaving out one labelled group at a
    time, and Student's t with the degrees of freedom of Satterthwaite (1946).
    """
    total = counts.total()
    told = float(sensitivity(total) + specificity(total) - 1)
    if not told > 1e-9:
        return (float("nan"),) * 3
    without = total - counts.table
    left = sensitivity(without) + specificity(without) - 1
    left, labelled = left[~np.isnan(left)], len(counts.table)
    spread = np.sqrt((labelled - 1) / labelled * np.square(left - left.mean()).sum()) if len(left) > 1 else np.inf
    half = max(found.high - found.difference, found.difference - found.low)
    value = found.difference / told
    parts = np.square([half / student.ppf(0.975, max(found.groups - 1, 1)) / told,
                       found.difference * spread / told**2])  # fmt: skip
    freedom = np.array([max(found.groups - 1, 1), max(labelled - 1, 1)])
    free = parts.sum() ** 2 / (parts**2 / freedom).sum() if np.isfinite(parts).all() and parts.any() else 1
    wide = float(student.ppf(0.975, free) * np.sqrt(parts.sum()))
    return value, max(-1.0, value - wide), min(1.0, value + wide)


def _judged(values: ArrayLike, groups: ArrayLike) -> tuple[Floats, NDArray]:
    value, group = np.asarray(values, np.float64), np.asarray(groups)
    if value.ndim != 1 or value.shape != group.shape:
        raise HandscopeError(f"Expected a group for each value, found shapes {value.shape} and {group.shape}.")
    known = ~np.isnan(value)
    if not known.any():
        raise HandscopeError(f"None of {len(value)} samples is judged: there is nothing to compare.")
    return value[known], group[known]


@dataclass(frozen=True)
class Odds:
    """The conditional odds ratio of a two by two table, with its 95% interval, and the p of Fisher's exact test."""

    ratio: float
    low: float
    high: float
    p: float


def conditional_odds(table: ArrayLike, level: float = 0.95) -> Odds:
    """How many times larger the odds of the second row are, given the sums of the table.

    Parameters
    ----------
    table : array of shape (2, 2), whole numbers: bad and good of the first set, then of the second

    >>> conditional_odds([[30, 70], [40, 60]]).ratio.__round__(2)
    1.55

    Notes
    -----
    The conditional maximum of likelihood and Clopper and Pearson's interval, of Fisher's noncentral hypergeometric
    distribution, as ``scipy.stats.contingency.odds_ratio``, which takes seconds for thousands of counts because it
    makes the distribution anew for each number that it tries; here it is made once for a table. Samples count as
    independent: prompts make the interval too narrow.
    """
    counts = np.asarray(table)
    if counts.shape != (2, 2) or (counts < 0).any() or (counts != np.round(counts)).any():
        raise HandscopeError(f"Expected two rows of two counts, found {counts.tolist()}.")
    (a, b), (c, d) = counts[::-1].astype(int).tolist()
    row, column, total = a + b, a + c, a + b + c + d
    x = np.arange(max(0, row + column - total), min(row, column) + 1)
    if len(x) == 1:
        return Odds(float("nan"), 0.0, float("inf"), 1.0)
    weight = -(gammaln(x + 1) + gammaln(row - x + 1) + gammaln(column - x + 1) + gammaln(total - row - column + x + 1))

    def chances(log_odds: float) -> Floats:
        logs = weight + x * log_odds
        raised = np.exp(logs - logs.max())
        return raised / raised.sum()

    def solved(lacking: object) -> float:
        return float(np.exp(brentq(lacking, -60, 60, xtol=1e-12)))

    tail = (1 - level) / 2
    low = 0.0 if a == x[0] else solved(lambda odds: float(chances(odds)[x >= a].sum()) - tail)
    high = float("inf") if a == x[-1] else solved(lambda odds: float(chances(odds)[x <= a].sum()) - tail)
    ratio = solved(lambda odds: float(chances(odds) @ x) - a) if x[0] < a < x[-1] else (0.0 if a == x[0] else high)
    none = chances(0.0)
    p = float(none[none <= none[x == a] * (1 + 1e-7)].sum())
    return Odds(ratio, low, high, min(p, 1.0))


def mcnemar_p(mended: int, broken: int) -> float:
    """McNemar's exact test of pairs that changed: two-sided, pairs taken as independent."""
    from scipy.stats import binomtest

    return float(binomtest(mended, mended + broken).pvalue) if mended + broken else 1.0
