"""How many labelled samples it takes to see an AUC, and what chance those that are there give.

A test that permutes labels calls an AUC when it is further above one half than the null's spread allows; so its power
follows from two spreads, that of the null and that of the AUC itself, and both shrink with the root of the number of
samples. What clustering by prompt and the double use of samples in cross-validation add to them is one factor, the
design effect, which the null of a finished run shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import owens_t
from scipy.stats import norm
from scipy.stats import t as student

from ...errors import HandscopeError
from .effects import auc_of_d, d_of_auc
from .multiple import resolvable

Array = NDArray[np.float64]

ALPHA = 0.05
MOST = 10**7


def null_sd(n_bad: ArrayLike, n_good: ArrayLike, folds: int = 1) -> Array:
    """Standard deviation of an AUC when labels mean nothing and samples are independent; arrays that broadcast.

    Notes
    -----
    Mann and Whitney (1947): sqrt((n + 1) / (12 n_bad n_good)), with n + `folds` for n + 1 where pairs are compared
    inside folds of equal size only.
    """
    n_bad, n_good = np.asarray(n_bad, np.float64), np.asarray(n_good, np.float64)
    return np.sqrt((n_bad + n_good + folds) / (12 * n_bad * n_good))


def auc_sd(auc: ArrayLike, n_bad: ArrayLike, n_good: ArrayLike, folds: int = 1) -> Array:
    """Standard deviation of an AUC of independent samples; arrays that broadcast.

    Notes
    -----
    Hanley and McNeil (1982) for two normals of equal spread: (A (1 - A) + (n_bad - 1)(Q1 - A²) + (n_good - 1)(Q2 - A²))
    / (n_bad n_good), Q1 = Q2 = P(both of two samples of one class beat one of the other), here not their exponential
    approximation but the bivariate normal's. At A = 1/2 it is `null_sd`.
    """
    auc, n_bad, n_good = (np.asarray(value, np.float64) for value in (auc, n_bad, n_good))
    both = _both(auc)
    pairs = (n_bad + n_good - 2 * folds) * (both - auc**2) + folds * auc * (1 - auc)
    return np.sqrt(pairs / (n_bad * n_good))


def _both(auc: Array) -> Array:
    """P(Z1 < h, Z2 < h) of two standard normals with correlation 1/2, h the normal quantile of `auc`."""
    # Owen's T gives it without an integral of two variables: Phi(h) - 2 T(h, 1 / sqrt(3)).
    h = norm.ppf(auc)
    return norm.cdf(h) - 2 * owens_t(h, 1 / np.sqrt(3))


def design_effect(spread: ArrayLike, n_bad: ArrayLike, n_good: ArrayLike, folds: int = 5) -> Array:
    """How many times larger the variance of a null is than for independent samples scored by one fit.

    Parameters
    ----------
    spread : standard deviation of the AUC under permuted labels, ``null_sd`` of a table

    Notes
    -----
    1 + (m - 1) r_y r_s where prompts have m samples and the labels and the scores have intraclass correlations r_y and
    r_s (Scott and Holt 1982), times what cross-validation adds, about 1.7 for five folds of a difference of means.
    """
    return np.square(np.asarray(spread, np.float64) / null_sd(n_bad, n_good, folds))


def power(
    auc: ArrayLike,
    n_bad: ArrayLike,
    n_good: ArrayLike,
    design: ArrayLike = 1.0,
    alpha: float = ALPHA,
    folds: int = 5,
) -> Array:
    """Chance that a permutation test has p ≤ `alpha` when the expected held-out AUC is `auc`; arrays that broadcast.

    Parameters
    ----------
    auc : the AUC that held-out samples have in the mean, at this number of samples; see `held_out_auc`
    n_bad, n_good : samples of each class
    design : the design effect, as of `design_effect`; 1 for independent samples and a direction fitted elsewhere

    Notes
    -----
    Phi((A - 1/2 - z s0) / s1), s0 = `null_sd`, s1 = `auc_sd`, each times the root of the design effect, z the normal
    quantile of 1 - alpha. Simulated in bench/validity/false_positives.py.
    """
    root = np.sqrt(np.asarray(design, np.float64))
    above = np.asarray(auc, np.float64) - 0.5 - norm.ppf(1 - alpha) * root * null_sd(n_bad, n_good, folds)
    return norm.cdf(above / (root * auc_sd(auc, n_bad, n_good, folds)))


def needed(
    auc: float = 0.6,
    target: float = 0.8,
    bad: float = 0.5,
    design: float = 1.0,
    alpha: float = ALPHA,
    folds: int = 5,
) -> int:
    """How many labelled samples, good and bad together, give the test this power.

    Parameters
    ----------
    auc : expected held-out AUC, above 0.5 and below 1
    target : the power
    bad : share of the samples that are bad
    design, alpha, folds : as for `power`; for the largest of m cells after correction, alpha / m is on the safe side

    >>> needed(0.6), needed(0.6, bad=0.1), needed(0.6, design=1.7)
    (208, 568, 350)

    Raises
    ------
    HandscopeError
        A number is out of its range.
    """
    for name, value, low in (("auc", auc, 0.5), ("power", target, alpha), ("share of bad samples", bad, 0.0)):
        if not low < value < 1:
            raise HandscopeError(f"Expected the {name} to be above {low:g} and below 1, found {value:g}.")

    def lacking(n: float) -> float:
        return float(power(auc, n * bad, n * (1 - bad), design, alpha, folds)) - target

    least = 2 * folds / min(bad, 1 - bad)  # two of the rarer class in each fold
    if lacking(least) >= 0:
        return int(np.ceil(least))
    if lacking(MOST) < 0:
        raise HandscopeError(f"An AUC of {auc:g} is too near 0.5: not even {MOST:,} labelled samples would show it.")
    return int(np.ceil(brentq(lacking, least, MOST)))


def detectable(spread: float, null: float = 0.5, alpha: float = ALPHA, target: float = 0.8) -> float:
    """The least effect that a one-sided test at `alpha` sees with the chance `target`.

    Parameters
    ----------
    spread : standard deviation of the statistic where there is nothing, as of a permutation null
    null : what the statistic is there

    Notes
    -----
    null + (z_alpha + z_target) spread: `power` with the spread of the null for that of the effect, which is hardly
    smaller.

    >>> round(detectable(0.03), 2)
    0.57
    """
    return float(null + (norm.ppf(1 - alpha) + norm.ppf(target)) * spread)


def groups_for(half_width: float, groups: int, difference: float = 0.05, target: float = 0.8) -> int:
    """How many prompts it takes to see a difference of two rates, from what an interval over fewer of them was wide.

    Parameters
    ----------
    half_width : half of the 95% interval of the difference, over `groups` prompts, as of `paired_rates`
    difference : that is to be seen, two-sided at `ALPHA`, with the chance `target`

    Notes
    -----
    Standard errors shrink with the root of the number of prompts, each of which has as many samples as now:
    groups * ((z_alpha/2 + z_target) standard error / difference)².

    >>> groups_for(0.1, 32)
    262
    """
    error = half_width / student.ppf(0.975, max(groups - 1, 1))
    many = groups * np.square((norm.ppf(1 - ALPHA / 2) + norm.ppf(target)) * error / difference)
    return int(np.ceil(many)) if np.isfinite(many) else MOST


def held_out_auc(best: ArrayLike, n_bad: ArrayLike, n_good: ArrayLike, rank: float, folds: int = 5) -> Array:
    """AUC that a difference of means reaches on held-out samples, when the best direction reaches `best`.

    Parameters
    ----------
    best : AUC of the direction fitted to endless samples; an array that broadcasts with the counts
    rank : effective number of dimensions of the sample vectors, (trace S)² / trace S²

    Notes
    -----
    With spread 1 in each of `rank` dimensions and means d apart, a direction fitted to what the other folds hold is
    d + noise of variance v = 1/n_bad + 1/n_good in each: it separates by d² / sqrt(d² + rank v) standard deviations.
    """
    d = d_of_auc(best)
    fitted = 1 - 1 / folds
    noise = (1 / np.asarray(n_bad, np.float64) + 1 / np.asarray(n_good, np.float64)) / fitted
    return auc_of_d(d**2 / np.sqrt(d**2 + rank * noise))


def power_table(
    tables: Iterable[tuple[str, pd.DataFrame, str]], auc: float = 0.6, target: float = 0.8
) -> pd.DataFrame:
    """What a run could have seen, and how many labelled samples would be needed.

    Parameters
    ----------
    tables : of each test its name, a table with a row a cell (n_good, n_bad, null_sd, and p_floor unless it is of a run
        of an older version), and the prefix of null_sd and p_floor there
    auc : expected held-out AUC
    target : the power that `needed` and `needed_first` reach

    Returns
    -------
    DataFrame with a row a table of the run: test, n_good, n_bad, cells, null_sd (the median over cells), design_effect,
    power (of one cell at p ≤ 0.05), needed (samples for `target` there), power_first and needed_first (the same at
    p ≤ 0.05 / cells, what the first of the cells must reach, so the safe side of what q ≤ 0.05 asks), and p_floor (the
    smallest p that the nulls of all cells could have given; NaN of an older run). A power is 0 where p_floor is too
    large for it: what `needed` says holds with permutations enough. More samples are taken to mean more prompts, each
    with as many samples and as many bad ones as now.
    """
    return pd.DataFrame([_of_table(name, rows, prefix, auc, target) for name, rows, prefix in tables])


def _of_table(name: str, rows: pd.DataFrame, prefix: str, auc: float, target: float) -> dict[str, Any]:
    n_bad, n_good = int(rows["n_bad"].iloc[0]), int(rows["n_good"].iloc[0])
    spread = float(rows[prefix + "null_sd"].median())
    design = float(design_effect(spread, n_bad, n_good))
    share = n_bad / (n_bad + n_good)
    row: dict[str, Any] = {"test": name, "n_good": n_good, "n_bad": n_bad, "cells": len(rows)}
    floor = float(rows[f"{prefix}p_floor"].max()) if f"{prefix}p_floor" in rows else float("nan")
    row |= {"null_sd": spread, "design_effect": design, "p_floor": floor}
    for suffix, tests in (("", 1), ("_first", len(rows))):
        alpha = ALPHA / tests
        possible = np.isnan(floor) or resolvable(floor, tests, ALPHA)
        row[f"power{suffix}"] = float(power(auc, n_bad, n_good, design, alpha)) if possible else 0.0
        row[f"needed{suffix}"] = needed(auc, target, share, design, alpha)
    return row
