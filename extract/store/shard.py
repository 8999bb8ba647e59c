"""The form of activations on disk, and one shard: all wanted cells of one sample.

docs/store.md documents the form for readers who have h5py alone. bfloat16 is stored as its bits in uint16, since FLUX
overflows float16 and h5py has no bfloat16 of its own.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import HandscopeError
from ...files import atomic, refuse_unusable
from ..address import Cell, Plan
from .checksum import Checksum
from .writing import writing

SCHEMA = "handscope-activations-2"
OLD_SCHEMA = "handscope-activations-1"
"""Of 0.3, whose tokens carry the labels of the time when they were written."""
STEP = np.dtype([("step", "i4"), ("index", "i4"), ("sigma", "f4"), ("timestep", "f4"), ("model_timestep", "f4")])
TOKEN = np.dtype([("row", "i4"), ("col", "i4")])
STORE_TOKEN = np.dtype([("sample", "i4"), *TOKEN.descr])
OLD_LABEL = np.dtype([("label", "u1"), ("hand", "u1")])
"""What a token of 0.3 has beside its place."""
HEAD_COLUMNS = ("sample", "image_sha256", "noise_sha256", "checksum")
OLD_ATTRS = ("sha256", "labels_sha256")  # the checksum of files that have no `checksum`; a hash of the labels of 0.3
SAME = ("weight_hash", "model_dtype", "quantisation", "adapters", "state", "selection")
OLD_SELECTIONS = {"hand": "subject"}
CHUNK_ROWS = 512


class DamagedError(HandscopeError):
    """A file of activations is missing, truncated, damaged or of another schema."""


def write_shard(
    path: str | os.PathLike[str],
    activations: np.ndarray,
    steps: np.ndarray,
    tokens: np.ndarray,
    attrs: Mapping[str, Any],
    compression: str | None = None,
) -> None:
    """Write the activations of one sample, whole or not at all.

    The file's size is compared before it gets its name. The bits are not read back: that would come from memory, not
    from the disk, at two thirds of the cost of writing. Their checksum is kept beside them, which `check` compares.

    Parameters
    ----------
    activations : uint16 array of shape (cells, tokens, width)
        Bits of bfloat16, cells in the plan's order.
    steps : array of dtype `STEP`, one entry a step of the plan
    tokens : array of dtype `TOKEN`, one entry a token
    attrs : mapping
        With `plan` (JSON) and `sample`; a value that is neither text nor a number is kept as JSON, None as empty text.
        A `checksum` that is there already says of which kind the new one is to be.
    compression : None or "lossless"
        "lossless" takes about a fifth off, and needs hdf5plugin to write and to read.

    Raises
    ------
    HandscopeError
        The arrays do not fit the plan or each other, hdf5plugin is not installed, or the disk is full.
    """
    activations = np.ascontiguousarray(activations)
    _check_arrays(path, activations, steps, tokens, attrs)
    options = _compressed(activations.shape) if compression is not None else {}
    if compression not in (None, "lossless"):
        raise HandscopeError(f"Expected compression to be None or 'lossless', found {compression!r}.")
    with atomic(path) as temporary:
        with writing(temporary) as (file, _):
            file.attrs.update({key: _plain(value) for key, value in attrs.items()})
            file.attrs.update({"schema": SCHEMA, "dtype": "bfloat16", "width": activations.shape[2]})
            file.attrs["checksum"] = str(Checksum(str(attrs.get("checksum", ""))).update(activations))
            file["steps"], file["tokens"] = steps, tokens
            stored = file.create_dataset("activations", data=activations, **options).id.get_storage_size()
        if (size := temporary.stat().st_size) <= stored:
            raise HandscopeError(
                f"{path} was not written whole ({size} bytes, of which {stored} should be activations): check the disk "
                "and run the same command again."
            )


def shards(path: str | os.PathLike[str]) -> list[Path]:
    """The shards in a folder, or in its subfolder ``shards``, in the order of their names."""
    path = Path(path)
    folder = path / "shards" if (path / "shards").is_dir() else path
    return sorted(part for part in folder.glob("*.h5") if not part.name.startswith(".") and part.name != "store.h5")


def tokens_of(file: h5py.File) -> tuple[np.ndarray, np.ndarray | None]:
    """The tokens of an open file: their places, of dtype `TOKEN`; and of a file of 0.3 their labels, of `OLD_LABEL`."""
    tokens = file["tokens"][:]
    expected = [name for name, *_ in [*TOKEN.descr, *(OLD_LABEL.descr if file.attrs["schema"] != SCHEMA else [])]]
    if not set(expected) <= set(tokens.dtype.names or ()):
        raise _misformed(file, f"tokens with the columns {', '.join(expected)}", tokens.dtype)
    places = columns(tokens, TOKEN)
    return places, columns(tokens, OLD_LABEL) if file.attrs["schema"] == OLD_SCHEMA else None


def columns(table: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Some columns of a table, as a table of that dtype."""
    chosen = np.empty(len(table), dtype)
    for name in dtype.names or ():
        chosen[name] = table[name]
    return chosen


