"""Coordinates of samples on what was fitted without their fold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .components import PCA, ContrastivePCA
from .directions import plane

Array = NDArray[np.float64]


def components(x: Array, fold: NDArray[np.intp], seed: int) -> tuple[Array, Array]:
    """Coordinates (n, 2) of rows (n, width) on principal components, and the shares of held-out variance, (2,)."""
    whole = PCA(2, random_state=seed).fit(x).components_
    coordinates, explained, total = np.empty((len(x), 2)), np.zeros(2), 0.0
    for one in np.unique(fold):
        test = fold == one
        fitted = PCA(2, random_state=seed).set_output(transform="default").fit(x[~test])
        part = fitted.transform(x[test])
        explained += np.square(part).sum(0)
        total += float(np.square(x[test] - fitted.mean_).sum())
        coordinates[test] = _turned(part, fitted.components_, whole)
    return coordinates, explained / max(total, np.finfo(float).tiny)


def contrastive(x: Array, y: NDArray[Any], fold: NDArray[np.intp], alpha: float) -> Array:
    """Coordinates (n, 2) on contrastive components of bad against good samples."""
    estimator = ContrastivePCA(2, alpha).set_output(transform="default")
    whole = estimator.fit(x[y == 1], x[y == 0]).components_
    coordinates = np.empty((len(x), 2))
    for one in np.unique(fold):
        test = fold == one
        estimator.fit(x[~test & (y == 1)], x[~test & (y == 0)])
        coordinates[test] = _turned(estimator.transform(x[test]), estimator.components_, whole)
    return coordinates


def on_planes(x: Array, y: NDArray[Any], fold: NDArray[np.intp]) -> Array:
    """Coordinates (n, 2) in planes of the difference of means, the second axes turned to one side."""
    second = plane(x[y == 0], x[y == 1]).axes[1]
    coordinates = np.empty((len(x), 2))
    for one in np.unique(fold):
        test = fold == one
        fitted = plane(x[~test & (y == 0)], x[~test & (y == 1)])
        coordinates[test] = fitted.transform(x[test]) * [1, 1 if fitted.axes[1] @ second >= 0 else -1]
    return coordinates


def _turned(part: Array, fitted: Array, whole: Array) -> Array:
    """Turn coordinates on `fitted` onto components of all rows (orthogonal Procrustes).

    Components of different folds differ by sign, or turn where two variances are close: one picture shows all folds.
    """
    left, _, right = np.linalg.svd(fitted @ whole.T)
    return part @ left @ right
