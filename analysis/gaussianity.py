"""Whether tokens are as a diagonal Gaussian for each class has them: without that a distance in nats means little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from ..errors import HandscopeError
from .eigen import leading
from .moments import Moments
from .scatter import Scatter
from .statistics.auc import auc

Array = NDArray[np.float64]

DIRECTIONS = 8
"""Leading directions on which tails are looked at."""

HEAVY = 1.0
"""Excess kurtosis from which tails count as heavy: that of a Student t with 10 degrees of freedom."""

FAR = 5.0
"""A token is an outlier so many robust standard deviations beyond the median distance from its class's mean."""

MANY = 1e-3
"""Share of outliers from which there are many; a Gaussian has fewer than one in a million."""

NARROW = 0.1
"""Effective rank over width, below which a diagonal covariance counts the same evidence many times over."""

CLAIMED = 0.05
"""By how much the AUC that the model implies may exceed the one it reaches on the very tokens it was fitted to."""


ROWS = 1024


@dataclass(frozen=True)
class Gaussianity:
    """How the tokens of one cell differ from two diagonal Gaussians, one for good and one for bad.

    Attributes
    ----------
    effective_rank : (sum of eigenvalues)² / sum of their squares, of the covariance within classes; width for a
        diagonal of equal variances
    kurtosis, kurtosis_max : excess kurtosis of tokens of a class on the leading directions of that covariance, median
        and largest; 0 for a Gaussian
    norm_outliers : share of tokens that are `FAR` from the mean of their class, channels in units of their standard
        deviation
    llr_auc_implied : the AUC of the log likelihood ratio of single tokens if the fitted model were true
    llr_auc_in_sample : its AUC on the tokens the model was fitted to
    llr_auc : its AUC on tokens of samples that the model was not fitted to, compared inside their fold
    reason : str, in words what does not fit; empty where nothing was found
    """

    effective_rank: float
    kurtosis: float
    kurtosis_max: float
    norm_outliers: float
    llr_auc_implied: float
    llr_auc_in_sample: float
    llr_auc: float
    reason: str


def diagnose(
    chunks: Iterable[tuple[Any, NDArray[np.intp]]],
    sample_of: NDArray[np.intp],
    moments: Moments,
    scatter: Scatter,
    y: ArrayLike,
    fold: ArrayLike,
) -> Gaussianity:
    """Compare the tokens of a cell with the model behind `bhattacharyya`, in one more pass over them.

    Parameters
    ----------
    chunks : of (x, number): float32 rows (m, width) and the places (m,) of these rows in `sample_of`
    sample_of : int array of shape (n_tokens,), the sample of each token, or -1
    moments : of shape (n_samples, width); a channel that is to be left out has mean and m2 of 0 everywhere
    scatter : of shape (2, width, width), of good and of bad tokens
    y, fold : arrays of shape (n_samples,), 1 for bad, and the fold of each sample

    Notes
    -----
    A held-out AUC far below the implied one says that the model claims what is not there, be it that channels are
    correlated, that tails are heavy, or that a difference between samples was taken for one between classes; the
    AUC in-sample tells the last from the first two. Memory is that of two covariances, and 20 bytes a token.
    """
    y, fold = np.asarray(y), np.asarray(fold)
    pooled = moments.pool(np.ones(len(y)))
    used = np.flatnonzero(pooled.variance > 0)
    if len(used) < 2:
        raise HandscopeError(f"A diagnosis needs two channels that vary; {len(used)} of {len(pooled.mean)} do.")
    within = (scatter.scatter[0] + scatter.scatter[1])[np.ix_(used, used)] / scatter.count.sum()
    effective_rank = float(np.trace(within) ** 2 / np.square(within).sum())
    means, scale = scatter.mean[:, used], np.sqrt(np.diagonal(within))
    directions = leading(within, min(DIRECTIONS, len(used)))[1]
    units = Moments(
        moments.count, (moments.mean[:, used] - pooled.mean[used]) / scale, moments.m2[:, used] / np.square(scale)
    )
    folds = np.unique(fold)
    ratios = [_Ratio.of(units, y, fold != one) for one in folds] + [_Ratio.of(units, y, np.ones(len(y), bool))]
    weights = np.stack([ratio.linear for ratio in ratios], 1), np.stack([ratio.square for ratio in ratios], 1)
    constant = np.array([ratio.constant for ratio in ratios])
    column = np.searchsorted(folds, fold)
    powers = np.zeros((2, 2, directions.shape[1]))
    parts: list[tuple[NDArray[Any], ...]] = []
    for x, number in _batches(chunks):
        sample = sample_of[number]
        kept = sample >= 0
        sample, rows = sample[kept], np.asarray(x)[kept][:, used].astype(np.float64)
        bad = y[sample].astype(np.intp)
        deviation = rows - means[bad]
        squares = np.square(deviation @ directions)
        for one in (0, 1):
            powers[one] += squares[bad == one].sum(0), np.square(squares[bad == one]).sum(0)
        deviation /= scale
        distance = np.sqrt(np.square(deviation, out=deviation).sum(1))
        rows -= pooled.mean[used]
        rows /= scale
        ratio = rows @ weights[0] + np.square(rows, out=rows) @ weights[1] + constant
        held_out = ratio[np.arange(len(sample)), column[sample]]
        parts.append((sample, *(array.astype(np.float32) for array in (distance, held_out, ratio[:, -1]))))
    sample, distance, held_out, in_sample = (np.concatenate(part) for part in zip(*parts, strict=True))
    bad = y[sample]
    # Fourth power over squared second, of deviations from a mean that is known: 3 for a Gaussian.
    tails = scatter.count[:, None] * powers[:, 1] / np.square(powers[:, 0]) - 3
    median = np.median(distance)
    spread = 1.4826 * np.median(np.abs(distance - median))
    numbers = {
        "effective_rank": effective_rank,
        "kurtosis": float(np.median(tails)),
        "kurtosis_max": float(tails.max()),
        "norm_outliers": float((distance > median + FAR * spread).mean()),
        "llr_auc_implied": ratios[-1].implied_auc,
        "llr_auc_in_sample": float(auc(in_sample, bad)),
        "llr_auc": float(auc(held_out, bad, fold[sample])),
    }
    return Gaussianity(**numbers, reason=_reason(numbers, len(used)))


