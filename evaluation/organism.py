"""The experiment on the organism: its judge, its renders as the reference, and every arm of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.table import sample_table
from ..errors import HandscopeError
from ..extract.models import Model
from ..extract.run import Run
from ..files import sha256
from ..organism.judge import Judge
from ..organism.render import render_dataset
from ..organism.silhouette import silhouette
from ..progress import Progress, quiet
from .arms import Arm
from .catalogue import Setting, arms
from .experiment import experiment
from .knowledge import learn

FIRST_SEED = 2000  # of the pairs: labelled samples have smaller ones
SPARE = 1_000_000  # of the seeds that triage tries beside a pair's own
REFERENCE, REFERENCE_SEED = 1000, 77


def mend(
    model: Model,
    run: Run,
    seeds: int = 13,
    block: str = "single.1",
    window: Sequence[int] = tuple(range(18, 9, -1)),
    looks: Sequence[int] = (18, 16, 14, 12, 10, 8),
    names: Sequence[str] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Draw every arm on the run's prompts with new seeds, and say what it mended.

    Parameters
    ----------
    run : Run
        Of the organism, with trajectories and labels: what the arms use is fitted to it, held out by prompt. The
        arms' own run folders lie in its ``mend/``.
    seeds : int
        For each prompt; 13 of 32 prompts are 416 pairs.
    block, window : str, sequence of int
        Where and in which steps steering and guidance work.
    looks : sequence of int
        Steps at which triage may look.
    names : sequence of str, optional
        Only arms whose names begin so, with their controls; the baseline always.

    Returns
    -------
    DataFrame, see `handscope.evaluation.experiment.compared`; also ``mend/arms.csv``

    Raises
    ------
    HandscopeError
        The run is not the organism's, a name is no arm's, or as in `learn`.
    """
    if run.settings.get("provenance", {}).get("name") != "organism":
        raise HandscopeError(
            f"The judge of this experiment knows the organism's pictures only, and {run.path} is of another model: "
            "build its arms with handscope.evaluation.experiment and a judge of its own."
        )
    generation = run.settings["generation"]
    settings: dict[str, Any] = {key: generation[key] for key in ("steps", "guidance", "height", "width")}
    progress("learn", 0, 1)
    known = learn(model, run, block, window[len(window) // 2], looks, seed=seed, progress=progress)
    chosen = _named(arms(Setting(model, **settings, known=known, window=tuple(window), spare=SPARE)), names)
    prompts = sorted(run.samples()["prompt"].unique())
    pairs = [(prompt, FIRST_SEED + i) for i in range(seeds) for prompt in prompts]
    judge = Judge.load()

    def judged(picture: NDArray[np.uint8], prompt: str) -> float:
        return float(judge.verdict(picture, prompt)[1] > 0.5)

    reference = render_dataset(REFERENCE, REFERENCE_SEED, settings["height"]).images.permute(0, 2, 3, 1).numpy()
    labels = sample_table(run)[["sample", "verdict"]].to_numpy().tolist()
    baseline = {key: settings[key] for key in ("steps", "guidance")} | {
        "model": model.weight_hash,
        "labels": sha256(repr(labels).encode()),
        "block": block,
        "window": list(window),
        "looks": list(looks),
        "seed": seed,
    }
    folder = run.path / "mend"
    return experiment(
        model, folder, chosen, pairs, judged, silhouette, reference, baseline, batch_size, seed, progress
    )


def _named(every: list[Arm], names: Sequence[str] | None) -> list[Arm]:
    """The baseline, the arms whose names begin with one of `names`, and their controls."""
    if names is None:
        return every
    for name in names:
        if not any(arm.name.startswith(name) for arm in every):
            there = ", ".join(arm.name for arm in every)
            raise HandscopeError(f"No arm's name begins with {name!r}; there are {there}.")
    wanted = [arm for arm in every if any(arm.name.startswith(name) for name in names)]
    kept = {every[0].name, *(arm.name for arm in wanted), *(control for arm in wanted for control in arm.controls)}
    return [arm for arm in every if arm.name in kept]