def heads(path: str | os.PathLike[str]) -> np.ndarray:
    """What each shard is of: an array with the `HEAD_COLUMNS` as bytes, one entry a shard."""
    rows = []
    for shard in shards(path):
        with reading(shard) as file:
            rows.append(list(head(file.attrs).values()))
    return head_table(rows)


def head(attrs: Mapping[str, Any]) -> dict[str, str]:
    """The `HEAD_COLUMNS` of a shard's attributes, empty where there is none."""
    found = {name: str(attrs.get(name, "")) for name in HEAD_COLUMNS}
    if not found["checksum"] and attrs.get("sha256"):
        found["checksum"] = f"sha256:{attrs['sha256']}"
    return found


def head_table(rows: list[list[str]]) -> np.ndarray:
    """Rows of the `HEAD_COLUMNS` as an array; samples may have names of any length."""
    encoded = [tuple(value.encode() for value in row) for row in rows]
    longest = max([32, *(len(row[0]) for row in encoded)])
    return np.array(encoded, [("sample", f"S{longest}"), *((name, "S71") for name in HEAD_COLUMNS[1:])])


def fingerprint(samples: np.ndarray) -> str:
    """SHA-256 of what a store was consolidated from; `samples` as `heads` gives them, one entry a shard."""
    return hashlib.sha256(np.sort(samples).tobytes()).hexdigest()


def mark(attrs: Mapping[str, Any]) -> str:
    """What changes when the file that has these attributes is written again with other contents."""
    return str(attrs.get("fingerprint", "")) or "".join(head(attrs).values())


