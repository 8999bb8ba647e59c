"""Whether activations on disk are whole, and what they hold."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError, Unusable
from ...progress import Progress, quiet
from ..address import Cell, Plan
from .bits import count_not_finite
from .checksum import Checksum
from .contents import Part, files, parts
from .shard import (
    OLD_LABEL,
    OLD_SCHEMA,
    STEP,
    STORE_TOKEN,
    TOKEN,
    DamagedError,
    activations,
    identity,
    plan_of,
    reading,
    shards,
)
from .store import PIECE_BYTES, ActivationStore

LABELS = ("unlabelled", "none", "good", "bad")
NAMED = 4  # cells that a sentence names before it counts the rest


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with activations on disk: in which file, and a sentence that says what."""

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True)
class StoreInfo:
    """What activations on disk hold.

    Attributes
    ----------
    plan : Plan
    model, revision, weight_hash, model_dtype : str
    selection : str
        Which tokens were chosen: subject, labelled or all.
    cells, width, samples, tokens : int
    labels : dict of str to int
        Tokens of each label, as they are labelled now.
    shards : int
        How many shards there are.
    shard_bytes, store_bytes : int
        On disk; 0 where there are none.
    """

    plan: Plan
    model: str
    revision: str
    weight_hash: str
    model_dtype: str
    selection: str
    cells: int
    width: int
    samples: int
    tokens: int
    labels: dict[str, int]
    shards: int
    shard_bytes: int
    store_bytes: int


def check(path: str | os.PathLike[str], progress: Progress = quiet) -> list[Problem]:
    """Read all activations in a folder, a folder of shards or a `store.h5`, and name what is wrong with them.

    Every shard opens, is of this schema, has the shapes that its plan, tokens and width ask for, agrees with the others
    on plan, model and choice of tokens, holds the bits whose checksum was noted when they were written, and no NaN or
    infinity (counted by cell). The consolidated store has the same asked of every sample in it, and is of these shards.
    Nothing else lies in the folder of shards. Holds a few MB in memory however much there is.

    Returns
    -------
    One `Problem` for each thing that is wrong, file by file; an empty list when all is well.

    Raises
    ------
    HandscopeError
        There are no activations, or they are compressed and hdf5plugin is not installed.
    """
    path = Path(path)
    own = [] if path.is_file() else shards(path)
    whole = path if path.is_file() else path / "store.h5"
    everything = [*own, whole] if whole.is_file() else own or files(path)
    problems = list(_strays(path, own))
    found: list[Part] = []
    for done, file in enumerate(everything):
        progress("check", done, len(everything))
        problems += _check_file(file, found)
    progress("check", len(everything), len(everything))
    problems += _disagreements(found)
    if own and any(part.path == whole for part in found):
        problems += _against_shards(whole, own, found)
    return problems


def info(path: str | os.PathLike[str]) -> StoreInfo:
    """What is in a folder of activations, a folder of shards or a `store.h5`.

    Raises
    ------
    HandscopeError
        There are no activations, or a file is truncated or does not belong with the others.
    """
    path = Path(path)
    store = ActivationStore(path)
    own = [] if path.is_file() else shards(path)
    whole = path if path.is_file() else path / "store.h5"
    counts = np.bincount(store.records["label"], minlength=len(LABELS))
    text = {key: str(store.attrs.get(key, "")) for key in ("model", "revision", "weight_hash", "model_dtype")}
    return StoreInfo(
        plan=store.plan,
        **text,
        selection=str(store.attrs.get("selection", "")),
        cells=len(store.cells),
        width=store.width,
        samples=len(store.samples),
        tokens=len(store.records),
        labels={name: int(count) for name, count in zip(LABELS, counts)},
        shards=len(own),
        shard_bytes=sum(shard.stat().st_size for shard in own),
        store_bytes=whole.stat().st_size if whole.is_file() else 0,
    )


def _strays(path: Path, own: Sequence[Path]) -> Iterator[Problem]:
    folder = path / "shards" if (path / "shards").is_dir() else path
    if path.is_file() or not own:
        return
    expected = {shard.name for shard in own} | ({"store.h5"} if folder == path else set())
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") and ".tmp" in entry.name:
            yield Problem(
                entry,
                "is a temporary file, left by a process that was killed unless one is writing now: it can be removed.",
            )
        elif entry.name not in expected:
            yield Problem(entry, "is no shard and does not belong in this folder: move it away.")


def _check_file(path: Path, found: list[Part]) -> list[Problem]:
    """What is wrong with one file taken by itself; its samples are added to `found` when their form is right."""
    try:
        own = parts(path)
        wrong = list(_wrong_form(path, own))
    except (DamagedError, Unusable) as error:
        wrong = [_without(path, error)]
    except (KeyError, TypeError, ValueError) as error:
        wrong = [f"has tables or attributes that are not of the schema ({error}): remove it and run extract again."]
    if not wrong:
        found += own
        try:
            wrong = list(_wrong_contents(path, own))
        except (DamagedError, Unusable) as error:
            wrong = [_without(path, error)]
    return [Problem(path, what) for what in wrong]


def _without(path: Path, error: HandscopeError) -> str:
    return str(error).removeprefix(f"{path} ")


