"""Labels of now beside stored tokens: joined when a store is opened, and never written with them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import HandscopeError
from ...labeling.database.labels import Annotation, Labels
from ..address import Plan
from .aside import set_aside
from .contents import Part, folder_of, token_records

Source = str | os.PathLike[str] | Labels | Mapping[str, Annotation]
"""Where labels come from: a file, `Labels`, or annotations by sample."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Tokens with the labels of now.

    Attributes
    ----------
    records : array of dtype `RECORD` (contents.py)
    unstored : dict of str to int
        Tokens of the subject that are not in the store: how many a sample has, by sample. Samples that an extraction
        set aside are left out.
    """

    records: np.ndarray
    unstored: dict[str, int]


def labels_beside(path: Path) -> Labels | None:
    """The labels of the run folder that activations lie in; None where there are none."""
    found = folder_of(path.absolute()).parent / "labels.sqlite"
    return Labels(found) if found.is_file() else None


def check_labels_stay(parts: Iterable[Part], path: Path) -> None:
    """Refuse to write activations of 0.3 without their labels where no others lie beside `path`."""
    if labels_beside(path) is not None:
        return
    for part in parts:
        if part.old_labels is not None and any(part.old_labels[name].any() for name in ("label", "hand")):
            raise HandscopeError(
                f"{part.path} has labels with its tokens, as 0.3 wrote them, which would be lost: there is no "
                f"{folder_of(path.absolute()).parent / 'labels.sqlite'}. Put the labels of the run there first."
            )


def join(groups: Sequence[tuple[Path, Sequence[Part]]], labels: Source | None = None) -> Joined:
    """Join labels to the tokens of samples, in the order given.

    Parameters
    ----------
    groups : sequence of (path, samples that were read from it)
        Each with the labels beside its path, unless `labels` are given.

    Raises
    ------
    HandscopeError
        Labels are of another image than the activations, or on another token grid; or there is no file of this name.
    """
    parts = [part for _, group in groups for part in group]
    text = max(len(part.tokens) for part in parts) if Plan.from_json(parts[0].attrs["plan"]).stream == "text" else 0
    records = token_records(parts)
    stops = np.cumsum([len(part.tokens) for part in parts])
    rows = {part.sample: records[stop - len(part.tokens) : stop] for part, stop in zip(parts, stops)}
    unstored: dict[str, int] = {}
    for source, mine in _by_source(groups, labels):
        if source is None:
            for part in mine:
                _label_as_then(part, rows[part.sample])
            continue
        where, annotations = _annotations(source)
        here = {part.sample: part for part in mine}
        for annotation in annotations:
            own = here.get(annotation.sample)
            if own is not None:
                _check(own, annotation, where)
                _label(rows[own.sample], annotation, text)
            elif annotation.sample in rows:
                continue  # it was read from another folder, and has that one's labels
            lacking = _lacking(own, annotation, str(parts[0].attrs.get("selection", "")), text)
            if lacking:
                unstored[annotation.sample] = lacking
    for path, _ in groups if unstored else ():
        for sample in set_aside(folder_of(path))["sample"]:
            unstored.pop(sample, None)
    return Joined(records, unstored)


def _by_source(
    groups: Sequence[tuple[Path, Sequence[Part]]], labels: Source | None
) -> Iterable[tuple[Source | None, list[Part]]]:
    """Samples with where their labels come from, each source once."""
    found: dict[Path | None, tuple[Source | None, list[Part]]] = {}
    for path, group in groups:
        beside = labels_beside(path) if labels is None else None
        source = beside if labels is None else labels
        found.setdefault(beside.path if beside else None, (source, []))[1].extend(group)
    return found.values()


def _annotations(source: Source) -> tuple[str, Iterable[Annotation]]:
    """The name of a source for messages, and what counts for each sample there."""
    if isinstance(source, Mapping):
        return "those given", source.values()
    labels = source if isinstance(source, Labels) else Labels(source)
    if not labels.path.is_file():
        raise HandscopeError(f"There are no labels in {labels.path}: give the labels.sqlite of the run.")
    return str(labels.path), labels.current().values()


def _check(part: Part, annotation: Annotation, where: str) -> None:
    stored = part.head["image_sha256"]
    if stored not in ("", annotation.image_sha256):
        raise HandscopeError(
            f"The labels of {part.sample} in {where} were made on another image (hash {annotation.image_sha256[:12]}…) "
            f"than its activations in {part.path} (hash {stored[:12]}…): extract it again, or label it again."
        )
    grid = tuple(int(part.attrs.get(side, size)) for side, size in zip(("rows", "columns"), annotation.labels.shape))
    if annotation.labels.shape != grid:
        raise HandscopeError(
            f"The labels of {part.sample} in {where} are on a grid of {_by(annotation.labels.shape)} tokens, and its "
            f"activations in {part.path} on one of {_by(grid)}: label it again."
        )


def _label(rows: np.ndarray, annotation: Annotation, text: int) -> None:
    """Fill in the label and the instance of each token.

    A text token has no place in the image: where the image has an instance, it has the label of the worst, and the
    number 1.
    """
    if text:
        subject = annotation.instances > 0
        rows["label"], rows["instance"] = annotation.labels.max(where=subject, initial=0), subject.any()
    else:
        place = rows["row"], rows["col"]
        rows["label"], rows["instance"] = annotation.labels[place], annotation.instances[place]


def _label_as_then(part: Part, rows: np.ndarray) -> None:
    """Fill in the labels that 0.3 wrote with the tokens, where it did."""
    if part.old_labels is not None:
        rows["label"], rows["instance"] = part.old_labels["label"], part.old_labels["hand"]


def _lacking(part: Part | None, annotation: Annotation, selection: str, text: int) -> int:
    """How many tokens of the subject are not stored, of those that the store's choice of tokens takes in."""
    subject = annotation.instances > 0
    if selection == "labelled":
        subject &= annotation.labels > 0
    wanted = int(np.count_nonzero(subject))
    if text:
        return text if wanted and (part is None or not len(part.tokens)) else 0
    if part is None:
        return wanted
    return wanted - int(np.count_nonzero(subject[part.tokens["row"], part.tokens["col"]]))


def _by(grid: tuple[int, ...]) -> str:
    return " by ".join(map(str, grid))