def as_now(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a file without its `HEAD_COLUMNS`, those of 0.3 as they are written now."""
    rest = {name: value for name, value in attrs.items() if name not in (*HEAD_COLUMNS, *OLD_ATTRS)}
    if "selection" in rest:
        rest["selection"] = OLD_SELECTIONS.get(rest["selection"], rest["selection"])
    return rest | {"schema": SCHEMA}


def check_same(path: Path, attrs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a file whose model, choice of tokens or kind of plan is not the expected one."""
    found, wanted = identity(attrs), identity(expected)
    for key, value in found.items():
        if value != wanted[key]:
            raise HandscopeError(
                f"{path} holds other activations: its {key} is {value}, expected {wanted[key]}. "
                f"Remove the folder {path.parent} to extract anew, or use another run folder."
            )


def identity(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What files of one store share: model and choice of tokens, and of their plans what makes cells comparable."""
    now = as_now(attrs)
    return {"kind of plan": plan_of(str(now["plan"])).kind} | {key: now.get(key) or "" for key in SAME}


@lru_cache(maxsize=64)
def plan_of(text: str) -> Plan:
    """The plan of its JSON."""
    return Plan.from_json(text)


@lru_cache(maxsize=64)
def places_of(text: str) -> dict[Cell, int]:
    """The place of each cell in a shard, of the JSON of its plan."""
    return {cell: place for place, cell in enumerate(plan_of(text).cells)}


@contextmanager
def reading(path: Path, own: bool = False) -> Iterator[h5py.File]:
    """Open an HDF5 file of this schema, or of 0.3's, for reading.

    `own` is a file that this process is writing: its lock says nothing of others.

    Raises
    ------
    DamagedError
        The file is missing, truncated or something else.
    Unusable
        It is locked, forbidden, or its disk fails.
    """
    try:
        with h5py.File(path, "r", locking=not own) as file:
            if file.attrs.get("schema") not in (SCHEMA, OLD_SCHEMA):
                raise DamagedError(
                    f"Expected activations of schema {SCHEMA} in {path}, found {file.attrs.get('schema')}: extract "
                    "them anew."
                )
            yield file
    except HandscopeError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # of types and forms that numpy lacks
        refuse_unusable(error, path)
        state = "is truncated or damaged" if path.exists() else "is missing"
        raise DamagedError(
            f"{path} {state}: remove it if it is there and run extract again, which makes it anew."
        ) from error


def activations(file: h5py.File) -> h5py.Dataset | h5py.Group:
    """The activations of an open shard, or the group of cells of a consolidated store.

    Raises
    ------
    DamagedError
        They are of another form.
    HandscopeError
        They are compressed and hdf5plugin is not installed.
    """
    data = file["activations"]
    if isinstance(data, h5py.Dataset) and (data.dtype != np.uint16 or data.ndim != 3):
        raise _misformed(file, "activations in uint16 of shape (cells, tokens, width)", f"{data.dtype} {data.shape}")
    if isinstance(data, h5py.Dataset) and data.chunks:
        properties = data.id.get_create_plist()
        codes = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
        if not all(h5py.h5z.filter_avail(code) for code in codes):
            _plugin(f"to read {file.filename}, which is compressed")
    return data


def _misformed(file: h5py.File, expected: str, found: object) -> DamagedError:
    return DamagedError(
        f"{file.filename} is damaged: expected {expected}, found {found}. Remove it and run extract again, which makes "
        "it anew."
    )


def _check_arrays(
    path: str | os.PathLike[str],
    activations: np.ndarray,
    steps: np.ndarray,
    tokens: np.ndarray,
    attrs: Mapping[str, Any],
) -> None:
    plan = Plan.from_json(attrs["plan"])
    shape = (len(plan.cells), len(tokens))
    if activations.dtype != np.uint16 or activations.ndim != 3 or activations.shape[:2] != shape:
        raise HandscopeError(
            f"Expected the activations of {path} to be uint16 of shape ({shape[0]} cells, {shape[1]} tokens, width), "
            f"found {activations.dtype} of shape {activations.shape}."
        )
    if steps.dtype != STEP or tuple(steps["step"]) != plan.steps:
        raise HandscopeError(
            f"Expected an entry of dtype {STEP} for each of the steps {plan.steps} of {path}, found {steps!r}."
        )
    if tokens.dtype != TOKEN:
        raise HandscopeError(f"Expected the tokens of {path} to be of dtype {TOKEN}, found {tokens.dtype}.")


def _compressed(shape: tuple[int, ...]) -> dict[str, Any]:
    cells, tokens, width = shape
    if not (tokens and width):
        return {}  # HDF5 has no chunks of nothing
    return {**_plugin("to write compressed activations").Bitshuffle(), "chunks": (1, min(tokens, CHUNK_ROWS), width)}


def _plugin(purpose: str) -> Any:
    try:
        import hdf5plugin
    except ImportError as error:
        raise HandscopeError(
            f"hdf5plugin is needed {purpose}: pip install 'handscope[compression]', or pip install hdf5plugin."
        ) from error
    return hdf5plugin


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, str | int | float | np.generic) else json.dumps(value)
