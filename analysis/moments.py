"""Counts, means and variances that merge exactly, in any order, across parts and machines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..brief import brief
from ..errors import HandscopeError
from ..files import atomic, check_readable, refuse_unusable

ROWS = 128
"""Rows that are taken to float64 at a time: they stay in the processor's cache, so that precision costs no memory."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of tokens, for one set of tokens or for many side by side.

    Attributes
    ----------
    count : float64 array of shape (...), tokens (a weighted pool may hold fractions)
    mean : float64 array of shape (..., width)
    m2 : float64 array of shape (..., width), the sum of squared deviations from `mean`

    Notes
    -----
    Deviations are taken from the mean of each few rows in float64, and sets merge by Chan, Golub and LeVeque (1979):
    the sum of squares minus the squared sum loses every digit on a residual-stream channel of 6000 ± 10, and float64
    totals of float32 squares do not bring them back.

    Examples
    --------
    >>> Moments.of(np.ones((5, 3))) + Moments.of(np.zeros((5, 3)))    # the same as Moments.of of all ten rows
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    __repr__ = brief

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance, shape (..., width)."""
        return self.m2 / self.count[..., None]

    @classmethod
    def of(cls, x: Any) -> Moments:
        """Moments of the rows of `x`, an array or torch tensor of shape (n_tokens, width), which may be none."""
        if np.ndim(x) != 2:
            raise HandscopeError(
                f"Moments need an array of shape (n_tokens, width), and were given one of shape {np.shape(x)}."
            )
        whole = cls.by(x, np.zeros(len(x), np.intp), 1)
        return cls(whole.count[0], whole.mean[0], whole.m2[0])

    @classmethod
    def by(cls, x: Any, index: ArrayLike, n: int) -> Moments:
        """Moments of the rows of `x` for each of `n` sets.

        Parameters
        ----------
        x : array or torch tensor, on any device, of shape (n_tokens, width)
        index : int array of shape (n_tokens,), the set that each row belongs to, in 0..n-1; a row of -1 is left out
        n : number of sets; one that no row belongs to has count 0

        Returns
        -------
        Moments with count of shape (n,) and mean and m2 of shape (n, width)
        """
        totals = MomentTotals(n)
        totals.add(x if hasattr(x, "device") else np.asarray(x), np.asarray(index))
        return totals.result()

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of tokens together."""
        if self.mean.shape != other.mean.shape:
            raise HandscopeError(
                f"Moments of shapes {self.mean.shape} and {other.mean.shape} cannot be merged: their widths must agree."
            )
        count = self.count + other.count
        share = (other.count / np.maximum(count, np.finfo(float).tiny))[..., None]
        delta = other.mean - self.mean
        return Moments(
            count, self.mean + share * delta, self.m2 + other.m2 + self.count[..., None] * share * np.square(delta)
        )

    def pool(self, weights: ArrayLike) -> Moments:
        """Merge the n sets of this object, each counted `weights` times.

        Parameters
        ----------
        weights : array of shape (..., n), not negative; a row of 0 and 1 chooses a class, a row of counts is a
            bootstrap draw

        Returns
        -------
        Moments with count of shape (...) and mean of shape (..., width)
        """
        weights = np.asarray(weights, np.float64)
        # Around the grand mean the textbook formula is stable: what remains to cancel is of the size of the variance.
        centre = self.count @ self.mean / self.count.sum()
        shifted = self.mean - centre
        count = weights @ self.count
        mean = weights @ (self.count[:, None] * shifted) / np.maximum(count, np.finfo(float).tiny)[..., None]
        squares = weights @ (self.m2 + self.count[:, None] * np.square(shifted))
        return Moments(count, mean + centre, np.maximum(squares - count[..., None] * np.square(mean), 0))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all; `load` on another machine gives the same bits."""
        save_arrays(path, {"count": self.count, "mean": self.mean, "m2": self.m2})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read what `save` wrote; HandscopeError where it is missing, damaged or something else."""
        return cls(**load_arrays(path, ("count", "mean", "m2"), "moments"))


