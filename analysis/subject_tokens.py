"""The subject's tokens of a store, summed up instance by instance: the unit of all that follows, never the token.

Where a picture has one instance, as most have, that is the sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import HandscopeError
from .moments import Moments, MomentTotals

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore


NAMED = 3
"""Samples that a sentence names."""


BAD = 3
"""The label of a token of a bad instance."""


def instance_table(store: ActivationStore, table: pd.DataFrame) -> pd.DataFrame:
    """A row an instance: that of its sample, with its number as `instance` and `bad` as its tokens say.

    Parameters
    ----------
    table : DataFrame with sample and bad, one row a sample; those without a stored token of the subject fall out

    Notes
    -----
    A bad sample whose verdict is all that is known, since no token of it is labelled bad, has bad instances only, and
    so has one with a single instance. Of others, those are bad that have a token labelled so.
    """
    subject = store.tokens[store.tokens["instance"] > 0]
    found = (subject["label"] == BAD).groupby([subject["sample"], subject["instance"]]).any()
    known = pd.DataFrame({"sample": found.index.get_level_values(0), "instance": found.index.get_level_values(1)})
    known["marked"] = found.to_numpy()
    rows = table.drop(columns="instance", errors="ignore").merge(known, on="sample", how="inner")
    told = rows.groupby("sample")["marked"].transform("any") & (rows.groupby("sample")["sample"].transform("size") > 1)
    rows["bad"] = np.where(told & (rows["bad"] == 1), rows["marked"], rows["bad"]).astype(int)
    return rows.drop(columns="marked")


def groups_of(table: pd.DataFrame) -> NDArray[np.object_]:
    """The prompt and the sample of each row of a table of instances: shape (n, 2), as `permuted_labels` takes them."""
    return table[["prompt", "sample"]].to_numpy(object)


def mixed(table: pd.DataFrame) -> int:
    """How many samples of a table of instances have both good and bad ones."""
    return int((table.groupby("sample")["bad"].nunique() > 1).sum())


class SubjectTokens:
    """Reads cells of a store as moments of the tokens of the subject, those with an instance number, by sample or
    instance.

    Parameters
    ----------
    samples : list of str
    instances : list of int, optional; the instance of each of `samples`, which may then be named several times. Left
        out, all instances of a sample are one

    Attributes
    ----------
    samples : list of str, those asked for that have such a token in the store, in the order asked for
    chosen : int array, the places of these tokens in the store
    tokens : DataFrame of them, in the order of the store; `unit` is their place among `samples`

    Raises
    ------
    HandscopeError
        Tokens of the subject, as it is labelled now, are not stored.
    """

    def __init__(self, store: ActivationStore, samples: list[str], instances: list[int] | None = None) -> None:
        self.store = store
        lacking = {sample: store.unstored[sample] for sample in samples if sample in store.unstored}
        if lacking:
            named = ", ".join(list(lacking)[:NAMED]) + (", …" if len(lacking) > NAMED else "")
            raise HandscopeError(
                f"{sum(lacking.values())} subject tokens of {len(lacking)} samples ({named}) are not stored: run "
                "extract, which reads these samples alone."
            )
        subject = (store.tokens["instance"] > 0).to_numpy()
        keys = ["sample"] if instances is None else ["sample", "instance"]
        wanted = pd.MultiIndex.from_arrays([samples] if instances is None else [samples, instances], names=keys)
        held = pd.MultiIndex.from_frame(store.tokens[keys])
        present = wanted.isin(held[subject])
        self.samples = [sample for sample, there in zip(samples, present, strict=True) if there]
        self._unit_of = np.where(subject, wanted[present].get_indexer(held), -1)
        self.chosen = np.flatnonzero(self._unit_of >= 0)
        self.tokens: pd.DataFrame = store.tokens.iloc[self.chosen].assign(unit=self._unit_of[self.chosen])

    def read(self, cell: Cell) -> tuple[Moments, NDArray[np.float64]]:
        """Moments of shape (len(samples), width) of a cell, and mean token norms, of shape (len(samples),).

        The cell is never in memory as a whole.

        Raises
        ------
        HandscopeError
            An activation is NaN or infinite.
        """
        totals, norms, broken = MomentTotals(len(self.samples)), np.zeros(len(self.samples)), 0
        for x, number in self.chunks(cell):
            sample = self._unit_of[number]
            squares = np.einsum("ij,ij->i", x, x, dtype=np.float64)
            broken += int((~np.isfinite(squares)).sum())
            norms += np.bincount(sample, np.sqrt(squares), len(norms))
            if not broken:
                totals.add(x, sample)
        if broken:
            raise HandscopeError(
                f"Cell {cell.block} at step {cell.step} of the store holds NaN or infinity in {broken} of "
                f"{len(self.chosen)} tokens; extract it again, in bfloat16 or float32 if it was float16."
            )
        moments = totals.result()
        return moments, norms / moments.count

    def chunks(self, cell: Cell) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp]]]:
        """The tokens of a cell, some thousand at a time: rows (m, width), and their places (m,) in the store."""
        yield from self.store.chunks(str(cell.block), cell.step, where=self.chosen)
