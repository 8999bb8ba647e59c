"""The experiment on the organism: its judge, its renders as the reference, and every arm of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import HandscopeError
from ...evaluation.arms import Arm
from ...evaluation.decided import decided_by
from ...evaluation.experiment import experiment
from ...files import sha256
from ...labeling.table import sample_table
from ...models.embedded import organism_of
from ...models.model import Model
from ...progress import Progress, quiet
from ...run.folder import Run
from ...run.part import Part, check_part
from ...run.prompts import own_seed
from ..judge import Judge
from ..render import render_dataset
from ..silhouette import silhouette
from .catalogue import chosen_arms, plain_arms, triage_arms
from .interventions import Setting
from .lessons import learn
from .pilot import pilot

PILOT_SEED, FIRST_SEED = 1900, 2000  # of each prompt's pairs: labelled samples come before
SPARE = 1_000_000  # of the seeds that triage tries beside a pair's own
REFERENCE, REFERENCE_SEED = 1000, 77
BLOCKS = ("single.3", "single.1", "double.1")
LOOKS = (19, 18, 16, 14, 12, 10)


def mend(
    model: Model,
    run: Run,
    seeds: int = 13,
    pilot_seeds: int = 3,
    blocks: Sequence[str] = BLOCKS,
    window: Sequence[int] | None = None,
    looks: Sequence[int] = LOOKS,
    names: Sequence[str] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    shard: Part | None = None,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Draw every arm on the run's prompts with new seeds, and say what it mended.

    Parameters
    ----------
    run : Run
        Of the organism, with trajectories and labels: what the arms use is fitted to it, held out by prompt. The
        arms' own run folders lie in its ``mend/``, those of the pilot in ``mend/pilot/``.
    seeds, pilot_seeds : int
        For each prompt: 13 of 32 prompts are 416 pairs. The pilot, which chooses interventions and strengths, has its
        own.
    blocks : sequence of str
        Where steering and guidance work: in the first, and for interventions in several blocks in all.
    window : sequence of int, optional
        Steps in which they work; by default from the second step to the one at which half of the hands' skeletons are
        decided, which ``handscope commit`` has to have measured.
    looks : sequence of int
        Steps at which triage may look.
    names : sequence of str, optional
        Only arms whose names begin so, with their controls; the baseline always. The pilot is left out where none of
        them needs it.
    shard : tuple of int, optional
        (i, n), counted from 1: this machine's part of the pictures, by their names. The pilot's are drawn first, and
        all of them have to be there before the others are.

    Returns
    -------
    DataFrame, see `handscope.evaluation.experiment.compared`; also ``mend/arms.csv``

    Raises
    ------
    PartsLeftError
        This part is drawn, and what comes next needs the others.
    HandscopeError
        The run is no organism's, no window is given or measured, a name is no arm's, or as in `learn`.
    """
    if (organism := organism_of(run.settings)) is None:
        raise HandscopeError(
            f"The judge of this experiment knows the organisms' pictures only, and {run.path} is of another model: "
            "build its arms with handscope.evaluation.experiment and a judge of its own."
        )
    check_part(shard)
    setting = setting_of(model, run, blocks, window, looks, seed, progress)
    settings = setting.generation
    baseline = {key: settings[key] for key in ("steps", "guidance")} | {"model": model.weight_hash}
    prompts = sorted(run.samples()["prompt"].unique())
    judge = Judge.of(organism.name)

    def judged(picture: NDArray[np.uint8], prompt: str) -> float:
        return float(judge.verdict(picture, prompt)[1] > 0.5)

    reference = render_dataset(REFERENCE, REFERENCE_SEED, settings["height"]).images.permute(0, 2, 3, 1).numpy()

    def compare(folder: Path, some: Sequence[Arm], first: int, of_each: int) -> pd.DataFrame:
        pairs = [(prompt, own_seed(prompt, first + i)) for i in range(of_each) for prompt in prompts]
        return experiment(
            model,
            folder,
            some,
            pairs,
            judge=judged,
            silhouette=silhouette,
            reference=reference,
            baseline=baseline,
            batch_size=batch_size,
            seed=seed,
            shard=shard,
            progress=progress,
        )

    folder = run.path / "mend"
    plain, triage, guided = plain_arms(setting), triage_arms(setting), []
    if names is None or not all(any(arm.name.startswith(name) for arm in [*plain, *triage]) for name in names):
        _, chosen = pilot(setting, folder / "pilot", lambda at, some: compare(at, some, PILOT_SEED, pilot_seeds))
        guided = chosen_arms(setting, chosen)
    return compare(folder, _named([*plain, *guided, *triage], names), FIRST_SEED, seeds)


def setting_of(
    model: Model,
    run: Run,
    blocks: Sequence[str] = BLOCKS,
    window: Sequence[int] | None = None,
    looks: Sequence[int] = LOOKS,
    seed: int = 0,
    progress: Progress = quiet,
) -> Setting:
    """What the arms share that a labelled run teaches; parameters and errors as of `mend`."""
    generation = run.settings["generation"]
    settings: dict[str, Any] = {key: generation[key] for key in ("steps", "guidance", "height", "width")}
    worked = list(window) if window else list(range(settings["steps"] - 1, decided_by(run) - 1, -1))
    lessons = learn(model, run, blocks, worked[len(worked) // 2], looks, seed=seed, progress=progress)
    labels = sample_table(run)[["sample", "verdict"]].to_numpy().tolist()
    taught = {"labels": sha256(repr(labels).encode()), "seed": seed}
    return Setting(model, **settings, lessons=lessons, window=tuple(worked), spare=SPARE, taught=taught)


def _named(every: list[Arm], names: Sequence[str] | None) -> list[Arm]:
    """The baseline, the arms whose names begin with one of `names`, and their controls."""
    if names is None:
        return every
    for name in names:
        if not any(arm.name.startswith(name) for arm in every):
            there = ", ".join(arm.name for arm in every)
            raise HandscopeError(f"No arm's name begins with {name!r}; there are {there}.")
    named = [arm for arm in every if any(arm.name.startswith(name) for name in names)]
    kept = {every[0].name, *(arm.name for arm in named), *(control for arm in named for control in arm.controls)}
    return [arm for arm in every if arm.name in kept]
