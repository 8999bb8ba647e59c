"""The hand tokens of a store, summed up sample by sample: the sample is the unit of all that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import HandscopeError
from .moments import Moments

if TYPE_CHECKING:
    import pandas as pd

    from ..extract.address import Cell
    from ..extract.store import ActivationStore


class HandTokens:
    """Reads cells of a store as moments of each sample's hand tokens.

    Attributes
    ----------
    samples : list of str, those asked for that have a hand token in the store, in the order asked for
    tokens : DataFrame of their hand tokens, in the order of the store
    """

    def __init__(self, store: ActivationStore, samples: list[str]) -> None:
        self.store = store
        hand = (store.tokens["hand"] > 0).to_numpy()
        present = set(store.tokens["sample"][hand])
        self.samples = [sample for sample in samples if sample in present]
        number = store.tokens["sample"].map({sample: k for k, sample in enumerate(self.samples)})
        self._chosen = np.flatnonzero(hand & number.notna().to_numpy())
        self.tokens: pd.DataFrame = store.tokens.iloc[self._chosen]
        self._sample = number.to_numpy()[self._chosen].astype(np.intp)

    def read(self, cell: Cell) -> tuple[Moments, NDArray[np.float64]]:
        """Moments of shape (n_samples, width) of a cell, and the mean token norm, of shape (n_samples,).

        Raises
        ------
        HandscopeError
            An activation is NaN or infinite.
        """
        x = self.store.read(str(cell.block), cell.step)[0][self._chosen]
        norms = np.linalg.norm(x, axis=1).astype(np.float64)
        if not np.isfinite(norms).all():
            raise HandscopeError(
                f"Cell {cell.block} at step {cell.step} of the store holds NaN or infinity in "
                f"{int((~np.isfinite(norms)).sum())} of "
                f"{len(norms)} hand tokens; extract it again, in bfloat16 or float32 if it was float16."
            )
        moments = Moments.by(x, self._sample, len(self.samples))
        return moments, np.bincount(self._sample, norms, len(self.samples)) / moments.count
