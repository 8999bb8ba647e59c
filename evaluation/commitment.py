"""When the regions of a run's pictures are decided: from its trajectories, without running the transformer again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..analysis.commitment import commitment, literal
from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import bootstrap_weights, interval
from ..analysis.statistics.nulls import permuted_labels
from ..analysis.statistics.survival import Survival, kaplan_meier
from ..errors import HandscopeError
from ..files import atomic, write_csv
from ..labeling.database.labels import Labels
from ..labeling.subject import subject_of
from ..models.clean import decibels
from ..models.model import Model
from ..progress import Progress, quiet
from ..run.folder import Run
from ..run.trajectory import Trajectory
from .regions import Pictures, Region, check_regions

FACTORS = (1 / 3, 2 / 3, 1.0, 5 / 3, 8 / 3)
"""Tolerances that the sensitivity is shown at, in units of a region's own."""
COLUMNS = (
    "sample", "prompt", "bad", "region", "unit", "tolerance", "index", "index_at_latest", "step", "sigma", "snr_db",
    "literal_step", "found", "steps", "reason",
)  # fmt: skip


def commit(
    model: Model,
    run: Run,
    regions: Sequence[Region],
    samples: int = 200,
    seed: int = 0,
    progress: Progress = quiet,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """When each region of each sample was decided, and what that comes to.

    The predicted clean pictures of all steps come from the saved latents: a Euler step solved for its velocity. What
    was measured before is kept in ``analysis/commitment.safetensors``, so that a run that was killed goes on.

    Parameters
    ----------
    model : Model
        The one that made the run; its decoder alone is used.
    regions : sequence of Region
        What is looked at in each picture.
    samples : int
        How many are looked at at most, as many of each prompt as can be.
    seed : int
        Of the bootstrap and of the permutations.

    Returns
    -------
    rows : DataFrame
        One row for each sample, region and tolerance, the columns `COLUMNS`: ``index`` counts from 0, the noisiest
        step, and is empty where ``reason`` says why; ``step`` is what remains. Also ``analysis/commitment.csv``.
    summary : DataFrame
        See `summarise`. Also ``analysis/commitment_summary.csv``.

    Raises
    ------
    HandscopeError
        The run has no samples or no trajectories, or two regions share a name.
    """
    table = _chosen(run, samples)
    check_regions(regions)
    distances = _measured(model, run, table, regions, progress)
    path = run.trajectory(table["sample"].iloc[0])
    rows = _rows(table, regions, distances, path)
    summary = summarise(rows, seed)
    write_csv(run.analysis_dir / "commitment.csv", rows)
    write_csv(run.analysis_dir / "commitment_summary.csv", summary)
    return rows, summary


def predicted_pictures(model: Model, trajectory: Trajectory, height: int, width: int) -> Pictures:
    """The predicted clean picture at each step, uint8 of shape (steps, height, width, 3), the noisiest first."""
    clean = torch.stack([trajectory.x0(i) for i in range(len(trajectory.timesteps))])
    pictures = model.decode(clean, height, width).permute(0, 2, 3, 1).cpu().numpy()
    return (pictures * 255).round().astype(np.uint8)


def decided(rows: pd.DataFrame) -> Survival:
    """Kaplan and Meier's estimate over the rows of one region and tolerance, in indices from 0.

    A shape that changes to the end was watched to the last step without being decided; one that is not there at the end
    is left out, since there is nothing that could have been decided.
    """
    rows = rows[rows["reason"] != "no shape at the end"]
    happened = rows["index"].notna().to_numpy()
    times = np.where(happened, rows["index"].to_numpy(float), rows["steps"].to_numpy(float) - 1)
    return kaplan_meier(times, happened)


def summarise(rows: pd.DataFrame, seed: int = 0, draws: int = 1000) -> pd.DataFrame:
    """One row for each region, tolerance and group (all, good, bad).

    Columns
    -------
    region, unit, tolerance, group
    n, missing : samples with and without the shape at the end
    undecided, from_the_start : samples of n that change to the end, and that never change
    median_step, steps_hi, steps_lo : what remains when half are decided, and its 95% interval (draws of prompts)
    median_sigma, snr_db : at the median
    difference, p : at the row of group bad, bad minus good in mean index, undecided taken as the last step; p against
        permutations within prompts
    reason : why there is no median
    """
    summary = []
    for (region, unit, tolerance), part in rows.groupby(["region", "unit", "tolerance"], sort=False):
        groups = {"all": part, "good": part[part["bad"] == 0], "bad": part[part["bad"] == 1]}
        for group, some in groups.items():
            row = {"region": region, "unit": unit, "tolerance": tolerance, "group": group}
            row |= _of_group(some, seed, draws)
            row |= _compared(part, seed) if group == "bad" else {"difference": np.nan, "p": np.nan}
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
    """Bad minus good in mean index, and its two-sided p against labels permuted within prompts."""
    rows = rows[(rows["reason"] != "no shape at the end") & rows["bad"].notna()]
    y = rows["bad"].to_numpy(float)
    if not 0 < y.sum() < len(y):
        return {"difference": np.nan, "p": np.nan}
    index = rows["index"].fillna(rows["steps"] - 1).to_numpy(float)

    def difference(labels: NDArray[np.float64]) -> NDArray[np.float64]:
        return labels @ index / labels.sum(-1) - (1 - labels) @ index / (1 - labels).sum(-1)

    observed = float(difference(y[None])[0])
    null = difference(permuted_labels(y, rows["prompt"].to_numpy(), permutations, seed, within=True))
    p = (1 + int((np.abs(null) >= abs(observed) - 1e-12).sum())) / (1 + len(null))
    return {"difference": observed, "p": p}


def _chosen(run: Run, samples: int) -> pd.DataFrame:
    """Samples in the order in which prompts take turns, with `bad` 1, 0 or NaN (no sure verdict)."""
    table = run.samples()
    if table.empty:
        raise HandscopeError(f"Expected samples in {run.samples_dir}, found none: run generate first.")
    turn = table.groupby("prompt").cumcount()
    table = table.loc[turn.sort_values(kind="stable").index].head(samples)
    missing = [sample for sample in table["sample"] if not run.trajectory_path(sample).exists()]
    if missing:
        raise HandscopeError(
            f"{len(missing)} of {len(table)} samples have no trajectory ({missing[0]} is the first): predicted clean "
            "pictures are read from trajectories. Run generate again with trajectories."
        )
    verdicts = Labels(run.labels_path).table()
    verdicts["bad"] = verdicts["bad"].where(verdicts["sure"])
    return table.merge(verdicts[["sample", "bad"]], on="sample", how="left")


def _measured(
    model: Model, run: Run, table: pd.DataFrame, regions: Sequence[Region], progress: Progress
) -> dict[str, dict[str, NDArray]]:
    """Distances between steps, by region and sample."""
    path = run.analysis_dir / "commitment.safetensors"
    measured = _known(path)
    left = [row for row in table.itertuples(index=False) if any(_key(r, row) not in measured for r in regions)]
    for done, row in enumerate(left):
        progress("commit", len(table) - len(left) + done, len(table))
        pictures = predicted_pictures(model, run.trajectory(row.sample), int(row.height), int(row.width))
        for region in regions:
            measured[_key(region, row)] = region.distances(pictures).astype(np.float32)
        if done % 16 == 15 or done == len(left) - 1:
            with atomic(path) as temporary:
                save_file(measured, temporary)
    progress("commit", len(table), len(table))
    return {
        region.name: {row.sample: measured[_key(region, row)] for row in table.itertuples(index=False)}
        for region in regions
    }


def _key(region: Region, row: Any) -> str:
    return f"{region.name}/{row.sample}/{row.image_sha256[:16]}"


def _known(path: Path) -> dict[str, NDArray]:
    """What was measured before; nothing where there is no such file, or a damaged one."""
    try:
        with safe_open(path, "numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open has no __iter__)
    except (OSError, SafetensorError):
        return {}


def _rows(
    table: pd.DataFrame, regions: Sequence[Region], distances: dict[str, dict[str, NDArray]], path: Trajectory
) -> pd.DataFrame:
    sigmas, timesteps, steps = path.sigmas.tolist(), path.timesteps.numpy(), len(path.timesteps)
    rows = []
    for row in table.itertuples(index=False):
        for region in regions:
            between = distances[region.name][row.sample]
            for factor in FACTORS:
                tolerance = factor * region.tolerance
                decision = commitment(between, tolerance)
                least = literal(between, timesteps, tolerance)
                index = decision.index
                rows.append(
                    {
                        "sample": row.sample,
                        "prompt": row.prompt,
                        "bad": row.bad,
                        "region": region.name,
                        "unit": region.unit,
                        "tolerance": round(tolerance, 6),
                        "index": np.nan if index is None else index,
                        "index_at_latest": np.nan if decision.at_latest is None else decision.at_latest,
                        "step": np.nan if index is None else steps - index,
                        "sigma": np.nan if index is None else sigmas[index],
                        "snr_db": np.nan if index is None else decibels(sigmas[index]),
                        "literal_step": np.nan if least is None else steps - least,
                        "found": decision.found,
                        "steps": steps,
                        "reason": decision.reason,
                    }
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))
