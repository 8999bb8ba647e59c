"""Features as a solver wants them: standardised once for every fold, with the axes along which they vary most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

Array = NDArray[Any]

ROWS = 2048
"""Rows that are worked on at a time, so that no second copy of the features is made beside the one that is kept."""

FIRM = 1e-7
"""A channel whose standard deviation is a smaller part of its largest value than this does not vary."""

NARROW = 512
"""Up to this width features are turned to their axes; of wider ones `AXES` are found, in about `SKETCHED` rows."""

AXES, SKETCHED = 256, 4096


@dataclass(frozen=True)
class Standardised:
    """Features with mean 0 and standard deviation 1, and what it takes to undo that.

    Attributes
    ----------
    x : array of shape (n, width), in the precision of the features
    mean, scale : float64 arrays of shape (width,); the scale is 1, and `x` is 0, where a channel does not vary
    varies : bool array of shape (width,)
    """

    x: Array
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    varies: NDArray[np.bool_]

    @classmethod
    def of(cls, x: Array, weights: NDArray[np.float64], order: NDArray[np.intp] | None = None) -> Standardised:
        """Standardise `x` of shape (n, width), its rows counted `weights` times and put in `order`."""
        if order is not None:
            weights = weights[order]
        share = (weights / weights.sum()).astype(x.dtype)
        out = np.empty(x.shape, x.dtype)
        parts = [slice(start, start + ROWS) for start in range(0, len(x), ROWS)]
        mean, variance = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        largest = np.zeros(x.shape[1], x.dtype)
        for part in parts:
            out[part] = x[part] if order is None else x[order[part]]
            mean += share[part] @ out[part]
            np.maximum(largest, np.abs(out[part]).max(0), out=largest)
        centre = mean.astype(x.dtype)  # as it is taken off, so that it can be put back to the last bit
        for part in parts:
            out[part] -= centre
            variance += share[part] @ np.square(out[part])
        # The mean was added up in the features' precision: what it missed is a large part of a small spread.
        missed = sum(share[part] @ out[part] for part in parts).astype(np.float64)
        spread = np.sqrt(np.maximum(variance - np.square(missed), 0))
        varies = spread > FIRM * largest
        scale = np.where(varies, spread, 1.0)
        factor = (varies / scale).astype(x.dtype)
        for part in parts:
            out[part] -= missed.astype(x.dtype)
            out[part] *= factor
        return cls(out, centre + missed, scale, varies)


def gram(x: Array) -> Array:
    """``x.T @ x``, whole and symmetric, at half the operations."""
    product = blas.ssyrk if x.dtype == np.float32 else blas.dsyrk
    half = product(1.0, x.T)  # the transpose lies in memory as Fortran reads it
    return np.triu(half) + np.triu(half, 1).T


class Preconditioner:
    """Divides by  c X'X + l2, for any c and l2, exactly along the main axes of X, which is wider than `NARROW`.

    Across those, X'X is taken to be the same in all directions, with the trace that is left to it. Frangella, Tropp and
    Udell (2021), https://arxiv.org/abs/2110.02820, precondition ridge regression so; the axes are those of Halko,
    Martinsson and Tropp (2011), https://arxiv.org/abs/0909.4061.
    """

    def __init__(self, x: Array) -> None:
        width = x.shape[1]
        some = x[:: max(1, len(x) // SKETCHED)]
        axes = np.random.default_rng(0).normal(size=(width, AXES)).astype(x.dtype)
        for _ in range(2):
            axes = np.linalg.qr(((axes.T @ some.T) @ some).T)[0]
        values, turn = np.linalg.eigh(gram(x @ axes))
        self.axes = axes @ turn
        trace = np.einsum("nk,nk->", x, x, dtype=np.float64)
        rest = max(0.0, trace - values.sum(dtype=np.float64)) / (width - AXES)
        self.rest = x.dtype.type(rest)
        self.values = np.maximum(values, 0)

    def divide(self, v: Array, c: Array, l2: Array) -> Array:
        """Of `v` of shape (fits, width), with `c` and `l2` of shape (fits, 1)."""
        rest = 1 / (c * self.rest + l2)
        along = v @ self.axes
        return v * rest + (along * (1 / (c * self.values + l2) - rest)) @ self.axes.T


@dataclass(frozen=True)
class Diagonal:
    """The preconditioner of features whose Gram matrix is diagonal, with `values`."""

    values: Array

    def divide(self, v: Array, c: Array, l2: Array) -> Array:
        return v / (c * self.values + l2)
