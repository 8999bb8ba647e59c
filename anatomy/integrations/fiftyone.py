"""Verdicts as FiftyOne reads labels, in the JSON of its image detection datasets; FiftyOne itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fiftyone_labels(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two files of a FiftyOneImageDetectionDataset, from the document of ``scores.json``.

    >>> data, labels = fiftyone_labels(json.loads(Path("scored/scores.json").read_text()))      # doctest: +SKIP

    Returns
    -------
    dict of str
        ``data.json``: the path of each picture, by its name there.
    dict
        ``labels.json``: its classes, and under ``labels`` for each picture a list of hands. A hand's label is its
        outcome, its box is [x, y, width, height] in shares of the picture, its confidence the probability that a hand
        is there; score, reasons and side are attributes. A picture without a hand that was found has an empty list.
    """
    data = {f"{number:06d}": one["path"] for number, one in enumerate(document["pictures"])}
    names = {path: name for name, path in data.items()}
    size = {one["path"]: (one["width"], one["height"]) for one in document["pictures"]}
    labels: dict[str, list[dict[str, Any]]] = {name: [] for name in data}
    for hand in document["hands"]:
        width, height = size[hand["path"]]
        xs, ys = zip(*(point[:2] for point in hand["landmarks"]), strict=True)
        low = min(xs) / width, min(ys) / height
        box = [*low, max(xs) / width - low[0], max(ys) / height - low[1]]
        attributes = {name: hand[name] for name in ("score", "reasons", "side", "found_by") if name in hand}
        labels[names[hand["path"]]].append(
            {
                "label": hand["outcome"],
                "bounding_box": [round(side, 5) for side in box],
                "confidence": hand["presence"],
                "attributes": attributes,
            }
        )
    classes = sorted({hand["outcome"] for hand in document["hands"]})
    return data, {"classes": classes, "labels": _numbered(labels, classes)}


def _numbered(labels: dict[str, list[dict[str, Any]]], classes: list[str]) -> dict[str, list[dict[str, Any]]]:
    """With the place of each label among the classes in its stead, as the format has it."""
    return {name: [one | {"label": classes.index(one["label"])} for one in many] for name, many in labels.items()}
