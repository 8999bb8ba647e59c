"""Folders of pictures that others made, with what they say of them: imagefolder, COCO, a CSV, or pictures alone."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...errors import HandscopeError
from ...files import refuse_unusable
from .rle import decode

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
NAMES = ("file_name", "filename", "path", "image", "file")
"""Columns that may name the picture; those below may hold the prompt, the verdict, and a file with a mask."""
PROMPTS, VERDICTS, MASKS = ("prompt", "text", "caption"), ("verdict", "label"), ("mask", "mask_file_name")
BOX = ("x", "y", "width", "height")

Size = tuple[int, int]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Region:
    """One place in a picture, and what was said of it: a verdict, or the name of a category; "" where nothing was.

    Attributes
    ----------
    masks : function of the picture's height and width
        The masks of its instances, bool of that shape.
    """

    masks: Callable[[Size], list[Mask]]
    said: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """One picture, and what its folder says of it.

    Attributes
    ----------
    path : Path
    name : str
        As the folder names it.
    prompt : str or None
        What it shows, where that is said.
    said : str
        A verdict on the whole of it; "" where there is none.
    kinds : tuple of str
        Kinds of fault.
    regions : tuple of Region
    columns : dict
        All that a table says of it.
    size : tuple of int, optional
        Height and width in pixels on which its regions were drawn.
    """

    path: Path
    name: str
    prompt: str | None = None
    said: str = ""
    kinds: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    size: Size | None = None


def sources(folder: Path) -> tuple[list[Source], Path]:
    """The pictures of a folder, or of a table in one, and the file that told of them (else the folder).

    Of a folder: ``metadata.jsonl`` or ``metadata.csv``, else the one ``.json`` (COCO) or ``.csv`` in it, else all
    pictures in it, whose own folder's name may be a verdict.

    Raises
    ------
    HandscopeError
        There is nothing there, there are several tables, or one is damaged.
    """
    told = _told_by(folder)
    if told is None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        found = [Source(path, str(path.relative_to(folder)), columns={"folder": path.parent.name}) for path in paths]
    else:
        try:
            found = _READERS[told.suffix](told)
        except HandscopeError:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error) as error:
            refuse_unusable(error, told)
            raise HandscopeError(
                f"{told} could not be read as a table of pictures ({type(error).__name__}: {error}): expected the "
                "imagefolder's metadata, COCO's instances, or a CSV with a column file_name."
            ) from error
    if not found:
        raise HandscopeError(f"There are no pictures in {told or folder}: check its name.")
    return found, told or folder


def _told_by(folder: Path) -> Path | None:
    if folder.is_file() and folder.suffix in _READERS:
        return folder
    if not folder.is_dir():
        raise HandscopeError(f"Expected a folder of pictures, or a .jsonl, .csv or .json in one, found {folder}.")
    for name in ("metadata.jsonl", "metadata.csv"):
        if (folder / name).exists():
            return folder / name
    tables = sorted(path for path in folder.iterdir() if path.suffix in _READERS)
    if len(tables) > 1:
        named = ", ".join(path.name for path in tables)
        raise HandscopeError(f"{folder} has several tables ({named}): name the one that is meant in its place.")
    return tables[0] if tables else None


def _read_lines(path: Path) -> list[Source]:
    """An imagefolder's ``metadata.jsonl``."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return together(path, [json.loads(line) for line in lines if line.strip()])


