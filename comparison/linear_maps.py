"""Ridge maps from the tokens of one stream to those of another, held out by fold, under any pairing of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PENALTIES = np.logspace(-5, 1, 9)
"""Penalties to choose from, over the mean eigenvalue of the scatter."""


@dataclass(frozen=True, eq=False)
class Side:
    """A stream as a map reads or predicts it: its tokens, and sums of them over each fold.

    Attributes
    ----------
    x : float32 array of shape (n, positions, p), whose products are made in single precision and added up in double
    fold : int array of shape (n,), 0, 1, ...
    """

    x: NDArray[np.float32]
    fold: NDArray[np.intp]

    @cached_property
    def count(self) -> NDArray[np.intp]:
        return np.bincount(self.fold).astype(np.intp)

    @cached_property
    def sums(self) -> Array:
        """Of shape (folds, positions, p)."""
        members = [self.x[self.fold == one] for one in range(len(self.count))]
        return np.stack([some.sum(0, dtype=np.float64) for some in members])

    @cached_property
    def squares(self) -> Array:
        """Of shape (folds,)."""
        return np.bincount(self.fold, np.square(self.x).sum((1, 2), dtype=np.float64)).astype(np.float64)

    @cached_property
    def products(self) -> Array:
        """Of shape (folds, p, p)."""
        return self.crossed(self)

    def crossed(self, other: Side, pairing: NDArray[np.intp] | None = None) -> Array:
        """Sums over the tokens of each fold of products with another stream's: shape (folds, p, q).

        Parameters
        ----------
        pairing : int array of shape (n,), the sample of `other` that each is paired with, of the same fold
        """
        found = []
        for one in range(len(self.count)):
            mine = np.flatnonzero(self.fold == one)
            yours = mine if pairing is None else pairing[mine]
            found.append(np.tensordot(self.x[mine], other.x[yours], ((0, 1), (0, 1))))
        return np.stack(found).astype(np.float64)

    def mean(self, folds: Sequence[int]) -> Array:
        """Of each channel at each position in some folds: shape (positions, p)."""
        mean: Array = self.sums[folds].sum(0) / self.count[folds].sum()
        return mean

    @cached_property
    def splits(self) -> list[tuple[_Split, _Split]]:
        """For each fold that is held out the split that its penalty is chosen by, and the split itself."""
        everything = list(range(len(self.count)))
        found = []
        for test in everything:
            before = (test - 1) % len(everything)
            train = [one for one in everything if one != test]
            inner = _Split(self, [one for one in train if one != before], before)
            found.append((inner, _Split(self, train, test)))
        return found


class RidgeMap:
    """One linear map for all positions, of channels about their mean at each position.

    Parameters
    ----------
    x, y : what is read and what is predicted, with the same folds
    crossed : as of `Side.crossed`, under any pairing of the samples inside folds

    Notes
    -----
    A fold is predicted by a map that was fitted without it, whose penalty was chosen on another fold, by a map fitted
    without either. All is had from sums over folds, so that another pairing costs some products of p by q matrices.
    """

    def __init__(self, x: Side, y: Side, crossed: Array) -> None:
        self.x, self.y = x, y
        self._fits = [_Fit.of(inner, outer, y, crossed) for inner, outer in x.splits]

    @property
    def explained(self) -> float:
        """R²: the share of the variance of held-out tokens that is explained, all channels and positions together."""
        return 1 - sum(fit.left for fit in self._fits) / sum(fit.whole for fit in self._fits)

    def of_samples(self) -> tuple[Array, Array]:
        """What is left of each sample's variance, and all of it, where samples are paired as they are: two (n,)."""
        left, whole = np.empty(len(self.x.x)), np.empty(len(self.x.x))
        for fit in self._fits:
            test = self.x.fold == fit.split.test
            away = self.y.x[test] - self.y.mean(fit.split.train)
            predicted = (self.x.x[test] - fit.split.mean) @ fit.matrix
            left[test], whole[test] = np.square(away - predicted).sum((1, 2)), np.square(away).sum((1, 2))
        return left, whole


class _Split:
    """The axes of x in the folds `train`, and its scatter along them in the fold `test`."""

    def __init__(self, x: Side, train: list[int], test: int) -> None:
        self.x, self.train, self.test = x, train, test
        self.mean = x.mean(train)
        values, self.turn = np.linalg.eigh(self.about(x.products, x, train))
        values = np.maximum(values, 0)
        self.shrunk = 1 / (values + PENALTIES[:, None] * max(float(values.mean()), np.finfo(float).tiny))
        self.judged = self.turn.T @ self.about(x.products, x, [test]) @ self.turn

    def about(self, crossed: Array, y: Side, folds: list[int]) -> Array:
        """Products of x and y in some folds, each about its mean in the training folds: shape (p, q)."""
        mean, other = self.mean, y.mean(self.train)
        n, of_x, of_y = self.x.count[folds].sum(), self.x.sums[folds].sum(0), y.sums[folds].sum(0)
        return crossed[folds].sum(0) - of_x.T @ other - mean.T @ (of_y - n * other)

    def errors(self, crossed: Array, y: Side) -> tuple[Array, Array]:
        """Products of the axes with y in the training folds, (p, q), and the squared error on the fold for each of
        `PENALTIES`.
        """
        along = self.turn.T @ self.about(crossed, y, self.train)
        met = self.turn.T @ self.about(crossed, y, [self.test])
        spread = self.judged * (along @ along.T)
        explained = 2 * self.shrunk @ (along * met).sum(1)
        return along, self.whole(y) - explained + ((self.shrunk @ spread) * self.shrunk).sum(1)

    def whole(self, y: Side) -> float:
        """The squared length of y on the fold, about its mean in the training folds."""
        mean = y.mean(self.train)
        inner = (y.sums[self.test] * mean).sum()
        return float(y.squares[self.test] - 2 * inner + y.count[self.test] * np.square(mean).sum())


@dataclass(frozen=True, eq=False)
class _Fit:
    split: _Split
    matrix: Array
    left: float
    whole: float

    @classmethod
    def of(cls, inner: _Split, outer: _Split, y: Side, crossed: Array) -> _Fit:
        best = int(np.argmin(inner.errors(crossed, y)[1]))
        along, left = outer.errors(crossed, y)
        return cls(outer, outer.turn @ (outer.shrunk[best, :, None] * along), float(left[best]), outer.whole(y))
