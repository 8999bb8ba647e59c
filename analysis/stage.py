"""The analyze stage: for each cell a direction, a plane, components and a distance, with what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..files import atomic
from ..progress import Progress, quiet
from .components import PCA
from .directions import difference_of_means, massive_channels, plane
from .distance import bhattacharyya_test
from .freshness import fingerprint, is_fresh, set_fresh
from .inference import (
    auc,
    benjamini_hochberg,
    bootstrap_auc,
    check_folds,
    grouped_folds,
    p_value,
    permuted_labels,
)
from .moments import Moments
from .table import labelled, sample_table, write_csv
from .vectors import HandTokens

if TYPE_CHECKING:
    from ..extract.run import Run

Array = NDArray[np.float64]

VERSION = 1
"""Raised when the numbers that this stage writes change their meaning, so that a finished run is analysed again."""

OUTPUTS = ("cells.csv", "cells.safetensors", "samples.csv", "cosines.csv")
SPLITS = 20


# Matrices here are small: threads gain nothing, and on a busy machine their waiting for one another cost ten times.
@threadpool_limits.wrap(limits=1, user_api="blas")
def analyze(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Compare bad with good hands in every cell of a run's activations, on samples whose verdict is sure.

    Writes `OUTPUTS` in ``analysis/``; does nothing when they are there and belong to the present labels, activations
    and arguments.

    Parameters
    ----------
    permutations : labellings in each null
    folds : of prompts

    Returns
    -------
    The table of cells.csv. `dom` is the difference of means, `db` the Bhattacharyya distance in nats. AUCs are of
    projections of sample vectors (the mean of a sample's hand tokens) on directions fitted without their fold;
    `dom_auc_in_sample` alone is not. `db` is in-sample too, and `db_excess`, with its interval `db_lo` to `db_hi`, is
    what remains of it above the null. `massive_channels` were left out, their numbers joined by semicolons.

    Raises
    ------
    HandscopeError
        There are too few samples of a class or too few prompts, or a cell holds NaN or infinity.
    """
    mark = fingerprint(run, version=VERSION, permutations=permutations, folds=folds, seed=seed)
    sidecar, outputs = run.analysis_dir / "analyze.json", [run.analysis_dir / name for name in OUTPUTS]
    if is_fresh(sidecar, mark, outputs):
        return pd.read_csv(outputs[0], dtype={"massive_channels": str})
    from ..extract.store import ActivationStore

    store = ActivationStore(run.activations_dir)
    table = sample_table(run)
    present = HandTokens(store, table["sample"].tolist()).samples
    table = labelled(table[table["sample"].isin(present)], "sure", folds, run.path)
    hands = HandTokens(store, table["sample"].tolist())
    y, groups = table["bad"].to_numpy(), table["prompt"].to_numpy()
    table["fold"] = fold = grouped_folds(groups, folds, seed)
    check_folds(y, fold)
    steps = store.steps.set_index("step")
    counts = {"n_good": int((y == 0).sum()), "n_bad": int(y.sum()), "n_prompts": len(set(groups))}
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, cell in enumerate(store.cells):
        progress("analyze", number, len(store.cells))
        moments, _ = hands.read(cell)
        massive = massive_channels(moments.mean)
        moments.mean[:, massive] = moments.m2[:, massive] = 0.0
        coordinates, shares = _held_out_components(moments.mean, fold, seed)
        arrays[f"{cell}/pca"] = coordinates
        arrays[f"{cell}/plane"] = _held_out_plane(moments.mean, y, fold)
        arrays[f"{cell}/direction"] = _unit(difference_of_means(moments.mean[y == 0], moments.mean[y == 1]))
        arrays[f"{cell}/halves"] = _half_directions(moments.mean, y, groups, seed)
        rows.append(
            {
                "block": str(cell.block),
                "step": cell.step,
                "sigma": float(steps.loc[cell.step, "sigma"]),
                **counts,
                **_direction_statistics(moments.mean, y, groups, fold, permutations, seed),
                **_distance_statistics(moments, y, groups, permutations, seed),
                "pca_var1": shares[0],
                "pca_var2": shares[1],
                "massive_channels": ";".join(map(str, massive)),
            }
        )
    cells = pd.DataFrame(rows)
    cells.insert(cells.columns.get_loc("dom_p") + 1, "dom_q", benjamini_hochberg(cells["dom_p"]))
    cells.insert(cells.columns.get_loc("db_p") + 1, "db_q", benjamini_hochberg(cells["db_p"]))
    names = [str(cell) for cell in store.cells]
    cosines = _cosines(
        [arrays[f"{name}/direction"] for name in names], [arrays.pop(f"{name}/halves") for name in names]
    )
    write_csv(outputs[0], cells)
    with atomic(outputs[1]) as temporary:
        save_file({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}, temporary)
    write_csv(outputs[2], table[["sample", "prompt", "bad", "fold", "verdict"]])
    write_csv(outputs[3], _long(cosines, cells))
    set_fresh(sidecar, mark, permutations=permutations, folds=folds, seed=seed, **counts)
    progress("analyze", len(store.cells), len(store.cells))
    return cells


def _unit(direction: Array) -> Array:
    return direction / max(float(np.linalg.norm(direction)), np.finfo(float).tiny)


