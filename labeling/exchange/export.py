"""Labels of a run as files that other tools read: numpy grids, indexed PNGs, COCO masks, a table of tokens.

Every format holds all that an import needs to make the same annotations again, and the hash of the image and the size
of the grid that they belong to.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ...errors import HandscopeError
from ...files import atomic
from ...run.folder import Run
from ..database.annotation import Annotation
from ..database.labels import Labels
from ..subject import subject_of
from .pixels import CATEGORIES, classes, spread
from .record import FACTS, facts, flat
from .rle import encode

LIST = "labels.jsonl"
"""In a folder of PNGs: a line an annotation, with its facts and its two pictures."""
PALETTE = ((0, 0, 0), (110, 110, 110), (50, 160, 90), (215, 60, 50), (230, 180, 40))


def export_labels(run: Run, path: str | os.PathLike[str], everyone: bool = False) -> list[Annotation]:
    """Write a run's labels; the format follows from the path.

    ``.npz``: grids; ``.json``: COCO; ``.csv``, ``.csv.gz`` or ``.parquet``: tokens; a name without an ending: a folder
    of indexed PNGs.

    Parameters
    ----------
    everyone : bool
        Every annotator's newest finished annotation of each sample, and the reviews; else the one that counts.

    Returns
    -------
    list of Annotation
        What was written, by sample and age. Labels of another image than the run's are left out, and so are drafts.

    Raises
    ------
    HandscopeError
        Nothing is labelled, the ending is not known, pyarrow is missing, or the folder holds other things.
    """
    path = Path(path)
    write = writer(path)
    found = _chosen(run, everyone)
    if not found:
        raise HandscopeError(f"There are no finished labels of the images in {run.path} to export: label some first.")
    write(run, path, found)
    return found


def ending(path: Path) -> str:
    """The ending by which a format is known: ``.csv.gz`` is one, and a folder has none."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def writer(path: Path) -> Any:
    """The function that writes the format that a path names."""
    if ending(path) not in WRITERS:
        raise HandscopeError(
            f"Expected a file of labels ending in {', '.join(filter(None, WRITERS))}, or a folder, found {path}."
        )
    return WRITERS[ending(path)]


def _chosen(run: Run, everyone: bool) -> list[Annotation]:
    labels = Labels(run.labels_path)
    current = list(labels.current().values())
    found = current
    if everyone:
        found = [*labels.by_author().values(), *(annotation for annotation in current if annotation.review)]
    rows = run.metadata()
    kept = [a for a in found if a.sample in rows and rows[a.sample]["image_sha256"] == a.image_sha256]
    return sorted(kept, key=lambda annotation: (annotation.sample, annotation.revision or 0))


def write_npz(run: Run, path: Path, annotations: Sequence[Annotation]) -> None:
    """Arrays with an entry an annotation: `FACTS` by name, and `labels` and `instances` of shape (n, rows, columns).

    Smaller grids than the largest are filled up with 0; `rows` and `columns` say how far each goes.
    """
    rows, columns = (max(annotation.labels.shape[side] for annotation in annotations) for side in (0, 1))
    stacked = {name: np.zeros((len(annotations), rows, columns), np.uint8) for name in ("labels", "instances")}
    for i, annotation in enumerate(annotations):
        for name, grids in stacked.items():
            grid = getattr(annotation, name)
            grids[i, : grid.shape[0], : grid.shape[1]] = grid
    said = pd.DataFrame([flat(facts(annotation)) for annotation in annotations], columns=list(FACTS))
    columns_of = {name: np.array(said[name].tolist()) for name in FACTS}
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **columns_of, **stacked)  # type: ignore[arg-type]


