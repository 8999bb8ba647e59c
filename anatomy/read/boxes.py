"""Boxes about hands that another program found, or a person drew, from a CSV."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import HandscopeError
from ...files import refuse_unusable

SIDES = ("x0", "y0", "x1", "y1")


def read_boxes(path: str | os.PathLike[str]) -> dict[Path, list[list[float]]]:
    """The boxes of each picture, from a CSV with columns path (from the CSV's folder), x0, y0, x1 and y1, a row a box.

    Sides are in pixels of the file as it is seen upright. Keys are whole paths.

    Raises
    ------
    HandscopeError
        The file is no such table, or a box is none; the message names the line.
    """
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
    except FileNotFoundError:
        raise HandscopeError(f"There are no boxes {path}: expected a CSV with path, x0, y0, x1 and y1.") from None
    except (OSError, ValueError) as error:
        refuse_unusable(error, path)
        raise HandscopeError(f"{path} could not be read as a CSV ({error}).") from error
    missing = [name for name in ("path", *SIDES) if name not in table]
    if missing:
        raise HandscopeError(f"Expected columns path, x0, y0, x1 and y1 in {path}; {' and '.join(missing)} is missing.")
    boxes: dict[Path, list[list[float]]] = {}
    for number, row in enumerate(table.to_dict("records"), 2):
        try:
            box = [float(row[side]) for side in SIDES]
        except ValueError:
            box = []
        if not box or not (box[0] < box[2] < float("inf") and box[1] < box[3] < float("inf")):
            raise HandscopeError(
                f"Expected x0 < x1 and y0 < y1 as numbers in {path}; line {number} has "
                f"{', '.join(str(row[side]) for side in SIDES)}."
            )
        boxes.setdefault((path.parent / row["path"]).resolve(), []).append(box)
    return boxes
