"""Contrastive components over a range of contrasts, and which few of these say something of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import SpectralClustering

from ..brief import brief
from ..errors import HandscopeError
from ..progress import Progress, quiet
from .components import ContrastivePCA, rows_of, signed
from .eigen import leading_basis, leading_of_differences
from .scatter import Scatter

Array = NDArray[np.float64]

ALPHAS = np.logspace(-1, 3, 40)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Contrastive components for each of many alphas, the first of them 0.

    Attributes
    ----------
    alphas : array of shape (m,)
    components : array of shape (m, n_components, width), rows orthonormal
    contrast : array of shape (m, n_components), foreground variance less alpha times background variance
    gap : array of shape (m,), by how much the last contrast exceeds that of the first component left out: where it is
        small beside the contrast, the subspace is arbitrary
    affinity : array of shape (m, m), how alike the subspaces are: the product of the cosines of the angles between them
        as the foreground fills them; 1 for the same, 0 where a direction of one is uncorrelated with the other
    labels : int array of shape (m,), the cluster of each alpha
    chosen : array of shape (n_choose,), alpha 0 and the alpha most like the rest of its cluster for every other cluster
    mean : array of shape (width,), of the foreground
    scale : array of shape (width,), what a channel was divided by; 1 unless `standardise`
    """

    alphas: Array
    components: Array
    contrast: Array
    gap: Array
    affinity: Array
    labels: NDArray[np.intp]
    chosen: Array
    mean: Array
    scale: Array

    __repr__ = brief

    def transform(self, x: ArrayLike, alpha: float) -> Array:
        """Coordinates at one of `alphas` of rows that may be new: shape (n, width) to (n, n_components)."""
        return (rows_of(x, "rows") - self.mean) / self.scale @ self.components[self._number(alpha)].T

    def pca(self, alpha: float) -> ContrastivePCA:
        """The estimator at one of `alphas`; it takes rows that are divided by `scale`."""
        number = self._number(alpha)
        estimator = ContrastivePCA(self.components.shape[1], float(self.alphas[number]))
        estimator.components_, estimator.contrast_ = self.components[number], self.contrast[number]
        estimator.mean_, estimator.n_features_in_ = self.mean / self.scale, len(self.mean)
        return estimator

    def _number(self, alpha: float) -> int:
        number = int(np.abs(self.alphas - alpha).argmin())
        if not np.isclose(self.alphas[number], alpha):
            raise HandscopeError(
                f"Alpha {alpha:g} is not one of the {len(self.alphas)} of this sweep; the nearest is "
                f"{self.alphas[number]:g}."
            )
        return number


