"""Reading activations from disk: shards or a consolidated store, by cell."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from ..errors import HandscopeError
from .address import Block, Cell, Plan
from .shard import HEAD_COLUMNS, STORE_TOKEN, TOKEN_COLUMNS, check_same, reading, shards


class ActivationStore:
    """Activations of a run.

    Given a folder ``activations/`` (its `store.h5` is read where there is one, else its shards), a folder of shards, or
    a `store.h5`.

    Attributes
    ----------
    plan : Plan
    cells : tuple of Cell
    width : int
        Of the residual stream.
    samples : list of str
    tokens : DataFrame
        sample, row, col, label, hand; one row a token, in the order of `read`.
    records : array of dtype `STORE_TOKEN`
        `tokens` as it is in the file, where `sample` is a position in `samples`.
    steps : DataFrame
        step, index, sigma, timestep, model_timestep.
    attrs : dict
        Model, revision, weight_hash, dtype and how the activations were made.

    Raises
    ------
    HandscopeError
        There are no activations, a file is truncated or not of this schema, or shards of different plans or models lie
        side by side.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self._store: Path | None = None
        self._shards: list[Path] = []
        if path.is_file():
            self._store = path
        elif (path / "store.h5").is_file():
            self._store = path / "store.h5"
        else:
            self._shards = shards(path)
            if not self._shards:
                raise HandscopeError(
                    f"There are no activations in {path}: expected store.h5 or shards/*.h5. Run extract first."
                )
        self._open_store(self._store) if self._store else self._open_shards()
        self.cells = self.plan.cells

    def _open_store(self, path: Path) -> None:
        with reading(path) as file:
            self._describe(file)
            self.samples: list[str] = [name.decode() for name in file["samples"]["sample"]]
            self.records: np.ndarray = file["tokens"][:]
            self.tokens = _token_table(self.records, self.samples)

    def _open_shards(self) -> None:
        self.samples, tables = [], []
        for path in self._shards:
            with reading(path) as file:
                if not self.samples:
                    self._describe(file)
                check_same(path, file.attrs, self.attrs)
                self.samples.append(file.attrs["sample"])
                tables.append(file["tokens"][:])
        numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        self._stops = np.cumsum([len(table) for table in tables])
        self.records = _numbered(np.concatenate(tables), numbers)
        self.tokens = _token_table(self.records, self.samples)

    def _describe(self, file: h5py.File) -> None:
        self.attrs: dict[str, Any] = {key: value for key, value in file.attrs.items() if key not in HEAD_COLUMNS}
        self.plan = Plan.from_json(self.attrs["plan"])
        self.width = int(self.attrs["width"])
        self.steps = pd.DataFrame(file["steps"][:])

    def read(
        self, block: str | Block, step: int, samples: Sequence[str] | None = None
    ) -> tuple[np.ndarray, pd.DataFrame]:
        """One cell.

        >>> x, tokens = store.read("single.3", 12)                       # doctest: +SKIP

        Parameters
        ----------
        samples : sequence of str, optional
            Keep tokens of these samples only.

        Returns
        -------
        x : float32 array of shape (n_tokens, width)
        tokens : DataFrame
            sample, row, col, label, hand of each row of `x`.

        Raises
        ------
        HandscopeError
            The cell or a sample is not in the store.
        """
        cell = Cell(Block.parse(block), step)
        if cell not in self.cells:
            raise HandscopeError(
                f"{cell} is not in the store, which has blocks {', '.join(map(str, self.plan.blocks))} at steps "
                f"{', '.join(map(str, self.plan.steps))}: "
                "extract it with another plan."
            )
        bits = self._bits(cell)
        if samples is None:
            return _float32(bits), self.tokens.copy()
        unknown = sorted(set(samples) - set(self.samples))
        if unknown:
            raise HandscopeError(
                f"{len(unknown)} of the samples are not in the store, {unknown[0]} among them: extract them first."
            )
        rows = self.tokens["sample"].isin(samples).to_numpy()
        return _float32(bits[rows]), self.tokens[rows].reset_index(drop=True)

    def _bits(self, cell: Cell) -> np.ndarray:
        if self._store:
            with reading(self._store) as file:
                if file.attrs["fingerprint"] != self.attrs["fingerprint"]:
                    raise HandscopeError(f"{self._store} was written again since it was opened: open it anew.")
                return file[f"activations/{cell}"][:]
        number = self.cells.index(cell)
        bits = np.empty((len(self.tokens), self.width), np.uint16)
        for path, stop in zip(self._shards, self._stops):
            with reading(path) as file:
                part = file["activations"][number]
                bits[stop - len(part) : stop] = part
        return bits


def _numbered(tokens: np.ndarray, samples: np.ndarray) -> np.ndarray:
    table = np.empty(len(tokens), STORE_TOKEN)
    table["sample"] = samples
    for column in TOKEN_COLUMNS:
        table[column] = tokens[column]
    return table


def _token_table(tokens: np.ndarray, samples: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame({column: tokens[column] for column in TOKEN_COLUMNS})
    table.insert(0, "sample", np.asarray(samples, dtype=object)[tokens["sample"]])
    return table


def _float32(bits: np.ndarray) -> np.ndarray:
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
