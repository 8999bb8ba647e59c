"""Intervals from bootstrap draws of whole groups, and how much wider held-out scores make them.

Samples of one prompt are alike, so a draw takes prompts, and all samples of each.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import t as student

from .auc import PairWins, auc
from .folds import codes
from .nulls import permuted_labels


def drawn_groups(n: int, draws: int, random: np.random.Generator) -> NDArray[np.float64]:
    """How often each of n groups is in each draw of n groups with replacement: shape (draws, n)."""
    return random.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def bootstrap_weights(groups: ArrayLike, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """`drawn_groups` of the groups (n,) of samples: shape (draws, n_groups), groups in sorted order, not to be written
    to.
    """
    return _weights(int(codes(groups).max()) + 1, draws, seed)


@lru_cache(maxsize=8)
def _weights(n: int, draws: int, seed: int) -> NDArray[np.float64]:
    """The same for every cell and baseline of a run, so the last few are kept."""
    weights = drawn_groups(n, draws, np.random.default_rng([seed, 2]))
    weights.setflags(write=False)
    return weights


def picked_groups(n: int, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """As `drawn_groups`, with the groups of a draw picked one after the other: shape (draws, n).

    The intervals in shipped files (of the judge, of the calibrations and of the counter in anatomy) are of these draws.
    """
    picked = np.random.default_rng(seed).integers(n, size=(draws, n))
    counts = np.bincount((picked + n * np.arange(draws)[:, None]).ravel(), minlength=draws * n)
    return counts.reshape(draws, n).astype(np.float64)


def interval(draws: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The central `level` of bootstrap draws; NaN, NaN when no draw could be computed."""
    draws = draws[~np.isnan(draws)]
    if len(draws) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def rarer_groups(y: ArrayLike, groups: ArrayLike) -> int:
    """How many groups have a sample of the class that fewer groups have."""
    y, group = np.asarray(y), codes(groups)
    return min(len(np.unique(group[y == one])) for one in (0, 1))


def logit_interval(share: float, spread: float, groups: int) -> tuple[float, float]:
    """95% interval of a share whose draws of `groups` groups have the standard deviation `spread`, within 0..1.

    Half widths are Student's t, with one degree of freedom less than there are groups, on the logit scale.
    """
    half = student.ppf(0.975, max(groups - 1, 1)) * spread / (share * (1 - share))
    low, high = expit(logit(share) + half * np.array([-1, 1]))
    return float(low), float(high)


def bootstrap_auc(
    scores: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    strata: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
    within: bool = False,
    null: ArrayLike | None = None,
) -> tuple[float, float]:
    """95% interval of an `auc` by drawing groups with replacement; `within` compares inside groups only.

    Parameters
    ----------
    scores, y, groups, strata : as for `auc`, each of shape (n,)
    null : AUCs of the same fits to permuted labels, of any shape. Give them wherever the scores are held-out scores:
        the interval is `widening` times as wide.

    Returns
    -------
    Lower and upper bound; NaN, NaN where there is no pair to compare

    Notes
    -----
    Half widths are Student's t times the standard deviation of the draws, on the logit scale, so that the bounds stay
    in 0..1; t has one degree of freedom less than there are groups of the rarer class. Where every bad sample is above
    every good one the draws do not differ, and the lower bound is what m independent pairs, all won, leave possible:
    0.025 to the power 1/m, m the groups of the rarer class. Where all pairs are of one group, or of groups that all
    agree, the draws do not differ either, and nothing is known of other groups: the interval is 0 to 1.
    bench/validity/false_positives.py measures the coverage.
    """
    group, y = codes(groups), np.asarray(y)
    pairs = PairWins.of(scores, y, group, strata)
    both = np.intersect1d(group[y == 1], group[y == 0])
    held = len(both) if within else rarer_groups(y, groups)
    weights = bootstrap_weights(groups, draws, seed)
    spread = pairs.within_auc(weights) if within else pairs.auc(weights)
    whole = np.ones((1, weights.shape[1]))
    observed = float((pairs.within_auc(whole) if within else pairs.auc(whole))[0])
    if np.isnan(observed):
        return float("nan"), float("nan")
    if not np.nanstd(spread) > 1e-9 and 0 < observed < 1:
        return 0.0, 1.0
    if observed in (0.0, 1.0):
        bound = 0.025 ** (1 / held)
        return (bound, 1.0) if observed else (0.0, 1 - bound)
    widened = 1.0 if null is None else widening(scores, y, groups, null, strata, within, seed)
    return logit_interval(observed, float(widened * np.nanstd(spread)), held)


def jackknife_interval(
    value: float, without: ArrayLike, bounds: tuple[float, float] = (0.0, 1.0), level: float = 0.95
) -> tuple[float, float]:
    """Interval of a statistic between two bounds, from its values without one group each.

    Parameters
    ----------
    value : of all groups
    without : array of shape (groups,), NaN where it is not defined
    bounds : the least and the largest that the statistic can be; `value` lies between them

    Returns
    -------
    Lower and upper bound; the bounds themselves where one group leaves nothing to compare, or no group matters

    Notes
    -----
    The delete-one-group jackknife on the logit scale, times Student's t with one degree of freedom less than there are
    groups. Percentiles of a bootstrap cover too little where there are few groups: kappa and alpha 84 to 92 of 100 with
    6 to 8, in simulations in which this covers 92 to 98; tests/labeling/test_agreement.py holds it to that.
    """
    low, high = bounds
    values = np.asarray(without, np.float64)
    values = values[~np.isnan(values)]
    m = len(values)
    if m < 2:
        return bounds
    inside = np.clip((values - low) / (high - low), 1e-6, 1 - 1e-6)
    spread = np.sqrt((m - 1) / m * np.square(logit(inside) - logit(inside).mean()).sum())
    if not spread > 0:
        return bounds
    half = student.ppf(0.5 + level / 2, m - 1) * spread
    ends = low + (high - low) * expit(logit((value - low) / (high - low)) + half * np.array([-1, 1]))
    return float(ends[0]), float(ends[1])


def widening(
    scores: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    null: ArrayLike,
    strata: ArrayLike | None = None,
    within: bool = False,
    seed: int = 0,
    permutations: int = 200,
) -> float:
    """How much wider held-out scores make an interval than scores that are given: at least 1.

    Parameters
    ----------
    scores, y, groups, strata, within : as for `bootstrap_auc`
    null : AUCs of fits to permuted labels

    Notes
    -----
    In cross-validation every sample is scored by fits to the others and is among those that the others are scored by,
    so held-out scores depend on each other, and a bootstrap that takes them as they are is too narrow (Bates, Hastie
    and Tibshirani 2023, https://doi.org/10.1080/01621459.2023.2197686). How much so is known where labels mean nothing:
    the standard deviation of the AUC when the fits are made again for every permuted labelling, over that when only the
    labels of the scores are permuted. About 1.4 for five folds of a difference of means.
    """
    values = np.asarray(null, np.float64).ravel()
    values = values[~np.isnan(values)]
    shuffled = permuted_labels(y, groups, permutations, seed, within=within)
    fixed = auc(scores, shuffled, groups if within else strata)
    if len(values) < 2 or not np.nanstd(fixed) > 0:
        return 1.0
    return max(1.0, float(values.std() / np.nanstd(fixed)))
