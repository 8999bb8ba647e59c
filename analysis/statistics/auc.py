"""The area under the ROC curve: inside strata, over many labellings at once, and summed for bootstrap draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from .arrays import binary, numbers
from .folds import codes

AT_ONCE = 1 << 17
"""Scores that are ranked together: as many as a processor's cache holds."""


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
    The Mann-Whitney statistic over the number of pairs. Two scores in double precision that differ in their last binary
    digit alone may count as a tie.
    """
    scores, y = _paired(scores, y)
    n = scores.shape[-1]
    stratum = codes(strata, n) if strata is not None else np.zeros(n, np.intp)
    size = np.bincount(stratum)
    order, starts = np.argsort(stratum, kind="stable"), np.cumsum(size) - size
    # Of the strata of each size a table, a row a stratum, with the places of its samples.
    tables = [order[starts[size == k, None] + np.arange(k)] for k in np.unique(size[size > 1])]
    if scores.ndim == 1:
        return _share_won(scores[None], y[None], tables)[0]
    out = np.empty(scores.shape[:-1])
    step = max(1, AT_ONCE // max(1, scores[:1].size))
    for start in range(0, len(scores), step):
        part = slice(start, start + step)
        out[part] = _share_won(scores[part], y[part], tables)
    return out


def _share_won(scores: NDArray[Any], y: NDArray[np.float64], tables: list[NDArray[np.intp]]) -> NDArray[np.float64]:
    wins, pairs = np.zeros(scores.shape[:-1]), np.zeros(scores.shape[:-1])
    for table in tables:
        won, compared = pair_wins(np.take(scores, table, axis=-1), np.take(y, table, axis=-1))
        wins += won.sum(-1)
        pairs += compared.sum(-1)
    return _ratio(wins, pairs)


def pair_wins(scores: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of one stratum, the pairs in which the bad sample scores higher, a tie being half, and all pairs.

    Parameters
    ----------
    scores, y : arrays of shape (..., n), finite and of 0 and 1; `y` is broadcast to `scores`

    Returns
    -------
    two arrays of shape (...), as those of `scores` and of `y` are
    """
    n_bad = y.sum(-1)
    return _rank_sum(scores, y) - n_bad * (n_bad + 1) / 2, n_bad * (y.shape[-1] - n_bad)


def _rank_sum(scores: NDArray[Any], bad: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of the ranks of bad samples along the last axis, ties at their mean rank: shape (..., n) to (...).

    A label is put in place of the last binary digit of its score, so that one sort of integers, which processors do
    many at a time, ranks scores and carries labels; bad samples come last among equals. Where there are equals, the
    mean of that and of a sort in which they come first is what a mean rank would give.
    """
    single = scores.dtype == np.float32
    kind, unsigned = (np.int32, np.uint32) if single else (np.int64, np.uint64)
    # 0.0 is added to make one zero of the two that there are.
    bits = ((scores if single else scores.astype(np.float64)) + scores.dtype.type(0)).view(kind)
    keys = bits >> (31 if single else 63)
    keys &= np.iinfo(kind).max
    keys ^= bits  # integers in the order of the scores
    keys &= -2
    keys |= bad.astype(kind)
    keys.sort(axis=-1)
    ranks = np.arange(1.0, keys.shape[-1] + 1)
    total = (keys & 1).astype(np.float64) @ ranks
    tied = ((keys[..., 1:] ^ keys[..., :-1]).view(unsigned) < 2).any(-1)
    if single and tied.any():  # or all but: twice the digits tell
        total[tied] = _rank_sum(scores[tied].astype(np.float64), np.broadcast_to(bad, scores.shape)[tied])
    elif tied.any():
        first = keys[tied] ^ 1
        first.sort(axis=-1)
        total[tied] = 0.5 * (total[tied] + (1 - (first & 1)).astype(np.float64) @ ranks)
    return total


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

    def without_each(self, within: bool = False) -> NDArray[np.float64]:
        """AUCs without the samples of one group each, for a jackknife: shape (n_groups,); NaN where no pair is left."""
        left = []
        for table in (self.wins, self.pairs):
            own = np.diag(table)
            left.append(own.sum() - own if within else table.sum() - table.sum(0) - table.sum(1) + own)
        return np.divide(left[0], left[1], out=np.full(len(left[0]), np.nan), where=left[1] > 0.5)


def _paired(scores: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Scores and labels of one shape."""
    scores, y = numbers(scores, "scores"), binary(y)
    if not scores.ndim or scores.shape[-1:] != y.shape[-1:]:
        raise HandscopeError(f"Expected a label for each score, found shapes {scores.shape} and {y.shape}.")
    try:
        scores, y = np.broadcast_arrays(scores, y)
    except ValueError as error:
        raise HandscopeError(f"Scores of shape {scores.shape} and labels of {y.shape} do not go together.") from error
    return scores, y


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
