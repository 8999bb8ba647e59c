"""Labels in JSON: COCO, FiftyOne's, Label Studio's."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import HandscopeError
from .sources import Mask, Region, Size, Source, boxed, polygon, sources
from .tables import SAMPLE


def read_json(path: Path) -> Iterable[Source]:
    whole = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(whole, list):
        return [_of_task(task, place) for place, task in enumerate(whole)]
    if "annotations" in whole and "images" in whole:
        return sources(path)[0]
    if isinstance(whole.get("labels"), dict):
        return _of_fiftyone_labels(path, whole)
    if isinstance(whole.get("samples"), list):
        return [_of_fiftyone_sample(one) for one in whole["samples"]]
    raise HandscopeError(
        f"Expected COCO, FiftyOne's labels.json or samples.json, or Label Studio's tasks in {path}, found an object "
        f"with {', '.join(list(whole)[:5]) or 'nothing'}: export in one of these."
    )


def _of_fiftyone_labels(path: Path, whole: Mapping[str, Any]) -> list[Source]:
    """FiftyOne's ``labels.json``: a class, or detections with boxes in shares of the picture, by picture."""
    classes = whole.get("classes") or []

    def word(label: Any) -> str:
        return str(classes[label]) if isinstance(label, int) and classes else str(label)

    found = []
    for name, said in whole["labels"].items():
        if isinstance(said, list):
            regions = tuple(_share_box(one["bounding_box"], word(one["label"])) for one in said)
            found.append(Source(path.parent / name, name, regions=regions))
        elif said is not None:
            found.append(Source(path.parent / name, name, said=word(said["label"] if isinstance(said, dict) else said)))
    return found


def _of_fiftyone_sample(sample: Mapping[str, Any]) -> Source:
    """A sample of FiftyOne's ``samples.json``: its first field with a classification, or with detections."""
    name = str(sample["filepath"])
    fields = [value for value in sample.values() if isinstance(value, dict) and "_cls" in value]
    for value in fields:
        if value["_cls"] == "Detections":
            regions = tuple(_share_box(one["bounding_box"], str(one["label"])) for one in value["detections"])
            return Source(Path(name), name, regions=regions)
        if value["_cls"] == "Classification":
            return Source(Path(name), name, said=str(value["label"]))
    return Source(Path(name), name)


def _of_task(task: Mapping[str, Any], place: int) -> Source:
    """A task of Label Studio: the newest of its annotations that was not cancelled."""
    data = task.get("data", {})
    unnamed = str(task.get("file_upload") or f"task {place + 1}")
    name = next((str(data[key]) for key in SAMPLE if data.get(key)), unnamed)
    done = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
    said, regions, size = "", [], None
    for one in done[-1]["result"] if done else []:
        value, kind = one["value"], one["type"]
        if "original_height" in one and kind != "choices":
            size = (int(one["original_height"]), int(one["original_width"]))
        if kind == "choices":
            said = str(value["choices"][0])
        elif kind == "rectanglelabels":
            box = [value[side] / 100 for side in ("x", "y", "width", "height")]
            regions.append(_share_box(box, str(value[kind][0])))
        elif kind == "polygonlabels":
            regions.append(_share_polygon(value["points"], str(value[kind][0])))
        else:
            raise HandscopeError(f"{name} has a result of the kind {kind}: export brush strokes as masks in PNG.")
    who = done[-1].get("completed_by") if done else None
    columns = {key: value for key, value in data.items() if isinstance(value, str | int | float)}
    columns |= {"author": str(who)} if isinstance(who, str) else {}
    return Source(Path(name), name, said=said, regions=tuple(regions), columns=columns, size=size)


def _share_box(box: Sequence[float], said: str) -> Region:
    """A box whose left, top, width and height are shares of the picture's sides."""

    def masks(size: Size) -> list[Mask]:
        sides = (size[1], size[0], size[1], size[0])
        return boxed([share * side for share, side in zip(box, sides, strict=True)], said).masks(size)

    return Region(masks, said)


def _share_polygon(points: Sequence[Sequence[float]], said: str) -> Region:
    """A polygon whose points are hundredths of the picture's width and height."""

    def masks(size: Size) -> list[Mask]:
        return [polygon([[(x * size[1] / 100, y * size[0] / 100) for x, y in points]], size)]

    return Region(masks, said)
