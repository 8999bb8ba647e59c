"""What the best of many cells is worth: block and step are chosen without the samples that the choice is judged on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.auc import auc
from ..analysis.statistics.folds import codes, grouped_folds
from ..analysis.statistics.intervals import bootstrap_auc
from .crossval import CrossValidation

if TYPE_CHECKING:
    from ..extract.address import Cell

Array = NDArray[Any]


def chosen_cells(cells: Mapping[Cell, CrossValidation], y: Array, groups: Array, seed: int = 0) -> pd.DataFrame:
    """The held-out AUC of a cell that each fold's training samples choose.

    Parameters
    ----------
    cells : of each cell its cross-validation, all of the same samples, folds and `seed`
    y, groups : arrays of shape (n,), 1 for bad and 0 for good, and the prompt of each sample

    Returns
    -------
    Two rows, `pairs` "all" and "within" (a prompt): n_good, n_bad, n_cells, auc, lo, hi, largest (the AUC of the cell
    that is best on all samples, which is what choosing makes look too good), and cells: the one of each fold, joined by
    semicolons. AUCs are NaN where there is no pair to compare.

    Notes
    -----
    A fold's cell is the one whose inner held-out scores, of fits that saw neither the fold nor the sample, have the
    largest AUC over pairs of an inner fold, or of a prompt; so the choice is inside the cross-validation (Varma and
    Simon 2006, https://doi.org/10.1186/1471-2105-7-91). The interval is that of `bootstrap_auc`, as wide as the null of
    that chosen cell makes it whose null is widest. No null of the choice itself is made.
    """
    group, names = codes(groups), [f"{cell.block}/{cell.step}" for cell in cells]
    results = list(cells.values())
    fold = results[0].fold
    number = np.unique(fold)
    scores, inner = (np.stack([getattr(result, name) for result in results]) for name in ("scores", "inner"))
    rows = []
    for pairs in ("all", "within"):
        prefix = "within_" if pairs == "within" else ""
        chosen = []
        for place, one in enumerate(number):
            kept = np.flatnonzero(fold != one)
            parts = min(len(number), len(np.unique(group[kept])))
            # The inner folds are those that `nested_scores` made of the same samples.
            strata = group[kept] if prefix else grouped_folds(group[kept], parts, seed)
            found = auc(inner[:, place, kept], y[kept], strata)
            chosen.append(int(np.where(np.isnan(found), -1, found).argmax()))
        judged = scores[np.array(chosen)[np.searchsorted(number, fold)], np.arange(len(y))]
        null = max((getattr(results[one], f"{prefix}null") for one in set(chosen)), key=_spread)
        low, high = bootstrap_auc(judged, y, groups, fold, seed=seed, within=bool(prefix), null=null)
        known = [value for result in results if not np.isnan(value := getattr(result, f"{prefix}auc"))]
        rows.append(
            {
                "pairs": pairs,
                "n_good": int((y == 0).sum()),
                "n_bad": int((y == 1).sum()),
                "n_cells": len(names),
                "auc": float(auc(judged, y, group if prefix else fold)),
                "lo": low,
                "hi": high,
                "largest": max(known, default=np.nan),
                "cells": ";".join(names[one] for one in chosen),
            }
        )
    return pd.DataFrame(rows)


def _spread(null: Array) -> float:
    values = null[~np.isnan(null)]
    return float(values.std()) if len(values) else 0.0