class MomentTotals:
    """Moments of `n` sets while their tokens come in, chunk by chunk; `result` may be asked for at any time."""

    def __init__(self, n: int) -> None:
        self._count = np.zeros(n)
        self._mean = self._m2 = np.zeros((n, 0))

    def add(self, x: Any, index: NDArray[Any]) -> None:
        """Take in the rows of an array or tensor of shape (m, width), `index` as in ``Moments.by``."""
        if not self._mean.size:
            self._mean, self._m2 = np.zeros((2, len(self._count), x.shape[1]))
        elif x.shape[1] != self._mean.shape[1]:
            raise HandscopeError(
                f"Expected a chunk of width {self._mean.shape[1]} like those before it, found one of {x.shape[1]}."
            )
        if len(index) and not -1 <= index.min() <= index.max() < len(self._count):
            raise HandscopeError(
                f"Expected each row in one of {len(self._count)} sets, 0 to {len(self._count) - 1}, or in none (-1); "
                f"found {index.min()} to {index.max()}."
            )
        if len(index) and (index.min() < 0 or (np.diff(index) < 0).any()):
            order = np.argsort(index, kind="stable")[int((index < 0).sum()) :]
            x, index = x[order], index[order]
        ends = (np.flatnonzero(np.diff(index, append=-1)) + 1).tolist()
        begin = 0
        for end in ends:
            for start in range(begin, end, ROWS):
                self._merge(index[start], x[start : min(start + ROWS, end)])
            begin = end

    def _merge(self, one: int, rows: Any) -> None:
        rows = wide(rows)
        mean = rows.mean(0)
        deviations = rows - mean
        squares = host((deviations * deviations).sum(0))
        count = self._count[one] + len(rows)
        delta = host(mean) - self._mean[one]
        self._m2[one] += squares + np.square(delta) * (self._count[one] * len(rows) / count)
        self._mean[one] += delta * (len(rows) / count)
        self._count[one] = count

    def result(self) -> Moments:
        """What has come in so far."""
        return Moments(self._count.copy(), self._mean.copy(), self._m2.copy())


def coarse_channels(moments: Moments) -> dict[int, str]:
    """Channels that vary by less than bfloat16 can hold at their mean, each with the reason in a sentence.

    Parameters
    ----------
    moments : Moments of one set of tokens, read from bfloat16

    Notes
    -----
    bfloat16 keeps 8 bits: near a mean m its spacing is 2^(floor(log2 |m|) - 7), 32 at 6000. Where a channel's standard
    deviation is smaller, its stored variance is the rounding's as much as the channel's (2.6 times too large at
    6000 ± 10) and its few distinct values are no Gaussian's. A constant channel has lost nothing and is not named.
    """
    mean, sd = np.abs(moments.mean), np.sqrt(moments.variance)
    spacing = np.exp2(np.floor(np.log2(np.maximum(mean, np.finfo(np.float32).tiny))) - 7)
    return {
        int(channel): f"its standard deviation {sd[channel]:.3g} is below the bfloat16 spacing {spacing[channel]:g} at "
        f"its mean {moments.mean[channel]:.4g}, so much of its variance is rounding"
        for channel in np.flatnonzero((sd > 0) & (sd < spacing))
    }


def wide(x: Any) -> Any:
    """An array or tensor in float64, where it lies."""
    return x.double() if hasattr(x, "device") and not isinstance(x, np.ndarray) else np.asarray(x, np.float64)


def host(x: Any) -> NDArray[Any]:
    """A numpy array of an array, or of a tensor on any device."""
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()


def save_arrays(path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]]) -> None:
    """Write a safetensors file, whole or not at all."""
    from safetensors.numpy import save_file

    with atomic(path) as temporary:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, temporary)


def load_arrays(path: str | os.PathLike[str], names: tuple[str, ...], what: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of a safetensors file; HandscopeError where it is missing or holds something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        check_readable(path)
        arrays = load_file(path)
        return {name: arrays[name] for name in names}
    except (OSError, SafetensorError, KeyError) as error:
        refuse_unusable(error, path)
        state = f"does not hold {what}" if Path(path).exists() else "is missing"
        raise HandscopeError(f"{path} {state}: expected a file that {what} were saved to. Save them again.") from error
