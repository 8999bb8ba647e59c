"""A generation made again from prompt and seed, and the proof that it is the one whose image was labelled."""

from typing import Any

import numpy as np

from ..errors import HandscopeError
from ..models.model import Model
from ..run.folder import Run
from ..run.trajectory import Trajectory
from .address import Plan
from .capture import Tokens, capture
from .generate import draw
from .seen import Seen
from .store.aside import SetAside
from .worklist import Batch


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
