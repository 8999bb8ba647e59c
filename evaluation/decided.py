"""When half of a region's shapes are decided, and whether good and bad differ: what the rows of `commit` come to."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import bootstrap_weights, interval
from ..analysis.statistics.nulls import permuted_labels
from ..analysis.statistics.survival import Survival, kaplan_meier
from ..errors import HandscopeError
from ..labeling.subject import subject_of
from ..run.folder import Run

FACTORS = (1 / 3, 2 / 3, 1.0, 5 / 3, 8 / 3)
"""Tolerances that the sensitivity is shown at, in units of a region's own."""


def decided(rows: pd.DataFrame) -> Survival:
    """Kaplan and Meier's estimate over the rows of one region and tolerance, in indices from 0.

    A shape that changes to the end was watched to the last step without being decided; one that is not there at the end
    is left out, since there is nothing that could have been decided.
    """
    rows = rows[rows["reason"] != "no shape at the end"]
    happened = rows["index"].notna().to_numpy()
    times = np.where(happened, rows["index"].to_numpy(float), rows["steps"].to_numpy(float) - 1)
    return kaplan_meier(times, happened, rows["prompt"].to_numpy())


def summarise(rows: pd.DataFrame, seed: int = 0, draws: int = 1000) -> pd.DataFrame:
    """One row for each region, tolerance and group (all, good, bad).

    Columns
    -------
    region, unit, tolerance, group
    n, missing : samples with and without the shape at the end
    undecided, from_the_start : samples of n that change to the end, and that never change
    median_step, steps_hi, steps_lo : what remains when half are decided, and its 95% interval (draws of prompts)
    median_sigma, snr_db : at the median
    difference, difference_lo, difference_hi, p : at the row of group bad, bad minus good of the same prompt in index,
        undecided taken as the last step; its interval over prompts; p of that against permutations within prompts
    reason : why there is no median
    """
    summary = []
    for (region, unit, tolerance), part in rows.groupby(["region", "unit", "tolerance"], sort=False):
        groups = {"all": part, "good": part[part["bad"] == 0], "bad": part[part["bad"] == 1]}
        for group, some in groups.items():
            row = {"region": region, "unit": unit, "tolerance": tolerance, "group": group}
            row |= _of_group(some, seed, draws)
            row |= _compared(part, seed) if group == "bad" else {}
            summary.append(row)
    return pd.DataFrame(summary)


def decided_by(run: Run, region: str | None = None) -> int:
    """The step at which half of a region's shapes are decided, at the region's own tolerance, as `commit` found it.

    Without a name it is the region that the noun of the run's subject names.

    Raises
    ------
    HandscopeError
        It was not measured, or half were not decided before the end.
    """
    path = run.analysis_dir / "commitment_summary.csv"
    if not path.exists():
        raise HandscopeError(f"It is not known when samples of {run.path} are decided: run commit, or give a window.")
    region = subject_of(run).noun if region is None else region
    rows = pd.read_csv(path)
    rows = rows[(rows["region"] == region) & (rows["group"] == "all")].sort_values("tolerance")
    median = rows["median_step"].iloc[FACTORS.index(1.0)] if len(rows) == len(FACTORS) else np.nan
    if not median > 0:
        raise HandscopeError(f"{path} does not say when half of the region {region!r} are decided: give a window.")
    return int(median)


def _of_group(rows: pd.DataFrame, seed: int, draws: int) -> dict:
    there = rows[rows["reason"] != "no shape at the end"]
    counts = {
        "n": len(there),
        "missing": len(rows) - len(there),
        "undecided": int(there["index"].isna().sum()),
        "from_the_start": int((there["index"] == 0).sum()),
    }
    empty = dict.fromkeys(("median_step", "steps_hi", "steps_lo", "median_sigma", "snr_db"), np.nan)
    if not len(there):
        return counts | empty | {"reason": "no sample with the shape at the end"}
    median = decided(there).median
    if median is None:
        return counts | empty | {"reason": "half were not decided before the end"}
    early, late = interval(_drawn_medians(there, seed, draws))
    at = there[there["index"] == median].iloc[0]
    return counts | {
        "median_step": at["step"],
        "steps_hi": at["steps"] - early,
        "steps_lo": at["steps"] - late,
        "median_sigma": at["sigma"],
        "snr_db": at["snr_db"],
        "reason": "",
    }


def _drawn_medians(rows: pd.DataFrame, seed: int, draws: int) -> NDArray[np.float64]:
    """Kaplan and Meier's median index in draws of prompts, (draws,); the number of steps where it is past the end."""
    steps, group = int(rows["steps"].iloc[0]), codes(rows["prompt"])
    happened = rows["index"].notna().to_numpy()
    time = rows["index"].fillna(steps - 1).to_numpy(int)
    counts = np.zeros((2, group.max() + 1, steps))
    np.add.at(counts, (happened.astype(int), group, time), 1)
    weights = bootstrap_weights(group, draws, seed)
    left, events = (weights @ part for part in counts)
    risk = (left + events)[:, ::-1].cumsum(1)[:, ::-1]
    share = np.cumprod(1 - events / np.maximum(risk, 1), axis=1)
    below = np.concatenate([share <= 0.5, np.ones((draws, 1), bool)], 1)
    return below.argmax(1).astype(np.float64)


def _compared(rows: pd.DataFrame, seed: int, permutations: int = 1000) -> dict[str, float]:
    """Bad minus good of the same prompt in index, its interval over prompts, and its two-sided p.

    Each prompt's difference of means counts as its number of pairs over its number of samples, what it tells of a
    difference. The p is of that same number, against labels permuted within prompts; the interval is of its sum over
    prompts, linearised, with Student's t.
    """
    rows = rows[(rows["reason"] != "no shape at the end") & rows["bad"].notna()]
    y, prompt = rows["bad"].to_numpy(float), codes(rows["prompt"])
    empty = dict.fromkeys(("difference", "difference_lo", "difference_hi", "p"), np.nan)
    size, bad = np.bincount(prompt), np.bincount(prompt, y)
    mixed = (bad > 0) & (bad < size)
    if not mixed.any():
        return empty
    index = rows["index"].fillna(rows["steps"] - 1).to_numpy(float)
    weight = np.where(mixed, bad * (size - bad) / size, 0)
    of = np.eye(len(size))[prompt]  # a prompt's labels are only ever permuted, so that its counts stay

    def differences(labels: NDArray[np.float64]) -> NDArray[np.float64]:
        sums, total = (labels * index) @ of, np.bincount(prompt, index)
        return np.where(mixed, sums / np.maximum(bad, 1) - (total - sums) / np.maximum(size - bad, 1), 0)

    own = differences(y[None])[0]
    observed = float(weight @ own / weight.sum())
    null = differences(permuted_labels(y, rows["prompt"].to_numpy(), permutations, seed, within=True)) @ weight
    p = (1 + int((np.abs(null / weight.sum()) >= abs(observed) - 1e-12).sum())) / (1 + len(null))
    m = int(mixed.sum())
    spread = np.sqrt(m / max(m - 1, 1) * np.square(weight * (own - observed) / weight.sum()).sum())
    half = student.ppf(0.975, m - 1) * spread if m > 1 else np.inf
    return {"difference": observed, "difference_lo": observed - half, "difference_hi": observed + half, "p": p}
