"""Tokens of a cell summed up by sample and class: an image may show a good instance beside a bad one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import HandscopeError
from .directions import massive_channels
from .gaussianity import Gaussianity, diagnose
from .moments import Moments
from .scatter import Scatter, stream_moments
from .subject_tokens import SubjectTokens

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CellSums:
    """One cell.

    Attributes
    ----------
    parts : Moments of shape (n_parts, width)
    scatter : Scatter of shape (2, width, width), of good and of bad tokens
    vectors : array of shape (n_samples, width), the mean of each sample's tokens
    massive, constant : int arrays, the channels that are set to 0 in all of these: those much larger than the rest, and
        those that do not vary in one class
    """

    parts: Moments
    scatter: Scatter
    vectors: Array
    massive: NDArray[np.intp]
    constant: NDArray[np.intp]


class ClassParts:
    """Reads cells of a store as sums over the good and the bad tokens of each sample.

    A sample has one part, unless its verdict is bad and it has tokens of a good instance too: these are a part of
    their own.

    Attributes
    ----------
    sample : int array of shape (n_parts,), the row of `table` that a part is of, ascending
    bad : int array of shape (n_parts,), 1 for a bad part
    """

    def __init__(self, store: ActivationStore, table: pd.DataFrame) -> None:
        self.table = table
        self._tokens = SubjectTokens(store, table["sample"].tolist())
        number = store.tokens["sample"].map({sample: k for k, sample in enumerate(table["sample"])})
        sample = np.where(store.tokens["instance"] > 0, number.fillna(-1), -1).astype(np.intp)
        labels, verdict = store.tokens["label"].to_numpy(), table["bad"].to_numpy().astype(np.intp)
        held = sample >= 0
        marked = np.bincount(sample[held & (labels == 3)], minlength=len(table)) > 0
        good = (verdict[sample] == 0) | (marked[sample] & (labels == 2))
        self._class_of = np.where(held, np.where(good, 0, 1), -1)
        codes, part = np.unique(2 * sample[held] + self._class_of[held], return_inverse=True)
        self._part_of = np.full(len(sample), -1, np.intp)
        self._part_of[held] = part
        self.sample, self.bad = codes // 2, codes % 2

    def read(self, cell: Cell) -> CellSums:
        """The sums of a cell, which is never in memory as a whole.

        Raises
        ------
        HandscopeError
            An activation is NaN or infinite, or no two channels vary.
        """
        parts, scatter = stream_moments(self._tokens.chunks(cell), self._part_of, len(self.bad), self._class_of)
        if scatter is None or not np.isfinite(parts.m2).all():
            self._tokens.read(cell)
            raise HandscopeError(f"Cell {cell}: the squares of its activations overflow; leave the cell out.")
        count, mean = _by_sample(parts, self.sample, len(self.table))
        massive = massive_channels(mean)
        constant = np.flatnonzero((np.diagonal(scatter.scatter, axis1=1, axis2=2) == 0).any(0))
        left_out = np.union1d(massive, constant)
        if len(left_out) > parts.mean.shape[1] - 2:
            raise HandscopeError(
                f"Cell {cell}: {len(constant)} of {parts.mean.shape[1]} channels do not vary over the {count.sum():g} "
                "tokens of one class, so there is nothing to compare; leave the cell out, or extract it again."
            )
        for array in (parts.mean, parts.m2, mean):
            array[:, left_out] = 0.0
        scatter.mean[:, left_out] = scatter.scatter[:, left_out] = scatter.scatter[:, :, left_out] = 0.0
        return CellSums(parts, scatter, mean, massive, constant)

    def diagnose(self, cell: Cell, sums: CellSums) -> Gaussianity:
        """Whether the tokens of a cell are as two diagonal Gaussians have them; see `diagnose`."""
        fold = self.table["fold"].to_numpy()[self.sample]
        return diagnose(self._tokens.chunks(cell), self._part_of, sums.parts, sums.scatter, self.bad, fold)


def _by_sample(parts: Moments, sample: NDArray[np.intp], n: int) -> tuple[Array, Array]:
    """Counts (n,) and means (n, width) of the tokens of each sample."""
    count = np.bincount(sample, parts.count, n).astype(np.float64)
    mean = np.zeros((n, parts.mean.shape[1]))
    np.add.at(mean, sample, parts.mean * (parts.count / count[sample])[:, None])
    return count, mean
