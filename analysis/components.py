"""Principal components, and those of one set of tokens against another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.utils.validation import check_is_fitted

from ..errors import HandscopeError
from .eigen import leading, leading_basis
from .scatter import Scatter

__all__ = ["PCA", "ContrastivePCA", "signed"]

Array = NDArray[np.float64]

ROWS = 512
"""Rows that are centred at a time: as many as a processor's cache holds."""


class PCA(SklearnPCA):
    """scikit-learn's PCA, which can also be fitted to a covariance that was gathered while tokens streamed by."""

    def fit_scatter(self, scatter: Scatter) -> PCA:
        """Find the components of the tokens behind a `Scatter` of one set; `n_components` must be an int.

        The result transforms rows as after `fit`, which it equals up to rounding.
        """
        count, width, k = float(scatter.count), len(scatter.mean), self.n_components
        if not isinstance(k, int | np.integer) or not 1 <= k <= min(count, width) or count < 2:
            raise HandscopeError(
                f"Components of a scatter need a whole number of them, up to the tokens and the width; {k} were asked "
                f"for, of {count:g} tokens of width {width}."
            )
        covariance = scatter.covariance
        values, vectors = leading_basis(covariance, int(k))
        values, total = np.maximum(values, 0), float(np.trace(covariance))
        self.components_ = signed(vectors.T)
        self.explained_variance_ = values
        self.explained_variance_ratio_ = values / max(total, np.finfo(float).tiny)
        self.singular_values_ = np.sqrt(values * (count - 1))
        self.mean_ = scatter.mean.copy()
        self.noise_variance_ = max(total - float(values.sum()), 0) / max(min(count, width) - k, 1)
        self.n_components_, self.n_samples_, self.n_features_in_ = int(k), int(count), width
        return self


class ContrastivePCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Directions along which a foreground varies more than a background does.

    Parameters
    ----------
    n_components : number of directions to keep
    alpha : how much variance of the background counts against a direction; 0 is the PCA of the foreground

    Attributes
    ----------
    components_ : array of shape (n_components, width), orthonormal
    contrast_ : array of shape (n_components,), the foreground's variance less `alpha` times the background's,
        descending
    mean_ : array of shape (width,), of the foreground
    n_features_in_ : int, the width

    Notes
    -----
    The leading eigenvectors of C_foreground - alpha C_background (Abid et al. 2018,
    https://doi.org/10.1038/s41467-018-04608-8), covariances with n - 1 below as in scikit-learn. The entry of largest
    magnitude of each component is positive. `contrastive_sweep` fits many alphas at once and chooses among them.

    Examples
    --------
    >>> bad, good = np.random.default_rng(0).normal(size=(2, 50, 8))
    >>> ContrastivePCA(n_components=2, alpha=1.0).fit(bad, good).transform(bad).shape
    (50, 2)
    """

    def __init__(self, n_components: int = 2, alpha: float = 1.0) -> None:
        self.n_components = n_components
        self.alpha = alpha

    def fit(self, foreground: ArrayLike, background: ArrayLike) -> ContrastivePCA:
        """Find the components of `foreground`, of shape (n, width), against `background`, of shape (m, width).

        Raises
        ------
        HandscopeError
            The shapes do not fit, a set has fewer than two rows, or a value is NaN or infinite.
        """
        kind = np.result_type(*(getattr(side, "dtype", np.float64) for side in (foreground, background)), np.float32)
        first, second = rows_of(foreground, "foreground", kind), rows_of(background, "background", kind)
        if first.shape[1] != second.shape[1]:
            raise HandscopeError(
                "Foreground and background must be arrays of shape (n, width) of one width; "
                f"they have shapes {first.shape} and {second.shape}."
            )
        if min(len(first), len(second)) < 2:
            raise HandscopeError(
                "Contrastive components need at least two rows on each side; "
                f"there are {len(first)} of foreground and {len(second)} of background."
            )
        means = [part.mean(0, dtype=np.float64) for part in (first, second)]
        mean = means[0]
        if len(first) + len(second) >= first.shape[1]:
            return self.fit_covariances(_covariance(first, mean), _covariance(second, means[1]), mean)
        # Fewer rows than channels: all variance lies in the span of the rows, and outside it the difference is 0.
        first, second = first - mean, second - means[1]
        basis = np.linalg.svd(np.concatenate([first, second]), full_matrices=False)[2]
        first, second = first @ basis.T, second @ basis.T
        self.fit_covariances(first.T @ first / (len(first) - 1), second.T @ second / (len(second) - 1), mean @ basis.T)
        return self._keep(self.components_ @ basis, self.contrast_, mean)

    def fit_covariances(self, foreground: Array, background: Array, mean: Array) -> ContrastivePCA:
        """The same from covariances (width, width), as of ``Scatter.covariance``, and the foreground's mean."""
        if foreground.shape != background.shape or foreground.shape != (len(mean), len(mean)):
            raise HandscopeError(
                f"Covariances and mean must be of one width; they have shapes {foreground.shape}, {background.shape} "
                f"and {mean.shape}."
            )
        if not 1 <= self.n_components <= len(mean) or not 0 <= self.alpha < np.inf:
            raise HandscopeError(
                f"Expected 1 to {len(mean)} components and an alpha of at least 0, found {self.n_components} and "
                f"{self.alpha}."
            )
        values, vectors = leading(foreground - self.alpha * background, self.n_components)
        return self._keep(vectors.T, values, mean)

    def _keep(self, components: Array, contrast: Array, mean: Array) -> ContrastivePCA:
        self.components_: Array = signed(components)
        self.contrast_: Array = contrast
        self.mean_: Array = np.asarray(mean, np.float64)
        self.n_features_in_: int = len(mean)
        return self

    def transform(self, x: ArrayLike) -> Array:
        """Coordinates of rows that may be new: shape (n, width) to (n, n_components)."""
        check_is_fitted(self)
        rows = rows_of(x, "rows")
        if rows.shape[1] != self.n_features_in_:
            raise HandscopeError(
                f"These components were fitted to width {self.n_features_in_}, and the rows have width {rows.shape[1]}."
            )
        return (rows - self.mean_) @ self.components_.T

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


def _covariance(rows: NDArray[Any], mean: Array) -> Array:
    """Covariance, n - 1 below, of rows of which a few at a time are centred and multiplied, in their own precision."""
    scatter = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS] - mean.astype(rows.dtype)
        scatter += part.T @ part
    return scatter / (len(rows) - 1)


def rows_of(x: Any, name: str, kind: Any = np.float64) -> NDArray[Any]:
    """`x` of shape (n, width) in some precision, or a HandscopeError that says what is wrong with it."""
    rows = np.asarray(x, kind)
    if rows.ndim != 2:
        raise HandscopeError(f"Expected {name} of shape (n, width), found shape {rows.shape}.")
    if not np.isfinite(rows).all():
        raise HandscopeError(
            f"{int((~np.isfinite(rows)).any(1).sum())} of {len(rows)} rows of the {name} hold NaN or infinity; leave "
            "them out, or extract them again in bfloat16 or float32."
        )
    return rows


def signed(components: Array) -> Array:
    """Components (k, width) with the entry of largest magnitude of each positive."""
    largest = np.abs(components).argmax(1)
    return components * np.where(components[np.arange(len(components)), largest] < 0, -1.0, 1.0)[:, None]
