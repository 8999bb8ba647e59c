"""From shards to one file that reads fast by cell, and from several folders to one."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError
from ...files import atomic
from ...progress import Progress, quiet
from .checksum import Checksum
from .contents import Part, check_one_plan, folder_of
from .joining import check_labels_stay
from .shard import (
    HEAD_COLUMNS,
    STORE_TOKEN,
    DamagedError,
    activations,
    columns,
    fingerprint,
    head,
    head_table,
    heads,
    reading,
    shards,
    write_shard,
)
from .store import ActivationStore
from .writing import writing

MEMORY_BYTES = 256 * 2**20


def consolidate(path: str | os.PathLike[str], progress: Progress = quiet) -> Path:
    """Write ``store.h5`` beside the folder of shards: the same rows, contiguous cell by cell. The shards stay.

    Holds about 256 MB in memory however large the store, and compares every shard with what was written.
    Killed at any moment, it leaves what was there before.

    Parameters
    ----------
    path : path
        A folder ``activations/`` with its subfolder ``shards``, or a folder of shards itself.

    Raises
    ------
    HandscopeError
        There are no shards, or they are of different plans or models, or one is truncated or damaged.
    """
    found = shards(path)
    if not found:
        raise HandscopeError(f"There are no shards in {path}, from which a store could be written: run extract first.")
    target = folder_of(found[0]) / "store.h5"
    store = ActivationStore(found, labels={})
    check_labels_stay(store.parts, found[0])
    with atomic(target) as temporary, writing(temporary) as (file, check_written):
        cells = _layout(file, store)
        done = row = 0
        for group in _groups(store):
            row += _copy(group, cells, row, store.width)
            check_written()
            done += len(group)
            progress("consolidate", done, len(store.parts))
    return target


def is_consolidated(path: Path) -> bool:
    """Whether the folder ``activations/`` has a store that is of the shards as they are now."""
    try:
        with reading(path / "store.h5") as file:
            samples = file["samples"][:]
    except DamagedError:
        return False
    rows = [head({name: row[name].decode() for name in samples.dtype.names}) for row in samples]
    return fingerprint(head_table([list(row.values()) for row in rows])) == fingerprint(heads(path))


def merge(
    sources: Sequence[str | os.PathLike[str]], target: str | os.PathLike[str], progress: Progress = quiet
) -> Path:
    """Join activations of several machines or runs in the folder `target`, one shard a sample, and consolidate it.

    A sample that is in two sources with the same activations is taken once. Sources stay as they are; shards
    that `target` has already count as a source, so that a merge that was killed goes on where it stopped.

    Returns
    -------
    The path of the consolidated store.

    Raises
    ------
    HandscopeError
        The sources are of different plans, models, widths or choices of tokens, a sample differs between two of them, a
        source has no activations, or one is damaged.
    """
    target = Path(target)
    folder = target / "shards"
    before = [folder] if any(folder.glob("*.h5")) else []
    store = ActivationStore([*before, *sources], labels={})
    check_one_plan(store.parts)
    check_labels_stay(store.parts, target)
    for done, part in enumerate(store.parts):
        progress("merge", done, len(store.parts))
        if part.path.parent != folder:
            _write_part(store, part, folder / f"{part.sample}.h5")
    progress("merge", len(store.parts), len(store.parts))
    return consolidate(target, progress)


def _layout(file: h5py.File, store: ActivationStore) -> list[h5py.Dataset]:
    """Write everything but the activations, and make room for these."""
    heads = head_table([[part.head[name] for name in HEAD_COLUMNS] for part in store.parts])
    own = [
        {key: _json(value) for key, value in part.attrs.items() if key not in store.attrs} for part in store.parts
    ]
    file.attrs.update({**store.attrs, "fingerprint": fingerprint(heads)})
    file["samples"], file["steps"], file["tokens"] = heads, store.parts[0].steps, columns(store.records, STORE_TOKEN)
    file.create_dataset("sample_attrs", data=[json.dumps(attrs) for attrs in own], dtype=h5py.string_dtype())
    shape = (len(store.records), store.width)
    return [file.create_dataset(f"activations/{cell}", shape, np.uint16) for cell in store.cells]


def _groups(store: ActivationStore) -> Iterator[list[Part]]:
    """Shards that are held in memory together: one large write a cell is much faster than many small ones."""
    token_bytes = 2 * store.width * len(store.cells)
    group: list[Part] = []
    for part in store.parts:
        if group and (sum(len(held.tokens) for held in group) + len(part.tokens)) * token_bytes > MEMORY_BYTES:
            yield group
            group = []
        group.append(part)
    yield group


def _copy(group: list[Part], cells: list[h5py.Dataset], start: int, width: int) -> int:
    """Copy a group of shards into the rows from `start`, as many cells at once as memory allows; return its rows."""
    count = sum(len(part.tokens) for part in group)
    together = max(1, MEMORY_BYTES // max(1, 2 * width * count))
    checksums = [Checksum(part.head["checksum"]) for part in group]
    for first in range(0, len(cells), together):
        held = [_bits(part, first, first + together) for part in group]
        for checksum, bits in zip(checksums, held):
            checksum.update(bits)
        for number, cell in enumerate(cells[first : first + together]):
            cell[start : start + count] = np.concatenate([bits[number] for bits in held])
    for part, checksum in zip(group, checksums):
        _compare(part, checksum)
    return count


def _bits(part: Part, first: int, stop: int) -> NDArray[np.uint16]:
    with reading(part.path) as file:
        bits: NDArray[np.uint16] = activations(file)[first:stop]
        return bits


def _write_part(store: ActivationStore, part: Part, path: Path) -> None:
    """A shard's copy, or a shard made anew from a consolidated store or from a shard of 0.3."""
    bits = store.sample_bits(part)
    _compare(part, Checksum(part.head["checksum"]).update(bits))
    if part.start is None and part.old_labels is None:
        with atomic(path) as temporary:
            shutil.copyfile(part.path, temporary)
    else:
        write_shard(path, bits, part.steps, part.tokens, {**part.attrs, **part.head})


def _compare(part: Part, found: Checksum) -> None:
    if part.head["checksum"] not in ("", str(found)):
        raise HandscopeError(
            f"{part.path} is damaged: the activations of sample {part.sample} are not those that were written (their "
            "checksum differs). Remove it and run extract again, which makes it anew."
        )


def _json(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
