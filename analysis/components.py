"""Principal components, and those of one set of tokens against another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from ..errors import HandscopeError

__all__ = ["PCA", "ContrastivePCA"]


class ContrastivePCA(TransformerMixin, BaseEstimator):
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

    Notes
    -----
    The leading eigenvectors of C_foreground - alpha C_background (Abid et al. 2018,
    https://doi.org/10.1038/s41467-018-04608-8), covariances with n - 1 below as in scikit-learn. The entry of largest
    magnitude of each component is positive.
    """

    def __init__(self, n_components: int = 2, alpha: float = 1.0) -> None:
        self.n_components = n_components
        self.alpha = alpha

    def fit(self, foreground: ArrayLike, background: ArrayLike) -> ContrastivePCA:
        """Find the components of `foreground`, of shape (n, width), against `background`, of shape (m, width)."""
        foreground, background = np.asarray(foreground, np.float64), np.asarray(background, np.float64)
        if foreground.ndim != 2 or background.ndim != 2 or foreground.shape[1] != background.shape[1]:
            raise HandscopeError(
                "Foreground and background must be arrays of shape (n, width) of one width; "
                f"they have shapes {foreground.shape} and {background.shape}."
            )
        if min(len(foreground), len(background)) < 2 or not 1 <= self.n_components <= foreground.shape[1]:
            raise HandscopeError(
                f"{self.n_components} components of width {foreground.shape[1]} need at least two rows on each side; "
                f"there are {len(foreground)} of foreground and {len(background)} of background."
            )
        difference = np.cov(foreground, rowvar=False) - self.alpha * np.cov(background, rowvar=False)
        values, vectors = np.linalg.eigh(np.atleast_2d(difference))
        components = vectors[:, ::-1][:, : self.n_components].T
        largest = np.abs(components).argmax(1)
        signs = np.sign(components[np.arange(len(components)), largest])
        self.components_: NDArray[np.float64] = components * signs[:, None]
        self.contrast_: NDArray[np.float64] = values[::-1][: self.n_components]
        self.mean_: NDArray[np.float64] = foreground.mean(0)
        return self

    def transform(self, x: ArrayLike) -> NDArray[np.float64]:
        """Coordinates of rows that may be new: shape (n, width) to (n, n_components)."""
        check_is_fitted(self)
        return (np.asarray(x, np.float64) - self.mean_) @ self.components_.T
