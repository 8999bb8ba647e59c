"""Folders of pictures: examined picture by picture, resumable, then judged and written as tables and sheets."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import HandscopeError
from ...files import atomic, sha256
from ...labeling.subject import subject_of
from ...models.embedded import organism_of
from ...progress import Progress, quiet
from ...run.folder import Run
from ..measure.examine import Examined, examine
from ..read.detect import FINDING, Search
from ..read.networks import Size
from ..read.pictures import Picture, Skipped, read_picture, shown
from .calibration import Calibration
from .claims import Claims
from .journal import Journal
from .scoring import Method, Scores, judge
from .sheet import draw_sheets

if TYPE_CHECKING:
    import pandas as pd

TOGETHER = 16  # pictures in a batch
PIXELS = 2**24  # of a batch: a large picture goes alone
WAIT = 0.2  # seconds between looks at what other processes are doing


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
    boxes: Mapping[Path, Sequence[float] | Sequence[Sequence[float]]] | None = None,
    pixels: Mapping[Path, str] | None = None,
    progress: Progress = quiet,
) -> Read:
    """Examine every picture that the journal in the folder `out` does not hold yet; several processes share the work.

    Parameters
    ----------
    paths : pictures, as `find_pictures` gives them
    raised : how many digits a picture should show raised, where that is known
    boxes : x0, y0, x1, y1, in pixels of the file as it is seen upright, of the hand that is meant, or of several
    pixels : SHA-256 of the pixels that a picture should have, where that is known; another picture is skipped

    Returns
    -------
    Read, in the order of `paths`
    """
    settings = {"networks": networks, "search": search, "hands": max_hands, "weights": weights_hash()}
    journal = Journal.open(out, {"handscope_journal": 1, **settings, "finding": FINDING})
    raised, given = raised or {}, boxes or {}
    asked: dict[Path, list[list[float]]] = {path: np.reshape(one, (-1, 4)).tolist() for path, one in given.items()}
    claims = Claims(out)
    skipped: list[Skipped] = []
    try:
        left = list(paths)
        while left:
            others: list[Path] = []
            wanted = _unread(left, journal, raised, asked, pixels or {}, skipped, claims, others)
            for batch in _batches(wanted):
                examined = examine(
                    [picture.tensor() for picture in batch],
                    networks=networks,
                    search=search,
                    max_hands=max_hands,
                    raised=[raised.get(picture.path) for picture in batch],
                    boxes=[_boxes(asked.get(picture.path), picture.scale) for picture in batch],
                )
                rows: list[list[dict[str, Any]]] = [[] for _ in batch]
                for i, record in zip(examined.hands.image.tolist(), examined.records(), strict=True):
                    rows[i].append(record)
                journal.add([_entry(picture, hands, raised, asked) for picture, hands in zip(batch, rows, strict=True)])
                for picture in batch:
                    claims.release(str(picture.path))
                claims.renew()
                progress("hands", sum(str(path) in journal.entries for path in paths), len(paths))
            if len(others) == len(left):
                time.sleep(WAIT)  # all that is left is being looked at by another process
            left = others
            journal.refresh()
    finally:
        claims.end()
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
    claims: Claims,
    others: list[Path],
) -> Iterator[Picture]:
    """Pictures that the journal does not hold as they are now, claimed; what cannot be read goes to `skipped`, what
    another process is looking at to `others`."""
    for path in paths:
        if _known(path, journal, raised, boxes):
            continue
        if not claims.take(str(path)):
            others.append(path)
            continue
        journal.refresh()
        if _known(path, journal, raised, boxes):  # another process has finished it since
            claims.release(str(path))
            continue
        picture = read_picture(path)
        if isinstance(picture, Skipped):
            skipped.append(picture)
        elif not picture.notes and pixels.get(path) not in (None, sha256(picture.pixels.tobytes())):
            skipped.append(Skipped(path, "its pixels are not those of the sample that it is named after"))
        else:
            yield picture
            continue
        claims.release(str(path))


def _known(path: Path, journal: Journal, raised: Mapping, boxes: Mapping) -> bool:
    """Whether the journal holds a picture as it is now, read as it is asked for."""
    entry = journal.entries.get(str(path))
    if entry is None or entry["asked"] != _asked(path, raised, boxes):
        return False
    try:
        return bool(sha256(path) == entry["sha256"])
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
    return [raised.get(path), [round(float(side), 2) for box in boxes.get(path, ()) for side in box]]


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


def _boxes(boxes: Sequence[Sequence[float]] | None, scale: float) -> torch.Tensor | None:
    return None if boxes is None else torch.tensor(boxes, dtype=torch.float32) * scale


@cache
def weights_hash() -> str:
    """A short hash of the files of all networks that see evidence: readings of other weights do not mix.

    The second detector's is left out: it says where to look only, and `FINDING` stands for that.
    """
    files = sorted((Path(__file__).parents[1] / "weights").glob("*.safetensors"))
    files = [file for file in files if file.name != "handtrack.safetensors"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def score_files(
    paths: Sequence[Path],
    out: Path,
    method: Method = "calibrated",
    *,
    calibration: Calibration | None = None,
    networks: Size = "full",
    search: Search = "thorough",
    max_hands: int = 2,
    raised: Mapping[Path, int] | None = None,
    boxes: Mapping[Path, Sequence[float] | Sequence[Sequence[float]]] | None = None,
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
        paths,
        out,
        networks=networks,
        search=search,
        max_hands=max_hands,
        raised=raised,
        boxes=boxes,
        pixels=pixels,
        progress=progress,
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

        pd.DataFrame([(shown(one.path), one.reason) for one in read.skipped], columns=["path", "reason"]).to_csv(
            temporary, index=False
        )
    draw_sheets(scores, read.paths, out / "sheets", progress)
    return scores, read, table


def score_run(run: Run, progress: Progress = quiet) -> None:
    """Score the pictures of a run, as `score_files` does, into its ``anatomy/``: the organism's with its calibration.

    What prompts say of raised fingers is taken into account.
    """
    calibration = Calibration.load("organism" if organism_of(run.settings) else "general")
    known = of_run(run)
    if not known["paths"]:
        raise HandscopeError(f"There are no samples in {run.samples_dir}: run generate first.")
    score_files(**known, out=run.path / "anatomy", calibration=calibration, progress=progress)


def of_run(run: Run, samples: Sequence[str] | None = None) -> dict[str, Any]:
    """Arguments of `examine_files` for a run's samples: paths, hashes of pixels, digits that prompts ask to be raised.

    Parameters
    ----------
    samples : only these, by default all of the run
    """
    table, subject = run.samples().set_index("sample", drop=False), subject_of(run)
    table = table if samples is None else table.loc[list(samples)]
    paths = [run.image_path(sample) for sample in table["sample"]]
    stated = {path: subject.numbers(prompt).get("gesture") for path, prompt in zip(paths, table["prompt"])}
    raised = {path: number for path, number in stated.items() if number is not None}
    return {"paths": paths, "raised": raised, "pixels": dict(zip(paths, table["image_sha256"]))}


def _nothing(skipped: Sequence[Skipped]) -> str:
    first = skipped[0]
    return (
        f"None of {len(skipped)} pictures could be read, so there is nothing to score; the first is "
        f"{shown(first.path)}: {first.reason}."
    )


def _table(scores: Scores, read: Read) -> pd.DataFrame:
    table = scores.table()
    image = table.pop("image").tolist()
    for name in ("x", "y", "size"):
        if name in table:
            table[name] /= [read.entries[i]["scale"] for i in image]
    table.insert(0, "path", [shown(read.paths[i]) for i in image])
    table["notes"] = ["; ".join(read.entries[i]["notes"]) for i in image]
    return table


def _document(scores: Scores, read: Read, table: pd.DataFrame) -> dict[str, Any]:
    """The table as JSON, with the landmarks of each hand, the pictures, and lists of what has no verdict.

    Sizes and coordinates are in pixels of the files, upright.
    """
    hands: dict[tuple[str, int], list[list[float]]] = {}
    for entry in read.entries:
        for k, record in enumerate(entry["hands"], 1):
            points = [[round(c / entry["scale"], 2) for c in point] for point in record["points"]]
            hands[shown(entry["path"]), k] = points
    rows = []
    for row in table.to_dict("records"):
        if row["hand"] == 0:
            continue
        clean = {key: value for key, value in row.items() if value == value}
        rows.append(clean | {"landmarks": hands[row["path"], row["hand"]]})
    pictures = [
        {"path": shown(path), "outcome": outcome}
        | {side: round(entry[side] / entry["scale"]) for side in ("width", "height")}
        for path, entry, outcome in zip(read.paths, read.entries, scores.outcomes(), strict=True)
    ]
    return {
        "method": scores.method,
        "pictures": pictures,
        "hands": rows,
        "undetected": [shown(read.paths[i]) for i in scores.undetected],
        "skipped": [{"path": shown(one.path), "reason": one.reason} for one in read.skipped],
    }
