"""Maps of what runs tell, over depth and noise level: where a signal begins and peaks, and how runs differ in that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.auc import PairWins, auc
from ..analysis.statistics.folds import codes, grouped_folds
from ..analysis.statistics.intervals import drawn_groups, interval, widening
from ..analysis.statistics.multiple import LEVEL
from ..analysis.subject_tokens import SubjectTokens, groups_of
from ..errors import HandscopeError
from ..extract.address import Block, Cell
from ..parallel import each
from ..probes.crossval import held_out_scores
from ..probes.logistic import LogisticProbe
from ..probes.stage import L2
from ..progress import Progress, quiet
from .runs import Compared

Array = NDArray[np.float64]

DRAWS = 1000

AGREE = 0.01
"""How far an AUC that is computed again may lie from that of the table: solvers stop a little short."""

QUANTITIES = {
    "begins": "sigma at which the signal begins",
    "peak_sigma": "sigma at which it peaks",
    "peak_depth": "relative depth of the best block",
    "level": "mean AUC over the cells",
}
"""What is read off a map."""


@dataclass(frozen=True, eq=False)
class Map:
    """The AUCs of one run's cells, and what they would be with other prompts.

    Attributes
    ----------
    cells : DataFrame with block, step, depth, sigma, auc, z (the AUC in standard deviations of its null) and called
    threshold : the z from which on the run's family-wise test calls a cell
    drawn : array of shape (draws, cells), AUCs with prompts drawn anew; None where there are no activations
    prompts : how many were drawn from
    """

    cells: pd.DataFrame
    threshold: float
    drawn: Array | None = field(repr=False)
    prompts: int

    def found(self) -> dict[str, float]:
        """Each of `QUANTITIES` as observed; NaN where nothing is called."""
        values = self.cells["auc"].to_numpy(np.float64)
        called = self.cells.loc[self.cells["called"], "sigma"]
        begins = float(called.max()) if len(called) else np.nan
        return {"begins": begins, **{name: float(one[0]) for name, one in self._peaks(values[None]).items()}}

    def draws(self) -> dict[str, Array]:
        """Each of them for each draw of prompts, arrays of shape (draws,); it begins at 0 where it never does."""
        assert self.drawn is not None
        null_mean, null_sd = (self.cells[name].to_numpy(np.float64) for name in ("null_mean", "null_sd"))
        called = (self.drawn - null_mean) / null_sd >= self.threshold
        begins = np.where(called, self.cells["sigma"].to_numpy(np.float64), 0.0).max(1)
        return {"begins": begins, **self._peaks(self.drawn)}

    def _peaks(self, values: Array) -> dict[str, Array]:
        """Where the means over the other axis are largest, of maps (maps, cells)."""
        found = {}
        for name, column in (("peak_sigma", "sigma"), ("peak_depth", "depth")):
            place = self.cells[column].to_numpy(np.float64)
            at = np.unique(place)
            means = np.stack([np.nanmean(values[:, place == one], axis=1) for one in at], axis=1)
            found[name] = at[np.nanargmax(means, axis=1)]
        return {**found, "level": np.nanmean(values, axis=1)}


def prefix_of(runs: Sequence[Compared]) -> str:
    """Columns of pairs within a prompt, if every run has them; else those of all pairs."""
    return "within_" if all(one.cells["within_auc"].notna().all() for one in runs) else ""


def maps(runs: Sequence[Compared], draws: int = DRAWS, seed: int = 0, progress: Progress = quiet) -> list[Map]:
    """The map of each run, prompts that several have drawn together, so that differences between runs are paired.

    Raises
    ------
    HandscopeError
        The tables of a run are of other labels or activations than it has now.
    """
    prefix = prefix_of(runs)
    stored = [one for one in runs if one.store is not None]
    names = sorted({prompt for one in stored for prompt in one.verdicts["prompt"]})
    weights = drawn_groups(len(names), draws, np.random.default_rng([seed, 8])) if names else np.empty((draws, 0))
    return [_map(one, prefix, names, weights, seed, progress) for one in runs]


def _map(
    one: Compared, prefix: str, names: list[str], weights: Array, seed: int, progress: Progress
) -> Map:
    table = one.cells
    null_mean, null_sd = table[f"{prefix}null_mean"], table[f"{prefix}null_sd"]
    cells = table[["block", "step", "depth", "sigma", "n_good", "n_bad"]].assign(
        auc=table[f"{prefix}auc"], lo=table[f"{prefix}lo"], hi=table[f"{prefix}hi"], null_mean=null_mean,
        null_sd=null_sd, p_family=table[f"{prefix}p_family"], z=(table[f"{prefix}auc"] - null_mean) / null_sd,
    )  # fmt: skip
    cells["called"] = cells["p_family"] <= LEVEL
    threshold = _threshold(cells)
    if one.store is None:
        return Map(cells, threshold, None, 0)
    rows = one.verdicts
    y, groups = rows["bad"].to_numpy(np.float64), groups_of(rows)
    fold = grouped_folds(groups, one.folds, one.seed)
    own = np.unique(groups[:, 0].astype(str))
    drawn = weights[:, [names.index(prompt) for prompt in own]]
    subject = SubjectTokens(one.store, rows["sample"].tolist(), rows["instance"].tolist())

    def of_cell(place: int) -> Array:
        row = cells.iloc[place]
        x = subject.read(Cell(Block.parse(row["block"]), int(row["step"])))[0].mean.astype(np.float32)
        scores = held_out_scores(LogisticProbe(L2), x, y[None], fold)[0]
        strata = groups[:, 0] if prefix else fold
        if not abs(float(auc(scores, y, codes(strata))) - row["auc"]) <= AGREE:
            raise HandscopeError(
                f"The probe of {row['block']} at step {row['step']} has another AUC now than in "
                f"{one.run.analysis_dir / 'probes.csv'}: labels or activations have changed since, so run probe again."
            )
        pairs = PairWins.of(scores, y, groups, None if prefix else fold)
        found = pairs.within_auc(drawn) if prefix else pairs.auc(drawn)
        null = row["null_mean"] + row["null_sd"] * np.array([-1.0, 1.0])
        wide = widening(scores, y, groups, null, fold, bool(prefix), seed)
        out: Array = row["auc"] + wide * (found - row["auc"])
        return out

    columns = each(of_cell, range(len(cells)), progress, f"draw {one.name}")
    return Map(cells, threshold, np.stack(columns, axis=1), len(own))


def _threshold(cells: pd.DataFrame) -> float:
    """The z at which a run's family-wise test begins to call, halfway between the cells that it does and does not."""
    called, other = cells.loc[cells["called"], "z"], cells.loc[~cells["called"], "z"]
    if called.empty or other.empty:
        return float(called.min() if other.empty else np.nextafter(other.max(), np.inf))
    return float((called.min() + other.max()) / 2)


