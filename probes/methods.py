"""The other ways to fit a probe, and how far its probabilities may be trusted, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.stage import UNPAIRED
from ..analysis.statistics.multiple import benjamini_hochberg, family_p
from ..parallel import each
from ..progress import Progress, quiet
from .calibration import calibration
from .crossval import CrossValidation, cross_validate
from .massmean import MassMeanProbe
from .nested import GRID
from .ridge import RidgeProbe

METHODS = {"ridge": (RidgeProbe(), GRID), "mass_mean": (MassMeanProbe(), None)}
"""Probes beside the logistic one. That of ridge chooses its penalty inside the training folds, for every permuted
labelling anew: in closed form that is cheap, and it shows if the fixed penalty of the logistic one costs it much."""

NO_PENALTY = "a difference of means has no penalty, so l2 is empty"

FEWEST_IN_BIN = 5


def statistics(result: CrossValidation, y: NDArray[Any]) -> dict[str, float]:
    """What the tables of probes say of a cross-validation, without what stands on other rows too: p_family and q."""
    within = result.within_null[~np.isnan(result.within_null)]
    return {
        "n_good": int((y == 0).sum()),
        "n_bad": int(y.sum()),
        "auc": result.auc,
        "lo": result.interval[0],
        "hi": result.interval[1],
        "null_mean": result.null.mean(),
        "null_sd": result.null.std(),
        "p": result.p,
        "p_floor": result.p_floor,
        "p_family": np.nan,
        "q": np.nan,
        "within_auc": result.within_auc,
        "within_lo": result.within_interval[0],
        "within_hi": result.within_interval[1],
        "within_null_mean": within.mean() if len(within) else np.nan,
        "within_null_sd": within.std() if len(within) else np.nan,
        "within_p": result.within_p,
        "within_p_floor": result.within_p_floor,
        "within_p_family": np.nan,
        "within_q": np.nan,
        "balanced_accuracy": result.balanced_accuracy,
        "balanced_lo": result.balanced_interval[0],
        "balanced_hi": result.balanced_interval[1],
    }


def family(results: Sequence[CrossValidation], y: NDArray[Any]) -> pd.DataFrame:
    """A row of `statistics` for each of many features of the same samples, with what they are worth among all."""
    table = pd.DataFrame([statistics(result, y) for result in results])
    for prefix in ("", "within_"):
        found = np.array([getattr(result, f"{prefix}auc") for result in results])
        null = np.stack([getattr(result, f"{prefix}null") for result in results], axis=1)
        table[f"{prefix}p_family"] = family_p(found, null)
        table[f"{prefix}q"] = benjamini_hochberg(table[f"{prefix}p"])
    return table


def other_methods(
    cells: Sequence[NDArray[Any]], y: NDArray[Any], groups: NDArray[Any], progress: Progress = quiet, **settings: int
) -> list[pd.DataFrame]:
    """A table with a row for each cell, by each of `METHODS`; `l2` is the median of the penalties that the folds
    chose, and `reason` says why a number is missing.
    """
    tables = []
    for name, (probe, grid) in METHODS.items():
        judge = partial(cross_validate, probe, y=y, groups=groups, l2=grid, **settings)
        results = each(judge, cells, progress, f"probe by {name}")
        table = family(results, y)
        table.insert(0, "l2", [float(np.median(result.l2)) if grid else np.nan for result in results])
        table.insert(0, "method", name)
        unpaired = [UNPAIRED if np.isnan(result.within_auc) else "" for result in results]
        table["reason"] = ["; ".join(filter(None, ("" if grid else NO_PENALTY, why))) for why in unpaired]
        tables.append(table)
    return tables


def calibration_rows(
    result: CrossValidation, y: NDArray[Any], groups: NDArray[Any], seed: int
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Calibration as the probe gives its log-odds ("raw") and after Platt inside the training folds ("platt").

    Returns
    -------
    A row of calibration.csv for each of the two, and the bins of reliability.csv.
    """
    bins = max(2, min(10, len(y) // FEWEST_IN_BIN))
    rows, tables = [], []
    for name, scores in (("raw", result.scores), ("platt", result.log_odds)):
        measured = calibration(scores, y, groups, bins, seed=seed)
        rows.append(
            {
                "log_odds": name,
                "ece": measured.ece,
                "null_mean": measured.null.mean(),
                "null_sd": measured.null.std(),
                "excess": measured.excess,
                "p": measured.p,
                "p_floor": measured.p_floor,
                "q": np.nan,
                "slope": measured.slope,
                "intercept": measured.intercept,
            }
        )
        tables.append(measured.table.assign(log_odds=name, bin=np.arange(bins)))
    return rows, pd.concat(tables, ignore_index=True)
