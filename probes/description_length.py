"""How many bits of the verdicts can be had from features: usable information, and the length of an online code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from ..analysis.statistics.arrays import binary
from ..analysis.statistics.auc import auc
from ..analysis.statistics.folds import codes, grouped_folds
from .calibration import rising
from .nested import GRID, grid_scores, mean_row
from .ridge import RidgeProbe

Array = NDArray[Any]

SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Shares of the groups after which a code's probe is fitted anew."""

ORDERS = 4
"""Random orders of the groups, over which lengths are averaged: one order alone may be a lucky one."""


@dataclass(frozen=True)
class Information:
    """Usable information about labels, in bits a sample, with its 95% interval over groups."""

    bits: float
    low: float
    high: float


def usable_information(
    log_odds: ArrayLike, y: ArrayLike, groups: ArrayLike, fold: NDArray[np.intp], beside: ArrayLike | None = None
) -> Information:
    """How much shorter held-out labels are told with a probe's probabilities than with the rate of bad alone.

    Parameters
    ----------
    log_odds : array of shape (n,), held out by `fold` and calibrated
    y, groups : arrays of shape (n,)
    beside : array of shape (n,), optional: log-odds that are known already, in the place of the rate

    Notes
    -----
    The V-information of Xu et al. (2020), https://arxiv.org/abs/2002.10689: what a family of probes can tell of labels,
    held out. A probe that is worse than the rate has less than 0. The interval is Student's t over groups, with the
    fits as they are; refitting would make it wider.
    """
    y, group = binary(y), codes(groups)
    if beside is None:
        beside = np.empty(len(y))
        for one in np.unique(fold):
            rate = (y[fold != one].sum() + 0.5) / ((fold != one).sum() + 1)
            beside[fold == one] = np.log(rate / (1 - rate))
    gain = _bits(np.asarray(beside, np.float64), y) - _bits(np.asarray(log_odds, np.float64), y)
    mean, m = float(gain.mean()), int(group.max()) + 1
    if m < 2:
        return Information(mean, float("-inf"), float("inf"))
    sums = np.bincount(group, gain - mean) / len(y)
    half = float(student.ppf(0.975, m - 1) * np.sqrt(m / (m - 1) * np.square(sums).sum()))
    return Information(mean, mean - half, mean + half)


def online_codelength(x: ArrayLike | None, y: ArrayLike, groups: ArrayLike, seed: int = 0) -> float:
    """Bits that it takes to tell all labels one part of the groups after the other, to who has the features.

    Each part is coded with the probabilities of a ridge probe of the parts before it, whose penalty and calibration are
    chosen in these; the first part, and parts after which one class is unknown, with a half each.

    Parameters
    ----------
    x : array of shape (n, width), or None for a code that knows only the rate of bad so far
    y, groups : arrays of shape (n,)

    Notes
    -----
    The online code of Voita and Titov (2020), https://arxiv.org/abs/2003.12298, over prompts instead of samples, so
    that no part is told with its own prompts: it counts how hard a probe is to learn, not only how good it ends. The
    mean over `ORDERS` random orders of the groups.
    """
    y, group = binary(y), codes(groups)
    features = None if x is None else np.asarray(x, np.float32)
    m = int(group.max()) + 1
    stops = sorted({max(1, round(share * m)) for share in SHARES})
    lengths = []
    for order in range(ORDERS):
        rank = np.random.default_rng([seed, 8, order]).permutation(m)[group]
        length = float((rank < stops[0]).sum())
        for start, stop in zip(stops, stops[1:], strict=False):
            known, new = rank < start, (rank >= start) & (rank < stop)
            length += _bits(_told(features, y, group, known, new, seed), y[new]).sum()
        lengths.append(length)
    return float(np.mean(lengths))


def _told(
    x: Array | None, y: Array, group: NDArray[np.intp], known: NDArray[np.bool_], new: NDArray[np.bool_], seed: int
) -> Array:
    """Calibrated log-odds of new rows by what is known."""
    rate = (y[known].sum() + 0.5) / (known.sum() + 1)
    base = np.full(int(new.sum()), np.log(rate / (1 - rate)))
    kinds, prompts = len(np.unique(y[known])), len(np.unique(group[known]))
    if x is None or kinds < 2 or prompts < 2:
        return base if kinds == 2 or x is None else np.zeros(len(base))
    part, labels = x[known], y[known]
    within = grouped_folds(group[known], min(5, prompts), seed)
    tried = grid_scores(RidgeProbe(), part, labels[None], within, list(GRID))[0]
    quality = np.nan_to_num(auc(tried, np.broadcast_to(labels, tried.shape), within), nan=0.0)
    best = len(GRID) - 1 - int(quality[::-1].argmax())  # among equals the largest penalty
    slope, intercept = rising(tried[best], labels)
    w, _ = RidgeProbe(GRID[best]).fit_many(part, labels[None], np.ones((1, len(labels))), np.zeros(1, np.intp))
    told: Array = slope * ((x[new] - mean_row(part, np.ones(len(part)))) @ w[0]) + intercept
    return told


def _bits(log_odds: Array, y: Array) -> Array:
    """Bits that each label takes when told with these log-odds."""
    cost: Array = np.logaddexp(0, np.where(y == 1, -log_odds, log_odds)) / np.log(2)
    return cost
