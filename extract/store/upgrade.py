"""Activations of 0.3 in the form of now: the labels that were written with their tokens go."""

import os
import shutil
from glob import escape
from pathlib import Path

import h5py
import numpy as np

from ...errors import HandscopeError
from ...files import atomic
from ...progress import Progress, quiet
from ..address import Plan
from .check import pieces
from .checksum import Checksum
from .contents import files, parts
from .joining import check_labels_stay
from .shard import (
    OLD_SCHEMA,
    STORE_TOKEN,
    TOKEN,
    activations,
    as_now,
    columns,
    fingerprint,
    head,
    head_table,
    reading,
    shards,
)
from .writing import writing


def upgrade(path: str | os.PathLike[str], progress: Progress = quiet) -> int:
    """Bring shards and `store.h5` of 0.3 into the form of now, file by file; what is in it already stays as it is.

    A file is copied, the copy changed and compared with the checksums that were noted when its activations were
    written, and renamed. Killed at any moment, the same call goes on. It needs room on the disk for the largest file
    once more, and a few MB in memory.

    Parameters
    ----------
    path : path
        A folder ``activations/``, a folder of shards, a `store.h5` or a shard.

    Returns
    -------
    How many files were changed.

    Raises
    ------
    HandscopeError
        There are no activations, a file is damaged, or the disk is full; or the labels that would go are nowhere else.
        What was not changed yet is as it was.
    """
    path = Path(path)
    whole = path / "store.h5"
    found = [path] if path.is_file() else [*shards(path), *([whole] if whole.is_file() else [])] or files(path)
    old = [file for file in found if _is_old(file)]
    check_labels_stay((part for file in old for part in parts(file)), path)
    for done, file in enumerate(old):
        progress("upgrade", done, len(old))
        for left in file.parent.glob(f".{escape(file.stem)}.*.tmp{file.suffix}"):
            left.unlink(missing_ok=True)  # of an upgrade that was killed
        _upgrade(file)
    progress("upgrade", len(old), len(old))
    return len(old)


def _is_old(path: Path) -> bool:
    with reading(path) as file:
        return bool(file.attrs["schema"] == OLD_SCHEMA)


def _upgrade(path: Path) -> None:
    with atomic(path) as temporary:
        shutil.copyfile(path, temporary)
        with writing(temporary, "r+") as (file, _):
            attrs, tokens = dict(file.attrs), file["tokens"][:]
            now = as_now(attrs)
            if "samples" in file:
                samples = file["samples"][:]
                heads = [head({name: row[name].decode() for name in samples.dtype.names}) for row in samples]
                table = head_table([list(row.values()) for row in heads])
                now["fingerprint"] = fingerprint(table)
                _replace(file, "samples", table)
                _replace(file, "tokens", columns(tokens, STORE_TOKEN))
            else:
                now |= {name: value for name, value in head(attrs).items() if value}
                _replace(file, "tokens", columns(tokens, TOKEN))
            for name in attrs.keys() - now.keys():
                del file.attrs[name]
            file.attrs.update({name: value for name, value in now.items() if name not in attrs or attrs[name] != value})
        _compare(temporary, path)


def _replace(file: h5py.File, name: str, table: np.ndarray) -> None:
    del file[name]
    file[name] = table


def _compare(copy: Path, path: Path) -> None:
    """Refuse a copy whose activations are not those that were written."""
    own = parts(copy, own=True)
    found = [Checksum(part.head["checksum"]) for part in own]
    with reading(copy, own=True) as file:
        data = activations(file)
        for number, cell in enumerate(Plan.from_json(own[0].attrs["plan"]).cells):
            for part, checksum in zip(own, found):
                for bits in pieces(part, data, number, cell):
                    checksum.update(bits)
    for part, checksum in zip(own, found):
        if part.head["checksum"] not in ("", str(checksum)):
            raise HandscopeError(
                f"{path} is damaged: the activations of sample {part.sample} are not those that were written (their "
                "checksum differs). Remove it and run extract again, which makes it anew."
            )
