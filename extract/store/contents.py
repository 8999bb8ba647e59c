"""What an activation file holds beside its activations: samples, tokens, steps and where each sample's rows lie."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from ...errors import HandscopeError
from ..address import Plan
from .shard import STORE_TOKEN, DamagedError, as_now, head, identity, mark, plan_of, reading, shards, tokens_of

RECORD = np.dtype([*STORE_TOKEN.descr, ("label", "u1"), ("instance", "u1")])
"""A token with the labels that were joined to it."""


@dataclass(frozen=True)
class Part:
    """The rows of one sample in one file.

    Attributes
    ----------
    path : Path
    head : dict
        `HEAD_COLUMNS` of the sample; `checksum` is empty where the file is older than these.
    attrs : dict
        All other attributes of the sample's shard.
    steps : array of dtype `STEP`
    tokens : array of dtype `TOKEN`
    old_labels : array of dtype `OLD_LABEL`, or None
        The labels that were written with tokens of 0.3.
    start : int or None
        First row in a consolidated store; None in a shard, which has no other rows.
    mark : str
        Changes when the file is written again with other contents.
    """

    path: Path
    head: dict[str, str]
    attrs: dict[str, Any]
    steps: np.ndarray
    tokens: np.ndarray
    old_labels: np.ndarray | None
    start: int | None
    mark: str

    @property
    def sample(self) -> str:
        """The sample's name."""
        return self.head["sample"]

    def same(self, other: "Part") -> bool:
        """Whether the other holds the same activations of the same tokens."""
        return self.head == other.head and self.head["checksum"] != "" and np.array_equal(self.tokens, other.tokens)


def folder_of(path: Path) -> Path:
    """The folder of activations that a store, a folder of shards or one of their files lies in; itself if it is one."""
    folder = path.parent if path.is_file() else path
    return folder.parent if folder.name == "shards" else folder


def files(path: Path) -> list[Path]:
    """The files that make up a store: `store.h5` where there is one, else the shards.

    Raises
    ------
    HandscopeError
        There are none.
    """
    if path.is_file():
        return [path]
    found = [path / "store.h5"] if (path / "store.h5").is_file() else shards(path)
    if not found:
        raise HandscopeError(
            f"There are no activations in {path}: expected store.h5 or shards/*.h5. Run extract first."
        )
    return found


def parts(path: Path, own: bool = False) -> list[Part]:
    """The samples of one file, in its order; `own` is a file that this process is writing, and holds the lock of.

    Raises
    ------
    DamagedError
        The file is truncated or not of this schema.
    """
    try:
        found = _parts(path, own)
        for part in found:
            if "plan" not in part.attrs:
                raise ValueError("it names no plan of its cells")
            plan_of(str(part.attrs["plan"]))
        return found
    except HandscopeError:
        raise
    except (TypeError, ValueError) as error:  # of names and attributes that are not text, or not JSON, or no plan
        raise DamagedError(
            f"{path} is damaged ({error}): remove it and run extract again, which makes it anew."
        ) from error


def described(part: Part) -> tuple[Plan, int]:
    """The plan and the width that a part names.

    Raises
    ------
    DamagedError
        It names none, or its activations are of another width.
    """
    try:
        plan, width = Plan.from_json(part.attrs["plan"]), int(part.attrs["width"])
        with reading(part.path) as file:
            data = file["activations"] if part.start is None else file["activations"][str(plan.cells[0])]
            if data.shape[-1] != width:
                raise ValueError(f"{data.shape[-1]} channels are not {width}")
        return plan, width
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, HandscopeError):
            raise
        raise DamagedError(
            f"{part.path} is damaged: its plan and its width cannot be read ({error}). Remove it and run extract "
            "again, which makes it anew."
        ) from error


