"""Whether what a probe reads in one cell can be read in another by the same probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.auc import auc
from ..analysis.statistics.folds import check_folds, codes, grouped_folds
from ..analysis.statistics.multiple import family_p
from ..analysis.statistics.nulls import p_floor, p_value, permuted_labels
from ..progress import Progress, quiet
from .linear import LinearProbe

Array = NDArray[Any]


def probe_transfer(
    probe: LinearProbe,
    cells: Mapping[Any, Array],
    y: ArrayLike,
    groups: ArrayLike,
    *,
    folds: int = 5,
    permutations: int = 50,
    seed: int = 0,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Fit in each cell on the training folds, and judge in every cell on the held-out fold.

    Parameters
    ----------
    cells : sample vectors (n, width) of each cell, the same samples in all, all of one width
    y : array of shape (n,), 1 for bad and 0 for good
    groups : array of shape (n,), the prompt of each sample

    Returns
    -------
    One row a pair of cells: fitted, judged, auc (over held-out pairs of a fold), null_mean, null_sd and p (labels
    permuted between samples, and the probe fitted to them), p_floor (the smallest that they could have given), p_family
    (p adjusted for all pairs by `family_p`), within_auc (over held-out pairs of one prompt; NaN where there is none).
    Where both are the same cell it is the probe's own held-out AUC.

    Notes
    -----
    A probe is moved as it is, with its weights in units of the activations. That it fails elsewhere can mean that the
    other cell knows it along another direction, or that its channels have another mean and size.
    """
    y, groups = np.asarray(y, np.float64), np.asarray(groups)
    fold = grouped_folds(groups, folds, seed)
    check_folds(y, fold)
    labels = np.concatenate([y[None], permuted_labels(y, groups, permutations, seed, fold)])
    number = np.unique(fold)
    weights = (fold != number[:, None]).astype(float)
    design = np.tile(np.arange(len(number)), len(labels))
    single = {cell: np.asarray(x, np.float32) for cell, x in cells.items()}
    group, rows = codes(groups), []
    nulls: list[Array] = []
    for done, (fitted, x) in enumerate(single.items()):
        progress("transfer", done, len(single))
        w, b = probe.fit_many(x, np.repeat(labels, len(number), 0), weights, design)
        w = w.reshape(len(labels), len(number), -1).astype(np.float32)
        b = b.reshape(len(labels), len(number), 1)
        for judged, other in single.items():
            scores = np.empty(labels.shape)
            for place, one in enumerate(number):
                scores[:, fold == one] = w[:, place] @ other[fold == one].T + b[:, place]
            values = auc(scores, labels, fold)
            nulls.append(values[1:])
            rows.append(
                {
                    "fitted": fitted,
                    "judged": judged,
                    "auc": values[0],
                    "null_mean": values[1:].mean() if permutations else np.nan,
                    "null_sd": values[1:].std() if permutations else np.nan,
                    "p": p_value(values[0], values[1:]),
                    "p_floor": p_floor(y, labels[1:], values[1:]),
                    "within_auc": float(auc(scores[0], y, group)),
                }
            )
    table = pd.DataFrame(rows)
    adjusted = family_p(table["auc"], np.stack(nulls, axis=1))
    table.insert(table.columns.get_loc("p_floor") + 1, "p_family", adjusted)
    return table
