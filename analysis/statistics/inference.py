"""What a number is worth when tokens share samples and samples share prompts.

The unit is the sample. Folds keep a prompt's samples together, bootstrap draws are draws of prompts, and permuted
labels keep the clustering that prompts give them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import false_discovery_control, rankdata
from scipy.stats import t as student

from ...errors import HandscopeError

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
    null: ArrayLike | None = None,
) -> tuple[float, float]:
    """95% interval of an `auc` by drawing groups with replacement; `within` compares inside groups only.

    Parameters
    ----------
    scores, y, groups, strata : as for `auc`, each of shape (n,)
    null : AUCs of the same fits to permuted labels, of any shape. Give them wherever the scores are held-out scores:
        the interval is `widening` times as wide.

    Returns
    -------
    Lower and upper bound; NaN, NaN where there is no pair to compare

    Notes
    -----
    Half widths are Student's t times the standard deviation of the draws, on the logit scale, so that the bounds stay
    in 0..1; t has one degree of freedom less than there are groups of the rarer class. Where every bad sample is above
    every good one the draws do not differ, and the lower bound is what m independent pairs, all won, leave possible:
    0.025 to the power 1/m, m the groups of the rarer class. bench/false_positives.py measures the coverage.
    """
    groups, y = codes(groups), np.asarray(y)
    pairs = PairWins.of(scores, y, groups, strata)
    both = np.intersect1d(groups[y == 1], groups[y == 0])
    held = len(both) if within else min(len(np.unique(groups[y == one])) for one in (0, 1))
    weights = bootstrap_weights(groups, draws, seed)
    spread = pairs.within_auc(weights) if within else pairs.auc(weights)
    whole = np.ones((1, weights.shape[1]))
    observed = float((pairs.within_auc(whole) if within else pairs.auc(whole))[0])
    if np.isnan(observed):
        return float("nan"), float("nan")
    if observed in (0.0, 1.0):
        bound = 0.025 ** (1 / held)
        return (bound, 1.0) if observed else (0.0, 1 - bound)
    widened = 1.0 if null is None else widening(scores, y, groups, null, strata, within, seed)
    half = widened * student.ppf(0.975, max(held - 1, 1)) * np.nanstd(spread) / (observed * (1 - observed))
    low, high = expit(logit(observed) + half * np.array([-1, 1]))
    return float(low), float(high)


def widening(
    scores: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    null: ArrayLike,
    strata: ArrayLike | None = None,
    within: bool = False,
    seed: int = 0,
    permutations: int = 200,
) -> float:
    """How much wider held-out scores make an interval than scores that are given: at least 1.

    Parameters
    ----------
    scores, y, groups, strata, within : as for `bootstrap_auc`
    null : AUCs of fits to permuted labels

    Notes
    -----
    In cross-validation every sample is scored by fits to the others and is among those that the others are scored by,
    so held-out scores depend on each other, and a bootstrap that takes them as they are is too narrow (Bates, Hastie
    and Tibshirani 2023, https://doi.org/10.1080/01621459.2023.2197686). How much so is known where labels mean nothing:
    the standard deviation of the AUC when the fits are made again for every permuted labelling, over that when only the
    labels of the scores are permuted. About 1.4 for five folds of a difference of means.
    """
    values = np.asarray(null, np.float64).ravel()
    values = values[~np.isnan(values)]
    shuffled = permuted_labels(y, groups, permutations, seed, within=within)
    fixed = auc(scores, shuffled, groups if within else strata)
    if len(values) < 2 or not np.nanstd(fixed) > 0:
        return 1.0
    return max(1.0, float(values.std() / np.nanstd(fixed)))


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

    NaN stays NaN and is not counted.

    Notes
    -----
    Benjamini and Hochberg (1995), as in ``scipy.stats.false_discovery_control``. It holds for independent tests and for
    ones that depend positively (Benjamini and Yekutieli 2001, https://doi.org/10.1214/aos/1013699998): cells of one run
    are read from the same samples, so that what makes one cell's statistic large by chance makes its neighbours' large
    too, and every test is one-sided. bench/false_positives.py counts what it lets through.
    """
    p = np.asarray(p, np.float64)
    q = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return q
