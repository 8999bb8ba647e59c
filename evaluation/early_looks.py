"""Which early look selects good samples best: selectors fitted to labels, held out by prompt, at their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..analysis.statistics.auc import auc
from ..analysis.statistics.folds import grouped_folds
from ..analysis.statistics.intervals import bootstrap_auc
from ..errors import HandscopeError
from ..extract.replay import replay
from ..files import write_csv
from ..guidance.selectors import FEATURES, ByPrompt, LinearSelector, features
from ..guidance.triage import Look, threshold_for
from ..labeling.table import labelled, sample_table
from ..probes.nested import GRID, nested_scores
from ..probes.ridge import RidgeProbe
from ..progress import Progress, quiet
from .reseed import Outcome, reseed

if TYPE_CHECKING:
    from ..models.model import Model
    from ..run.folder import Run

BATCH = 16


@dataclass(frozen=True, eq=False)
class Folded:
    """Surely labelled samples, dealt into folds of prompts.

    Attributes
    ----------
    bad : float array of shape (n,), 1 bad and 0 good
    prompts : array of shape (n,)
    fold : int array of shape (n,)
    seed : of the folds, and of those inside the training folds
    """

    bad: NDArray[np.float64]
    prompts: NDArray[Any]
    fold: NDArray[np.intp]
    seed: int

    @classmethod
    def of(cls, table: pd.DataFrame, folds: int, seed: int) -> Folded:
        prompts = table["prompt"].to_numpy()
        return cls(table["bad"].to_numpy(float), prompts, grouped_folds(prompts, folds, seed), seed)


@dataclass(frozen=True, eq=False)
class FittedLook:
    """A feature at a step, and how it selects.

    Attributes
    ----------
    feature, step : str, int
    scores : float array of shape (n,), held-out log-odds of bad
    fold : int array of shape (n,)
    l2 : dict of float, the penalty chosen for each fold
    by_prompt : ByPrompt, for each prompt the selector that has not seen it
    """

    feature: str
    step: int
    scores: NDArray[np.float64]
    fold: NDArray[np.intp]
    l2: dict[int, float]
    by_prompt: ByPrompt


def early_looks(
    model: Model,
    run: Run,
    steps: Sequence[int],
    blocks: Sequence[str] = (),
    cost: float = 2.0,
    attempts: int = 8,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = quiet,
) -> tuple[pd.DataFrame, list[FittedLook]]:
    """Fit a selector for each feature and step, and say what triage by it would have come to.

    Parameters
    ----------
    steps : sequence of int
        Steps that remain at the look.
    blocks : sequence of str
        Blocks whose output at all tokens is a feature too, beside `FEATURES`; read by replay.
    cost : float
        What a threshold is chosen for, in plain generations.
    attempts : int
        Seeds tried at most with a threshold.

    Returns
    -------
    table : DataFrame
        Columns feature, step, way (``plain``, ``threshold``, ``best of k``), attempts, within_auc, auc_lo, auc_hi,
        rate, lo, hi, cost (in plain generations), calls_per_good, ratio (rate over that of a plain generation). Also
        ``analysis/triage.csv``.
    fitted : list of FittedLook

    Raises
    ------
    HandscopeError
        There are too few labelled samples, or a trajectory is missing or of another model.
    """
    table = labelled(sample_table(run), "sure", folds, run.path)
    samples = Folded.of(table, folds, seed)
    prompts, bad = samples.prompts, samples.bad
    of = int(table["steps"].iloc[0])
    unknown = [step for step in steps if not 1 <= step <= of]
    if unknown:
        raise HandscopeError(f"Expected steps to look at between 1 and {of}, found {unknown}.")
    x = features_of(model, run, table, steps, blocks, progress)
    plain = reseed(np.zeros(len(bad)), bad, prompts, step=of, steps=of, attempts=1, threshold=None, seed=seed)
    rows: list[dict[str, Any]] = [
        {"feature": "none", "step": np.nan, "way": "plain", "attempts": 1} | _numbers(plain, of, plain.rate)
    ]
    fitted = []
    for done, (name, step) in enumerate(x):
        progress("select", done, len(x))
        one = fit_selector(model, run, name, step, x[name, step], samples)
        fitted.append(one)
        low, high = bootstrap_auc(one.scores, bad, prompts, draws=500, seed=seed, within=True)
        look = {"feature": name, "step": step, "within_auc": float(auc(one.scores, bad, prompts))}
        look |= {"auc_lo": low, "auc_hi": high}
        limit = np.empty(len(bad))
        for number in one.l2:
            others = one.scores[one.fold != number]
            limit[one.fold == number] = threshold_for(others, cost, attempts, step, of)
        tried = partial(reseed, one.scores, bad, prompts, step, of, seed=seed)
        outcome = tried(attempts=attempts, threshold=limit)
        rows.append(look | {"way": "threshold", "attempts": attempts} | _numbers(outcome, of, plain.rate))
        for k in (2, 4):
            outcome = tried(attempts=k, threshold=None)
            rows.append(look | {"way": f"best of {k}", "attempts": k} | _numbers(outcome, of, plain.rate))
    made = pd.DataFrame(rows)
    write_csv(run.analysis_dir / "triage.csv", made)
    progress("select", len(x), len(x))
    return made, fitted


def _numbers(outcome: Outcome, of: int, plain: float) -> dict[str, float]:
    return {
        "rate": outcome.rate,
        "lo": outcome.low,
        "hi": outcome.high,
        "cost": outcome.calls / of,
        "calls_per_good": outcome.calls_per_good,
        "ratio": outcome.rate / plain if plain else float("nan"),
    }


def fit_selector(
    model: Model, run: Run, name: str, step: int, x: NDArray[np.float32], samples: Folded
) -> FittedLook:
    """A ridge probe of a feature (n, width), with penalties chosen inside the training folds, and that of each fold."""
    bad, prompts, fold = samples.bad, samples.prompts, samples.fold
    nested = nested_scores(RidgeProbe(), x, bad[None], prompts, fold, GRID, seed=samples.seed)
    scores, chosen = nested.scores, nested.chosen
    generation = run.settings["generation"]
    height, width = int(generation["height"]), int(generation["width"])
    l2 = {int(number): float(penalty) for number, penalty in zip(np.unique(fold), chosen[0])}
    of: dict[str, LinearSelector] = {}
    for number, penalty in l2.items():
        probe = RidgeProbe(penalty).fit(x[fold != number], bad[fold != number])
        selector = LinearSelector(probe, name, model, height, width)
        of |= dict.fromkeys(np.unique(prompts[fold == number]).tolist(), selector)
    return FittedLook(name, step, scores[0], fold, l2, ByPrompt(of))


def features_of(
    model: Model, run: Run, table: pd.DataFrame, steps: Sequence[int], blocks: Sequence[str], progress: Progress
) -> dict[tuple[str, int], NDArray[np.float32]]:
    """Each feature of every sample at each step, (n, width), as triage itself would see them."""
    from ..extract.address import Plan

    generation = run.settings["generation"]
    height, width, of = (int(generation[key]) for key in ("height", "width", "steps"))
    plan = Plan(list(blocks), sorted(steps, reverse=True), of) if blocks else None
    parts: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
    for first in range(0, len(table), BATCH):
        progress("features", first, len(table))
        some = table.iloc[first : first + BATCH]
        prompts = some["prompt"].tolist()
        paths = [run.trajectory(sample) for sample in some["sample"]]
        seen = None
        if plan is not None:
            seen = replay(model, plan, prompts, paths, float(generation["guidance"]), height, width)
        for step in steps:
            index = of - step
            activations = {} if seen is None else {block: seen[block, step] for block in blocks}
            latents = torch.stack([path.latents[index] for path in paths])
            clean = torch.stack([path.x0(index) for path in paths])
            look = Look(prompts, step, latents, clean, activations)
            for name in (*FEATURES, *blocks):
                values = features(name, look, model, height, width).astype(np.float32)
                parts.setdefault((name, step), []).append(values)
    progress("features", len(table), len(table))
    return {key: np.concatenate(values) for key, values in parts.items()}
