"""Bad against good samples where every prompt stands at every noise: prompt and noise are held out at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from ..brief import brief
from ..errors import HandscopeError
from .statistics.arrays import numbers
from .statistics.folds import codes, two_way_folds
from .statistics.intervals import drawn_groups, logit_interval
from .statistics.nulls import p_value

Array = NDArray[np.float64]

FEWEST = 5
"""Noises, good and bad samples below which nothing is said; prompts are three at least, since two are a pair."""

AT_ONCE = 2e7
"""Numbers in an array that is worked on at once."""


@dataclass(frozen=True, eq=False)
class CrossedScore:
    """What a probe of one cell does on samples with whose prompt and noise it was not fitted.

    Attributes
    ----------
    auc : over pairs of held-out samples of one block of prompts and noises, whose scores come from one fit
    null : array of shape (permutations,), `auc` with labels permuted so that prompts and noises keep theirs
    draws : array of shape (3, draws), `auc` when prompts, noises, or samples are drawn anew
    within_auc, within_null, within_draws : the same over pairs of one prompt; its null permutes noises alone
    widening : how much wider than draws of the scores as they are refitting makes an interval, at least 1
    groups : the number of prompts or of noises, whichever is smaller
    """

    auc: float
    null: Array
    draws: Array
    within_auc: float
    within_null: Array
    within_draws: Array
    widening: float
    groups: int

    __repr__ = brief

    @property
    def p(self) -> float:
        return p_value(self.auc, self.null)

    @property
    def within_p(self) -> float:
        return p_value(self.within_auc, self.within_null)

    @property
    def interval(self) -> tuple[float, float]:
        return _interval(self.auc, self.draws, self.widening, self.groups)

    @property
    def within_interval(self) -> tuple[float, float]:
        return _interval(self.within_auc, self.within_draws, self.widening, self.groups)

    def beyond(self, other: CrossedScore) -> tuple[float, float, float]:
        """How much larger `auc` is than that of another cell of the same comparison, with its 95% interval."""
        gain = self.auc - other.auc
        spread = max(self.widening, other.widening) * _spread(self.draws - other.draws)
        half = float(student.ppf(0.975, self.groups - 1)) * spread
        return gain, gain - half, gain + half


@dataclass(frozen=True, eq=False)
class CrossedComparison:
    """The samples of one question, with the labellings of its null and the draws of its intervals: made once.

    Attributes
    ----------
    y : array of shape (n,), 1 bad, 0 good, NaN without a verdict
    prompt, noise : int arrays of shape (n,)
    splits : as of `two_way_folds`
    labels : array of shape (1 + permutations + permutations, n): as they are, with prompts and noises permuted, and
        with noises alone
    weights : array of shape (3, draws, n), how often each sample is in each draw of prompts, of noises and of samples
    """

    y: Array
    prompt: NDArray[np.intp]
    noise: NDArray[np.intp]
    splits: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]
    labels: Array
    weights: Array

    __repr__ = brief

    @classmethod
    def of(
        cls,
        y: ArrayLike,
        prompts: ArrayLike,
        noises: ArrayLike,
        permutations: int = 1000,
        folds: int = 5,
        seed: int = 0,
        draws: int = 500,
    ) -> CrossedComparison:
        """The comparison of n samples, of at most one for each prompt and noise.

        Raises
        ------
        HandscopeError
            There are fewer than three prompts, five noises, or five good or bad samples, or a prompt has two samples of
            one noise.
        """
        y = numbers(y, "labels", finite=False).astype(np.float64)
        prompt, noise = codes(prompts, len(y)), codes(noises, len(y))
        shape = (int(prompt.max()) + 1, int(noise.max()) + 1)
        bad, good = int((y == 1).sum()), int((y == 0).sum())
        if shape[0] < 3 or min(shape[1], bad, good) < FEWEST:
            raise HandscopeError(
                f"A crossed analysis needs at least 3 prompts, {FEWEST} noises and {FEWEST} good and {FEWEST} bad "
                f"samples; there are {shape[0]} prompts, {shape[1]} noises, {good} good and {bad} bad ones. Label more "
                "samples, or generate more."
            )
        if len(np.unique(prompt * shape[1] + noise)) < len(y):
            raise HandscopeError("Expected one sample of each prompt and noise, found two: leave the copies out.")
        rng = np.random.default_rng([seed, 6])
        grid = np.full(shape, np.nan)
        grid[prompt, noise] = y
        free = _permuted(grid, prompt, noise, permutations, rng, True)
        inside = _permuted(grid, prompt, noise, permutations, rng, False)
        weights = np.stack(
            [
                drawn_groups(shape[0], draws, rng)[:, prompt],
                drawn_groups(shape[1], draws, rng)[:, noise],
                drawn_groups(len(y), draws, rng),
            ]
        )
        splits = two_way_folds(prompt, noise, folds, seed)
        return cls(y, prompt, noise, splits, np.concatenate([y[None], free, inside]), weights)

    @property
    def p_floor(self) -> float:
        """The smallest p that the null can give."""
        shape = (int(self.prompt.max()) + 1, int(self.noise.max()) + 1)
        possible = factorial(shape[0]) * factorial(shape[1]) if max(shape) < 12 else np.inf
        return 1 / min(1 + len(self.labels) // 2, possible)

    def score(self, x: ArrayLike) -> CrossedScore:
        """The probe of features of shape (n, width).

        Raises
        ------
        HandscopeError
            The shape is another, or a number is not finite.

        Notes
        -----
        The probe is Fisher's discriminant: the difference of the means of bad and good samples through the inverse of
        the scatter of all samples it may see, features standardised there and shrunk by one standard deviation (n times
        the identity). It is fitted for every block of prompts and noises to samples that share neither with the block.
        The scatter needs no labels, so that one factorisation serves all labellings. The null permutes prompts as
        wholes and noises as wholes: labels stay as alike within a prompt, and within a noise, as they were. The
        variance behind an interval is that over draws of prompts and that over draws of noises, less that over draws of
        samples, which is in both (Cameron, Gelbach and Miller 2011, https://doi.org/10.1198/jbes.2010.07136); it is
        widened by what refitting adds. bench/validity/designs.py measures size and coverage.
        """
        x = numbers(x, "features").astype(np.float64)
        if x.ndim != 2 or len(x) != len(self.y):
            raise HandscopeError(f"Expected features of shape ({len(self.y)}, width), found shape {x.shape}.")
        blocks = [_Block.of(self, x, train, test) for train, test in self.splits]
        total, within = (_summed(blocks, self.labels, inside) for inside in (False, True))
        drawn, drawn_within = (
            np.stack([_drawn(blocks, self.y, some, inside) for some in self.weights]) for inside in (False, True)
        )
        count = 1 + len(self.labels) // 2
        null = total[1:count]
        fixed = _summed(blocks, self.labels[1:count], False, self.y)
        spread, as_they_are = float(np.nanstd(null)), float(np.nanstd(fixed))
        widening = max(1.0, spread / as_they_are) if as_they_are > 0 else 1.0
        groups = int(min(self.prompt.max(), self.noise.max())) + 1
        return CrossedScore(
            float(total[0]), null, drawn, float(within[0]), within[count:], drawn_within, widening, groups
        )


@dataclass(frozen=True, eq=False)
class _Block:
    """Held-out samples of one block, and the map from what is known of the others to their scores.

    Attributes
    ----------
    train, test : int arrays
    kernel : array of shape (tested, trained)
    first, second : int arrays, the pairs of tested samples
    same : bool array, whether a pair is of one prompt
    """

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    kernel: Array
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    same: NDArray[np.bool_]

    @classmethod
    def of(cls, whole: CrossedComparison, x: Array, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> _Block:
        mean, spread = x[train].mean(0), x[train].std(0)
        scale = np.where(spread > 0, spread, np.inf)  # what never varies says nothing
        known, new = (x[train] - mean) / scale, (x[test] - mean) / scale
        n = len(known)
        if known.shape[1] > n:  # the same map, by the smaller of two matrices
            gram = known @ known.T
            kernel = new @ known.T @ np.linalg.inv(gram + n * np.eye(n))
        else:
            kernel = new @ np.linalg.solve(known.T @ known + n * np.eye(known.shape[1]), known.T)
        rows = np.flatnonzero(test)
        first, second = np.triu_indices(len(rows), 1)
        same = whole.prompt[rows][first] == whole.prompt[rows][second]
        return cls(np.flatnonzero(train), rows, kernel, first, second, same)

    def scores(self, labels: Array) -> Array:
        """Scores of the tested samples by fits to the labellings (m, n): shape (m, tested)."""
        known = labels[:, self.train]
        bad, good = (known == 1).astype(np.float64), (known == 0).astype(np.float64)
        each = bad / np.maximum(bad.sum(1, keepdims=True), 1) - good / np.maximum(good.sum(1, keepdims=True), 1)
        scored: Array = each @ self.kernel.T
        return scored


def _permuted(
    grid: Array, prompt: NDArray[np.intp], noise: NDArray[np.intp], count: int, rng: np.random.Generator, both: bool
) -> Array:
    """Labels (count, n) of samples in a grid whose columns, or whose rows and columns, have changed places."""
    out = np.empty((count, len(prompt)))
    for row in out:
        rows = rng.permutation(len(grid)) if both else np.arange(len(grid))
        row[:] = grid[rows][:, rng.permutation(grid.shape[1])][prompt, noise]
    return out


def _summed(blocks: list[_Block], labels: Array, inside: bool, fitted: Array | None = None) -> Array:
    """AUC over the pairs of all blocks, `inside` those of one prompt, for each labelling: shape (labellings,).

    Scores are of fits to the labellings themselves, or to `fitted`, of shape (n,).
    """
    wins, pairs = np.zeros(len(labels)), np.zeros(len(labels))
    for block in blocks:
        chosen = np.flatnonzero(block.same) if inside else np.arange(len(block.first))
        if not len(chosen):
            continue
        a, b = block.first[chosen], block.second[chosen]
        step = max(1, int(AT_ONCE / max(len(chosen), len(block.train))))
        for start in range(0, len(labels), step):
            some = labels[start : start + step]
            score = block.scores(some if fitted is None else fitted[None])
            apart = np.nan_to_num(some[:, block.test[a]] - some[:, block.test[b]])
            wins[start : start + step] += (np.sign(score[:, a] - score[:, b]) * apart).sum(1)
            pairs[start : start + step] += np.abs(apart).sum(1)
    return 0.5 + 0.5 * np.divide(wins, pairs, out=np.full(len(labels), np.nan), where=pairs > 0)


def _drawn(blocks: list[_Block], y: Array, weights: Array, inside: bool) -> Array:
    """AUC of the observed fits in each draw, a pair as often as both of its samples: (draws, n) to (draws,)."""
    wins, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for block in blocks:
        labels, score = y[block.test], block.scores(y[None])[0]
        bad, good = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        won = 0.5 + 0.5 * np.sign(score[bad, None] - score[good])
        comparable = np.ones(won.shape)
        if inside:
            same = np.zeros((len(labels), len(labels)), bool)
            same[block.first, block.second] = same[block.second, block.first] = block.same
            comparable = same[np.ix_(bad, good)].astype(np.float64)
        w = weights[:, block.test]
        wins += np.einsum("dg,dg->d", w[:, bad] @ (won * comparable), w[:, good])
        pairs += np.einsum("dg,dg->d", w[:, bad] @ comparable, w[:, good])
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _interval(value: float, draws: Array, widening: float, groups: int) -> tuple[float, float]:
    spread = _spread(draws) if np.isfinite(draws).any(1).all() else float("nan")
    if np.isnan(value) or np.isnan(spread):
        return float("nan"), float("nan")
    if value in (0.0, 1.0):  # what so many groups, that all agree, leave possible
        bound = 0.025 ** (1 / groups)
        return (bound, 1.0) if value else (0.0, 1 - bound)
    return logit_interval(value, widening * spread, groups)


def _spread(draws: Array) -> float:
    """Standard deviation over two groupings that cross, from draws (3, m) of the first, the second, and samples."""
    first, second, both = np.nanvar(draws, axis=1)
    return float(np.sqrt(max(first + second - both, first, second)))
