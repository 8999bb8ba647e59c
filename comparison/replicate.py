"""One study on several models: what of it holds in each, and in the mean over models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..analysis.statistics.multiple import LEVEL
from ..analysis.statistics.random_effects import random_effects
from ..files import read_csv, write_csv
from ..progress import Progress, quiet
from ..stages import TABLES
from .maps import Map, maps, prefix_of, summary
from .runs import Compared, open_runs

if TYPE_CHECKING:
    from ..run.folder import Run


@dataclass(frozen=True)
class Quantity:
    """What is looked at in every run.

    Attributes
    ----------
    words : what it is
    null : the value of no effect; None where there is none, as of a place
    less : whether an effect is a value below it
    """

    words: str
    null: float | None = None
    less: bool = False


QUANTITIES = {
    "begins": Quantity("sigma at which the signal begins"),
    "peak_depth": Quantity("relative depth of the best block"),
    "level": Quantity("mean AUC over the cells", 0.5),
    "chosen": Quantity("AUC in a cell chosen in the training folds", 0.5),
    "added_first": Quantity("what the best block adds to all baselines, noisiest step", 0.0),
    "added_last": Quantity("what the best block adds to all baselines, last step", 0.0),
    "triage": Quantity("change of the bad share by the earliest look at the picture", 0.0, less=True),
    "steering": Quantity("change of the bad share by the best steering", 0.0, less=True),
}


@dataclass(frozen=True, eq=False)
class Replication:
    """What was found.

    Attributes
    ----------
    runs : their names
    each : DataFrame with run, model, quantity, value, lo, hi (95% over prompts) and shown: whether the run's own
        numbers show it
    over : DataFrame with quantity, n, shown (in how many), mean, lo, hi (95% over models), between (standard deviation
        of the true values) and heterogeneity_p
    """

    runs: tuple[str, ...]
    each: pd.DataFrame = field(repr=False)
    over: pd.DataFrame = field(repr=False)


def replicate(runs: Sequence[Run], out: Path, seed: int = 0, progress: Progress = quiet) -> Replication:
    """Put the results of one study on several models beside each other, and write ``each.csv`` and ``over.csv``.

    Raises
    ------
    HandscopeError
        As of `open_runs`.
    """
    opened = open_runs(runs)
    found = maps(opened, seed=seed, progress=progress)
    prefix = prefix_of(opened)
    each = pd.concat(
        [pd.DataFrame(_rows(one, map_, prefix)) for one, map_ in zip(opened, found, strict=True)], ignore_index=True
    )
    of = dict(list(each.groupby("quantity", sort=False)))
    over = pd.DataFrame([_over(name, of[name]) for name in QUANTITIES if name in of])
    write_csv(out / "each.csv", each)
    write_csv(out / "over.csv", over)
    return Replication(tuple(one.name for one in opened), each, over)


def _rows(one: Compared, map_: Map, prefix: str) -> Iterator[dict[str, Any]]:
    for name, row in _measured(one, map_, prefix):
        yield {"run": one.name, "model": one.model, "quantity": name, **row}


def _measured(one: Compared, map_: Map, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    places = summary([one], [map_]).set_index("quantity")
    for name, column in (("begins", "sigma"), ("peak_depth", "depth"), ("level", None)):
        row = places.loc[name]
        # A place is known to its neighbours on the grid at best, however steadily draws of prompts choose it.
        apart = np.diff(np.unique(map_.cells[column])).mean() if column and map_.cells[column].nunique() > 1 else 0.0
        shown = row["value"] > 0.5 and row["lo"] > 0.5 if name == "level" else not pd.isna(row["value"])
        yield name, _row(row, error=float(np.hypot(row["sd"], apart / np.sqrt(12))), shown=bool(shown))
    if (chosen := _table(one, "chosen")) is not None:
        row = chosen[chosen["pairs"] == ("within" if prefix else "all")].iloc[0].rename({"auc": "value"})
        yield "chosen", _row(row, shown=bool(row["lo"] > 0.5))
    if (added := _table(one, "added")) is not None:
        best = min(one.depth, key=lambda block: abs(one.depth[block] - places.loc["peak_depth", "value"]))
        rows = added[(added["block"] == best) & (added["baseline"] == "all")].sort_values("step")
        for name, place in (("added_first", -1), ("added_last", 0)):
            row = rows.iloc[place]
            named = {f"{prefix}{old}": new for old, new in (("added", "value"), ("lo", "lo"), ("hi", "hi"), ("q", "q"))}
            row = row[list(named)].rename(named)
            yield name, _row(row, shown=bool(row["lo"] > 0 and row["q"] <= LEVEL))
    if (looks := _table(one, "triage")) is not None:
        row = _earliest(looks)
        if row is not None:
            yield "triage", _row(row, shown=bool(row["hi"] < 0))
    if (arms := _table(one, "arms")) is not None and (arms["family"] == "steering").any():
        steered = arms[arms["family"] == "steering"]
        best = steered.loc[steered["difference"].idxmin()].rename({"difference": "value", "low": "lo", "high": "hi"})
        # It must beat its controls, too: whatever is added to a stream changes pictures.
        p = np.fmax(float(best["p"]), float(best["control_p"]))
        yield "steering", _row(best, shown=bool(best["value"] < 0 and p <= LEVEL))


def _row(row: Any, shown: bool, error: float | None = None) -> dict[str, Any]:
    value, low, high = (float(row[name]) for name in ("value", "lo", "hi"))
    return {
        "value": value, "lo": low, "hi": high, "error": (high - low) / 3.92 if error is None else error, "shown": shown
    }  # fmt: skip


def _earliest(looks: pd.DataFrame) -> pd.Series | None:
    """The change of the malformed share by a threshold on plain numbers of the picture, at the first step looked at.

    Both rates are of the same pictures, and the interval takes them as independent: it is too wide.
    """
    plain = looks[looks["way"] == "plain"].iloc[0]
    rows = looks[(looks["way"] == "threshold") & (looks["feature"] == "image")]
    if rows.empty:
        return None
    row = rows.loc[rows["step"].idxmax()]
    value = float(row["rate"] - plain["rate"])
    half = float(np.hypot(row["hi"] - row["lo"], plain["hi"] - plain["lo"]) / 2)
    return pd.Series({"value": value, "lo": value - half, "hi": value + half})


def _table(one: Compared, name: str) -> pd.DataFrame | None:
    path = one.run.path / TABLES[name][0].path
    return read_csv(path) if path.exists() else None


def _over(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    known = rows[rows["value"].notna() & (rows["error"] > 0)]
    row: dict[str, Any] = {"quantity": name, "runs": len(rows), "shown": int(rows["shown"].sum()), "n": len(known)}
    if known.empty:
        return row | dict.fromkeys(("mean", "lo", "hi", "between", "heterogeneity_p"), np.nan)
    found = random_effects(known["value"], known["error"])
    return row | {
        "mean": found.mean, "lo": found.low, "hi": found.high, "between": found.between,
        "heterogeneity_p": found.heterogeneity_p,
    }  # fmt: skip
