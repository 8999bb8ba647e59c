"""Directions in the residual stream that tell bad from good, and channels that would drown them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh

from ..brief import brief
from ..errors import HandscopeError
from .moments import Moments
from .scatter import Scatter
from .statistics.folds import grouped_folds

DENSE = 200
"""Widths up to this are decomposed whole; above it the leading eigenvector alone is iterated for."""


def difference_of_means(good: ArrayLike | Moments | Scatter, bad: ArrayLike | Moments | Scatter) -> NDArray[np.float64]:
    """Mean of `good` less mean of `bad`, from bad to good, not normalised.

    Parameters
    ----------
    good, bad : arrays of shape (n, width), or Moments or Scatter of one set

    Returns
    -------
    array of shape (width,)
    """
    (n_good, good_mean), (n_bad, bad_mean) = _mean(good), _mean(bad)
    if n_good == 0 or n_bad == 0:
        raise HandscopeError(
            f"A difference of means needs both classes; there are {n_good:g} good and {n_bad:g} bad rows."
        )
    if good_mean.shape != bad_mean.shape:
        raise HandscopeError(
            f"Both classes must have the same width; good has {good_mean.shape[-1]}, bad has {bad_mean.shape[-1]}."
        )
    return good_mean - bad_mean


def _mean(rows: ArrayLike | Moments | Scatter) -> tuple[float, NDArray[np.float64]]:
    if not isinstance(rows, (Moments, Scatter)):
        rows = Moments.of(rows)
    return float(rows.count), rows.mean


def unit(direction: ArrayLike) -> NDArray[np.float64]:
    """Directions of length 1: shape (..., width) to the same. One of length 0 stays as it is."""
    direction = np.asarray(direction, np.float64)
    return direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), np.finfo(float).tiny)


def held_out_projections(x: ArrayLike, labels: ArrayLike, fold: ArrayLike) -> NDArray[np.float64]:
    """Projections of samples on differences of means that were fitted without their fold, growing from good to bad.

    Parameters
    ----------
    x : array of shape (n, width)
    labels : array of shape (..., n), 1 for bad and 0 for good; every row is a labelling of its own, as of
        ``permuted_labels``, with both classes outside every fold
    fold : int array of shape (n,)

    Returns
    -------
    array of shape (..., n). Compare inside a fold only: each fold has a direction, so a scale, of its own.
    """
    x, labels, fold = np.asarray(x, np.float64), np.asarray(labels, np.float64), np.asarray(fold)
    centred: NDArray[np.float64] = x - x.mean(0)
    kernel = centred @ centred.T
    scores = np.empty(labels.shape)
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        # A direction is a weighted sum of rows, so all that is needed are products of rows.
        scores[..., test] = contrast(labels[..., train]) @ kernel[np.ix_(train, test)]
    return scores


def contrast(labels: ArrayLike) -> NDArray[np.float64]:
    """Weights w, of shape (..., n) like `labels`: ``w @ x`` is the mean of bad rows less that of good ones."""
    labels = np.asarray(labels, np.float64)
    n_bad = labels.sum(-1, keepdims=True)
    n_good = labels.shape[-1] - n_bad
    return labels * (1 / n_bad + 1 / n_good) - 1 / n_good


@dataclass(frozen=True)
class Plane:
    """Two orthonormal directions through `mean`: the difference of means, and the most variance beside it.

    `axes` has shape (2, width), `mean` has shape (width,).
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]

    __repr__ = brief

    def transform(self, x: ArrayLike) -> NDArray[np.float64]:
        """Coordinates in the plane: shape (n, width) to (n, 2), the first growing from bad to good."""
        return (np.asarray(x, np.float64) - self.mean) @ self.axes.T


