"""A generation made again from prompt and seed, and the proof that it is the one whose image was labelled."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import HandscopeError
from ..files import atomic
from ..models.model import Model
from ..run.folder import Run
from ..run.trajectory import Trajectory
from .address import Plan
from .capture import Tokens, capture
from .generate import draw
from .seen import Seen
from .worklist import Batch

COLUMNS = ("sample", "reason", "psnr")


@dataclass(frozen=True)
class SetAside:
    """A sample whose generation came out otherwise when it was made again, so that its labels are not its own.

    Attributes
    ----------
    sample, reason : str
    psnr : float
        Peak signal-to-noise ratio of the new image to the old, in dB; infinite where only the noise differs, NaN where
        the old image cannot be read (then the reason says so).
    """

    sample: str
    reason: str
    psnr: float


def regenerate(
    model: Model, run: Run, plan: Plan, batch: Batch, tokens: Tokens = None
) -> tuple[Seen, list[Trajectory], list[SetAside]]:
    """Run the generation of a batch again with capture hooks, and compare hashes of noise and image with the run's.

    Parameters
    ----------
    batch : Batch
        `together` must be the batch size of the generation: at another one images differ in their last bits.
    tokens : bool array, optional
        As in `capture`.

    Returns
    -------
    seen : Seen
    trajectories : list of Trajectory, one a sample
    differing : list of SetAside
        Samples of the batch whose activations in `seen` are another generation's.
    """
    first = batch.rows[0]
    pairs = [(row["prompt"], row["seed"]) for row in batch.filled()]
    with capture(model.transformer, plan, tokens) as seen:
        drawn = draw(model, pairs, first["steps"], first["guidance"], first["height"], first["width"])
    assert drawn.trajectories is not None
    found = zip(batch.rows, drawn.noise_sha256, drawn.image_sha256, drawn.images)
    differing = [aside for row, *made in found if (aside := _compare(run, row, *made)) is not None]
    return seen, drawn.trajectories, differing


def set_aside(run: Run) -> pd.DataFrame:
    """Samples of a run that were set aside and have no shard: sample, reason, psnr (dB); empty where there are none."""
    rows: dict[str, tuple[str, str, float]] = {}
    for path in sorted(run.activations_dir.glob("set_aside*.csv")):
        rows.update({entry.sample: (entry.sample, entry.reason, entry.psnr) for entry in _read(path)})
    there = [row for sample, row in rows.items() if not (run.activations_dir / "shards" / f"{sample}.h5").exists()]
    return pd.DataFrame(there, columns=list(COLUMNS)).astype({"psnr": float})


def write_set_aside(run: Run, found: list[SetAside], shard: tuple[int, int] | None = None) -> None:
    """Replace the list of samples set aside by this part of an extraction; each part of one has its own file."""
    name = "set_aside.csv" if shard is None else f"set_aside-{shard[0]}-of-{shard[1]}.csv"
    path = run.activations_dir / name
    if not found:
        path.unlink(missing_ok=True)
        return
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((entry.sample, entry.reason, f"{entry.psnr:.2f}") for entry in found)


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 images in dB; infinite where they are the same."""
    error = np.mean((image.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _compare(run: Run, row: dict[str, Any], noise_sha256: str, image_sha256: str, image: np.ndarray) -> SetAside | None:
    differs = [
        what for what, found in (("noise", noise_sha256), ("image", image_sha256)) if found != row[f"{what}_sha256"]
    ]
    if not differs:
        return None
    reason = f"another {' and another '.join(differs)}"
    try:
        return SetAside(row["sample"], reason, psnr(image, run.image(row["sample"])))
    except HandscopeError:
        return SetAside(row["sample"], f"{reason}; the image it had cannot be read", float("nan"))


def _read(path: Path) -> list[SetAside]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [SetAside(row["sample"], row["reason"], float(row["psnr"])) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise HandscopeError(f"{path} is damaged: remove it, and the next extraction writes it anew.") from error
