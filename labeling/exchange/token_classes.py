"""Classes of single tokens, from a table."""

import csv
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...errors import HandscopeError
from ...files import refuse_unusable, write_csv
from ...run.folder import Run
from ..grid import grid
from ..subject import subject_of
from ..token_classes import COLUMNS, check_places, read_classes
from .elsewhere import samples_of
from .tables import SAMPLE, TOKEN, rows


def import_classes(run: Run, path: str | os.PathLike[str], column: str, skip_unknown: bool = False) -> Counter[str]:
    """Add the classes of tokens in a CSV or JSONL file to a run's; a sample that has some gets the new ones alone.

    Each row is a token: the picture (as labels name it; see `labeling.exchange.elsewhere.match_labels`), row and
    column (or col) in the token grid, counted from 0, and the class in `column`. A token may be of several classes.

    Returns
    -------
    How many tokens of the file have which class.

    Raises
    ------
    HandscopeError
        There is no such column, or none for the place; a picture is of no sample, and a token of no place in it; or a
        class has the name of the subject.
    """
    table = Path(path)
    try:
        found = rows(table)
    except (OSError, ValueError, csv.Error) as error:
        refuse_unusable(error, table)
        raise HandscopeError(f"{table} could not be read as a table ({error}): give a CSV or a JSONL file.") from error
    there = list(found[0]) if found else []
    place = next((pair for pair in TOKEN if set(pair) <= set(there)), None)
    if place is None or column not in there:
        raise HandscopeError(
            f"Expected columns row, column and {column!r} in {table}, found {', '.join(there) or 'no row'}: rename one."
        )
    names = {name: row for row in found if (name := _name(row))}
    sample = {_name(row): one for one, row in samples_of(run, list(names.values()), table, skip_unknown)}
    read = pd.DataFrame(
        [(sample[_name(row)], row[place[0]], row[place[1]], str(row[column]).strip()) for row in found
         if _name(row) in sample],
        columns=COLUMNS,
    )  # fmt: skip
    read = read[read["class"] != ""].drop_duplicates()
    try:
        read = read.astype({"row": int, "column": int})
    except ValueError as error:
        raise HandscopeError(f"Expected whole numbers as row and column in {table} ({error}): mend it.") from error
    if subject_of(run).noun in set(read["class"]):
        raise HandscopeError(
            f"{table} has the class {subject_of(run).noun!r}, which is what the labels of the run say: give it another "
            "name."
        )
    for one, mine in read.groupby("sample"):
        check_places(np.asarray(mine[["row", "column"]]), grid(run, str(one)), str(one), table)
    held = read_classes(run) if run.classes_path.exists() else read.iloc[:0]
    kept = held[~held["sample"].isin(read["sample"])]
    write_csv(run.classes_path, pd.concat([kept, read]).sort_values(COLUMNS, ignore_index=True))
    return Counter(read["class"])


def _name(row: Mapping[str, Any]) -> str:
    """What a row calls its picture; equal for the rows of one."""
    said = next((str(row[key]) for key in SAMPLE if row.get(key)), "")
    return said or f"{row.get('prompt', '')}, seed {row.get('seed', '')}"
