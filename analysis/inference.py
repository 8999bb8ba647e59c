"""What a number is worth when tokens share samples and samples share prompts.

The unit is the sample. Folds keep a prompt's samples together, bootstrap draws are draws of prompts, and permuted
labels keep the clustering that prompts give them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, rankdata

from ..errors import HandscopeError

ALIKE = 8
"""So many prompts at least, the nearest in size, exchange labels where prompts have different numbers of samples."""


def codes(groups: ArrayLike) -> NDArray[np.intp]:
    """Number the distinct groups 0, 1, ... in sorted order: shape (n,) to (n,)."""
    return np.unique(np.asarray(groups), return_inverse=True)[1].ravel()


def grouped_folds(groups: ArrayLike, folds: int = 5, seed: int = 0) -> NDArray[np.intp]:
    """Deal samples into folds of about equal size, all samples of a group into one fold. Labels are not looked at.

    Parameters
    ----------
    groups : array of shape (n,), the prompt of each sample; distinct values where prompts do not repeat

    Returns
    -------
    int array of shape (n,), the fold of each sample, in 0..folds-1

    Raises
    ------
    HandscopeError
        There are fewer groups than folds.
    """
    group = codes(groups)
    size = np.bincount(group)
    if folds < 2 or len(size) < folds:
        raise HandscopeError(
            f"{folds} folds need at least 2 folds and as many prompts as folds, and there are {len(size)} prompts; "
            "ask for fewer folds, or generate more prompts."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    fold_of, load = np.empty(len(size), np.intp), np.zeros(folds)
    for one in order:
        fold_of[one] = load.argmin()
        load[fold_of[one]] += size[one]
    return fold_of[group]


def check_folds(y: NDArray[np.float64], fold: NDArray[np.intp]) -> None:
    """Refuse folds of which one leaves only good, or only bad, samples to fit to."""
    for one in np.unique(fold):
        left = y[fold != one]
        if left.min() == left.max():
            raise HandscopeError(
                f"All {len(left)} samples outside fold {one} are {'bad' if left[0] else 'good'} ({int(y.sum())} of "
                f"{len(y)} samples are bad), so nothing can be fitted; label more samples, or spread them over more "
                "prompts."
            )


def permuted_labels(
    y: ArrayLike,
    groups: ArrayLike,
    permutations: int,
    seed: int = 0,
    fold: ArrayLike | None = None,
    within: bool = False,
) -> NDArray[np.float64]:
    """Labellings that would be as likely as the observed one if the labels had nothing to do with the samples.

    Parameters
    ----------
    y : array of shape (n,)
    groups : array of shape (n,), the prompt of each sample
    fold : int array of shape (n,), optional; leave out labellings with only one class outside some fold, since nothing
        can be fitted to them
    within : permute inside each prompt only, so that a prompt keeps its rate; this is the null of a within-prompt AUC

    Returns
    -------
    float64 array of shape (permutations, n), or fewer rows where `fold` leaves some out

    Notes
    -----
    Unless `within`, labels are permuted inside prompts and then whole prompts change places, so that the labels stay as
    clustered as they were: permuting them freely would make the null too narrow wherever prompts differ in their rates.
    Prompts change places with others of about their size: one that takes the place of a larger one gives some labels
    twice, and in place of a smaller one not all. With one sample a prompt it is the plain permutation.
    """
    y, group = np.asarray(y, np.float64), codes(groups)
    rng = np.random.default_rng([seed, int(within)])
    size = np.bincount(group)
    start = np.cumsum(size) - size
    rank = np.empty(len(y), np.intp)
    rank[np.argsort(group, kind="stable")] = np.arange(len(y)) - np.repeat(start, size)
    sizes = np.array_split(np.argsort(size, kind="stable"), max(1, len(size) // ALIKE if np.ptp(size) else 1))
    out = np.empty((permutations, len(y)))
    for row in out:
        shuffled = y[np.lexsort((rng.random(len(y)), group))]
        donor = np.arange(len(size))
        if not within:
            for alike in sizes:
                donor[alike] = rng.permutation(alike)
        row[:] = shuffled[start[donor[group]] + rank % size[donor[group]]]
    if fold is None:
        return out
    outside = np.stack([out[:, np.asarray(fold) != one].mean(1) for one in np.unique(fold)])
    return out[((outside > 0) & (outside < 1)).all(0)]


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

    Notes
    -----
    The Mann-Whitney statistic over the number of pairs.
    """
    scores, y = np.broadcast_arrays(np.asarray(scores, np.float64), np.asarray(y, np.float64))
    stratum = codes(strata) if strata is not None else np.zeros(scores.shape[-1], np.intp)
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
        scores, y, group = np.asarray(scores, np.float64), np.asarray(y), codes(groups)
        stratum = codes(strata) if strata is not None else np.zeros(len(y), np.intp)
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


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def bootstrap_weights(groups: ArrayLike, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """How often each group is in each bootstrap draw of as many groups as there are: shape (draws, n_groups)."""
    n = int(codes(groups).max()) + 1
    return np.random.default_rng([seed, 2]).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def interval(draws: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The central `level` of bootstrap draws; NaN, NaN when no draw could be computed."""
    draws = draws[~np.isnan(draws)]
    if len(draws) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_auc(
    scores: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    strata: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
    within: bool = False,
) -> tuple[float, float]:
    """95% interval of an `auc` by drawing groups with replacement; `within` compares inside groups only.

    The scores are taken as they are: the interval covers the choice of prompts to test on, not that of those to train
    on.
    """
    pairs = PairWins.of(scores, y, groups, strata)
    weights = bootstrap_weights(groups, draws, seed)
    return interval(pairs.within_auc(weights) if within else pairs.auc(weights))


def p_value(observed: float, null: ArrayLike) -> float:
    """One-sided permutation p value: the share of the null, the observed value counted in, that is at least as large.

    Phipson and Smyth (2010): it is never 0. NaN when the observed value is.
    """
    values = np.asarray(null, np.float64)
    values = values[~np.isnan(values)]
    if np.isnan(observed) or len(values) == 0:
        return float("nan")
    return float((1 + (values >= observed).sum()) / (1 + len(values)))


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """False discovery rate at which each hypothesis would be called, of the same shape.

    NaN stays NaN and is not counted. Benjamini and Hochberg (1995), as in ``scipy.stats.false_discovery_control``.
    """
    p = np.asarray(p, np.float64)
    q = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return q