def _batches(chunks: Iterable[tuple[Any, NDArray[np.intp]]]) -> Iterator[tuple[Any, NDArray[np.intp]]]:
    """So few rows at a time that their copies in float64 are small beside a covariance."""
    for x, number in chunks:
        for start in range(0, len(x), ROWS):
            yield x[start : start + ROWS], number[start : start + ROWS]


@dataclass(frozen=True)
class _Ratio:
    """Log likelihood ratio of bad over good: constant + linear · x + square · x²."""

    constant: float
    linear: Array
    square: Array
    implied_auc: float

    @classmethod
    def of(cls, samples: Moments, y: NDArray[Any], train: NDArray[np.bool_]) -> _Ratio:
        good, bad = samples.pool((1 - y) * train), samples.pool(y * train)
        floor = 1e-9 * samples.pool(np.ones(len(y))).variance
        m0, v0, m1, v1 = good.mean, np.maximum(good.variance, floor), bad.mean, np.maximum(bad.variance, floor)
        constant = 0.5 * (np.log(v0 / v1) + np.square(m0) / v0 - np.square(m1) / v1).sum()
        return cls(float(constant), m1 / v1 - m0 / v0, 0.5 / v0 - 0.5 / v1, implied_auc(m0, v0, m1, v1))


def implied_auc(m0: Array, v0: Array, m1: Array, v1: Array) -> float:
    """AUC of the log likelihood ratio between two diagonal Gaussians, of means and variances of shape (width,).

    Notes
    -----
    The ratio is a sum over channels of a z² + b z + c with z standard normal; it is taken as normal with the mean and
    variance of that sum, which needs many channels, none of which outweighs the rest.
    """
    squared = np.square(m1 - m0)
    # Under bad, and (with the sign turned) under good.
    means = [0.5 * (np.log(v / u) + u / v - 1 + squared / v).sum() for u, v in ((v1, v0), (v0, v1))]
    variances = [(0.5 * np.square(u / v - 1) + u * squared / np.square(v)).sum() for u, v in ((v1, v0), (v0, v1))]
    apart = sum(means) / max(np.sqrt(sum(variances)), np.finfo(float).tiny)
    return float(norm.cdf(apart))


def _reason(numbers: dict[str, float], width: int) -> str:
    reasons = []
    if numbers["llr_auc_implied"] > numbers["llr_auc_in_sample"] + CLAIMED:
        reasons.append(
            f"the model implies an AUC of {numbers['llr_auc_implied']:.2f} for single tokens, which on the tokens it "
            f"was fitted to is {numbers['llr_auc_in_sample']:.2f}"
        )
    if numbers["effective_rank"] < NARROW * width:
        reasons.append(f"channels are correlated: an effective rank of {numbers['effective_rank']:.3g} of {width}")
    if numbers["kurtosis"] > HEAVY:
        reasons.append(f"heavy tails: an excess kurtosis of {numbers['kurtosis']:.2g}")
    if numbers["norm_outliers"] > MANY:
        reasons.append(f"{numbers['norm_outliers']:.2%} of tokens lie far out")
    return "; ".join(reasons)
