"""Whether what a probe reads in one cell can be read in another by the same probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.auc import auc, pair_wins
from ..analysis.statistics.folds import check_folds, codes, grouped_folds
from ..analysis.statistics.multiple import family_p
from ..analysis.statistics.nulls import p_floor, p_value, permuted_labels
from ..parallel import each
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
    permutations: int = 1000,
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
    group, number = codes(groups), np.unique(fold)
    # Samples of a fold lie together, as an AUC wants them.
    order = np.argsort(fold, kind="stable")
    sizes = [int((fold == one).sum()) for one in number]
    parts = [slice(stop - size, stop) for stop, size in zip(np.cumsum(sizes), sizes, strict=True)]
    sorted_labels, weights = labels[:, order], np.ones((len(number), len(y)))
    for weight, part in zip(weights, parts, strict=True):
        weight[part] = 0
    single = {cell: np.asarray(x, np.float32)[order] for cell, x in cells.items()}

    def of_cell(fitted: Any) -> tuple[list[dict[str, Any]], list[Array]]:
        x, design = single[fitted], np.zeros(len(labels), np.intp)
        fits = [probe.fit_many(x, sorted_labels, weight[None], design) for weight in weights]
        single_w = [(w.astype(np.float32), b[:, None].astype(np.float32)) for w, b in fits]
        rows, nulls = [], []
        for judged, other in single.items():
            wins = pairs = np.zeros(len(labels))
            scores = np.empty(len(y), np.float32)
            for (w, b), part in zip(single_w, parts, strict=True):
                found = w @ other[part].T + b
                scores[part] = found[0]
                won, compared = pair_wins(found, sorted_labels[:, part])
                wins, pairs = wins + won, pairs + compared
            values = wins / pairs
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
                    "within_auc": float(auc(scores, y[order], group[order])),
                }
            )
        return rows, nulls

    found = each(of_cell, list(single), progress, "transfer")
    table = pd.DataFrame([row for rows, _ in found for row in rows])
    adjusted = family_p(table["auc"], np.stack([null for _, nulls in found for null in nulls], axis=1))
    table.insert(table.columns.get_loc("p_floor") + 1, "p_family", adjusted)
    return table
