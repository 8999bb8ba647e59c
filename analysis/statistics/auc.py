"""The area under the ROC curve: inside strata, over many labellings at once, and summed for bootstrap draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ...errors import HandscopeError
from .arrays import binary, numbers
from .folds import codes


def auc(scores: ArrayLike, y: ArrayLike, strata: ArrayLike | None = None) -> NDArray[np.float64]:
    """Area under the ROC curve: how often a sample with y = 1 scores above one with y = 0; ties count half.

    Parameters
    ----------
    scores, y : arrays of shape (..., n), which broadcast; y holds 0 and 1
    strata : array of shape (n,), optional. Only pairs inside a stratum are compared, and all such pairs are pooled: by
        fold, since scores of different fits have different scales; by prompt, for what a prompt cannot explain.

    Returns
    -------
    array of shape (...); NaN where there is no pair to compare

    Raises
    ------
    HandscopeError
        A score is NaN or infinite, a label neither 0 nor 1, or the shapes do not fit each other.

    Notes
    -----
    The Mann-Whitney statistic over the number of pairs.
    """
    scores, y = _paired(scores, y)
    stratum = codes(strata, scores.shape[-1]) if strata is not None else np.zeros(scores.shape[-1], np.intp)
    size = np.bincount(stratum)
    order = np.argsort(stratum, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
    shape = (*scores.shape[:-1], len(size), size.max())
    # One row a stratum, filled up with infinities, which rank above all and so change no rank.
    table, bad = np.full(shape, np.inf), np.zeros(shape)
    table[..., stratum[order], place] = scores[..., order]
    bad[..., stratum[order], place] = y[..., order]
    n_bad = bad.sum(-1)
    wins = (rankdata(table, axis=-1) * bad).sum(-1) - n_bad * (n_bad + 1) / 2
    pairs = (n_bad * (size - n_bad)).sum(-1)
    return np.divide(wins.sum(-1), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def fold_auc(scores: NDArray[Any], labels: NDArray[Any], fold: NDArray[np.intp]) -> NDArray[np.float64]:
    """``auc(scores, labels, fold)``, ten times faster for many rows where no two scores of a fold are equal.

    Parameters
    ----------
    scores, labels : arrays of shape (..., n), which broadcast
    fold : int array of shape (n,)
    """
    wins: Any = 0.0
    pairs: Any = 0.0
    for one in np.unique(fold):
        inside = scores[..., fold == one]
        order = np.argsort(inside, axis=-1)
        ranked = np.take_along_axis(inside, order, -1)
        if (ranked[..., 1:] == ranked[..., :-1]).any():
            return auc(scores, labels, fold)
        bad = np.take_along_axis(np.broadcast_to(labels[..., fold == one], inside.shape), order, -1)
        n_bad = bad.sum(-1)
        wins = wins + bad @ np.arange(1, inside.shape[-1] + 1) - n_bad * (n_bad + 1) / 2
        pairs = pairs + n_bad * (inside.shape[-1] - n_bad)
    return np.divide(wins, pairs, out=np.full(np.shape(pairs), np.nan), where=np.asarray(pairs) > 0)


@dataclass(frozen=True)
class PairWins:
    """Comparisons of bad with good samples, summed for each two groups: what is needed to bootstrap an AUC over groups.

    `wins[a, b]` counts the pairs of a bad sample of group a and a good one of group b in which the bad one scores
    higher (a tie is half), and `pairs[a, b]` counts all of them.
    """

    wins: NDArray[np.float64]
    pairs: NDArray[np.float64]

    @classmethod
    def of(cls, scores: ArrayLike, y: ArrayLike, groups: ArrayLike, strata: ArrayLike | None = None) -> PairWins:
        scores, y = _paired(scores, y)
        group = codes(groups, len(y))
        stratum = codes(strata, len(y)) if strata is not None else np.zeros(len(y), np.intp)
        member = np.eye(group.max() + 1)[group]
        bad, good = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        comparable = (stratum[bad, None] == stratum[good]).astype(float)
        difference = scores[bad, None] - scores[good]
        won = comparable * ((difference > 0) + 0.5 * (difference == 0))
        return cls(member[bad].T @ won @ member[good], member[bad].T @ comparable @ member[good])

    def auc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """AUC when each group counts `weights` times: (draws, n_groups) to (draws,); NaN where there is no pair."""
        return _ratio(
            np.einsum("bi,bi->b", weights @ self.wins, weights), np.einsum("bi,bi->b", weights @ self.pairs, weights)
        )

    def within_auc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for pairs inside one group, whose draws come whole: shape (draws, n_groups) to (draws,)."""
        return _ratio(weights @ np.diag(self.wins), weights @ np.diag(self.pairs))


def _paired(scores: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and labels as float64 of one shape."""
    scores, y = numbers(scores, "scores").astype(np.float64, copy=False), binary(y)
    if not scores.ndim or scores.shape[-1:] != y.shape[-1:]:
        raise HandscopeError(f"Expected a label for each score, found shapes {scores.shape} and {y.shape}.")
    try:
        scores, y = np.broadcast_arrays(scores, y)
    except ValueError as error:
        raise HandscopeError(f"Scores of shape {scores.shape} and labels of {y.shape} do not go together.") from error
    return scores, y


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
