"""Activations on disk: one HDF5 shard a sample, and one consolidated file that reads fast by cell.

h5py alone can read both. bfloat16 is stored as its bits in uint16, since FLUX overflows float16 and h5py has no
bfloat16 of its own.

==================  ===========================================================================================
shard               ``activations`` uint16 (cells, tokens, width), cells in the plan's order; ``steps``; ``tokens``
                    (row, col, label, hand); attributes: schema, plan (JSON), dtype, width, sample, hashes, model
store.h5            ``activations/double.12/20`` uint16 (tokens, width); ``steps``; ``samples``; ``tokens``, whose
                    ``sample`` is a position in ``samples``
==================  ===========================================================================================
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from ..errors import HandscopeError
from ..files import atomic
from .address import Block, Cell, Plan

SCHEMA = "handscope-activations-1"
STEP = np.dtype([("step", "i4"), ("index", "i4"), ("sigma", "f4"), ("timestep", "f4"), ("model_timestep", "f4")])
TOKEN = np.dtype([("row", "i4"), ("col", "i4"), ("label", "u1"), ("hand", "u1")])
STORE_TOKEN = np.dtype([("sample", "i4"), *TOKEN.descr])
SAMPLE = np.dtype([("sample", "S32"), ("image_sha256", "S64"), ("noise_sha256", "S64"), ("labels_sha256", "S64")])
HEAD_COLUMNS = ("sample", "image_sha256", "noise_sha256", "labels_sha256")
TOKEN_COLUMNS = ("row", "col", "label", "hand")
CHUNK_BYTES = 256 * 2**20


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


def write_shard(
    path: str | os.PathLike[str],
    activations: np.ndarray,
    steps: np.ndarray,
    tokens: np.ndarray,
    attrs: Mapping[str, Any],
) -> None:
    """Write the activations of one sample, whole or not at all.

    Parameters
    ----------
    activations : uint16 array of shape (cells, tokens, width)
        Bits of bfloat16, cells in the plan's order.
    steps : array of dtype `STEP`, one entry a step of the plan
    tokens : array of dtype `TOKEN`, one entry a token
    attrs : mapping
        With `plan` (JSON) and `sample`; see the schema in the README of the store.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"schema": SCHEMA, "dtype": "bfloat16", "width": activations.shape[2], **attrs})
        file["steps"], file["tokens"], file["activations"] = steps, tokens, activations


def consolidate(path: str | os.PathLike[str]) -> Path:
    """Write ``store.h5`` from all shards in ``path/shards``: the same rows, contiguous cell by cell. The shards stay.

    Raises
    ------
    HandscopeError
        There are no shards, or they are of different plans or models, or one is truncated.
    """
    path = Path(path)
    parts = shards(path)
    store = ActivationStore(path / "shards")
    target = path / "store.h5"
    tokens, samples = store.records, heads(path)
    with atomic(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({**store.attrs, "fingerprint": fingerprint(samples)})
        file["samples"], file["steps"], file["tokens"] = (
            samples,
            store.steps.to_records(index=False).astype(STEP),
            tokens,
        )
        cells = [
            file.create_dataset(f"activations/{cell}", (len(tokens), store.width), np.uint16) for cell in store.cells
        ]
        start = 0
        for block in _in_memory(parts):
            for number, cell in enumerate(cells):
                cell[start : start + block.shape[1]] = block[number]
            start += block.shape[1]
    return target


def shards(path: str | os.PathLike[str]) -> list[Path]:
    """The shards in a folder, or in its subfolder ``shards``, in the order of their names."""
    path = Path(path)
    folder = path / "shards" if (path / "shards").is_dir() else path
    return sorted(part for part in folder.glob("*.h5") if not part.name.startswith("."))


def heads(path: str | os.PathLike[str]) -> np.ndarray:
    """What each shard is of: an array of dtype `SAMPLE`, one entry a shard."""
    rows = []
    for shard in shards(path):
        with reading(shard) as file:
            rows.append(tuple(str(file.attrs[name]).encode() for name in HEAD_COLUMNS))
    return np.array(rows, SAMPLE)


def fingerprint(samples: np.ndarray) -> str:
    """SHA-256 of what a store was consolidated from; `samples` of dtype `SAMPLE`, one entry a shard."""
    return hashlib.sha256(np.sort(samples).tobytes()).hexdigest()


def check_same(path: Path, attrs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a file whose plan, model or choice of tokens is not the expected one."""
    for key in ("schema", "plan", "weight_hash", "model_dtype", "selection"):
        if attrs.get(key) != expected.get(key):
            raise HandscopeError(
                f"{path} holds other activations: its {key} is {attrs.get(key)}, expected {expected.get(key)}. "
                f"Remove the folder {path.parent} to extract anew, or use another run folder."
            )


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file of this schema for reading; HandscopeError where it is missing, truncated or something else."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema") != SCHEMA:
                raise HandscopeError(
                    f"Expected activations of schema {SCHEMA} in {path}, found {file.attrs.get('schema')}: extract "
                    "them anew."
                )
            yield file
    except (OSError, KeyError) as error:
        state = "is truncated or damaged" if path.exists() else "is missing"
        raise HandscopeError(
            f"{path} {state}: remove it if it is there and run extract again, which makes it anew."
        ) from error


def _in_memory(parts: list[Path]) -> Iterator[np.ndarray]:
    """Shards joined along tokens, (cells, tokens, width), as many at a time as fit in memory.

    One large write a cell is much faster than many small ones.
    """
    held: list[np.ndarray] = []
    for path in parts:
        with reading(path) as file:
            held.append(file["activations"][:])
        if sum(part.nbytes for part in held) > CHUNK_BYTES:
            yield np.concatenate(held, axis=1)
            held = []
    if held:
        yield np.concatenate(held, axis=1)


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