def summary(runs: Sequence[Compared], found: Sequence[Map]) -> pd.DataFrame:
    """A row for each run and each of `QUANTITIES`: value, lo, hi, and for where it begins how often a draw does."""
    rows = []
    for one, map_ in zip(runs, found, strict=True):
        drawn = map_.draws() if map_.drawn is not None else {}
        for name, value in map_.found().items():
            low, high = interval(drawn[name]) if name in drawn else (np.nan, np.nan)
            row = {"run": one.name, "model": one.model, "quantity": name, "value": value, "lo": low, "hi": high}
            rows.append(row | {"sd": float(drawn[name].std()) if name in drawn else np.nan, "prompts": map_.prompts})
    return pd.DataFrame(rows)


def differences(runs: Sequence[Compared], found: Sequence[Map]) -> pd.DataFrame:
    """A row for each two runs and each of `QUANTITIES`: the second less the first, with the interval of the draws.

    A run in which nothing begins is one that begins at 0.
    """
    rows = []
    for j in range(len(runs)):
        for i in range(j):
            if found[i].drawn is None or found[j].drawn is None:
                continue
            first, second = (found[k].found() for k in (i, j))
            drawn, other = found[i].draws(), found[j].draws()
            for name in QUANTITIES:
                low, high = interval(other[name] - drawn[name])
                value = float(np.nan_to_num(second[name]) - np.nan_to_num(first[name]))
                row = {"run_a": runs[i].name, "run_b": runs[j].name, "quantity": name, "difference": value}
                rows.append(row | {"lo": low, "hi": high})
    return pd.DataFrame(rows, columns=["run_a", "run_b", "quantity", "difference", "lo", "hi"])


def profiles(runs: Sequence[Compared], found: Sequence[Map]) -> pd.DataFrame:
    """Mean AUCs over depth and over noise levels: run, over (depth or sigma), at, value, lo, hi."""
    rows = []
    for one, map_ in zip(runs, found, strict=True):
        values = map_.cells["auc"].to_numpy(np.float64)
        for over in ("depth", "sigma"):
            place = map_.cells[over].to_numpy(np.float64)
            for at in np.unique(place):
                mine = place == at
                ends = (np.nan, np.nan) if map_.drawn is None else interval(map_.drawn[:, mine].mean(1))
                row = {"run": one.name, "over": over, "at": float(at), "value": float(values[mine].mean())}
                rows.append(row | {"lo": ends[0], "hi": ends[1]})
    return pd.DataFrame(rows)
