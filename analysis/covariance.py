"""Distances between Gaussians whose channels may be correlated: shrunken covariances, and a few factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ..brief import brief
from ..errors import HandscopeError
from .components import rows_of
from .distance import Bhattacharyya
from .eigen import leading_basis
from .scatter import Scatter
from .statistics.folds import codes

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian of covariance ``factors.T @ factors + diag(diagonal)``.

    Attributes
    ----------
    mean, diagonal : arrays of shape (width,)
    factors : array of shape (rank, width); of rank 0 for a diagonal covariance
    """

    mean: Array
    diagonal: Array
    factors: Array

    __repr__ = brief

    @property
    def covariance(self) -> Array:
        return self.factors.T @ self.factors + np.diag(self.diagonal)


def low_rank(scatter: Scatter, rank: int) -> Gaussian:
    """The leading `rank` principal components of a class, and beside them each channel's own remaining variance.

    Every channel keeps its variance, so that rank 0 is the diagonal model of `bhattacharyya`; covariances are with n
    below, as there.
    """
    covariance = scatter.scatter / scatter.count
    values, vectors = leading_basis(covariance, rank) if rank else (np.zeros(0), np.zeros((len(scatter.mean), 0)))
    factors = (vectors * np.sqrt(np.maximum(values, 0))).T
    variance = np.diagonal(covariance)
    # What rounding leaves of a variance that the factors explain must not become negative.
    return Gaussian(scatter.mean, np.maximum(variance - np.square(factors).sum(0), 1e-9 * variance), factors)


def bhattacharyya_low_rank(good: Gaussian, bad: Gaussian) -> Bhattacharyya:
    """Bhattacharyya distance of two Gaussians of a few factors each, without a matrix of the width.

    Notes
    -----
    1/8 d' S⁻¹ d + 1/2 ln(det S / sqrt(det S1 det S2)), S = (S1 + S2) / 2 (Kailath 1967); the inverse by Woodbury's
    identity, the determinants by the matrix determinant lemma.

    Raises
    ------
    HandscopeError
        The widths differ, or a channel has no variance in a class.
    """
    _check(good.mean, bad.mean)
    for gaussian, name in ((good, "good"), (bad, "bad")):
        if not (gaussian.diagonal > 0).all():
            raise HandscopeError(
                f"Channel {int(gaussian.diagonal.argmin())} has no variance of its own among {name} tokens; leave the "
                "channel out, or ask for fewer factors."
            )
    middle = Gaussian(
        (good.mean + bad.mean) / 2,
        (good.diagonal + bad.diagonal) / 2,
        np.concatenate([good.factors, bad.factors]) / np.sqrt(2),
    )
    difference = good.mean - bad.mean
    scaled = middle.factors / middle.diagonal
    inner = np.eye(len(scaled)) + scaled @ middle.factors.T
    along = scaled @ difference
    squared = difference @ (difference / middle.diagonal) - along @ np.linalg.solve(inner, along)
    spread = _log_determinant(middle) - (_log_determinant(good) + _log_determinant(bad)) / 2
    return Bhattacharyya(float(squared / 8), float(spread / 2))


def _log_determinant(gaussian: Gaussian) -> float:
    scaled = gaussian.factors / gaussian.diagonal
    inner = np.eye(len(scaled)) + scaled @ gaussian.factors.T
    return float(np.linalg.slogdet(inner)[1] + np.log(gaussian.diagonal).sum())


def bhattacharyya_full(m1: Array, s1: Array, m2: Array, s2: Array) -> Bhattacharyya:
    """Bhattacharyya distance of two Gaussians: means of shape (width,), covariances of shape (width, width).

    Raises
    ------
    HandscopeError
        The widths differ, or a covariance is singular.
    """
    _check(m1, m2)
    try:
        middle, first, second = (cho_factor(s, lower=True) for s in ((s1 + s2) / 2, s1, s2))
    except LinAlgError as error:
        raise HandscopeError(
            "A covariance is singular, so the distance is not defined: it needs more tokens than channels, or "
            "shrunk_covariance."
        ) from error
    difference = m1 - m2
    logs = [2 * np.log(np.diagonal(factor[0])).sum() for factor in (middle, first, second)]
    squared = difference @ cho_solve(middle, difference)
    return Bhattacharyya(float(squared / 8), float((logs[0] - (logs[1] + logs[2]) / 2) / 2))


def shrunk_covariance(x: ArrayLike, groups: ArrayLike) -> tuple[Array, float]:
    """Covariance of tokens with the correlations drawn towards 0 as far as the samples cannot vouch for them.

    Parameters
    ----------
    x : array of shape (n_tokens, width), of one class
    groups : array of shape (n_tokens,), the sample of each token

    Returns
    -------
    covariance, of shape (width, width), with n below, and the share from 0 to 1 by which its off-diagonal entries were
    reduced

    Notes
    -----
    The share is sum Var(s_ij) / sum s_ij² over i ≠ j, which minimises the expected squared error (Ledoit and Wolf 2004;
    Schäfer and Strimmer 2005, target D). Theirs takes Var(s_ij) from independent rows; tokens of a sample are not, so
    here it is that of a sum over samples, from the products of each sample's own tokens. With one token a sample it is
    theirs.

    Raises
    ------
    HandscopeError
        There are fewer than two samples.
    """
    rows, sample = rows_of(x, "tokens"), codes(groups)
    n_samples = int(sample.max(initial=-1)) + 1
    if n_samples < 2 or len(sample) != len(rows):
        raise HandscopeError(
            f"Shrinkage needs tokens of at least two samples, and a sample for each; there are {n_samples} samples of "
            f"{len(sample)} tokens, and {len(rows)} rows."
        )
    rows = rows - rows.mean(0)
    covariance = rows.T @ rows / len(rows)
    # sum over samples of sum over i ≠ j of (sum over tokens of x_i x_j)², by way of each sample's tokens² products.
    squares = 0.0
    for one in range(n_samples):
        part = rows[sample == one]
        squares += np.square(part @ part.T).sum() - np.square(np.square(part).sum(0)).sum()
    off = float(np.square(covariance).sum() - np.square(np.diagonal(covariance)).sum())
    variance = (squares - len(rows) ** 2 / n_samples * off) * n_samples / (n_samples - 1) / len(rows) ** 2
    share = float(np.clip(variance / max(off, np.finfo(float).tiny), 0, 1))
    shrunk = (1 - share) * covariance
    np.fill_diagonal(shrunk, np.diagonal(covariance))
    return shrunk, share


def bhattacharyya_shrunk(
    good: ArrayLike, bad: ArrayLike, good_samples: ArrayLike, bad_samples: ArrayLike
) -> Bhattacharyya:
    """Bhattacharyya distance of tokens (n, width) with the covariance of each class from `shrunk_covariance`."""
    first, second = rows_of(good, "good tokens"), rows_of(bad, "bad tokens")
    _check(first[:1].sum(0), second[:1].sum(0))
    return bhattacharyya_full(
        first.mean(0),
        shrunk_covariance(first, good_samples)[0],
        second.mean(0),
        shrunk_covariance(second, bad_samples)[0],
    )


def _check(first: Array, second: Array) -> None:
    if first.shape != second.shape:
        raise HandscopeError(
            f"Both classes must have the same width; good has {first.shape[0]}, bad has {second.shape[0]}."
        )