def _wrong_form(path: Path, own: Sequence[Part]) -> Iterator[str]:
    first = own[0]
    plan, width = Plan.from_json(first.attrs["plan"]), int(first.attrs["width"])
    if first.start is None and path.stem != first.sample:
        yield f"holds sample {first.sample}: name it {first.sample}.h5, or remove it."
    if first.steps.dtype != STEP or tuple(first.steps["step"]) != plan.steps:
        yield f"has steps {first.steps.tolist()}, and its plan the steps {list(plan.steps)}: extract it again."
    with reading(path) as file:
        count, columns = len(file["tokens"]), file["tokens"].dtype
        columns_of_schema = TOKEN.descr if first.start is None else STORE_TOKEN.descr
        if file.attrs["schema"] == OLD_SCHEMA:
            columns_of_schema = columns_of_schema + OLD_LABEL.descr
        if columns != np.dtype(columns_of_schema):
            yield f"has tokens with the columns {columns.descr}, expected {columns_of_schema}: extract it again."
        expected: dict[str, tuple[int, ...]] = {f"activations/{cell}": (count, width) for cell in plan.cells}
        if first.start is None:
            expected = {"activations": (len(plan.cells), count, width)}
        for name, shape in expected.items():
            if name not in file:
                yield f"lacks {name}, which is in its plan: write it again."
            elif (file[name].shape, file[name].dtype) != (shape, np.uint16):
                yield f"has {name} as {file[name].dtype} of shape {file[name].shape}, expected uint16 of {shape}."
    if sum(len(part.tokens) for part in own) != count:
        yield f"has {count} tokens, of which some are of no sample or out of order: consolidate again."
    for part in own:
        grid = np.full(2, np.inf)  # text tokens have no place in the image
        if plan.stream == "image":
            grid[:] = part.attrs.get("rows", np.inf), part.attrs.get("columns", np.inf)
        places = np.stack([part.tokens["row"], part.tokens["col"]], axis=1)
        wrong_label = part.old_labels is not None and (part.old_labels["label"] >= len(LABELS)).any()
        if ((places < 0) | (places >= grid)).any() or wrong_label:
            yield f"has tokens of sample {part.sample} outside its grid, or with a label above 3: extract it again."


def _wrong_contents(path: Path, own: Sequence[Part]) -> Iterator[str]:
    checksums = [Checksum(part.head["checksum"]) for part in own]
    not_finite: dict[Cell, NDArray[np.int64]] = {}
    with reading(path) as file:
        data = activations(file)
        for number, cell in enumerate(Plan.from_json(own[0].attrs["plan"]).cells):
            counts = np.zeros(2, np.int64)
            for part, checksum in zip(own, checksums):
                for bits in pieces(part, data, number, cell):
                    checksum.update(bits)
                    counts += count_not_finite(bits)
            if counts.any():
                not_finite[cell] = counts
    if not_finite:
        nan, infinite = np.sum(list(not_finite.values()), axis=0)
        cells = [f"{cell} ({n} NaN, {i} infinite)" for cell, (n, i) in list(not_finite.items())[:NAMED]]
        more = f" and {len(not_finite) - NAMED} more cells" if len(not_finite) > NAMED else ""
        yield (
            f"holds {nan} NaN and {infinite} infinities, in {', '.join(cells)}{more}: extract it again, in bfloat16 or "
            "float32 if the model ran in float16."
        )
    mend = "remove it and run extract again" if own[0].start is None else "consolidate again"
    for part, checksum in zip(own, checksums):
        noted = part.head["checksum"]
        if not noted:
            yield f"carries no checksum of sample {part.sample}, so that a changed bit would not be seen: {mend}."
        elif noted != str(checksum):
            yield (
                f"holds other activations of sample {part.sample} than were written: their checksum is "
                f"{checksum}, expected {noted}: {mend}."
            )


def pieces(part: Part, data: h5py.Dataset | h5py.Group, number: int, cell: Cell) -> Iterator[NDArray[np.uint16]]:
    """Bits of one cell of one sample, a few MB at a time."""
    count, rows = len(part.tokens), max(1, PIECE_BYTES // (2 * int(part.attrs["width"])))
    for first in range(0, count, rows):
        stop = min(first + rows, count)
        if part.start is None:
            yield data[number, first:stop]
        else:
            yield data[str(cell)][part.start + first : part.start + stop]


def _disagreements(found: Sequence[Part]) -> Iterator[Problem]:
    """Files whose model, width, choice of tokens or kind of plan is not that of the most; or that lack cells."""
    said = {part.path: {**identity(part.attrs), "width": part.attrs.get("width", "")} for part in found}
    for key in next(iter(said.values()), {}):
        values = Counter(one[key] for one in said.values())
        usual = values.most_common(1)[0][0]
        for path, value in {path: one[key] for path, one in said.items()}.items():
            if value != usual:
                yield Problem(
                    path, f"does not belong with the others: its {key} is {value}, theirs {usual}: move it away."
                )
    cells = {part.path: set(plan_of(str(part.attrs["plan"])).cells) for part in found}
    every = set().union(*cells.values())
    for path, own in cells.items():
        if own != every:
            yield Problem(
                path, f"lacks {len(every - own)} cells that others have, {min(map(str, every - own))} among them: an "
                "extraction that adds them has not ended, so give its command again."
            )


def _against_shards(whole: Path, own: Sequence[Path], found: Sequence[Part]) -> Iterator[Problem]:
    """Whether a consolidated store is of these shards."""
    kept = {part.sample: part.head for part in found if part.path == whole}
    made_from = {part.sample: part.head for part in found if part.start is None}
    named = {
        "lacks": sorted(made_from.keys() - kept.keys()),
        "has no shard of": sorted(kept.keys() - {path.stem for path in own}),
        "holds other activations than the shards of": sorted(
            sample for sample in kept.keys() & made_from.keys() if kept[sample] != made_from[sample]
        ),
    }
    for what, samples in named.items():
        if samples:
            yield Problem(whole, f"{what} {len(samples)} samples, {samples[0]} among them: consolidate again.")
