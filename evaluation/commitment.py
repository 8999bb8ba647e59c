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
from ..errors import HandscopeError
from ..files import atomic, check_readable, refuse_unusable, write_csv
from ..labeling.database.labels import Labels
from ..labeling.table import as_seen
from ..models.clean import decibels
from ..models.model import Model
from ..progress import Progress, quiet
from ..run.folder import Run
from ..run.trajectory import Trajectory
from .decided import FACTORS, summarise
from .regions import Pictures, Region, check_regions

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


def _chosen(run: Run, samples: int) -> pd.DataFrame:
    """Samples in the order in which prompts take turns, with `bad` 1, 0 or NaN (no sure verdict)."""
    table = as_seen(run)
    if table.empty:
        raise HandscopeError(f"Expected samples in {run.samples_dir}, found none: run generate first.")
    turn = table.groupby("prompt").cumcount()
    table = table.loc[turn.sort_values(kind="stable").index].head(samples)
    missing = [sample for sample in table["sample"] if not run.trajectory_path(sample).exists()]
    if missing:
        run.check_drawn("when it was decided")
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
    measured = _measured_before(path)
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


def _measured_before(path: Path) -> dict[str, NDArray]:
    """What was measured before; nothing where there is no such file, or a damaged one."""
    try:
        check_readable(path)
        with safe_open(path, "numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open has no __iter__)
    except (OSError, SafetensorError) as error:
        refuse_unusable(error, path)
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
