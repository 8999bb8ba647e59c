"""Labels of several values, from a table."""

import csv
import os
from collections import Counter
from pathlib import Path

import pandas as pd

from ...errors import HandscopeError
from ...files import refuse_unusable, write_csv
from ...run.folder import Run
from ..values import read_values, values_of
from .elsewhere import samples_of
from .tables import rows

NAMED = 3


def import_values(run: Run, path: str | os.PathLike[str], column: str, skip_unknown: bool = False) -> Counter[str]:
    """Add the values in a column of a CSV or JSONL file to a run's; a sample that has one gets the new one.

    Pictures are matched as labels are; see `labeling.exchange.elsewhere.match_labels`.

    Returns
    -------
    How many samples of the file have which value.

    Raises
    ------
    HandscopeError
        The subject has no values, a value is none of them, there is no such column, or a picture is of no sample.
    """
    known, table = values_of(run), Path(path)
    try:
        found = rows(table)
    except (OSError, ValueError, csv.Error) as error:
        refuse_unusable(error, table)
        raise HandscopeError(f"{table} could not be read as a table ({error}): give a CSV or a JSONL file.") from error
    if not found or column not in found[0]:
        there = ", ".join(map(str, found[0])) if found else "no row"
        raise HandscopeError(f"Expected a column {column!r} in {table}, found {there}: name one with --values.")
    said = {sample: str(row[column]).strip() for sample, row in samples_of(run, found, table, skip_unknown)}
    said = {sample: value for sample, value in said.items() if value}
    unknown = sorted(set(said.values()) - set(known.levels))
    if unknown:
        raise HandscopeError(
            f"{table} says {', '.join(map(repr, unknown[:NAMED]))} of {column!r}, and the subject's values are "
            f"{', '.join(known.levels)}: mend the table, or the subject's file."
        )
    held = read_values(run) if run.values_path.exists() else {}
    write_csv(run.values_path, pd.DataFrame(sorted((held | said).items()), columns=["sample", "value"]))
    return Counter(said.values())
