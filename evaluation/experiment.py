"""The experiment: every arm on the same prompts and seeds, judged, compared with the baseline and with its controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.paired import paired_rates
from ..anatomy.read.embedding import landmark_features
from ..errors import HandscopeError
from ..files import write_csv
from ..labeling.subject import subject_of
from ..models.model import Model
from ..progress import Progress, quiet
from ..run.folder import Run, sample_id
from ..run.part import Part, PartsLeftError
from .arms import Arm, arm_run, begin_arm, draw_arm
from .contrasts import contrasts
from .metrics.kernels import kid
from .quality import SHIFTS, appearance, diversity, shifts
from .rates import MAIN, PICTURE, measured
from .scored import Scored, of_verdicts, pictures_of

Judged = Callable[[NDArray[np.uint8], str], float]
"""From a picture (height, width, 3) and its prompt to 1 bad, 0 good, NaN where it cannot be told."""

Silhouette = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]


def experiment(
    model: Model,
    folder: Path,
    arms: Sequence[Arm],
    pairs: Sequence[tuple[str, int]],
    judge: Judged,
    silhouette: Silhouette,
    reference: NDArray[np.uint8],
    baseline: dict[str, Any],
    batch_size: int = 16,
    seed: int = 0,
    shard: Part | None = None,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Draw every arm, judge every picture, and compare.

    Parameters
    ----------
    folder : Path
        One run folder an arm, and ``arms.csv``. What is drawn already is kept.
    arms : sequence of Arm, the baseline first
    pairs : sequence of (prompt, seed), that nothing was fitted to
    judge : a judge that no arm optimises
    silhouette : the pixels of a picture that count
    reference : uint8 array of shape (m, height, width, 3), what pictures should look like
    baseline : `steps` and `guidance` of the baseline, and whatever else decides what all arms draw: pictures that were
        drawn with another, or with other settings of the arm, are not taken for these
    shard : (i, n), counted from 1: this machine's part of the pictures of each arm

    Raises
    ------
    PartsLeftError
        This part is drawn, and pictures of other parts are not there yet.
    HandscopeError
        Arms share a name, or the pictures in the folder were drawn with other settings.

    Returns
    -------
    DataFrame, one row an arm: see `compared`
    """
    if len({arm.name for arm in arms}) < len(arms) or not arms or not pairs:
        raise HandscopeError(f"Expected arms with a name each, and pairs, found {len(arms)} arms, {len(pairs)} pairs.")
    runs = {}
    for arm in arms:
        run = arm_run(folder, arm.name)
        begin_arm(arm, run, baseline)
        draw_arm(model, arm, run, pairs, batch_size, shard, progress)
        runs[arm.name] = run
    names = {sample_id(prompt, seed) for prompt, seed in pairs}
    if left := sum(len(names - run.metadata().keys()) for run in runs.values()):
        raise PartsLeftError(
            f"This part of {folder} is drawn, and {left} pictures are left for others: once these are there, run the "
            "same command again, or without --shard."
        )
    for run in runs.values():
        run.put_together(sample_id(prompt, seed) for prompt, seed in pairs)
    table = compared(arms, runs, judge, silhouette, landmark_features(reference), seed, progress)
    write_csv(folder / "arms.csv", table)
    return table


def compared(
    arms: Sequence[Arm],
    runs: dict[str, Run],
    judge: Judged,
    silhouette: Silhouette,
    reference: NDArray[np.float32],
    seed: int = 0,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """One row an arm.

    Columns
    -------
    arm, family
    the fields of `Paired` : against the baseline; q, the false discovery rate of p over all arms but controls
    control_p : the largest p of the paired test against one of its controls, 1 where that is not above it; empty
        without controls. Small only if the arm is better than every one of them (an intersection-union test, which
        needs no correction for their number)
    kernel_distance, kd_lo, kd_hi : to the reference, of the landmark network's features; kd_ratio over the baseline's
    diversity : mean distance of features between pictures of one prompt, over the baseline's
    calls, seconds, memory : for each picture, and the most MB that a batch took; calls_per_good; share, the mean length
        of what was added
    the names in `SHIFTS` : how far each moved, in standard deviations of the baseline's
    """
    first = arms[0].name
    samples = runs[first].samples()
    names, prompts = samples["sample"].tolist(), samples["prompt"].to_numpy()
    features, looks, judged, rows = {}, {}, [], []
    for done, arm in enumerate(arms):
        progress("judge", done, len(arms))
        pictures = np.stack([runs[arm.name].image(name) for name in names])
        bad = np.array([judge(picture, prompt) for picture, prompt in zip(pictures, prompts)])
        judged.append(of_verdicts(arm.name, names, bad))
        features[arm.name] = landmark_features(pictures)
        looks[arm.name] = appearance(pictures, [silhouette(picture) for picture in pictures])
    shown = {arm.name: runs[arm.name] for arm in arms}
    whole = pictures_of(shown, dict.fromkeys(shown, names), subject_of(runs[first]))
    scored = Scored(pd.concat(judged, ignore_index=True), whole, "judge")
    controls = {arm.name: arm.controls for arm in arms}
    untested = [arm.name for arm in arms if arm.family == "control"]
    apart = contrasts(scored, measured(scored), first, controls, untested, seed)
    apart = apart[(apart["unit"] == PICTURE) & (apart["measure"] == MAIN)].set_index("arm")
    seen = runs[first].prompts_as_seen()
    prompts = np.array([seen[prompt] for prompt in prompts])
    usual = diversity(features[first], prompts)
    own = asdict(paired_rates(judged[0]["bad"], judged[0]["bad"], prompts))  # the baseline beside itself
    for arm in arms:
        metadata = pd.DataFrame(runs[arm.name].metadata().values()).set_index("sample").loc[names]
        rates = own if arm.name == first else apart.loc[arm.name, list(own)].to_dict()
        distance = kid(features[arm.name], reference, prompts)
        calls, good = float(metadata["calls"].mean()), 1 - rates["after"]
        rows.append(
            {"arm": arm.name, "family": arm.family}
            | rates
            | {
                "control_p": np.nan if arm.name == first else apart.loc[arm.name, "control_p"],
                "kernel_distance": distance.value,
                "kd_lo": distance.lo,
                "kd_hi": distance.hi,
                "diversity": diversity(features[arm.name], prompts) / usual,
                "calls": calls,
                "calls_per_good": calls / good if good else np.inf,
                "seconds": float(metadata["seconds"].median()),
                "memory": float(metadata["memory"].astype(float).max()),
                "share": float(metadata["share"].astype(float).mean()),
            }
            | shifts(looks[first], looks[arm.name])[list(SHIFTS)].to_dict()
        )
    progress("judge", len(arms), len(arms))
    table = pd.DataFrame(rows)
    table["kd_ratio"] = table["kernel_distance"] / table["kernel_distance"].iloc[0]
    table["q"] = table["arm"].map(apart["q"])
    return table
