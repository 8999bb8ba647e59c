"""Tokens of a cell summed up by instance: an image may show a good one beside a bad one."""

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
    parts : Moments of shape (n, width), of the tokens of each instance
    scatter : Scatter of shape (2, width, width), of good and of bad tokens
    massive, constant : int arrays, the channels that are set to 0 in all of these: those much larger than the rest, and
        those that do not vary in one class
    """

    parts: Moments
    scatter: Scatter
    massive: NDArray[np.intp]
    constant: NDArray[np.intp]

    @property
    def vectors(self) -> Array:
        """The mean of each instance's tokens: shape (n, width)."""
        return self.parts.mean


class ClassParts:
    """Reads cells of a store as sums over the tokens of each instance.

    Attributes
    ----------
    table : DataFrame with sample, instance, bad and fold, as of `instance_table`
    """

    def __init__(self, store: ActivationStore, table: pd.DataFrame) -> None:
        self.table, self._bad = table, table["bad"].to_numpy().astype(np.intp)
        self._tokens = SubjectTokens(store, table["sample"].tolist(), table["instance"].tolist())
        self._part_of = np.full(len(store.tokens), -1, np.intp)
        self._part_of[self._tokens.chosen] = self._tokens.tokens["unit"]
        self._class_of = np.where(self._part_of >= 0, self._bad[self._part_of], -1)

    def read(self, cell: Cell) -> CellSums:
        """The sums of a cell, which is never in memory as a whole.

        Raises
        ------
        HandscopeError
            An activation is NaN or infinite, or no two channels vary.
        """
        parts, scatter = stream_moments(self._tokens.chunks(cell), self._part_of, len(self._bad), self._class_of)
        if scatter is None or not np.isfinite(parts.m2).all():
            self._tokens.read(cell)
            raise HandscopeError(f"Cell {cell}: the squares of its activations overflow; leave the cell out.")
        massive = massive_channels(parts.mean)
        constant = np.flatnonzero((np.diagonal(scatter.scatter, axis1=1, axis2=2) == 0).any(0))
        left_out = np.union1d(massive, constant)
        if len(left_out) > parts.mean.shape[1] - 2:
            raise HandscopeError(
                f"Cell {cell}: {len(constant)} of {parts.mean.shape[1]} channels do not vary over the "
                f"{parts.count.sum():g} tokens of one class, so there is nothing to compare; leave the cell out, or "
                "extract it again."
            )
        for array in (parts.mean, parts.m2):
            array[:, left_out] = 0.0
        scatter.mean[:, left_out] = scatter.scatter[:, left_out] = scatter.scatter[:, :, left_out] = 0.0
        return CellSums(parts, scatter, massive, constant)

    def diagnose(self, cell: Cell, sums: CellSums) -> Gaussianity:
        """Whether the tokens of a cell are as two diagonal Gaussians have them; see `diagnose`."""
        fold = self.table["fold"].to_numpy()
        return diagnose(self._tokens.chunks(cell), self._part_of, sums.parts, sums.scatter, self._bad, fold)
