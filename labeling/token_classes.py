"""Classes of single tokens: the subject, as its labels say, and what RUN/classes.csv names, a row a token."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import HandscopeError
from ..files import refuse_unusable
from ..run.folder import Run
from .database.labels import Labels
from .subject import subject_of

COLUMNS = ["sample", "row", "column", "class"]

Masks = dict[str, NDArray[np.bool_]]
"""The tokens of a class, bool of the form of the token grid, by sample."""


def token_classes(run: Run) -> dict[str, Masks]:
    """The masks of each class in labelled samples: the subject, under its noun, and those of classes.csv.

    Raises
    ------
    HandscopeError
        There are no labels; or the file is damaged, names the subject, or a token that its picture does not have.
    """
    annotations = Labels(run.labels_path).current()
    if not annotations:
        raise HandscopeError(f"There are no labels in {run.labels_path}: run label first, or import those you have.")
    subject, masks = subject_of(run).noun, {name: one.instances > 0 for name, one in annotations.items()}
    found = {subject: {sample: mask for sample, mask in masks.items() if mask.any()}}
    if not run.classes_path.exists():
        return found
    for (name, sample), rows in read_classes(run).groupby(["class", "sample"], sort=False):
        if name == subject:
            raise HandscopeError(
                f"{run.classes_path} has the class {name!r}, which is what the labels say: give it another name."
            )
        if sample in masks:  # else it is not labelled, or not any more
            place = rows[["row", "column"]].to_numpy()
            check_places(place, masks[sample].shape, str(sample), run.classes_path)
            mask = np.zeros(masks[sample].shape, bool)
            mask[place[:, 0], place[:, 1]] = True
            found.setdefault(str(name), {})[str(sample)] = mask
    return found


def read_classes(run: Run) -> pd.DataFrame:
    """The table of RUN/classes.csv: sample, row, column, class.

    Raises
    ------
    HandscopeError
        It is damaged.
    """
    path, types = run.classes_path, {"sample": str, "row": int, "column": int, "class": str}
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False)[COLUMNS]
    except (ValueError, KeyError) as error:
        refuse_unusable(error, path)
        raise HandscopeError(f"{path} is damaged ({error}): remove it, and import the classes again.") from error


def check_places(place: NDArray[np.integer], grid: Iterable[int], sample: str, where: object) -> None:
    """Refuse tokens, of shape (n, 2), that the token grid of a sample does not have."""
    rows, columns = grid
    outside = ((place < 0) | (place >= (rows, columns))).any(1)
    if outside.any():
        row, column = place[outside][0]
        raise HandscopeError(
            f"{where} names the token in row {row} and column {column} of {sample}, whose grid has {rows} rows and "
            f"{columns} columns, counted from 0: mend the table."
        )
