"""An AUC in units of its own standard error: what a permutation test needs where two classes differ in spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from .folds import codes


def studentised_auc(scores: ArrayLike, labels: ArrayLike, strata: ArrayLike) -> NDArray[np.float64]:
    """(AUC - 1/2) over its standard error, pairs compared inside strata.

    Parameters
    ----------
    scores, labels : arrays of shape (..., n), which broadcast; labels hold 0 and 1
    strata : array of shape (n,), such as the fold whose fit gave a score

    Returns
    -------
    array of shape (...); 0 where there is no pair, or nothing varies

    Notes
    -----
    The null of a permutation test of the AUC itself is that both classes have one distribution. Where their means are
    equal and only their spread differs, it is not that an AUC of 1/2 is called too often by chance of the labels, but
    that the AUC of such classes varies more, or less, than permuted labels say: p ≤ 0.05 in 6 to 16 of 100 data sets
    whose bad samples, the fewer, have 1.5 to 2 times the spread. Over its standard error, that of DeLong, DeLong and
    Clarke-Pearson (1988) from the placements of each class among the other, permuted labels say it right for all
    classes with an AUC of 1/2 (Neubert and Brunner 2007; Chung and Romano 2013): 3 to 7 of 100, and as many as the AUC
    where means differ (bench/validity/coverage.py).
    """
    scores, labels = np.broadcast_arrays(np.asarray(scores, np.float64), np.asarray(labels, np.float64))
    stratum = codes(strata, scores.shape[-1])
    above: Any = 0.0
    square: Any = 0.0
    for one in np.unique(stratum):
        part, bad = scores[..., stratum == one], labels[..., stratum == one] > 0
        n_bad = bad.sum(-1, keepdims=True)
        n_good = part.shape[-1] - n_bad
        rank = rankdata(part, axis=-1)
        # How many of the other class a sample is above: its rank among all less that among its own.
        own = np.where(bad, _rank_among(part, bad), _rank_among(part, ~bad))
        place = (rank - own) / np.maximum(np.where(bad, n_good, n_bad), 1)
        pairs = (n_bad * n_good)[..., 0]
        above = above + pairs * (_mean(place, bad, n_bad) - 0.5)
        square = square + pairs**2 * (_error(place, bad, n_bad) + _error(place, ~bad, n_good))
    return np.divide(above, np.sqrt(square), out=np.zeros(np.shape(above)), where=np.asarray(square) > 0)


def _rank_among(part: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    return rankdata(np.where(kept, part, np.inf), axis=-1)


def _mean(values: NDArray[np.float64], kept: NDArray[np.bool_], n: NDArray[np.intp]) -> NDArray[np.float64]:
    return (values * kept).sum(-1) / np.maximum(n[..., 0], 1)


def _error(values: NDArray[np.float64], kept: NDArray[np.bool_], n: NDArray[np.intp]) -> NDArray[np.float64]:
    """Variance of the mean of those kept: shape (..., n) to (...)."""
    away = np.where(kept, values - _mean(values, kept, n)[..., None], 0.0)
    return np.square(away).sum(-1) / np.maximum(n[..., 0] - 1, 1) / np.maximum(n[..., 0], 1)
