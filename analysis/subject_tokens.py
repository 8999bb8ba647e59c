"""The subject's tokens of a store, summed up sample by sample: the sample is the unit of all that follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import HandscopeError
from .moments import Moments, MomentTotals

if TYPE_CHECKING:
    import pandas as pd

    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore


NAMED = 3
"""Samples that a sentence names."""


class SubjectTokens:
    """Reads cells of a store as moments of each sample's tokens of the subject: those with an instance number.

    Attributes
    ----------
    samples : list of str, those asked for that have such a token in the store, in the order asked for
    tokens : DataFrame of these tokens, in the order of the store

    Raises
    ------
    HandscopeError
        Tokens of the subject, as it is labelled now, are not stored.
    """

    def __init__(self, store: ActivationStore, samples: list[str]) -> None:
        self.store = store
        lacking = {sample: store.unstored[sample] for sample in samples if sample in store.unstored}
        if lacking:
            named = ", ".join(list(lacking)[:NAMED]) + (", …" if len(lacking) > NAMED else "")
            raise HandscopeError(
                f"{sum(lacking.values())} subject tokens of {len(lacking)} samples ({named}) are not stored: run "
                "extract, which reads these samples alone."
            )
        subject = (store.tokens["instance"] > 0).to_numpy()
        present = set(store.tokens["sample"][subject])
        self.samples = [sample for sample in samples if sample in present]
        number = store.tokens["sample"].map({sample: k for k, sample in enumerate(self.samples)})
        self._chosen = np.flatnonzero(subject & number.notna().to_numpy())
        self.tokens: pd.DataFrame = store.tokens.iloc[self._chosen]
        self._sample_of = number.fillna(-1).to_numpy().astype(np.intp)

    def read(self, cell: Cell) -> tuple[Moments, NDArray[np.float64]]:
        """Moments of shape (n_samples, width) of a cell, and the mean token norm, of shape (n_samples,).

        The cell is never in memory as a whole.

        Raises
        ------
        HandscopeError
            An activation is NaN or infinite.
        """
        totals, norms, broken = MomentTotals(len(self.samples)), np.zeros(len(self.samples)), 0
        for x, number in self.chunks(cell):
            sample = self._sample_of[number]
            squares = np.einsum("ij,ij->i", x, x, dtype=np.float64)
            broken += int((~np.isfinite(squares)).sum())
            norms += np.bincount(sample, np.sqrt(squares), len(norms))
            if not broken:
                totals.add(x, sample)
        if broken:
            raise HandscopeError(
                f"Cell {cell.block} at step {cell.step} of the store holds NaN or infinity in {broken} of "
                f"{len(self._chosen)} tokens; extract it again, in bfloat16 or float32 if it was float16."
            )
        moments = totals.result()
        return moments, norms / moments.count

    def chunks(self, cell: Cell) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp]]]:
        """The tokens of a cell, some thousand at a time: rows (m, width), and their places (m,) in the store."""
        yield from self.store.chunks(str(cell.block), cell.step, where=self._chosen)