def _parts(path: Path, held: bool) -> list[Part]:
    with reading(path, held) as file:
        attrs = dict(file.attrs)
        steps, (tokens, labels), written = file["steps"][:], tokens_of(file), mark(attrs)
        if isinstance(file["activations"], h5py.Dataset):
            return [Part(path, head(attrs), as_now(attrs), steps, tokens, labels, None, written)]
        of_sample = file["tokens"]["sample"]
        samples = file["samples"][:]
        own = [json.loads(text) for text in file["sample_attrs"][:]] if "sample_attrs" in file else [{}] * len(samples)
    attrs.pop("fingerprint", None)
    bounds = np.searchsorted(of_sample, np.arange(len(samples) + 1))
    return [
        Part(
            path,
            head({name: row[name].decode() for name in samples.dtype.names}),
            as_now(attrs | mine),
            steps,
            tokens[start:stop],
            None if labels is None else labels[start:stop],
            int(start),
            written,
        )
        for row, mine, start, stop in zip(samples, own, bounds, bounds[1:])
    ]


def merged(sources: Sequence[tuple[Path, Sequence[Path]]]) -> list[tuple[Path, list[Part]]]:
    """The samples of several sources, each with its files; one that is there twice, alike, is left in the first alone.

    Raises
    ------
    HandscopeError
        Files of different plans, models, widths or choices of tokens, or a sample with two contents.
    """
    chosen: dict[str, Part] = {}
    first = None
    groups: list[tuple[Path, list[Part]]] = []
    for source, paths in sources:
        groups.append((source, []))
        for part in (part for path in paths for part in parts(path)):
            first = first or part
            _check_joins(part, first, alone=len(sources) == 1)
            before = chosen.setdefault(part.sample, part)
            if before is part:
                groups[-1][1].append(part)
            elif not before.same(part):
                raise HandscopeError(
                    f"Sample {part.sample} is in {before.path} and in {part.path} with different activations: remove "
                    "the one that is out of date."
                )
    return groups


def common(attrs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The attributes that all samples share."""
    rest = iter(attrs)
    shared = dict(next(rest))
    for other in rest:
        shared = {key: value for key, value in shared.items() if key in other and other[key] == value}
    return shared


def token_table(records: np.ndarray, samples: Sequence[str]) -> pd.DataFrame:
    """Tokens of dtype `RECORD` as a table: sample, row, col, label, instance."""
    table = pd.DataFrame({column: records[column] for column in ("row", "col", "label", "instance")})
    table.insert(0, "sample", np.asarray(samples, dtype=object)[records["sample"]])
    return table


def token_records(chosen: Sequence[Part]) -> np.ndarray:
    """Tokens of the samples, one after the other, of dtype `RECORD`, without labels yet."""
    counts = [len(part.tokens) for part in chosen]
    records = np.zeros(sum(counts), RECORD)
    records["sample"] = np.repeat(np.arange(len(chosen)), counts)
    for column in ("row", "col"):
        records[column] = np.concatenate([part.tokens[column] for part in chosen])
    return records


def common_plan(chosen: Sequence[Part]) -> Plan:
    """The plan of the cells that all samples have. Some have more while an extraction adds cells, and after its end.

    Raises
    ------
    HandscopeError
        They have no cell in common.
    """
    texts = list(dict.fromkeys(str(part.attrs["plan"]) for part in chosen))
    first = plan_of(texts[0])
    if len(texts) == 1:
        return first
    cells = set(first.cells).intersection(*(plan_of(text).cells for text in texts[1:]))
    if not cells:
        raise HandscopeError(
            f"Samples in {chosen[0].path.parent} have no cell in common, since an extraction has not ended: give the "
            "same command again."
        )
    return first.reading(cells)


def check_one_plan(chosen: Sequence[Part]) -> None:
    """Refuse samples of which some have cells that others lack, or in another order."""
    for part in chosen:
        _check_joins(part, chosen[0], alone=False)


def _check_joins(part: Part, first: Part, alone: bool) -> None:
    """`alone`: of one folder, in which an extraction may be about to add cells."""
    own, others = ({**identity(one.attrs), "width": one.attrs.get("width", "")} for one in (part, first))
    if not alone:
        own["plan"], others["plan"] = part.attrs["plan"], first.attrs["plan"]
    for key, found in own.items():
        if found != others[key]:
            raise HandscopeError(
                f"{part.path} does not belong with {first.path}: its {key} is {found}, the other's {others[key]}. "
                "Read and merge only activations of one plan, model, width and choice of tokens"
                + (", once an extraction that adds cells has ended." if key == "plan" else ".")
            )
