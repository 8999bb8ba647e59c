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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import HandscopeError
from ..files import atomic

SCHEMA = "handscope-activations-1"
STEP = np.dtype([("step", "i4"), ("index", "i4"), ("sigma", "f4"), ("timestep", "f4"), ("model_timestep", "f4")])
TOKEN = np.dtype([("row", "i4"), ("col", "i4"), ("label", "u1"), ("hand", "u1")])
STORE_TOKEN = np.dtype([("sample", "i4"), *TOKEN.descr])
SAMPLE = np.dtype([("sample", "S32"), ("image_sha256", "S64"), ("noise_sha256", "S64"), ("labels_sha256", "S64")])
HEAD_COLUMNS = ("sample", "image_sha256", "noise_sha256", "labels_sha256")
TOKEN_COLUMNS = ("row", "col", "label", "hand")


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
