"""Ridge regression of many columns on one set of features, every fold predicted from the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PENALTIES = np.logspace(-6, 1, 22)
"""Penalties to choose from, over the largest eigenvalue of the features' Gram matrix."""


class HeldOutRidge:
    """Predicts any columns x from features z: the axes of z are found once for all of them.

    Parameters
    ----------
    z : array of shape (n, k)
    fold : int array of shape (n,)
    """

    def __init__(self, z: Array, fold: NDArray[np.intp]) -> None:
        self.fold = fold
        self._axes = [_Axes(z[fold != one].astype(float), z[fold == one].astype(float)) for one in np.unique(fold)]

    def predict(self, x: Array) -> Array:
        """Columns as z tells them: array of shape (n, width) to (n, width), each fold from a fit to the others.

        Notes
        -----
        The penalty is chosen in the training folds, one for all columns, by generalised cross-validation (Golub, Heath
        and Wahba 1979, https://doi.org/10.1080/00401706.1979.10489751).
        """
        out = np.empty(x.shape)
        for one, axes in zip(np.unique(self.fold), self._axes, strict=True):
            out[self.fold == one] = axes.predict(x[self.fold != one].astype(float))
        return out

    def along(self, place: int, y: Array) -> tuple[Array, Array]:
        """Columns of the rows outside a fold, centred, each with a penalty of its own, and the error of each."""
        return self._axes[place].predict_each(y)


class AxisRidge:
    """As `HeldOutRidge`, of the principal axes of x, each from the features and with the penalty that suit it best.

    Where a few axes of a block are a function of z and the rest is noise, one penalty for all of them is too heavy for
    these few, and leaves a part of them over.

    Parameters
    ----------
    several : arrays of shape (n, k), features to choose from
    fold : int array of shape (n,)
    """

    def __init__(self, several: Sequence[Array], fold: NDArray[np.intp]) -> None:
        self.fold = fold
        self._ridges = [HeldOutRidge(z, fold) for z in several]

    def predict(self, x: Array) -> Array:
        """As of `HeldOutRidge`."""
        out = np.empty(x.shape)
        for place, one in enumerate(np.unique(self.fold)):
            train = x[self.fold != one].astype(float)
            level = train.mean(0)
            axes = np.linalg.svd(train - level, full_matrices=False)[2]
            tried = [ridge.along(place, (train - level) @ axes.T) for ridge in self._ridges]
            best = np.argmin([error for _, error in tried], axis=0)
            chosen = np.stack([predicted for predicted, _ in tried])[best, :, np.arange(len(axes))].T
            out[self.fold == one] = level + chosen @ axes
        return out


class _Axes:
    """The principal axes of training rows in sample space, and new rows along them."""

    def __init__(self, train: Array, new: Array) -> None:
        mean, scale = train.mean(0), train.std(0)
        scale = np.where(scale > 0, scale, 1)
        train, new = (train - mean) / scale, (new - mean) / scale
        values, vectors = np.linalg.eigh(train @ train.T)
        kept = values > 1e-10 * values[-1]
        self.values, self.vectors = values[kept], vectors[:, kept]
        self.new = new @ (train.T @ self.vectors)  # along each axis, times its singular value

    def predict(self, x: Array) -> Array:
        level, spread = x.mean(0), x.std(0)
        y = (x - level) / np.where(spread > 0, spread, 1)
        along, penalties, left = self._tried(y)
        best = penalties[left.sum(1).argmin()]
        predicted: Array = level + self.new @ (along / (self.values + best)[:, None]) * spread
        return predicted

    def predict_each(self, y: Array) -> tuple[Array, Array]:
        """Centred columns, each with the penalty that suits it: predicted new rows, and the error it was chosen by."""
        along, penalties, left = self._tried(y)
        best = left.argmin(0)
        return self.new @ (along / (self.values[:, None] + penalties[best])), left[best, np.arange(y.shape[1])]

    def _tried(self, y: Array) -> tuple[Array, Array, Array]:
        """Columns along the axes, penalties, and the generalised cross-validation error of each with each column."""
        along = self.vectors.T @ y
        penalties = self.values.max(initial=1) * PENALTIES
        shrink = self.values / (self.values + penalties[:, None])
        left = np.square(y).sum(0) - np.square(along).sum(0) + (1 - shrink) ** 2 @ np.square(along)
        return along, penalties, left / np.square(len(y) - 1 - shrink.sum(1))[:, None]