def write_pngs(run: Run, path: Path, annotations: Sequence[Annotation]) -> None:
    """A folder as in Pascal VOC: `SegmentationClass` (0 to 4), `SegmentationObject` (instance numbers), image-sized."""
    if path.exists() and not path.is_dir():
        raise HandscopeError(f"Expected a folder for indexed PNGs, found a file in its place: {path}.")
    if path.is_dir() and any(path.iterdir()) and not (path / LIST).exists():
        raise HandscopeError(f"{path} holds other files: give a new folder for the indexed PNGs.")
    seen: dict[str, int] = {}
    lines = []
    for annotation in annotations:
        seen[annotation.sample] = seen.get(annotation.sample, 0) + 1
        number = f".{seen[annotation.sample]}" if seen[annotation.sample] > 1 else ""
        pictures = {"class": classes(annotation.labels, annotation.instances), "object": annotation.instances}
        names = {kind: f"Segmentation{kind.title()}/{annotation.sample}{number}.png" for kind in pictures}
        for kind, grid in pictures.items():
            picture = Image.fromarray(spread(grid, *_size(run, annotation)))
            picture.putpalette(_palette())
            with atomic(path / names[kind]) as temporary:
                picture.save(temporary, optimize=True)
        lines.append(json.dumps({**facts(annotation), **names}) + "\n")
    with atomic(path / LIST) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def write_coco(run: Run, path: Path, annotations: Sequence[Annotation]) -> None:
    """COCO's format for instances, with compressed run lengths at the size of the image.

    One object an instance and class, and one of the tokens labelled 1. `judgements` of an image holds the facts of its
    annotations, and an object says by `judgement` which of them it belongs to.
    """
    images: dict[str, dict[str, Any]] = {}
    objects: list[dict[str, Any]] = []
    for annotation in annotations:
        height, width = _size(run, annotation)
        said = facts(annotation)
        place = {name: said.pop(name) for name in ("sample", "image_sha256", "rows", "columns")}
        image = images.setdefault(
            annotation.sample,
            {
                "id": len(images) + 1,
                "file_name": run.image_path(annotation.sample).name,
                "height": height,
                "width": width,
                **place,
                "judgements": [],
            },
        )
        image["judgements"].append(said)
        of_token = classes(annotation.labels, annotation.instances)
        pairs = zip(annotation.instances.ravel().tolist(), of_token.ravel().tolist())
        for instance, category in sorted(set(pairs) - {(0, 0)}):
            mask = (of_token == category) & (annotation.instances == instance)
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image["id"],
                    "category_id": int(category),
                    "judgement": len(image["judgements"]) - 1,
                    "instance": int(instance),
                    **_mask(spread(mask.astype(np.uint8), height, width) > 0),
                }
            )
    subject = subject_of(run)
    words = subject.classes
    whole = {
        "info": {"description": f"{subject.nouns[0]} labels on a token grid, written by handscope", "version": "1"},
        "licenses": [],
        "categories": [
            {"id": number, "name": name, "supercategory": subject.noun}
            for number, name in zip(CATEGORIES, (words.outside, words.good, words.bad, words.unsure), strict=True)
        ],
        "images": list(images.values()),
        "annotations": objects,
    }
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(whole) + "\n", encoding="utf-8")


def write_tokens(run: Run, path: Path, annotations: Sequence[Annotation]) -> None:
    """A table with a row a token: sample, author, row, col, label, instance, and the facts of its annotation."""
    parts = []
    for annotation in annotations:
        row, col = np.divmod(np.arange(annotation.labels.size), annotation.labels.shape[1])
        tokens = {"row": row, "col": col, "label": annotation.labels.ravel()}
        tokens["instance"] = annotation.instances.ravel()
        said = flat(facts(annotation))
        first = {name: said.pop(name) for name in ("sample", "author")}
        parts.append(pd.DataFrame({**first, **tokens, **said}))
    table = pd.concat(parts, ignore_index=True)
    with atomic(path) as temporary:
        if ending(path) == ".parquet":
            _write_parquet(table, path, temporary)
        else:
            table.to_csv(temporary, index=False, compression="gzip" if ending(path) == ".csv.gz" else None)


WRITERS = {
    ".npz": write_npz,
    ".json": write_coco,
    ".csv": write_tokens,
    ".csv.gz": write_tokens,
    ".parquet": write_tokens,
    "": write_pngs,
}


def _write_parquet(table: pd.DataFrame, path: Path, temporary: Path) -> None:
    try:
        table.to_parquet(temporary, index=False)
    except ImportError as error:
        raise HandscopeError(
            f"{path} needs pyarrow: pip install 'handscope[parquet]', or give a name that ends in .csv."
        ) from error


def _size(run: Run, annotation: Annotation) -> tuple[int, int]:
    row = run.metadata()[annotation.sample]
    return int(row["height"]), int(row["width"])


def _palette() -> list[int]:
    """Colours of the classes; further numbers, of instances, in turns."""
    random = np.random.default_rng(0)
    known = [shade for colour in PALETTE for shade in colour]
    return [*known, *random.integers(40, 256, 3 * 256 - len(known)).tolist()]


def _mask(mask: np.ndarray) -> dict[str, Any]:
    down, right = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [right[0], down[0], right[-1] - right[0] + 1, down[-1] - down[0] + 1]
    return {"segmentation": encode(mask), "area": int(mask.sum()), "bbox": [int(b) for b in box], "iscrowd": 0}
