"""The analyze stage: for each cell a direction, a plane, components and distances, with what they are worth."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..errors import HandscopeError
from ..files import atomic, write_csv
from ..labeling.subject import subject_of
from ..labeling.table import labelled, sample_table
from ..progress import Progress, quiet
from ..run.freshness import fingerprint, is_fresh, set_fresh
from . import held_out
from .class_parts import CellSums, ClassParts
from .comparison import Comparison
from .contrasts import Contrast, contrasts
from .directions import cosines, difference_of_means, half_directions, unit
from .distance import Bhattacharyya
from .statistics.folds import check_folds, grouped_folds
from .statistics.multiple import benjamini_hochberg
from .subject_tokens import SubjectTokens
from .transfer import SharedDirection, transfer

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..run.folder import Run

Array = NDArray[np.float64]

VERSION = 2
"""Raised when the numbers that this stage writes change their meaning, so that a finished run is analysed again."""

OUTPUTS = (
    "cells.csv",
    "cells.safetensors",
    "samples.csv",
    "cosines.csv",
    "contrasts.csv",
    "gaussianity.csv",
    "transfer.csv",
    "shared.csv",
)

CONTRAST_COLUMNS = [
    "contrast", "block", "step", "n_good", "n_bad", "dom_auc", "dom_lo", "dom_hi", "dom_null_mean", "dom_null_sd",
    "dom_p", "dom_auc_in_sample", "dom_within_auc", "cosine_all", "db", "db_mean_term", "db_variance_term",
    "db_null_mean", "db_null_sd", "db_excess", "db_lo", "db_hi", "db_z", "db_p", "reason",
]  # fmt: skip

GAUSSIANITY_COLUMNS = [
    "block", "step", "effective_rank", "kurtosis", "kurtosis_max", "norm_outliers", "bayes_lo", "bayes_hi",
    "llr_auc_implied", "llr_auc_in_sample", "llr_auc", "reason",
]  # fmt: skip

ALPHA = 1.0
"""Contrast of the components of bad against good samples; `contrastive_sweep` looks at other ones."""

UNPAIRED = "no prompt has both good and bad samples, so nothing can be compared within one"
UNHALVED = "no halving of the prompts leaves both classes on both sides"


# Matrices here are small: threads gain nothing, and on a busy machine their waiting for one another cost ten times.
@threadpool_limits.wrap(limits=1, user_api="blas")
def analyze(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Compare bad with good samples in every cell of a run's activations, on samples whose verdict is sure.

    Writes `OUTPUTS` in ``analysis/``; does nothing when they are there and belong to the present labels, activations
    and arguments. docs/statistics.md says what every column is.

    Parameters
    ----------
    permutations : labellings in each null
    folds : of prompts

    Returns
    -------
    The table of cells.csv. `dom` is the difference of means, `db` the Bhattacharyya distance in nats, `c2st` the
    classifier two-sample test. AUCs are of projections of sample vectors (the mean of a sample's tokens of the subject)
    on directions fitted without their fold; `dom_auc_in_sample` alone is not. `db` is in-sample too, and `db_excess`,
    with its interval `db_lo` to `db_hi`, is what remains of it above the null; its tokens are good or bad as the
    instance is that they lie on, and `n_mixed` samples have both. `massive_channels` were left out, and so were
    `constant_channels`, which do not vary in one class; both are numbers joined by semicolons. `reason` says why a
    number is missing.

    Raises
    ------
    HandscopeError
        There are too few samples of a class or too few prompts, or a cell holds NaN or infinity, or never varies.
    """
    mark = fingerprint(run, version=VERSION, permutations=permutations, folds=folds, seed=seed)
    sidecar, outputs = run.analysis_dir / "analyze.json", [run.analysis_dir / name for name in OUTPUTS]
    if is_fresh(sidecar, mark, outputs):
        return pd.read_csv(outputs[0], dtype={"massive_channels": str, "constant_channels": str, "reason": str})
    from ..extract.store.store import ActivationStore

    store = ActivationStore(run.activations_dir)
    table = sample_table(run)
    present = SubjectTokens(store, table["sample"].tolist()).samples
    table = labelled(table[table["sample"].isin(present)], "sure", folds, run.path)
    table["fold"] = grouped_folds(table["prompt"].to_numpy(), folds, seed)
    check_folds(table["bad"].to_numpy(), table["fold"].to_numpy())
    parts = ClassParts(store, table)
    whole = Comparison.of(parts, np.arange(len(table)), permutations, seed)
    wanted = contrasts(table, folds, subject_of(run))
    compared = {one.name: Comparison.of(parts, one.rows, permutations, seed) for one in wanted if not one.reason}
    sigma = store.steps.set_index("step")["sigma"]
    rows: list[dict[str, Any]] = []
    contrasted: list[dict[str, Any]] = []
    diagnosed: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    vectors: dict[Cell, NDArray[np.float32]] = {}
    halves: list[NDArray[np.float32]] = []
    for number, cell in enumerate(store.cells):
        progress("analyze", number, len(store.cells))
        address = {"block": str(cell.block), "step": cell.step}
        sums = parts.read(cell)
        try:
            row, found = _compare(whole, sums, seed)
        except HandscopeError as error:
            raise HandscopeError(f"Cell {cell.block} at step {cell.step}: {error}") from error
        rows.append({**address, "sigma": float(sigma.loc[cell.step]), **whole.counts, **row})
        diagnosed.append({**address, **asdict(parts.diagnose(cell, sums)), **_bounds(row)})
        contrasted += [
            {"contrast": one.name, **address, **_contrast(one, compared.get(one.name), sums, found["direction"], seed)}
            for one in wanted
        ]
        arrays.update({f"{cell}/{name}": array for name, array in found.items()})
        vectors[cell] = sums.vectors.astype(np.float32)
        halves.append(half_directions(sums.vectors, whole.y, whole.groups, seed=seed).astype(np.float32))
    carried = transfer(vectors, whole.y, whole.groups, whole.fold, seed=seed)
    arrays["shared/direction"] = carried.shared.direction
    cells = pd.DataFrame(rows)
    cells["shared_auc"], cells["shared_p"] = carried.shared.auc, carried.shared.p
    cells = _with_rates(cells)
    cells.insert(len(cells.columns) - 1, "reason", cells.pop("reason"))
    pairs = cosines([arrays[f"{cell}/direction"] for cell in store.cells], halves)
    write_csv(outputs[0], cells)
    with atomic(outputs[1]) as temporary:
        save_file({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}, temporary)
    write_csv(outputs[2], table[["sample", "prompt", "bad", "fold", "verdict"]])
    write_csv(outputs[3], _long(pairs, cells))
    write_csv(outputs[4], _contrast_table(contrasted))
    write_csv(outputs[5], pd.DataFrame(diagnosed)[GAUSSIANITY_COLUMNS])
    write_csv(outputs[6], carried.table())
    write_csv(outputs[7], _shared_table(carried.shared, len(cells)))
    set_fresh(sidecar, mark, permutations=permutations, folds=folds, seed=seed, **whole.counts)
    progress("analyze", len(store.cells), len(store.cells))
    return cells