def _read_csv(path: Path) -> list[Source]:
    """A CSV file: one row a picture, or one an instance."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return together(path, list(csv.DictReader(file)))


def together(table: Path, rows: Sequence[Mapping[str, Any]]) -> list[Source]:
    """One source a picture, from rows of which several may be of one."""
    found: dict[str, Source] = {}
    for row in rows:
        name = _first(row, NAMES)
        if not name:
            raise HandscopeError(f"Expected a column {', '.join(NAMES)} in {table}, found {', '.join(map(str, row))}.")
        regions = tuple(_regions(table.parent, row))
        kinds = tuple(part.strip() for part in str(row.get("kinds") or "").split(",") if part.strip())
        said = _first(row, VERDICTS) or ""
        if name not in found:
            prompt = _first(row, PROMPTS)
            found[name] = Source(table.parent / name, name, prompt, said, kinds, regions, dict(row))
            continue
        before = found[name]
        found[name] = replace(
            before,
            said="" if said != before.said else said,
            kinds=tuple(dict.fromkeys(before.kinds + kinds)),
            regions=before.regions + regions,
        )
    return list(found.values())


def _regions(folder: Path, row: Mapping[str, Any]) -> Iterable[Region]:
    """The places that a row names: a mask, a box, or the `objects` of an imagefolder."""
    said = _first(row, VERDICTS) or ""
    mask = _first(row, MASKS)
    if mask:
        yield Region(lambda size: _mask_file(folder / mask, size), said)
    box = [row.get(name) for name in BOX]
    if all(value not in (None, "") for value in box):
        yield boxed([float(str(value)) for value in box], said)
    elif row.get("bbox"):
        yield boxed(json.loads(row["bbox"]) if isinstance(row["bbox"], str) else row["bbox"], said)
    objects = row.get("objects")
    if objects:
        objects = json.loads(objects) if isinstance(objects, str) else objects
        names = next((objects[key] for key in ("category", "categories", "label") if key in objects), None)
        for i, one in enumerate(objects["bbox"]):
            yield boxed(one, said if names is None else str(names[i]))


def _read_coco(path: Path) -> list[Source]:
    """COCO's instances, their segmentation before their box."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    categories = {one["id"]: str(one["name"]) for one in whole.get("categories", [])}
    regions: dict[Any, list[Region]] = {}
    for one in whole["annotations"]:
        said = categories.get(one.get("category_id"), "")
        drawn = one.get("segmentation")
        region = boxed(one["bbox"], said) if not drawn else Region(_segment(drawn), said)
        regions.setdefault(one["image_id"], []).append(region)
    found = []
    for image in whole["images"]:
        name = str(image["file_name"])
        places = [path.parent / name, *(path.parent / folder / name for folder in ("images", "samples", path.stem))]
        place = next((each for each in places if each.exists()), places[0])
        size = (int(image["height"]), int(image["width"])) if "height" in image else None
        prompt = _first(image, PROMPTS)
        found.append(Source(place, name, prompt, regions=tuple(regions.get(image["id"], ())), columns=image, size=size))
    return found


_READERS = {".jsonl": _read_lines, ".csv": _read_csv, ".json": _read_coco}


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((str(row[name]) for name in names if row.get(name) not in (None, "")), None)


def boxed(box: Sequence[float], said: str) -> Region:
    left, top, width, height = (float(value) for value in box)

    def masks(size: Size) -> list[Mask]:
        ends = round(top), round(left), round(top + height), round(left + width)
        if not (0 <= ends[0] < ends[2] <= size[0] and 0 <= ends[1] < ends[3] <= size[1]):
            raise HandscopeError(
                f"its box {[left, top, width, height]} (left, top, width, height in pixels) is not within the "
                f"{size[0]} by {size[1]} pixels of the picture: it was labelled on another grid"
            )
        mask = np.zeros(size, bool)
        mask[ends[0] : ends[2], ends[1] : ends[3]] = True
        return [mask]

    return Region(masks, said)


def _segment(drawn: Any) -> Callable[[Size], list[Mask]]:
    """COCO's segmentation: run lengths, or polygons."""

    def masks(size: Size) -> list[Mask]:
        if isinstance(drawn, dict):
            return [_sized(decode(drawn), size)]
        return [polygon([list(map(float, corners)) for corners in drawn], size)]

    return masks


def polygon(drawn: Sequence[Sequence[Any]], size: Size) -> Mask:
    """The mask of polygons, each a list of corners, or of their numbers one after the other, in pixels."""
    canvas = Image.new("1", size[::-1])
    for corners in drawn:
        ImageDraw.Draw(canvas).polygon(list(corners), fill=1)
    return np.asarray(canvas, bool)


def _mask_file(path: Path, size: Size) -> list[Mask]:
    """The instances of a picture of a mask: of an indexed one each number but 0, else what is brighter than half."""
    try:
        with Image.open(path) as image:
            indexed = image.mode == "P"
            values = np.asarray(image if indexed else image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        refuse_unusable(error, path)
        raise HandscopeError(f"its mask {path} could not be read") from error
    if not indexed:
        return [_sized(values > 127, size)]
    return [_sized(values == number, size) for number in np.unique(values) if number]


def _sized(mask: Mask, size: Size) -> Mask:
    if mask.shape != size:
        raise HandscopeError(
            f"its mask has {mask.shape[0]} by {mask.shape[1]} pixels, and the picture {size[0]} by {size[1]}: it was "
            "labelled on another grid; draw the mask at the size of the picture"
        )
    return mask
