"""What can be read of the predicted picture by more than a straight line: a baseline for what a block adds to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from ..analysis.components import PCA
from ..analysis.statistics.folds import codes, grouped_folds
from .calibration import rising
from .conditional import Offset
from .held_out_ridge import AxisRidge
from .nested import GRID
from .ridge import RidgeProbe
from .solver import logistic

Array = NDArray[Any]

AXES = 24
"""Principal axes of the picture that the nonlinear baselines read."""

WAVES = 384
"""Random Fourier features for each of `WIDTHS`."""

LEADING = 8
"""Features whose products are among the curved ones."""

WIDTHS = (1.0, 0.5)
"""Widths of the Gaussian kernels, over the median distance of two samples: one as smooth as the data, one less."""

BOOSTED = {
    "max_iter": 50, "learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 15, "l2_regularization": 1.0,
    "early_stopping": False,
}  # fmt: skip
"""Settings of gradient boosting, settled beforehand."""


def picture_axes(pictures: ArrayLike, *more: ArrayLike, seed: int = 0) -> Array:
    """A picture on its leading principal axes, with plain statistics of it beside them, each of unit variance.

    Parameters
    ----------
    pictures : array of shape (n, k), such as the predicted clean latents of all tokens
    more : arrays of shape (n, m), such as statistics of the decoded picture

    Returns
    -------
    array of shape (n, at most `AXES` + m). No label is looked at; the axes are of all samples.
    """
    x = np.asarray(pictures, np.float64)
    count = min(AXES, *x.shape)
    axes = PCA(count, random_state=seed).fit_transform(x) if x.shape[1] > AXES else x
    beside = np.hstack([axes, *(np.asarray(one, np.float64) for one in more)])
    spread = beside.std(0)
    standard: Array = (beside - beside.mean(0)) / np.where(spread > 0, spread, 1)
    return standard


def polynomial(z: Array) -> Array:
    """Features (n, k) beside their squares and the products of the leading ones: the least curved of functions."""
    first, second = np.triu_indices(min(LEADING, z.shape[1]), 1)
    return np.hstack([z, np.square(z), z[:, first] * z[:, second]])


def fourier(z: Array, seed: int = 0) -> Array:
    """Random waves of features (n, k): a ridge probe of these is one with Gaussian kernels.

    Notes
    -----
    Rahimi and Recht (2007), https://papers.nips.cc/paper/3182: cosines along directions drawn from a normal
    distribution, whose inner products approach a Gaussian kernel.
    """
    rng = np.random.default_rng([seed, 7])
    some = z[rng.permutation(len(z))[:200]]
    squares = np.square(some[:, None] - some).sum(-1)
    median = np.sqrt(np.median(squares[np.triu_indices(len(some), 1)])) or 1.0
    waves = [
        np.cos(z @ rng.normal(size=(z.shape[1], WAVES)) / (width * median) + rng.uniform(0, 2 * np.pi, WAVES))
        for width in WIDTHS
    ]
    return np.hstack(waves)


def nonlinear_offset(z: Array, y: Array, groups: ArrayLike, fold: NDArray[np.intp], seed: int = 0) -> Offset:
    """Calibrated logits of a nonlinear baseline: the mean of gradient boosting and two ridge probes.

    Parameters
    ----------
    z : array of shape (n, k), as of `picture_axes`
    y, groups : arrays of shape (n,); fold : int array of shape (n,), groups whole

    Returns
    -------
    Offset, held out by `fold` as that of a linear baseline. One ridge probe reads
    `polynomial` features, the other `fourier` ones beside them. What a block is freed of is what these predict
    of each of its principal axes, so that a block that is a function of the picture, linear or not, has little left to
    add where that function can be learnt from so many samples.
    """
    y, group = np.asarray(y, np.float64), codes(groups)
    plain = polynomial(z)
    several = [plain, np.hstack([plain, fourier(z, seed)])]
    ridges = [Offset.of(RidgeProbe(), features, y, groups, fold, seed, GRID) for features in several]
    known_scores = np.mean([ridge.inner for ridge in ridges], axis=0)
    new_scores = np.mean([ridge.held_out for ridge in ridges], axis=0)
    held_out, inner = np.empty(len(y)), np.full(known_scores.shape, np.nan)
    for place, one in enumerate(np.unique(fold)):
        kept, test = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
        # The inner folds are those of `nested_scores`, so that both baselines have seen the same.
        within = grouped_folds(group[kept], min(len(inner), len(np.unique(group[kept]))), seed)
        boosted = np.empty(len(kept))
        for part in np.unique(within):
            known, left = kept[within != part], kept[within == part]
            boosted[within == part] = _boosted(z[known], y[known], z[left])
        both = _mean(boosted, known_scores[place, kept], y[kept])
        new = _mean(_boosted(z[kept], y[kept], z[test]), new_scores[test], y[kept], boosted)
        slope, intercept = rising(both, y[kept])
        inner[place, kept], held_out[test] = slope * both + intercept, slope * new + intercept
    return Offset(held_out, inner, fold, AxisRidge(several, fold))


def beside(offset: Offset, x: ArrayLike, y: ArrayLike, l2: float) -> Array:
    """Held-out logits of a baseline with a block's features fitted beside it, as in `conditional_gain`: shape (n,)."""
    x, y, fold = np.asarray(x, np.float32), np.asarray(y, np.float64), offset.fold
    x = (x - offset.explained.predict(x)).astype(np.float32)
    both = np.empty(len(y))
    for place, one in enumerate(np.unique(fold)):
        train, test = fold != one, fold == one
        w, b = logistic(
            x[train], y[None, train], np.ones((1, int(train.sum()))), np.array([l2]), np.zeros(1, np.intp), 1e-6,
            offset.inner[place][None, train],
        )  # fmt: skip
        both[test] = x[test] @ w[0] + b[0] + offset.held_out[test]
    return both


def _boosted(known: Array, y: Array, new: Array) -> Array:
    """Log-odds of new rows by gradient boosting; 0 where all that is known is of one class."""
    if y.min() == y.max():
        return np.zeros(len(new))
    scores: Array = HistGradientBoostingClassifier(**BOOSTED, random_state=0).fit(known, y).decision_function(new)
    return scores


def _mean(boosted: Array, smooth: Array, y: Array, seen: Array | None = None) -> Array:
    """The mean of log-odds, those of boosting calibrated first on `seen`, or on themselves: they are far too sure."""
    slope, intercept = rising(boosted if seen is None else seen, y)
    mean: Array = 0.5 * (slope * boosted + intercept + smooth)
    return mean
