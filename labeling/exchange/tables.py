"""Labels in tables: a row a picture, an instance or a token; and datasets, whose rows hold their pictures."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import HandscopeError
from ...files import sha256
from ...run.folder import Run
from ..grid import grid
from ..subject import subject_of
from .pixels import spread
from .sources import BOX, MASKS, NAMES, VERDICTS, Mask, Region, Size, Source, together

SAMPLE = ("sample", "sample_id", *NAMES, "image_path", "filepath")
"""Columns that may name the picture; prompt and seed together are another name."""
SAID = (*VERDICTS, "class", "choice", "category", "rating")
"""Columns that may hold the label."""
TOKEN = (("row", "col"), ("row", "column"))


def rows(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def of_rows(run: Run, table: Path, found: Sequence[Mapping[str, Any]]) -> list[Source]:
    """A row a picture or an instance; or a row a token."""
    columns = list(found[0]) if found else []
    named = [name for name in SAMPLE if name in columns]
    if not named and not {"prompt", "seed"} <= set(columns):
        raise HandscopeError(
            f"Expected a column in {table} that names the picture ({', '.join(SAMPLE)}), or prompt and seed, found "
            f"{', '.join(map(str, columns)) or 'no column'}: rename one."
        )
    places = {*MASKS, "bbox", "objects"} & set(columns) or set(BOX) <= set(columns)
    said = next((name for name in SAID if name in columns), None)
    if said is None and not places:
        raise HandscopeError(
            f"Expected a column in {table} with the label ({', '.join(SAID)}), a mask or a box, found "
            f"{', '.join(map(str, columns))}: rename one."
        )
    made = [
        dict(row)
        | {"file_name": str(row[named[0]]) if named else f"{row['prompt']}, seed {row['seed']}"}
        | ({"verdict": row[said]} if said else {})
        for row in found
    ]
    for row, column in TOKEN:
        if {row, column} <= set(columns):
            return _of_tokens(run, table, made, (row, column))
    if not places:
        _check_agreed(table, made)
    return together(table, made)


def _check_agreed(table: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two rows of one picture that say different things of the whole of it."""
    said: dict[str, str] = {}
    for row in rows:
        before = said.setdefault(row["file_name"], str(row["verdict"]))
        if before != str(row["verdict"]):
            raise HandscopeError(
                f"{table} says {before!r} and {row['verdict']!r} of {row['file_name']}: two rows of one picture must "
                "agree. Leave one of them."
            )


def _of_tokens(run: Run, table: Path, rows: Sequence[Mapping[str, Any]], place: tuple[str, str]) -> list[Source]:
    """A row a token: its place on the grid, its label (0 to 3, or a word), and its instance where that is said."""
    words = subject_of(run).classes
    numbers = {"0": "", "1": words.outside, "2": "good", "3": "bad"}
    marked: dict[str, dict[tuple[str, str], list[tuple[int, int]]]] = {}
    columns: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        said = numbers.get(str(row["verdict"]), str(row["verdict"]))
        columns.setdefault(row["file_name"], row)
        if said:
            one = (said, str(row.get("instance") or "1"))
            token = int(row[place[0]]), int(row[place[1]])
            marked.setdefault(row["file_name"], {}).setdefault(one, []).append(token)
    found = []
    for name, instances in marked.items():
        regions = tuple(Region(_tokens_as_mask(run, name, tokens), said) for (said, _), tokens in instances.items())
        found.append(Source(table.parent / name, name, regions=regions, columns=columns[name]))
    return found


def _tokens_as_mask(run: Run, name: str, tokens: Sequence[tuple[int, int]]) -> Callable[[Size], list[Mask]]:
    def masks(size: Size) -> list[Mask]:
        sides = grid(run, next(iter(run.metadata())))
        marked = np.zeros(sides, np.uint8)
        for row, col in tokens:
            if not (0 <= row < sides[0] and 0 <= col < sides[1]):
                raise HandscopeError(
                    f"row {row}, col {col} is not on the grid of {sides[0]} by {sides[1]} tokens: count from 0"
                )
            marked[row, col] = 1
        return [spread(marked, *size) > 0]

    return masks


def read_parquet(run: Run, path: Path) -> list[Source]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise HandscopeError(f"{path} needs pyarrow: pip install 'handscope[parquet]'.") from error
    table = parquet.read_table(path)
    found = table.to_pylist()
    if "image" not in table.column_names or not found or not isinstance(found[0]["image"], dict):
        return of_rows(run, path, found)
    facts = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = facts.get("info", {}).get("features", {})
    names = {column: feature["names"] for column, feature in features.items() if "names" in feature}
    return [_of_dataset(row, names, place) for place, row in enumerate(found)]


def rows_of_dataset(dataset: Any) -> Iterator[Source]:
    """The rows of a ``datasets.Dataset``."""
    if not hasattr(dataset, "features") or not hasattr(dataset, "__getitem__"):
        raise HandscopeError(
            f"Expected the path of labels, or a datasets.Dataset, found {type(dataset).__name__}: give one of them."
        )
    names = {column: one.names for column, one in dataset.features.items() if getattr(one, "names", None)}
    for place in range(len(dataset)):
        yield _of_dataset(dataset[place], names, place)


def _of_dataset(row: Mapping[str, Any], names: Mapping[str, Sequence[str]], place: int) -> Source:
    """A row of a dataset, whose picture is known by its name or its pixels, and whose label may be a number."""
    column = next((name for name in SAID if row.get(name) is not None), None)
    if column is None:
        raise HandscopeError(
            f"Expected a column with the label ({', '.join(SAID)}), found {', '.join(row)}: rename one."
        )
    said = row[column]
    said = names[column][said] if column in names and isinstance(said, int) else str(said)
    image = row.get("image")
    stored = image if isinstance(image, Mapping) else {}
    file = next((str(row[name]) for name in SAMPLE if isinstance(row.get(name), str)), "")
    file = file or str(stored.get("path") or getattr(image, "filename", "") or f"row {place}")
    columns = {key: value for key, value in row.items() if isinstance(value, str | int | float)}
    if stored.get("bytes"):
        image = Image.open(io.BytesIO(stored["bytes"]))
    if isinstance(image, Image.Image):
        columns["image_sha256"] = sha256(np.asarray(image.convert("RGB")).tobytes())
    return Source(Path(file), file, said=said, columns=columns)
