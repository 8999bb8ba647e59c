"""Covariances of classes of tokens that merge exactly, in any order, and the one pass that yields them with moments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..brief import brief
from ..errors import HandscopeError
from .moments import Moments, MomentTotals, host, load_arrays, save_arrays, wide

ROWS = 2048
"""Rows of a class in one matrix product: enough that the product costs ten times what adding it up in float64 does."""

SLAB = 64
"""Rows of a product that are added up at a time."""


@dataclass(frozen=True)
class Scatter:
    """Count, mean and scatter matrix of tokens, for one set of tokens or for several side by side.

    Attributes
    ----------
    count : float64 array of shape (...), tokens
    mean : float64 array of shape (..., width)
    scatter : float64 array of shape (..., width, width), the sum of outer products of deviations from `mean`

    Notes
    -----
    Products are of float32 deviations from the mean of the first rows, and their sums float64: relative errors are of
    the size 1e-6 where the plain sum of products of 6000 ± 10 loses every digit. At a width of 3,072 one matrix is
    75 MB.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    __repr__ = brief

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance with n - 1 below, as of ``numpy.cov`` and scikit-learn: shape (..., width, width)."""
        return self.scatter / (self.count[..., None, None] - 1)

    @property
    def moments(self) -> Moments:
        """The same without what channels have in common."""
        return Moments(self.count, self.mean, np.diagonal(self.scatter, axis1=-2, axis2=-1).copy())

    @classmethod
    def of(cls, x: Any) -> Scatter:
        """Scatter of the rows of `x`, an array or torch tensor of shape (n_tokens, width)."""
        if np.ndim(x) != 2:
            raise HandscopeError(
                f"A scatter needs an array of shape (n_tokens, width), and was given one of shape {np.shape(x)}."
            )
        return cls.by(x, np.zeros(len(x), np.intp), 1)[0]

    @classmethod
    def by(cls, x: Any, index: ArrayLike, n: int) -> Scatter:
        """Scatter of the rows of `x` for each of `n` sets, `index` as in ``Moments.by``."""
        totals = ScatterTotals(n)
        totals.add(x if hasattr(x, "device") else np.asarray(x), np.asarray(index))
        return totals.result()

    def __getitem__(self, one: int) -> Scatter:
        """One of the sets."""
        return Scatter(self.count[one], self.mean[one], self.scatter[one])

    def __add__(self, other: Scatter) -> Scatter:
        """The scatter of both sets of tokens together."""
        if self.mean.shape != other.mean.shape:
            raise HandscopeError(
                f"Scatters of shapes {self.mean.shape} and {other.mean.shape} cannot be merged: their widths must "
                "agree."
            )
        count = self.count + other.count
        share = other.count / np.maximum(count, np.finfo(float).tiny)
        delta = other.mean - self.mean
        total = delta[..., :, None] * (delta * (self.count * share)[..., None])[..., None, :]
        total += self.scatter
        total += other.scatter
        return Scatter(count, self.mean + share[..., None] * delta, total)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all."""
        save_arrays(path, {"count": self.count, "mean": self.mean, "scatter": self.scatter})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scatter:
        """Read what `save` wrote; HandscopeError where it is missing, damaged or something else."""
        return cls(**load_arrays(path, ("count", "mean", "scatter"), "a scatter"))


