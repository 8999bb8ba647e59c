"""What a change of the prompt does at equal noise: effects over pairs, on directions that were fitted without them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from ..brief import brief
from ..errors import HandscopeError
from .directions import massive_channels
from .statistics.arrays import numbers
from .statistics.auc import auc
from .statistics.folds import codes, grouped_folds

Array = NDArray[np.float64]

EXACT = 2**14
"""Up to so many patterns of signs, all are tried; where there are more, as many as are asked for, at random."""

FEWEST = 5
"""Pairs, or prompt pairs where there are several, below which nothing is said."""


def sign_flips(units: int, flips: int, seed: int = 0) -> Array:
    """Patterns of signs of so many units, the one that was observed (all +1) first: shape (patterns, units).

    All there are while they are at most `EXACT`, else `flips` at random. The first unit keeps its sign: turning all
    signs turns the direction too, and so changes nothing.
    """
    if 2 ** (units - 1) <= EXACT:
        bits = np.arange(2 ** (units - 1))[:, None] >> np.arange(units - 1) & 1
        return np.concatenate([np.ones((len(bits), 1)), 1.0 - 2.0 * bits], axis=1)
    signs = np.random.default_rng([seed, 5]).choice([-1.0, 1.0], size=(flips + 1, units))
    signs[0] = 1.0
    return signs * signs[:, :1]


@dataclass(frozen=True, eq=False)
class PairedEffect:
    """How far the second members of pairs lie from the first, along directions fitted to other pairs.

    Attributes
    ----------
    mean, mean_interval : the mean difference along the held-out direction, in the units of the features
    dz, dz_interval : the same over the standard deviation of the differences: Cohen's d_z
    auc, interval : how often a second member lies further along it than a first one, over held-out members of one fold
    within_auc, within_interval : the same for the two members of a pair: the share of pairs that go the way others do
    dz_without : array of shape (units,), d_z without one unit each
    null : array of shape (patterns,), the studentised mean under each pattern of signs, the observed one first
    difference : array of shape (n,), held-out differences of the pairs, second less first
    massive : int array, channels that were left out
    """

    mean: float
    mean_interval: tuple[float, float]
    dz: float
    dz_interval: tuple[float, float]
    auc: float
    interval: tuple[float, float]
    within_auc: float
    within_interval: tuple[float, float]
    dz_without: Array
    null: Array
    difference: Array
    massive: NDArray[np.intp]

    __repr__ = brief

    def beyond(self, other: PairedEffect) -> tuple[float, float, float]:
        """How much larger d_z is than that of another cell of the same pairs, with its 95% interval."""
        values = np.append(self.dz - other.dz, self.dz_without - other.dz_without)
        return (float(values[0]), *_interval(values))

    @property
    def p(self) -> float:
        """The share of patterns of signs, the observed one counted in, whose studentised mean is as large."""
        return float((self.null >= self.null[0] - 1e-9).mean())


@dataclass(frozen=True, eq=False)
class PairedComparison:
    """The pairs of one question, with the signs of its null: made once, and asked of every cell.

    Attributes
    ----------
    unit : int array of shape (n,), what is independent: the pair, or the prompt pair where there are several
    fold : int array of shape (n,); a unit is in one fold
    signs : array of shape (patterns, units), as of `sign_flips`
    """

    unit: NDArray[np.intp]
    fold: NDArray[np.intp]
    signs: Array

    __repr__ = brief

    @classmethod
    def of(cls, prompt_pairs: ArrayLike, flips: int = 9999, folds: int = 5, seed: int = 0) -> PairedComparison:
        """The comparison of n pairs, by the prompt pair of each.

        Raises
        ------
        HandscopeError
            There are fewer than five pairs, or of several prompt pairs fewer than five.
        """
        several = codes(prompt_pairs)
        kinds = int(several.max()) + 1
        unit = several if kinds > 1 else np.arange(len(several))
        units = int(unit.max()) + 1
        if units < FEWEST:
            what = "pairs of prompts (of several, each is one unit: pairs of it are alike)" if kinds > 1 else "pairs"
            raise HandscopeError(
                f"A paired analysis needs at least {FEWEST} {what}, and there are {units}: with {units}, no p below "
                f"{2 / 2**units:.2g} is possible. Generate more"
                + (", or analyse each pair of prompts in a run of its own." if kinds > 1 else " seeds.")
            )
        return cls(unit, grouped_folds(unit, min(folds, units), seed), sign_flips(units, flips, seed))

    @property
    def units(self) -> int:
        return self.signs.shape[1]

    @property
    def p_floor(self) -> float:
        """The smallest p that so many patterns can give."""
        return 1 / len(self.signs)

    def effect(self, first: ArrayLike, second: ArrayLike) -> PairedEffect:
        """The effect in one cell.

        Parameters
        ----------
        first, second : arrays of shape (n, width), the members of each pair

        Raises
        ------
        HandscopeError
            The shapes differ, a number is not finite, or no pair differs.

        Notes
        -----
        The direction of a fold is the mean difference of the pairs outside it, of length 1. Were the second prompt to
        do nothing, each pair would be as likely the other way round: the null turns the signs of pairs, fits every
        direction again and takes the mean of the held-out differences over its standard error, one unit one number.
        Massive channels are left out. Intervals are of the delete-one-unit jackknife with every direction fitted again,
        times Student's t; of shares they are Wilson's, for as many independent units as the jackknife says that the
        share is worth. They are of a direction that is fitted to so many pairs: more pairs would find a better one.
        bench/validity/designs.py measures size and coverage.
        """
        a, b = (numbers(x, "members of pairs").astype(np.float64) for x in (first, second))
        if a.ndim != 2 or a.shape != b.shape or len(a) != len(self.unit):
            raise HandscopeError(
                f"Expected both members of {len(self.unit)} pairs, found arrays of shape {a.shape} and {b.shape}."
            )
        massive = massive_channels(np.concatenate([a, b]))
        a[:, massive] = b[:, massive] = 0.0
        d = b - a
        if not d.any():
            raise HandscopeError("The two members of every pair are equal, so there is nothing to compare.")
        gram = d @ d.T
        null = self._studentised(gram, self.signs)
        without = 1.0 - np.eye(self.units)
        weights = np.concatenate([np.ones((1, self.units)), without])
        along = _along(gram, self.fold, weights[:, self.unit])
        kept = weights[:, self.unit] > 0
        mean = _mean(along, kept)
        dz = mean / np.sqrt(_mean(np.square(along - mean[:, None]), kept) * kept.sum(1) / (kept.sum(1) - 1))
        won = _mean((along > 0) + 0.5 * (along == 0), kept)
        members = np.stack([_along(one @ d.T, self.fold, weights[:, self.unit], gram) for one in (a, b)])
        total = self._auc(members, kept)
        return PairedEffect(
            float(mean[0]), _interval(mean),
            float(dz[0]), _interval(dz),
            float(total[0]), _share(total),
            float(won[0]), _share(won),
            dz[1:], null, along[0], massive,
        )  # fmt: skip

    def _studentised(self, gram: Array, signs: Array) -> Array:
        """The mean over units of held-out differences over its standard error, for each pattern: shape (patterns,)."""
        size = np.bincount(self.unit)
        out = np.empty(len(signs))
        step = max(1, int(2e7 // len(self.unit)))
        for start in range(0, len(signs), step):
            some = signs[start : start + step]
            along = some[:, self.unit] * _along(gram, self.fold, some[:, self.unit])
            by_unit = along @ np.eye(self.units)[self.unit] / size if len(size) < len(self.unit) else along
            spread = by_unit.std(1, ddof=1) / np.sqrt(self.units)
            out[start : start + step] = by_unit.mean(1) / np.maximum(spread, 1e-300)
        return out

    def _auc(self, members: Array, kept: NDArray[np.bool_]) -> Array:
        """AUC of second against first members of one fold, for each row of weights: (2, rows, n) to (rows,)."""
        out = np.empty(len(kept))
        for row, chosen in enumerate(kept):
            scores = members[:, row, chosen]
            y = np.repeat([0.0, 1.0], chosen.sum())
            out[row] = auc(scores.ravel(), y, np.tile(self.fold[chosen], 2))
        return out


def _along(gram: Array, fold: NDArray[np.intp], weights: Array, own: Array | None = None) -> Array:
    """Rows along directions that are weighted means of the differences outside their fold, of length 1.

    Parameters
    ----------
    gram : array of shape (n, n), products of the rows with the differences of all pairs
    weights : array of shape (rows, n), of the differences
    own : array of shape (n, n), products of the differences with each other; `gram` where the rows are the differences

    Returns
    -------
    array of shape (rows, n)
    """
    own = gram if own is None else own
    out = np.empty(weights.shape)
    for one in np.unique(fold):
        test, train = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
        w = weights[:, train]
        length = np.sqrt(np.einsum("ri,ri->r", w @ own[np.ix_(train, train)], w).clip(1e-300))
        out[:, test] = w @ gram[np.ix_(test, train)].T / length[:, None]
    return out


def _mean(values: Array, kept: NDArray[np.bool_]) -> Array:
    mean: Array = (values * kept).sum(1) / kept.sum(1)
    return mean


def _interval(values: Array) -> tuple[float, float]:
    """95% interval of a statistic, given it and its values without one unit each: shape (1 + units,)."""
    value, without = values[0], values[1:]
    m = len(without)
    half = student.ppf(0.975, m - 1) * np.sqrt((m - 1) / m * np.square(without - without.mean()).sum())
    return float(value - half), float(value + half)


def _share(values: Array) -> tuple[float, float]:
    """95% interval of a share, given it and its values without one unit each: shape (1 + units,)."""
    value, without = float(values[0]), values[1:]
    m = len(without)
    variance = (m - 1) / m * float(np.square(without - without.mean()).sum())
    inside = (value * m + 0.5) / (m + 1)  # a share of 0 or 1 has a variance too
    worth = min(m, inside * (1 - inside) / variance) if variance else m
    t = student.ppf(0.975, m - 1)
    middle, half = (value + t**2 / 2 / worth), t * np.sqrt(value * (1 - value) / worth + (t / 2 / worth) ** 2)
    low, high = (middle - half) / (1 + t**2 / worth), (middle + half) / (1 + t**2 / worth)
    return (0.0 if value == 0 else float(low)), (1.0 if value == 1 else float(high))
