"""From shards to one file that reads fast by cell."""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from ..files import atomic
from .shard import STEP, fingerprint, heads, reading, shards
from .store import ActivationStore

CHUNK_BYTES = 256 * 2**20


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