def contrastive_sweep(
    foreground: ArrayLike | Scatter,
    background: ArrayLike | Scatter,
    alphas: ArrayLike = ALPHAS,
    n_components: int = 2,
    n_choose: int = 4,
    standardise: bool = False,
    reduce: int | None = None,
    progress: Progress = quiet,
) -> Sweep:
    """Contrastive components for a range of alphas, and an automatic choice of alphas that differ.

    Parameters
    ----------
    foreground, background : arrays of shape (n, width), or the `Scatter` of each, whose mean and covariance are all
        that is used
    alphas : array of shape (m,), positive; 0 is put before them
    n_components : directions at each alpha
    n_choose : clusters of subspaces, and so alphas that are chosen
    standardise : divide each channel by its standard deviation, foreground and background each by its own
    reduce : look only in the span of so many leading principal components of both sets together

    Raises
    ------
    HandscopeError
        The widths differ, a set has fewer than two rows, or a count does not fit.

    Notes
    -----
    Abid et al. 2018, https://doi.org/10.1038/s41467-018-04608-8, with the affinities, the spectral clustering and the
    choice of the PyPI package `contrastive` (which standardises and reduces to 1,000 unless told otherwise). Without
    `reduce` the directions of a large alpha are those that the background hardly uses at all; with it they are the
    least used of the leading ones.
    """
    first, second = (_scatter(side, name) for side, name in ((foreground, "foreground"), (background, "background")))
    width = len(first.mean)
    if width != len(second.mean):
        raise HandscopeError(
            f"Foreground and background must have one width; they have {width} and {len(second.mean)}."
        )
    alphas = np.unique(np.append(np.asarray(alphas, np.float64), 0.0))
    limit = width if reduce is None else min(reduce, width)
    if not (1 <= n_components < limit and 2 <= n_choose <= len(alphas) and alphas[0] >= 0 and alphas[-1] < np.inf):
        raise HandscopeError(
            f"A sweep needs 1 to {limit - 1} components, 2 to {len(alphas)} choices and finite alphas of at least 0; "
            f"found {n_components} components, {n_choose} choices and alphas from {alphas[0]:g} to {alphas[-1]:g}."
        )
    scale, basis = np.ones(width), None
    a, b, n_a, n_b = first.scatter, second.scatter, float(first.count) - 1, float(second.count) - 1
    if standardise:
        scale, a = _standardised(first)
        b = _standardised(second)[1]
    if reduce is not None and reduce < width:
        basis, a, b = _reduced(a, b, reduce)
    # Scatters rather than covariances, and alpha scaled instead: matrices of 75 MB need not be copied.
    values, vectors = leading_of_differences(a, b, alphas * (n_a / n_b), n_components + 1, progress)
    values /= n_a
    spaces = vectors[:, :n_components]
    affinity = _affinity(spaces, a)
    labels = _clusters(affinity, n_choose)
    return Sweep(
        alphas=alphas,
        components=np.stack([signed(space if basis is None else space @ basis.T) for space in spaces]),
        contrast=values[:, :n_components],
        gap=values[:, n_components - 1] - values[:, n_components],
        affinity=affinity,
        labels=labels,
        chosen=alphas[_exemplars(affinity, labels)],
        mean=first.mean,
        scale=scale,
    )


def _scatter(side: Any, name: str) -> Scatter:
    scatter = side if isinstance(side, Scatter) else Scatter.of(rows_of(side, name))
    if scatter.mean.ndim != 1 or scatter.count < 2:
        raise HandscopeError(
            f"Contrastive components need at least two rows in the {name}, and one set of them; there are "
            f"{np.asarray(scatter.count).tolist()}."
        )
    return scatter


def _standardised(scatter: Scatter) -> tuple[Array, Array]:
    """Standard deviations (n below; 1 for a constant channel), and the scatter of channels divided by them."""
    deviation = np.sqrt(np.diagonal(scatter.scatter) / scatter.count)
    deviation = np.where(deviation > 0, deviation, 1.0)
    scaled = scatter.scatter / deviation
    scaled /= deviation[:, None]
    return deviation, scaled


def _reduced(a: Array, b: Array, r: int) -> tuple[Array, Array, Array]:
    """Leading `r` directions (width, r) of both centred sets together, and both scatters in these."""
    values, basis = leading_basis(a + b, r)
    inside = basis.T @ (a @ basis)
    # In this basis the sum of both is diagonal, so that the second need not be multiplied.
    return basis, inside, np.diag(values) - inside


def _affinity(spaces: Array, covariance: Array) -> Array:
    """Product of the canonical correlations of the foreground's coordinates in each two subspaces."""
    m, k, width = spaces.shape
    flat = spaces.reshape(m * k, width)
    shared = (flat @ covariance @ flat.T).reshape(m, k, m, k).transpose(0, 2, 1, 3)
    within = np.linalg.slogdet(shared[np.arange(m), np.arange(m)])[1]
    crossed = np.linalg.slogdet(shared)[1]
    affinity = np.exp(np.minimum(crossed - (within[:, None] + within) / 2, 0.0))
    affinity = np.nan_to_num((affinity + affinity.T) / 2)
    np.fill_diagonal(affinity, 1.0)
    return affinity


def _clusters(affinity: Array, n_choose: int) -> NDArray[np.intp]:
    return SpectralClustering(n_clusters=n_choose, affinity="precomputed", random_state=0).fit(affinity).labels_


def _exemplars(affinity: Array, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first, and for each cluster without it the member most like the cluster's others, ascending."""
    chosen = [0]
    for one in range(labels.max() + 1):
        members = np.flatnonzero(labels == one)
        if 0 not in members:
            chosen.append(members[affinity[np.ix_(members, members)].sum(0).argmax()])
    return np.sort(np.array(chosen))