def _compare(whole: Comparison, sums: CellSums, seed: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """A cell's columns, and its arrays for cells.safetensors."""
    x, y, fold = sums.vectors, whole.y, whole.fold
    coordinates, shares = held_out.components(x, fold, seed)
    row: dict[str, Any] = {
        "n_mixed": whole.n_mixed,
        **whole.direction(sums, seed),
        **whole.distance(sums, seed),
        **whole.classifier(sums, seed),
        "pca_var1": shares[0],
        "pca_var2": shares[1],
        "massive_channels": ";".join(map(str, sums.massive)),
        "constant_channels": ";".join(map(str, sums.constant)),
    }
    row["reason"] = UNPAIRED if np.isnan(row["dom_within_auc"]) else ""
    return row, {
        "pca": coordinates,
        "cpca": held_out.contrastive(x, y, fold, ALPHA),
        "plane": held_out.on_planes(x, y, fold),
        "direction": unit(difference_of_means(x[y == 0], x[y == 1])),
    }


def _contrast(
    one: Contrast, comparison: Comparison | None, sums: CellSums, direction: Array, seed: int
) -> dict[str, Any]:
    """Columns of a contrast in a cell; NaN and the reason where there is no comparison."""
    if comparison is None:
        return {**one.counts, "reason": one.reason}
    x, y = sums.vectors[comparison.rows], comparison.y
    own = unit(difference_of_means(x[y == 0], x[y == 1]))
    row: dict[str, Any] = {**one.counts, **comparison.direction(sums, seed), "cosine_all": float(own @ direction)}
    row["reason"] = UNPAIRED if np.isnan(row["dom_within_auc"]) else ""
    try:
        return {**row, **comparison.distance(sums, seed)}
    except HandscopeError as error:
        return {**row, "reason": "; ".join(filter(None, (row["reason"], str(error))))}


def _contrast_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows).reindex(columns=CONTRAST_COLUMNS)
    return pd.concat([_with_rates(part) for _, part in table.groupby("contrast", sort=False)], ignore_index=True)


def _with_rates(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a false discovery rate over its rows behind every p."""
    for name in [column for column in table.columns if column.endswith("_p")]:
        table.insert(table.columns.get_loc(name) + 1, f"{name[:-2]}_q", benjamini_hochberg(table[name]))
    return table


def _bounds(row: dict[str, Any]) -> dict[str, float]:
    """The Bayes error of single tokens if the model and the distance in-sample were true."""
    low, high = Bhattacharyya(row["db_mean_term"], row["db_variance_term"]).bayes_error
    return {"bayes_lo": low, "bayes_hi": high}


def _shared_table(shared: SharedDirection, cells: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cells": cells,
                "auc": shared.mean,
                "lo": shared.interval[0],
                "hi": shared.interval[1],
                "null_mean": np.nanmean(shared.null),
                "null_sd": np.nanstd(shared.null),
                "p": shared.mean_p,
            }
        ]
    )


def _long(pairs: tuple[Array, Array], cells: pd.DataFrame) -> pd.DataFrame:
    first, second = (grid.ravel() for grid in np.indices(pairs[0].shape))
    block, step = cells["block"].to_numpy(), cells["step"].to_numpy()
    table = pd.DataFrame(
        {
            "block_a": block[first],
            "step_a": step[first],
            "block_b": block[second],
            "step_b": step[second],
            "cosine": pairs[0].ravel(),
            "cosine_split": pairs[1].ravel(),
        }
    )
    table["reason"] = np.where(table["cosine_split"].isna(), UNHALVED, "")
    return table
