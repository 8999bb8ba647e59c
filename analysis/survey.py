"""Maps over all blocks and steps, from a survey's moments alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..errors import HandscopeError
from ..files import atomic, write_csv
from ..labeling.table import labelled, sample_table
from ..progress import Progress, quiet
from ..run.record import fresh, made_from, set_fresh
from ..stages import SURVEY
from .directions import contrast, cosines, held_out_projections, massive_channels, unit
from .distance import bhattacharyya_test
from .moments import Moments, save_arrays
from .statistics.auc import auc
from .statistics.folds import check_folds, grouped_folds
from .statistics.intervals import bootstrap_auc
from .statistics.multiple import benjamini_hochberg, family_p
from .statistics.nulls import p_floor, p_value, permuted_labels
from .zoom import Choice

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.survey.surveyed import SurveyStore
    from ..run.folder import Run

Array = NDArray[np.float64]

SPLITS = 10
KEPT_SPLITS = 4
"""Of the splits, so many halves' directions are kept of every cell, to compare cells: 100 MB at FLUX's size."""

RIDGE = 1.0
"""Strength of the ridge, in units of the mean eigenvalue of a fold's Gram matrix: one for all, so none is chosen."""


@threadpool_limits.wrap(limits=1, user_api="blas")
def map_survey(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Compare bad with good samples in every block at every step, from the moments that a survey kept.

    Writes ``analysis/survey.csv``, ``survey.safetensors`` (`direction` (cells, width), bad to good; `cosine` and
    `cosine_split` (cells, cells), in the table's order) and ``survey.json``; does nothing when they are there and
    belong to the present labels, moments and arguments.

    Parameters
    ----------
    permutations : labellings in each null; the same ones in every cell
    folds : of prompts

    Returns
    -------
    The table of survey.csv, one row a cell. `db` is the Bhattacharyya distance in nats, in-sample, and `db_excess` what
    remains of it above its null. `ridge_auc` is of a closed-form ridge probe on sample means, held out; `dom_auc` of
    the difference of means, likewise. `split_cosine` is the cosine of directions fitted to disjoint halves of the
    prompts, and `agreement` the mean cosine of one half's direction with the other half's in all other cells. Each has
    a p value from its null, with the smallest that it could have given, `..._p_floor`, one that is adjusted for all
    cells, `..._p_family`, and a false-discovery rate over cells, `..._q`. `massive_channels` were left out.

    Raises
    ------
    HandscopeError
        There is no survey, too few samples or prompts, or a cell holds NaN or infinity.

    Notes
    -----
    The best cell of a map looks better than it is, since it was selected: survey.json gives beside its AUC the p value
    of the largest AUC of all cells (Westfall and Young 1993), and the AUC of cells chosen without the fold that they
    are judged on. Two more numbers there say what an AUC must beat before it is about knowledge: that of the number of
    tokens alone, and the largest at the first step, where the image stream is pure noise, so that what separates
    is the prompt, the noise, or where the instance was labelled.
    """
    from ..extract.survey.surveyed import SurveyStore, survey_folder

    store = SurveyStore(survey_folder(run))
    now = made_from(run.path, SURVEY, {"permutations": permutations, "folds": folds, "seed": seed})
    if fresh(run.path, SURVEY, now):
        return pd.read_csv(run.analysis_dir / "survey.csv", dtype={"massive_channels": str})
    table = sample_table(run)
    table = labelled(table[table["sample"].isin(store.samples)], "sure", folds, run.path)
    y, groups = table["bad"].to_numpy(), table["prompt"].to_numpy()
    design = _Design.of(y, groups, grouped_folds(groups, folds, seed), permutations, seed)
    sigma = store.steps.set_index("step")["sigma"]
    counts = {"n_good": int((y == 0).sum()), "n_bad": int(y.sum()), "n_prompts": len(set(groups))}
    rows: list[dict[str, Any]] = []
    nulls: dict[str, list[Array]] = {}
    directions, halves = [], []
    choice = Choice()
    for number, (cell, moments) in enumerate(_cells(store, table["sample"].tolist())):
        progress("map", number, len(store.cells))
        massive = massive_channels(moments.mean)
        moments.mean[:, massive] = moments.m2[:, massive] = 0.0
        x = moments.mean - moments.mean.mean(0)
        kernel = x @ x.T
        statistics, found = _statistics(moments, kernel, design, choice)
        for name, null in found.items():
            nulls.setdefault(name, []).append(null)
        rows.append(
            {
                "block": str(cell.block),
                "step": cell.step,
                "sigma": float(sigma[cell.step]),
                **counts,
                **statistics,
                "massive_channels": ";".join(map(str, massive)),
            }
        )
        directions.append(unit(-contrast(y) @ x).astype(np.float32))
        halves.append(unit(-design.halves[0, :KEPT_SPLITS] @ x).astype(np.float32))
    cells = pd.DataFrame(rows)
    cosine, crossed = cosines(directions, halves)
    others = max(len(cells) - 1, 1)
    cells.insert(cells.columns.get_loc("split_p_floor") + 1, "agreement", (crossed.sum(1) - np.diag(crossed)) / others)
    for name, observed in (("db", "db"), ("ridge", "ridge_auc"), ("dom", "dom_auc"), ("split", "split_cosine")):
        behind = cells.columns.get_loc(f"{name}_p_floor") + 1
        cells.insert(behind, f"{name}_q", benjamini_hochberg(cells[f"{name}_p"]))
        cells.insert(behind, f"{name}_p_family", family_p(cells[observed], np.stack(nulls[name], axis=1)))
    write_csv(run.analysis_dir / "survey.csv", cells)
    arrays: dict[str, NDArray[Any]] = {"direction": np.stack(directions), "cosine": cosine, "cosine_split": crossed}
    path = run.analysis_dir / "survey.safetensors"
    save_arrays(path, {name: array.astype(np.float32) for name, array in arrays.items()})
    best = choice.report(cells, y, groups, design.fold, seed)
    size = _size_of(store, table["sample"].tolist())
    best["auc_of_size"] = float(auc(held_out_projections(size[:, None], y, design.fold), y, design.fold))
    with atomic(run.analysis_dir / "survey.json") as temporary:
        told = {"permutations": permutations, "folds": folds, "seed": seed, **counts, "best": best}
        temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    set_fresh(run.path, SURVEY, now)
    progress("map", len(cells), len(cells))
    return cells


@dataclass(frozen=True)
class _Design:
    """Labels, their permutations, folds and halves: the same in every cell.

    `labels` (1 + permutations, n), the observed first; `halves` (1 + permutations, splits, 2, n): weights of rows that
    give the difference of means of each half of the prompts, 0 where a half has one class only.
    """

    y: NDArray[np.int64]
    groups: NDArray[Any]
    fold: NDArray[np.intp]
    labels: Array
    halves: NDArray[np.float32]
    seed: int

    @classmethod
    def of(cls, y: Any, groups: Any, fold: Any, permutations: int, seed: int) -> _Design:
        check_folds(y, fold)
        labels = np.concatenate([y[None], permuted_labels(y, groups, permutations, seed, fold)])
        halves = np.zeros((len(labels), SPLITS, 2, len(y)), np.float32)
        for split in range(SPLITS):
            half = grouped_folds(groups, 2, seed + split)
            for side in (0, 1):
                members = np.flatnonzero(half == side)
                mixed = (labels[:, members].min(1) == 0) & (labels[:, members].max(1) == 1)
                halves[np.ix_(mixed.nonzero()[0], np.array([split]), np.array([side]), members)] = contrast(
                    labels[np.ix_(mixed, members)]
                )[:, None, None]
        return cls(y, groups, fold, labels, halves, seed)


def _cells(store: SurveyStore, samples: list[str]) -> Iterator[tuple[Cell, Moments]]:
    count = _size_of(store, samples)
    for cell, mean, variance in store.read(samples):
        broken = ~(np.isfinite(mean).all(1) & np.isfinite(variance).all(1))
        if broken.any():
            raise HandscopeError(
                f"Cell {cell.block} at step {cell.step} of the survey holds NaN or infinity in {int(broken.sum())} of "
                f"{len(samples)} samples, {samples[int(broken.argmax())]} among them; survey again in bfloat16 or "
                "float32 if the model was loaded in float16."
            )
        yield cell, Moments(count, mean.astype(np.float64), variance * count[:, None])


def _size_of(store: SurveyStore, samples: list[str]) -> Array:
    place = {sample: number for number, sample in enumerate(store.samples)}
    return store.counts[[place[sample] for sample in samples], 0].astype(np.float64)


def _statistics(
    moments: Moments, kernel: Array, design: _Design, choice: Choice
) -> tuple[dict[str, float], dict[str, Array]]:
    """Columns of a cell, and the null of each test by its name."""
    test = bhattacharyya_test(moments, design.y, design.groups, len(design.labels) - 1, seed=design.seed)
    ridge, ridge_null = _ridge(kernel, design, choice)
    direction, nulls = _direction_statistics(kernel, design)
    return test.columns | ridge | direction, {"db": test.null, "ridge": ridge_null, **nulls}


def _ridge(kernel: Array, design: _Design, choice: Choice) -> tuple[dict[str, float], Array]:
    labels, fold, y = design.labels, design.fold, design.y
    scores, inner = np.empty(labels.shape), np.full((fold.max() + 1, len(y)), np.nan)
    for one in np.unique(fold):
        scores[:, fold == one] = _ridge_scores(kernel, labels, fold != one, fold == one)
        for other in np.unique(fold[fold != one]):
            test = fold == other
            inner[one, test] = _ridge_scores(kernel, labels[:1], (fold != one) & ~test, test)[0]
    values = auc(scores, labels, fold)
    low, high = bootstrap_auc(scores[0], y, design.groups, fold, seed=design.seed, null=values[1:])
    others = [fold != k for k in range(len(inner))]
    choice.add(values, scores[0], [auc(one[kept], y[kept], fold[kept]) for one, kept in zip(inner, others)])
    row = {
        "ridge_auc": float(values[0]),
        "ridge_lo": low,
        "ridge_hi": high,
        "ridge_null_mean": float(values[1:].mean()),
        "ridge_null_sd": float(values[1:].std()),
        "ridge_p": p_value(values[0], values[1:]),
        "ridge_p_floor": p_floor(labels[0], labels[1:], values[1:]),
        "ridge_within_auc": float(auc(scores[0], y, design.groups)),
    }
    return row, values[1:]


def _ridge_scores(kernel: Array, labels: Array, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Array:
    """Scores, up to a constant, of a ridge regression with intercept: (labellings, test), from products of rows."""
    gram = kernel[np.ix_(train, train)]
    row = gram.mean(0)
    gram = gram - row - row[:, None] + row.mean()
    strength = RIDGE * np.trace(gram) / len(gram) or 1.0
    gram[np.diag_indices(len(gram))] += strength
    centred = labels[:, train] - labels[:, train].mean(1, keepdims=True)
    return np.linalg.solve(gram, centred.T).T @ kernel[np.ix_(train, test)]


def _direction_statistics(kernel: Array, design: _Design) -> tuple[dict[str, float], dict[str, Array]]:
    labels, fold = design.labels, design.fold
    scores = np.empty(labels.shape)
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        scores[:, test] = contrast(labels[:, train]) @ kernel[np.ix_(train, test)]
    values = auc(scores, labels, fold)
    first, second = (design.halves[:, :, side] for side in (0, 1))
    narrow = (kernel / max(float(np.trace(kernel)), np.finfo(float).tiny)).astype(np.float32)
    one, other = first @ narrow, second @ narrow
    squared = (one * first).sum(-1) * (other * second).sum(-1)
    agreement = np.divide(
        (one * second).sum(-1), np.sqrt(squared), out=np.full(squared.shape, np.nan), where=squared > 0
    )
    compared = ~np.isnan(agreement).all(1)
    split = np.full(len(labels), np.nan)
    split[compared] = np.nanmean(agreement[compared], axis=1)
    row = {
        "dom_auc": float(values[0]),
        "dom_null_mean": float(values[1:].mean()),
        "dom_null_sd": float(values[1:].std()),
        "dom_p": p_value(values[0], values[1:]),
        "dom_p_floor": p_floor(labels[0], labels[1:], values[1:]),
        "split_cosine": float(split[0]),
        "split_null_sd": float(np.nanstd(split[1:])),
        "split_p": p_value(split[0], split[1:]),
        "split_p_floor": p_floor(labels[0], labels[1:], split[1:]),
    }
    return row, {"dom": values[1:], "split": split[1:]}
