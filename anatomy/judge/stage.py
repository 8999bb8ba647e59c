"""Folders of pictures: examined picture by picture, resumable, then judged and written as tables and sheets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import HandscopeError
from ...files import atomic, sha256
from ...labeling.subject import subject_of
from ...progress import Progress, quiet
from ...run.folder import Run
from ..measure.examine import Examined, Search, examine
from ..read.networks import Size
from ..read.pictures import Picture, Skipped, read_picture
from .calibration import Calibration
from .journal import Journal
from .scoring import Method, Scores, judge
from .sheet import draw_sheets

if TYPE_CHECKING:
    import pandas as pd

TOGETHER = 16  # pictures in a batch
PIXELS = 2**24  # of a batch: a large picture goes alone


@dataclass(frozen=True, eq=False)
class Read:
    """Pictures that were examined, those that could not be, and where the readings are.

    Attributes
    ----------
    paths : of the n pictures. entries : their lines of the journal. examined : their hands. skipped : the others.
    """

    paths: list[Path]
    entries: list[dict[str, Any]]
    examined: Examined
    skipped: list[Skipped]


def examine_files(
    paths: Sequence[Path],
    out: Path,
    *,
    networks: Size = "full",
    search: Search = "thorough",
    max_hands: int = 2,
    raised: Mapping[Path, int] | None = None,
    boxes: Mapping[Path, Sequence[float]] | None = None,
    pixels: Mapping[Path, str] | None = None,
    progress: Progress = quiet,
) -> Read:
    """Examine every picture that the journal in the folder `out` does not hold yet.

    Parameters
    ----------
    paths : pictures, as `find_pictures` gives them
    raised : how many digits a picture should show raised, where that is known
    boxes : x0, y0, x1, y1, in pixels of the file as it is seen upright, of the hand that is meant
    pixels : SHA-256 of the pixels that a picture should have, where that is known; another picture is skipped

    Returns
    -------
    Read, in the order of `paths`
    """
    settings = {"networks": networks, "search": search, "hands": max_hands, "weights": weights_hash()}
    journal = Journal.open(out, {"handscope_journal": 1, **settings})
    raised, boxes = raised or {}, boxes or {}
    skipped: list[Skipped] = []
    for batch in _batches(_unread(paths, journal, raised, boxes, pixels or {}, skipped)):
        examined = examine(
            [picture.tensor() for picture in batch],
            networks=networks,
            search=search,
            max_hands=max_hands,
            raised=[raised.get(picture.path) for picture in batch],
            boxes=[_box(boxes.get(picture.path), picture.scale) for picture in batch],
        )
        rows: list[list[dict[str, Any]]] = [[] for _ in batch]
        for i, record in zip(examined.hands.image.tolist(), examined.records(), strict=True):
            rows[i].append(record)
        journal.add(
            [_entry(picture, hands, raised, boxes) for picture, hands in zip(batch, rows, strict=True)]
        )
        done = sum(str(path) in journal.entries for path in paths)
        progress("hands", done, len(paths))
    left_out = {one.path for one in skipped}
    read = [path for path in paths if path not in left_out]
    entries = [journal.entries[str(path)] for path in read]
    return Read(read, entries, Examined.of_records([entry["hands"] for entry in entries]), skipped)


def _unread(
    paths: Sequence[Path],
    journal: Journal,
    raised: Mapping,
    boxes: Mapping,
    pixels: Mapping[Path, str],
    skipped: list[Skipped],
) -> Iterator[Picture]:
    """Pictures that the journal does not hold as they are now; what cannot be read goes to `skipped`."""
    for path in paths:
        entry = journal.entries.get(str(path))
        if entry is not None and entry["asked"] == _asked(path, raised, boxes) and _is(path, entry["sha256"]):
            continue
        picture = read_picture(path)
        if isinstance(picture, Skipped):
            skipped.append(picture)
        elif not picture.notes and pixels.get(path) not in (None, sha256(picture.pixels.tobytes())):
            skipped.append(Skipped(path, "its pixels are not those of the sample that it is named after"))
        else:
            yield picture


def _is(path: Path, expected: str) -> bool:
    try:
        return sha256(path) == expected
    except OSError:
        return False


def _batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    for picture in pictures:
        pixels = sum(one.pixels.size for one in [*batch, picture]) // 3
        if batch and (len(batch) == TOGETHER or pixels > PIXELS):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def _asked(path: Path, raised: Mapping, boxes: Mapping) -> list[Any]:
    return [raised.get(path), [round(float(side), 2) for side in boxes.get(path, ())]]


def _entry(picture: Picture, hands: list[dict[str, Any]], raised: Mapping, boxes: Mapping) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    return {
        "path": str(picture.path),
        "sha256": picture.sha256,
        "height": height,
        "width": width,
        "scale": picture.scale,
        "notes": list(picture.notes),
        "asked": _asked(picture.path, raised, boxes),
        "hands": hands,
    }


def _box(box: Sequence[float] | None, scale: float) -> torch.Tensor | None:
    return None if box is None else torch.tensor([[float(side) * scale for side in box]])


@cache
def weights_hash() -> str:
    """A short hash of all network files: readings of other weights do not mix."""
    files = sorted((Path(__file__).parents[1] / "weights").glob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def score_files(
    paths: Sequence[Path],
    out: Path,
    method: Method = "calibrated",
    *,
    calibration: Calibration | None = None,
    networks: Size = "full",
    search: Search = "thorough",
    raised: Mapping[Path, int] | None = None,
    pixels: Mapping[Path, str] | None = None,
    progress: Progress = quiet,
) -> tuple[Scores, Read, pd.DataFrame]:
    """Score pictures and write ``scores.csv``, ``scores.json``, ``skipped.csv`` and ``sheets/*.png`` into `out`.

    Returns
    -------
    The scores, what was read, and the table that was written: that of `Scores.table`, with the path of the picture
    instead of its number, and what was done to it on reading. Coordinates are in pixels of the file, upright.
    """
    read = examine_files(
        paths, out, networks=networks, search=search, raised=raised, pixels=pixels, progress=progress
    )
    if not read.paths:
        raise HandscopeError(_nothing(read.skipped))
    scores = judge(read.examined, method, calibration)
    table = _table(scores, read)
    with atomic(out / "scores.csv") as temporary:
        table.to_csv(temporary, index=False)
    with atomic(out / "scores.json") as temporary:
        temporary.write_text(json.dumps(_document(scores, read, table), indent=1, allow_nan=False) + "\n", "utf-8")
    with atomic(out / "skipped.csv") as temporary:
        import pandas as pd

        pd.DataFrame([(str(one.path), one.reason) for one in read.skipped], columns=["path", "reason"]).to_csv(
            temporary, index=False
        )
    draw_sheets(scores, read.paths, out / "sheets", progress)
    return scores, read, table


def score_run(run: Run, progress: Progress = quiet) -> None:
    """Score the pictures of a run, as `score_files` does, into its ``anatomy/``: the organism's with its calibration.

    What prompts say of raised fingers is taken into account.
    """
    samples, subject = run.samples(), subject_of(run)
    paths = [run.image_path(sample) for sample in samples["sample"]]
    if not paths:
        raise HandscopeError(f"There are no samples in {run.samples_dir}: run generate first.")
    stated = {path: subject.numbers(prompt).get("gesture") for path, prompt in zip(paths, samples["prompt"])}
    raised = {path: number for path, number in stated.items() if number is not None}
    name = run.settings.get("provenance", {}).get("name")
    calibration = Calibration.load("organism" if name == "organism" else "general")
    pixels = dict(zip(paths, samples["image_sha256"]))
    out = run.path / "anatomy"
    score_files(paths, out, calibration=calibration, raised=raised, pixels=pixels, progress=progress)


def _nothing(skipped: Sequence[Skipped]) -> str:
    first = skipped[0]
    return (
        f"None of {len(skipped)} pictures could be read, so there is nothing to score; the first is {first.path}: "
        f"{first.reason}."
    )


def _table(scores: Scores, read: Read) -> pd.DataFrame:
    table = scores.table()
    image = table.pop("image").tolist()
    for name in ("x", "y", "size"):
        if name in table:
            table[name] /= [read.entries[i]["scale"] for i in image]
    table.insert(0, "path", [os.fspath(read.paths[i]) for i in image])
    table["notes"] = ["; ".join(read.entries[i]["notes"]) for i in image]
    return table


def _document(scores: Scores, read: Read, table: pd.DataFrame) -> dict[str, Any]:
    """The table as JSON, with the landmarks of each hand, and lists of what has no verdict."""
    hands: dict[tuple[str, int], list[list[float]]] = {}
    for entry in read.entries:
        for k, record in enumerate(entry["hands"], 1):
            points = [[round(c / entry["scale"], 2) for c in point] for point in record["points"]]
            hands[entry["path"], k] = points
    rows = []
    for row in table.to_dict("records"):
        if row["hand"] == 0:
            continue
        clean = {key: value for key, value in row.items() if value == value}
        rows.append(clean | {"landmarks": hands[row["path"], row["hand"]]})
    return {
        "method": scores.method,
        "hands": rows,
        "undetected": [str(read.paths[i]) for i in scores.undetected],
        "skipped": [{"path": str(one.path), "reason": one.reason} for one in read.skipped],
    }