def _projections(x: Array, labels: Array, fold: NDArray[np.intp]) -> Array:
    """Held-out projections on the difference of means, growing from good to bad, for each row of `labels`."""
    scores = np.empty(labels.shape)
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        bad = labels[:, train]
        n_bad = bad.sum(1, keepdims=True)
        direction = (bad / n_bad - (1 - bad) / (bad.shape[1] - n_bad)) @ x[train]
        scores[:, test] = direction @ x[test].T
    return scores


def _direction_statistics(
    x: Array, y: NDArray[Any], groups: NDArray[Any], fold: NDArray[np.intp], permutations: int, seed: int
) -> dict[str, float]:
    x = x - x.mean(0)
    labels = np.concatenate([y[None], permuted_labels(y, groups, permutations, seed, fold)])
    scores = _projections(x, labels, fold)
    values = auc(scores, labels, fold)
    low, high = bootstrap_auc(scores[0], y, groups, fold, seed=seed)
    return {
        "dom_auc": float(values[0]),
        "dom_lo": low,
        "dom_hi": high,
        "dom_null_mean": values[1:].mean(),
        "dom_null_sd": values[1:].std(),
        "dom_p": p_value(values[0], values[1:]),
        "dom_auc_in_sample": float(auc(x @ difference_of_means(x[y == 1], x[y == 0]), y)),
        "dom_within_auc": float(auc(scores[0], y, groups)),
    }


def _distance_statistics(
    moments: Moments, y: NDArray[Any], groups: NDArray[Any], permutations: int, seed: int
) -> dict[str, float]:
    test = bhattacharyya_test(moments, y, groups, permutations, seed=seed)
    return {
        "db": test.observed.distance,
        "db_mean_term": test.observed.mean_term,
        "db_variance_term": test.observed.variance_term,
        "db_null_mean": float(test.null.mean()),
        "db_null_sd": float(test.null.std()),
        "db_excess": test.excess,
        "db_lo": test.interval[0],
        "db_hi": test.interval[1],
        "db_z": test.z,
        "db_p": test.p,
    }


def _held_out_components(x: Array, fold: NDArray[np.intp], seed: int) -> tuple[Array, Array]:
    """Coordinates (n, 2) on components fitted without each sample's fold, and the shares of held-out variance."""
    whole = PCA(2, random_state=seed).fit(x).components_
    coordinates, explained, total = np.empty((len(x), 2)), np.zeros(2), 0.0
    for one in np.unique(fold):
        test = fold == one
        fitted = PCA(2, random_state=seed).fit(x[~test])
        part = fitted.transform(x[test])
        explained += np.square(part).sum(0)
        total += float(np.square(x[test] - fitted.mean_).sum())
        # Components of different folds differ by sign, or turn where two variances are close: turn each fold's onto
        # those of all samples (orthogonal Procrustes), so that one picture can show all folds.
        left, _, right = np.linalg.svd(fitted.components_ @ whole.T)
        coordinates[test] = part @ left @ right
    return coordinates, explained / max(total, np.finfo(float).tiny)


def _held_out_plane(x: Array, y: NDArray[Any], fold: NDArray[np.intp]) -> Array:
    """Coordinates (n, 2) in planes fitted without each sample's fold, the second axes turned to one side."""
    second = plane(x[y == 0], x[y == 1]).axes[1]
    coordinates = np.empty((len(x), 2))
    for one in np.unique(fold):
        test = fold == one
        fitted = plane(x[~test & (y == 0)], x[~test & (y == 1)])
        coordinates[test] = fitted.transform(x[test]) * [1, 1 if fitted.axes[1] @ second >= 0 else -1]
    return coordinates


def _half_directions(x: Array, y: NDArray[Any], groups: NDArray[Any], seed: int) -> Array:
    """Unit directions (SPLITS, 2, width) from two halves of the prompts; NaN where a half has one class only."""
    directions = np.full((SPLITS, 2, x.shape[1]), np.nan)
    for split in range(SPLITS):
        half = grouped_folds(groups, 2, seed + split)
        for side in (0, 1):
            good, bad = x[(half == side) & (y == 0)], x[(half == side) & (y == 1)]
            if len(good) and len(bad):
                directions[split, side] = _unit(difference_of_means(good, bad))
    return directions


def _cosines(directions: list[Array], halves: list[Array]) -> tuple[Array, Array]:
    """Cosines (cells, cells) between directions of all samples, and between those of disjoint halves of the prompts."""
    whole = np.stack(directions)
    parts = np.stack(halves)
    crossed = np.einsum("asd,bsd->abs", parts[:, :, 0], parts[:, :, 1], optimize=True)
    crossed = np.nanmean(crossed, axis=2) if not np.isnan(crossed).all() else crossed[:, :, 0]
    return whole @ whole.T, (crossed + crossed.T) / 2


def _long(cosines: tuple[Array, Array], cells: pd.DataFrame) -> pd.DataFrame:
    first, second = (grid.ravel() for grid in np.indices(cosines[0].shape))
    block, step = cells["block"].to_numpy(), cells["step"].to_numpy()
    return pd.DataFrame(
        {
            "block_a": block[first],
            "step_a": step[first],
            "block_b": block[second],
            "step_b": step[second],
            "cosine": cosines[0].ravel(),
            "cosine_split": cosines[1].ravel(),
        }
    )