def plane(good: ArrayLike | Scatter, bad: ArrayLike | Scatter) -> Plane:
    """The plane of the difference of means and the direction of largest variance orthogonal to it.

    Parameters
    ----------
    good, bad : arrays of shape (n, width), width at least 2, or Scatter of each class, which needs no tokens again

    Notes
    -----
    On the rows it was fitted to, the first coordinate separates pure noise: show rows that it was not fitted to. The
    second is the leading eigenvector of (1 - dd') C (1 - dd'), where d is the first and C the covariance of both
    classes together.
    """
    first = difference_of_means(good, bad)
    length = np.linalg.norm(first)
    if len(first) < 2 or length == 0:
        raise HandscopeError(
            f"A plane needs a width of at least 2 and classes whose means differ; the width is {len(first)} "
            f"and the means are {length:g} apart."
        )
    first /= length
    rows = None if isinstance(good, Scatter) or isinstance(bad, Scatter) else np.concatenate([good, bad])
    if rows is not None and len(rows) < rows.shape[1]:
        mean = rows.mean(0, dtype=np.float64)
        rows = rows - mean
        rows -= np.outer(rows @ first, first)
        # The smaller Gram matrix: its leading eigenvector gives the first right singular vector of the rows.
        second = rows.T @ np.linalg.eigh(rows @ rows.T)[1][:, -1]
    else:
        whole = Scatter.of(rows) if rows is not None else _scatter(good) + _scatter(bad)
        mean, second = whole.mean, _leading_beside(first, whole.scatter)
    second -= first * (first @ second)
    second /= np.linalg.norm(second)
    return Plane(mean, np.stack([first, second * np.sign(second[np.abs(second).argmax()])]))


def _scatter(rows: ArrayLike | Scatter) -> Scatter:
    return rows if isinstance(rows, Scatter) else Scatter.of(rows)


def _leading_beside(first: NDArray[np.float64], scatter: NDArray[np.float64]) -> NDArray[np.float64]:
    """The leading eigenvector of a scatter matrix on what is orthogonal to the unit vector `first`."""

    def beside(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return vector - first * (first @ vector)

    width = len(first)
    if width <= DENSE:
        across = scatter @ first
        deflated = scatter - np.outer(across, first) - np.outer(first, across) + first @ across * np.outer(first, first)
        return eigh(deflated, subset_by_index=[width - 1, width - 1])[1][:, 0]
    operator = LinearOperator((width, width), lambda v: beside(scatter @ beside(v.ravel())), dtype=np.float64)
    # From the row of the largest channel: the same bits every time, and not orthogonal to what is sought.
    start = beside(scatter[np.diagonal(scatter).argmax()])
    return eigsh(operator, k=1, which="LA", v0=start if start.any() else None)[1][:, 0]


def half_directions(
    x: ArrayLike, y: ArrayLike, groups: ArrayLike, splits: int = 20, seed: int = 0
) -> NDArray[np.float64]:
    """Unit directions, from bad to good, of two halves of the prompts, split again and again.

    Parameters
    ----------
    x : array of shape (n, width)
    y, groups : arrays of shape (n,)

    Returns
    -------
    array of shape (splits, 2, width); NaN where a half has one class only

    Notes
    -----
    The cosine of the two halves' directions is how far a direction can be told from this many samples: directions that
    share samples share their noise too, so that even pure noise agrees with itself.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y)
    directions = np.full((splits, 2, x.shape[1]), np.nan)
    for split in range(splits):
        half = grouped_folds(groups, 2, seed + split)
        for side in (0, 1):
            inside = half == side
            if 0 < y[inside].sum() < inside.sum():
                directions[split, side] = -unit(contrast(y[inside]) @ x[inside])
    return directions


def cosines(
    directions: Sequence[NDArray[np.floating]], halves: Sequence[NDArray[np.floating]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines between the directions of all cells, and between those of disjoint halves of the prompts.

    Parameters
    ----------
    directions : of each cell, unit vectors (width,)
    halves : of each cell, as of `half_directions` with the same splits

    Returns
    -------
    two arrays of shape (cells, cells); the second is symmetric, and its diagonal is a cell's agreement with itself
    """
    whole = np.stack(directions)
    parts = np.stack(halves)
    kept = parts[:, ~np.isnan(parts).any((0, 2, 3))]
    if not kept.shape[1]:
        return whole @ whole.T, np.full((len(whole), len(whole)), np.nan)
    first, second = (kept[:, :, side].reshape(len(kept), -1) for side in (0, 1))
    crossed = first @ second.T / kept.shape[1]
    return whole @ whole.T, (crossed + crossed.T) / 2


def massive_channels(x: ArrayLike, ratio: float = 10.0) -> NDArray[np.intp]:
    """Channels whose root mean square is more than `ratio` times the median channel's, ascending.

    Parameters
    ----------
    x : array of shape (n, width)

    Notes
    -----
    A few channels of a transformer's residual stream are tens to thousands of times larger than the rest whatever the
    input (Sun et al. 2024, https://arxiv.org/abs/2402.17762); one of them decides a mean, a principal component or a
    cosine alone. No label is looked at.
    """
    size = np.sqrt(np.square(np.asarray(x, np.float64)).mean(0))
    return np.flatnonzero(size > ratio * np.median(size))
