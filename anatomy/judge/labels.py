"""Labels of hands in a CSV: which picture, good or bad, and which prompt or generator it is of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...errors import HandscopeError
from ...files import refuse_unusable

VERDICTS = {"good": False, "good?": False, "bad?": True, "bad": True, "0": False, "1": True}
UNSURE = "unsure"
BOX = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled hands.

    Attributes
    ----------
    table : DataFrame with path (Path), bad (bool), group (str), raised (number or NaN) and x0, y0, x1, y1 (NaN where no
        box was given), a row a picture.
    unsure : how many rows were left out because the person was unsure.
    grouped : whether groups were given; without them each picture is a group of its own.
    """

    table: pd.DataFrame
    unsure: int
    grouped: bool

    def raised(self) -> dict[Path, int]:
        """Digits that pictures should show raised, where that is known."""
        return {row.path: int(row.raised) for row in self.table.itertuples() if row.raised == row.raised}

    def boxes(self) -> dict[Path, tuple[float, ...]]:
        """Boxes of the hands that are meant, where they were given."""
        rows = self.table[["path", *BOX]].dropna().itertuples(index=False)
        return {row[0]: tuple(float(side) for side in row[1:]) for row in rows}


def read_labels(path: str | os.PathLike[str]) -> Labelled:
    """Read a CSV with columns path (from the CSV's folder), label and, optionally, group, raised, x0, y0, x1, y1.

    A label is good, good?, bad?, bad, 0 (good) or 1 (bad); unsure is left out and counted.

    Raises
    ------
    HandscopeError
        The file is no such table; the message names the line.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
    except FileNotFoundError:
        raise HandscopeError(f"There are no labels {path}: expected a CSV with path, label and group.") from None
    except (OSError, ValueError) as error:
        refuse_unusable(error, path)
        raise HandscopeError(f"{path} could not be read as a CSV ({error}).") from error
    return labelled(table, path)


def labelled(table: pd.DataFrame, source: Path) -> Labelled:
    """Check a table of strings with the columns that `read_labels` expects; its paths are from the source's folder."""
    missing = [name for name in ("path", "label") if name not in table]
    if missing:
        raise HandscopeError(
            f"Expected columns path and label (and group, raised, x0, y0, x1, y1 if known) in {source}; "
            f"{' and '.join(missing)} cannot be found among {', '.join(map(str, table.columns))}."
        )
    table = table.reset_index(drop=True)
    wrong = table.index[~table["label"].isin([*VERDICTS, UNSURE])]
    if len(wrong):
        raise HandscopeError(
            f"Expected labels good, good?, bad?, bad or unsure (or 0 and 1) in {source}; line {wrong[0] + 2} has "
            f"{table['label'][wrong[0]]!r}."
        )
    twice = table.index[table["path"].duplicated()]
    if len(twice):
        raise HandscopeError(
            f"Expected one label a picture in {source}; line {twice[0] + 2} labels {table['path'][twice[0]]} again."
        )
    sure = table[table["label"] != UNSURE]
    out = pd.DataFrame({"path": [source.parent / name for name in sure["path"]]}, index=sure.index)
    out["bad"] = sure["label"].map(VERDICTS)
    out["group"] = sure["group"].astype(str) if "group" in table else sure["path"]
    for name in ("raised", *BOX):
        values = sure[name] if name in table else pd.Series("", index=sure.index)
        numbers = pd.to_numeric(values.replace("", None), errors="coerce")
        unread = sure.index[numbers.isna() & (values.astype(str).str.strip() != "")]
        if len(unread):
            raise HandscopeError(
                f"Expected a number or nothing as {name} in {source}; line {unread[0] + 2} has {values[unread[0]]!r}."
            )
        out[name] = numbers.astype(float)
    return Labelled(out.reset_index(drop=True), len(table) - len(sure), "group" in table)
