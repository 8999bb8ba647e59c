"""The crossed stage: bad against good samples in every cell, prompt and noise held out at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..errors import HandscopeError
from ..files import write_csv
from ..labeling.table import SUBSETS
from ..progress import Progress, quiet
from ..run.design import design_of
from ..run.record import fresh, made_from, set_fresh
from ..stages import CROSSED
from .crossed import CrossedComparison, CrossedScore
from .statistics.multiple import benjamini_hochberg, family_p
from .subject_tokens import SubjectTokens

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore
    from ..run.folder import Run


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `analyze`
def compare_crossed(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Compare bad with good samples, of sure verdicts, in every cell of a run with every prompt at every noise.

    Writes the tables of `handscope.stages.CROSSED`, which says what their columns are; does nothing when they are there
    and belong to the present labels, activations and arguments.

    Parameters
    ----------
    permutations : labellings in each null
    folds : of prompts and of noises each

    Returns
    -------
    The table of crossed.csv. `auc` is over pairs of one block of prompts and noises, none of which the probe has seen,
    `within_auc` over those of one prompt; `p` and `within_p` are of labels permuted between prompts and between noises,
    and between noises alone. crossed_pictures.csv has the same of the noisy latents (x_t) and the predicted clean ones
    (x0), all tokens of them, where trajectories were kept.

    Raises
    ------
    HandscopeError
        The run is of another design, there are too few prompts, noises or samples of a class, or a cell holds NaN or
        infinity.
    """
    settings = {"permutations": permutations, "folds": folds, "seed": seed}
    now = made_from(run.path, CROSSED, settings)
    path = run.analysis_dir / "crossed.csv"
    if fresh(run.path, CROSSED, now):
        return pd.read_csv(path)
    from ..extract.store.store import ActivationStore

    samples = crossed_table(run)
    store = ActivationStore(run.activations_dir)
    subject = SubjectTokens(store, samples["sample"].tolist())
    samples = samples[samples["sample"].isin(subject.samples)].reset_index(drop=True)
    comparison = CrossedComparison.of(
        samples["bad"], samples["prompt"], samples["noise_sha256"], permutations, folds, seed
    )
    scores: dict[Cell, CrossedScore] = {}
    for number, cell in enumerate(store.cells):
        progress("crossed", number, len(store.cells))
        scores[cell] = comparison.score(subject.read(cell)[0].mean)
    pictures = _pictures(run, store, samples["sample"].tolist(), comparison, progress)
    places = [{"block": str(cell.block), "step": cell.step} for cell in scores]
    table = _table(places, list(scores.values()), comparison)
    beyond = [score.beyond(pictures["x0", cell.step]) for cell, score in scores.items()] if pictures else []
    for place, name in enumerate(("beyond_x0", "beyond_x0_lo", "beyond_x0_hi")):
        table[name] = [row[place] for row in beyond] or np.nan
    write_csv(path, table)
    beside = run.analysis_dir / "crossed_pictures.csv"
    if pictures:
        latents = [{"baseline": name, "step": step} for name, step in pictures]
        write_csv(beside, _table(latents, list(pictures.values()), comparison))
    else:
        beside.unlink(missing_ok=True)
    set_fresh(run.path, CROSSED, now)
    progress("crossed", len(store.cells), len(store.cells))
    return pd.read_csv(path)


def crossed_table(run: Run) -> pd.DataFrame:
    """The rows of ``run.samples()`` with `bad`: 1 or 0 of a sure verdict, else NaN.

    Raises
    ------
    HandscopeError
        The run is not of a crossed design.
    """
    from ..labeling.database.labels import Labels

    samples = run.samples()
    design = design_of(samples, run.path)
    if design.kind != "crossed":
        verb = {"own": "analyze and probe", "paired": "pairs"}[design.kind]
        raise HandscopeError(
            f"Expected every prompt at every noise in {run.path}, found the design {design.kind}: run {verb}, or "
            "generate with the design crossed."
        )
    verdict = samples["sample"].map(Labels(run.labels_path).table().set_index("sample")["verdict"])
    bad = verdict.eq("bad").astype(float).where(verdict.isin(SUBSETS["sure"]))
    return samples.assign(bad=bad)


def _pictures(
    run: Run, store: ActivationStore, names: list[str], comparison: CrossedComparison, progress: Progress
) -> dict[tuple[str, int], CrossedScore]:
    """The same of the latents, by their name and step; empty where trajectories lack."""
    if not all(run.latents_path(sample).exists() for sample in names):
        return {}
    steps = {step: store.plan.index(step) for step in store.plan.steps}
    found: dict[tuple[str, int], list[Any]] = {(name, step): [] for name in ("x_t", "x0") for step in steps}
    for number, sample in enumerate(names):
        progress("crossed: latents", number, len(names))
        latents = run.latents(sample)
        for step, index in steps.items():
            found["x_t", step].append(latents.noisy(index).float().numpy().ravel())
            found["x0", step].append(latents.x0(index).numpy().ravel())
    return {place: comparison.score(np.stack(rows)) for place, rows in found.items()}


def _table(
    places: list[dict[str, Any]], scores: list[CrossedScore], comparison: CrossedComparison
) -> pd.DataFrame:
    """Rows with corrections over all of them."""
    counts = {
        "n_good": int((comparison.y == 0).sum()),
        "n_bad": int((comparison.y == 1).sum()),
        "n_prompts": int(comparison.prompt.max()) + 1,
        "n_noises": int(comparison.noise.max()) + 1,
    }
    rows = []
    for place, score in zip(places, scores, strict=True):
        row: dict[str, Any] = {**place, **counts}
        for prefix in ("", "within_"):
            null = getattr(score, f"{prefix}null")
            low, high = getattr(score, f"{prefix}interval")
            row |= {
                f"{prefix}auc": getattr(score, f"{prefix}auc"), f"{prefix}lo": low, f"{prefix}hi": high,
                f"{prefix}null_mean": np.nanmean(null), f"{prefix}null_sd": np.nanstd(null),
                f"{prefix}p": getattr(score, f"{prefix}p"), f"{prefix}p_floor": comparison.p_floor,
            }  # fmt: skip
        rows.append(row)
    table = pd.DataFrame(rows)
    for prefix in ("", "within_"):
        null = np.stack([getattr(score, f"{prefix}null") for score in scores], axis=1)
        where = table.columns.get_loc(f"{prefix}p") + 1
        table.insert(where, f"{prefix}q", benjamini_hochberg(table[f"{prefix}p"]))
        table.insert(where + 1, f"{prefix}p_family", family_p(table[f"{prefix}auc"], null))
    return table
