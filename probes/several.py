"""Labels of several values: is each told from the rest, and their order, among samples of one prompt?

Scores are ridge regressions on the values, one column a value, each fold from the others. What is compared is always
two samples of one prompt, so that nothing the prompt says can help: a prompt that asks for five tells nothing of which
of its pictures show four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.auc import pair_wins
from ..analysis.statistics.folds import check_folds, codes, grouped_folds
from ..analysis.statistics.intervals import logit_interval
from ..analysis.statistics.nulls import p_floor, p_value, permuted_labels
from ..errors import HandscopeError
from .held_out_ridge import HeldOutRidge

Array = NDArray[np.float64]

ALL = "all"
"""The mean over the values, each told from the rest."""
ORDER = "order"
"""How often the sample with the higher value has the higher score."""
FEWEST = 5
"""Samples of a value, below which it is not asked for."""
FIXED = 200
"""Labellings under which scores are taken as they are: see `analysis.statistics.intervals.widening`."""


@dataclass(frozen=True, eq=False)
class Told:
    """How well one thing is told within prompts.

    Attributes
    ----------
    auc : float
        NaN where there is no pair to compare.
    interval : tuple of float
        95%, by a jackknife over prompts, as much wider as fits to permuted labels spread more than their scores do.
    null : array of shape (permutations,)
        Of values permuted inside prompts, fitted anew.
    p : float
    pairs, prompts : int
        Pairs that were compared, and in how many prompts.
    """

    auc: float
    interval: tuple[float, float]
    null: Array
    p: float
    pairs: int
    prompts: int


@dataclass(frozen=True, eq=False)
class Several:
    """Samples with their values, folds of prompts, and what permuted values are.

    Attributes
    ----------
    values : list of str
        Those that are asked for, in their order.
    place : int array of shape (n,), which of them a sample has
    groups : int array of shape (n,), its prompt
    fold : int array of shape (n,)
    ordered : whether the order means something
    labellings : int array of shape (permutations, n), `place` permuted inside prompts
    """

    values: list[str]
    place: NDArray[np.intp]
    groups: NDArray[np.intp]
    fold: NDArray[np.intp]
    ordered: bool
    labellings: NDArray[np.intp] = field(repr=False)

    @classmethod
    def of(
        cls, place: ArrayLike, values: Sequence[str], groups: ArrayLike, ordered: bool, permutations: int = 1000,
        folds: int = 5, seed: int = 0,
    ) -> Several:  # fmt: skip
        """What is asked of every cell alike.

        Parameters
        ----------
        place : int array of shape (n,), the place of each sample's value in `values`
        groups : array of shape (n,), the prompt of each sample

        Raises
        ------
        HandscopeError
            Fewer than two values have `FEWEST` samples; or no prompt has two samples of different values, so that there
            is nothing to compare but prompts.
        """
        place, group = np.asarray(place, np.intp), codes(groups)
        counts = np.bincount(place, minlength=len(values))
        if (counts >= FEWEST).sum() < 2 or (counts[counts > 0] < FEWEST).any():
            said = ", ".join(f"{count} of {value}" for value, count in zip(values, counts, strict=True))
            raise HandscopeError(
                f"Probes of several values need at least two values and {FEWEST} samples of each, found {said}: label "
                "more, or leave out samples of rare values."
            )
        if all(len(np.unique(place[group == one])) < 2 for one in np.unique(group)):
            raise HandscopeError(
                "All samples of a prompt have the same value, so that values cannot be told from prompts: generate more"
                " of each prompt, or ask for what a prompt does not settle."
            )
        fold = grouped_folds(group, folds, seed)
        for one in np.flatnonzero(counts):
            check_folds((place == one).astype(float), fold)
        labellings = permuted_labels(place, group, permutations, seed, within=True).astype(np.intp)
        return cls(list(values), place, group, fold, ordered and (counts > 0).sum() > 2, labellings)

    @property
    def names(self) -> list[str]:
        """What is told, in the order of `told`."""
        kept = [value for value, there in zip(self.values, self._there, strict=True) if there]
        return [ALL, *([ORDER] if self.ordered else []), *kept]

    @cached_property
    def p_floor(self) -> float:
        """The smallest p that the permuted values allow."""
        return p_floor(self.place, self.labellings, np.zeros(len(self.labellings)))

    @cached_property
    def _there(self) -> NDArray[np.bool_]:
        return np.bincount(self.place, minlength=len(self.values)) > 0

    def told(self, x: Array) -> tuple[dict[str, Told], NDArray[np.intp]]:
        """What is told of held-out samples by their features, and the value that is said of each.

        Parameters
        ----------
        x : array of shape (n, width)
        """
        every = np.concatenate([self.place[None], self.labellings])
        wanted = np.flatnonzero(self._there)
        targets = [(every == one).astype(float) for one in wanted] + ([every.astype(float)] if self.ordered else [])
        scores = held_out(x, self.fold, np.concatenate(targets))
        scores = scores.reshape(len(targets), len(every), -1)
        fixed = self.labellings[:FIXED]
        found: dict[str, _Wins] = {}
        for number, one in enumerate(wanted):
            found[self.values[one]] = _Wins(
                *within(scores[number], (every == one).astype(float), self.groups),
                *within(scores[number, :1], (fixed == one).astype(float), self.groups),
            )
        told = {ALL: _mean(list(found.values()))}
        if self.ordered:
            told[ORDER] = _Wins(
                *in_order(scores[-1], every, self.groups), *in_order(scores[-1, :1], fixed, self.groups)
            ).told()
        told |= {name: wins.told() for name, wins in found.items()}
        said = wanted[scores[: len(wanted), 0].argmax(0)]
        return told, said


def held_out(x: Array, fold: NDArray[np.intp], targets: Array) -> Array:
    """Targets (columns, n) as a ridge regression on x (n, width) predicts them, each fold from the others.

    Each column has a penalty of its own, chosen in the training folds by generalised cross-validation.
    """
    ridge = HeldOutRidge(x, fold)
    out = np.empty(targets.shape)
    for number, one in enumerate(np.unique(fold)):
        train = targets[:, fold != one].T
        level = train.mean(0)
        out[:, fold == one] = (ridge.along(number, train - level)[0] + level).T
    return out


def within(scores: Array, y: Array, groups: NDArray[np.intp]) -> tuple[Array, Array]:
    """Pairs of one group that a score tells, a tie being half, and all of them.

    Parameters
    ----------
    scores, y : arrays of shape (labellings, n), or one row that stands for all; y holds 0 and 1
    groups : int array of shape (n,), 0, 1, …

    Returns
    -------
    two arrays of shape (labellings, groups)
    """
    scores, y = np.broadcast_arrays(scores, y)
    wins, pairs = np.zeros((2, len(y), groups.max() + 1))
    for one in range(wins.shape[1]):
        mine = groups == one
        wins[:, one], pairs[:, one] = pair_wins(np.ascontiguousarray(scores[:, mine]), y[:, mine])
    return wins, pairs


def in_order(scores: Array, place: NDArray[np.intp], groups: NDArray[np.intp]) -> tuple[Array, Array]:
    """As `within`, of pairs of any two values: those in which the higher value has the higher score."""
    scores, place = np.broadcast_arrays(scores, place)
    wins, pairs = np.zeros((2, len(place), groups.max() + 1))
    for one in range(wins.shape[1]):
        mine = groups == one
        s, v = scores[:, mine], place[:, mine]
        higher = v[:, :, None] > v[:, None]
        step = s[:, :, None] - s[:, None]
        wins[:, one] = (higher * ((step > 0) + 0.5 * (step == 0))).sum((1, 2))
        pairs[:, one] = higher.sum((1, 2))
    return wins, pairs


@dataclass(frozen=True, eq=False)
class _Wins:
    """Pairs by prompt: of the labels as they are and of permuted ones, and of scores that are not fitted anew."""

    wins: Array
    pairs: Array
    fixed_wins: Array
    fixed_pairs: Array

    @property
    def share(self) -> Array:
        return _ratio(self.wins.sum(1), self.pairs.sum(1))

    @property
    def fixed(self) -> Array:
        return _ratio(self.fixed_wins.sum(1), self.fixed_pairs.sum(1))

    @property
    def without(self) -> Array:
        """Without each prompt."""
        return _ratio(self.wins[0].sum() - self.wins[0], self.pairs[0].sum() - self.pairs[0])

    @property
    def both(self) -> NDArray[np.bool_]:
        """Prompts in which something is compared."""
        return self.pairs[0] > 0

    def told(self) -> Told:
        return _told(self.share, self.fixed, self.without, self.both, int(self.pairs[0].sum()))


def _mean(several: list[_Wins]) -> Told:
    """The mean over values, of those that have a pair."""
    some = [one for one in several if one.both.any()]
    share, fixed, without = (np.mean([getattr(one, name) for one in some], 0) for name in ("share", "fixed", "without"))
    both = np.any([one.both for one in some], 0)
    return _told(share, fixed, without, both, int(sum(one.pairs[0].sum() for one in some)))


def _told(share: Array, fixed: Array, without: Array, both: NDArray[np.bool_], pairs: int) -> Told:
    auc, null = float(share[0]), share[1:]
    prompts = int(both.sum())
    low, high = 0.0, 1.0
    left = without[both & ~np.isnan(without)]
    spread = float(np.sqrt((len(left) - 1) / len(left) * np.square(left - left.mean()).sum())) if len(left) > 1 else 0.0
    if spread > 0 and 0 < auc < 1:
        wider = max(1.0, float(np.nanstd(null) / np.nanstd(fixed))) if np.nanstd(fixed) > 0 else 1.0
        low, high = logit_interval(auc, wider * spread, prompts)
    return Told(auc, (low, high), null, p_value(auc, null), pairs, prompts)


def _ratio(part: Array, whole: Array) -> Array:
    empty: Any = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=empty, where=whole > 0)