class ScatterTotals:
    """Scatters of `n` sets while their tokens come in, chunk by chunk; `result` takes them out, once."""

    def __init__(self, n: int) -> None:
        self._count = np.zeros(n)
        self._waiting: list[list[Any]] = [[] for _ in range(n)]
        self._sum: list[Any] = [0.0] * n
        self._products: Any = None
        self._shift: Any = None

    def add(self, x: Any, index: NDArray[Any]) -> None:
        """Take in the rows of an array or tensor of shape (m, width), `index` as in ``Moments.by``."""
        for start in range(0, len(x), ROWS):
            rows, sets = x[start : start + ROWS], index[start : start + ROWS]
            if self._shift is None and (sets >= 0).any():
                self._shift = _narrow(rows[np.flatnonzero(sets >= 0)]).mean(0)
            for one in np.unique(sets[sets >= 0]):
                chosen = rows[np.flatnonzero(sets == one)]
                self._waiting[one].append(_narrow(chosen) - self._shift)
                self._count[one] += len(chosen)
                if sum(map(len, self._waiting[one])) >= ROWS:
                    self._multiply(one)

    def _multiply(self, one: int) -> None:
        parts, self._waiting[one] = self._waiting[one], []
        rows = parts[0] if len(parts) == 1 else _joined(parts)
        del parts
        self._sum[one] = self._sum[one] + _total(rows)
        with _full_precision(rows):
            product = rows.T @ rows
        if self._products is None:
            self._products = _zeros_like(product, len(self._count))
        # A slab at a time: numpy's own mixing of the two precisions is three times slower.
        for start in range(0, len(product), SLAB):
            self._products[one, start : start + SLAB] += wide(product[start : start + SLAB])

    def result(self) -> Scatter:
        """All that has come in."""
        if self._shift is None:
            raise HandscopeError("A scatter needs at least one token, and none came in.")
        for one in range(len(self._count)):
            if self._waiting[one]:
                self._multiply(one)
        scatter, mean = host(self._products), np.empty((len(self._count), len(self._shift)))
        self._products = None
        for one, count in enumerate(self._count):
            offset = host(self._sum[one]) / count if count else np.zeros(mean.shape[1])
            mean[one] = (host(self._shift) + offset) if count else 0.0
            for start in range(0, mean.shape[1], SLAB):
                scatter[one, start : start + SLAB] -= np.multiply.outer(count * offset[start : start + SLAB], offset)
        return Scatter(self._count, mean, scatter)


def stream_moments(
    chunks: Iterable[tuple[Any, NDArray[Any]]],
    index: ArrayLike,
    n: int,
    scatter_index: ArrayLike | None = None,
    device: Any = None,
) -> tuple[Moments, Scatter | None]:
    """Moments of each sample, and scatters of each class, in one pass over tokens that come in chunks.

    Parameters
    ----------
    chunks : of (x, number): float32 rows (m, width) and the token numbers (m,) of these rows, as of
        ``ActivationStore.chunks``
    index : int array of shape (n_tokens,), the set (sample, fold) of each token in 0..n-1; -1 leaves it out
    n : number of sets
    scatter_index : int array of shape (n_tokens,), optional: the class of each token, from 0; -1 leaves it out
    device : torch device to compute on, optional; without it, where the chunks are (numpy on the processor)

    Returns
    -------
    Moments of shape (n, width), and Scatter of shape (classes, width, width), None without `scatter_index`

    Notes
    -----
    Memory is that of a few chunks, of the moments, and of two matrices for each class.
    """
    index = np.asarray(index)
    classes = None if scatter_index is None else np.asarray(scatter_index)
    moments = MomentTotals(n)
    scatters = ScatterTotals(int(classes.max()) + 1) if classes is not None else None
    for x, number in chunks:
        if device is not None:
            import torch

            x = torch.as_tensor(x, device=device)
        moments.add(x, index[number])
        if scatters is not None and classes is not None:
            scatters.add(x, classes[number])
    return moments.result(), scatters.result() if scatters is not None else None


def _narrow(x: Any) -> Any:
    """In the precision of products: float64 where the data are, else float32."""
    if isinstance(x, np.ndarray):
        return x if x.dtype == np.float64 else x.astype(np.float32, copy=False)
    return x if x.element_size() == 8 else x.float()


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(parts)


def _total(rows: Any) -> Any:
    """Column sums in float64 of rows of any precision."""
    if isinstance(rows, np.ndarray):
        return sum(rows[start : start + SLAB].astype(np.float64).sum(0) for start in range(0, len(rows), SLAB))
    return rows.double().sum(0)


def _zeros_like(product: Any, n: int) -> Any:
    """Float64 zeros of shape (n, width, width), where the product is."""
    shape = (n, *product.shape)
    if isinstance(product, np.ndarray):
        return np.zeros(shape)
    return product.new_zeros(shape, dtype=wide(product[:1]).dtype)


@contextmanager
def _full_precision(rows: Any) -> Iterator[None]:
    """On a GPU, no TF32, which keeps 10 bits: a global switch, and it may be on. Not run on a GPU yet."""
    if isinstance(rows, np.ndarray) or rows.device.type != "cuda":
        yield
        return
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
