"""Parts of pictures: are the tokens of a part told from the others of their picture, in pictures of other prompts?

Scores are a ridge regression of masks on activations, both less their mean over the picture, each fold of prompts from
the others. What is compared is always two tokens of one picture, so that nothing that a whole picture has can help.
Where parts usually lie helps all the same, and the null knows it: masks are exchanged between pictures of one prompt,
and a probe is fitted to them anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

from ..analysis.statistics.folds import codes, grouped_folds
from ..analysis.statistics.intervals import jackknife_interval
from ..analysis.statistics.nulls import p_floor, p_value
from ..errors import HandscopeError

Array = NDArray[np.float64]

SHRINKAGE = 0.01
"""Share of the mean variance that the ridge puts in the place of each channel's own: settled beforehand."""
TOGETHER = 100
"""Exchanges of masks that are fitted at a time."""
FEWEST = 5
"""Pictures with a part, below which it is not asked for."""


@dataclass(frozen=True, eq=False)
class Told:
    """How well a part is told.

    Attributes
    ----------
    auc : float
        The chance that a token of the part scores above another of its picture, in the mean over pictures.
    interval : tuple of float
        95%, by a jackknife over prompts, the fits taken as they are.
    of_picture : array of shape (n,), the AUC of each picture
    match : float
        Correlation of scores and mask over a picture's tokens, in the mean over pictures: what is tested.
    null : array of shape (exchanges,), `match` of exchanged masks, fitted anew
    p : float
    """

    auc: float
    interval: tuple[float, float]
    of_picture: Array
    match: float
    null: Array
    p: float


@dataclass(frozen=True, eq=False)
class WithinPicture:
    """Masks of a part in pictures of one token grid, folds of their prompts, and exchanged masks.

    Attributes
    ----------
    mask : bool array of shape (n, tokens), neither empty nor full in any picture
    groups : int array of shape (n,), the prompt of each
    fold : int array of shape (n,)
    exchanged : int array of shape (exchanges, n), the picture whose mask stands in
    """

    mask: NDArray[np.bool_]
    groups: NDArray[np.intp]
    fold: NDArray[np.intp]
    exchanged: NDArray[np.intp] = field(repr=False)

    @classmethod
    def of(
        cls, mask: ArrayLike, groups: ArrayLike, exchanges: int = 1000, folds: int = 5, seed: int = 0
    ) -> WithinPicture:
        """What is asked of every cell alike.

        Parameters
        ----------
        mask : bool array of shape (n, tokens)
        groups : array of shape (n,), the prompt of each picture

        Raises
        ------
        HandscopeError
            Fewer than `FEWEST` pictures; a mask is empty or full; one prompt alone; or no prompt has two pictures with
            different masks, so that an exchange would change nothing.
        """
        mask, group = np.asarray(mask, bool), codes(groups)
        count = mask.sum(1)
        if len(mask) < FEWEST or ((count == 0) | (count == mask.shape[1])).any():
            raise HandscopeError(
                f"Expected a part in at least {FEWEST} pictures, and other tokens beside it in each, found "
                f"{int(((count > 0) & (count < mask.shape[1])).sum())} such pictures of {len(mask)}."
            )
        if all(len(np.unique(mask[group == one], axis=0)) < 2 for one in np.unique(group)):
            raise HandscopeError(
                "A part lies at the same tokens in all pictures of a prompt, so that exchanging them changes nothing: "
                "draw several pictures of each prompt."
            )
        random, order = np.random.default_rng(seed), np.argsort(group, kind="stable")
        exchanged = np.empty((exchanges, len(mask)), np.intp)
        for one in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            exchanged[:, one] = random.permuted(np.tile(one, (exchanges, 1)), axis=1)
        return cls(mask, group, grouped_folds(group, folds, seed), exchanged)

    @cached_property
    def p_floor(self) -> float:
        """The smallest p that the exchanges allow."""
        return p_floor(np.arange(len(self.mask)), self.exchanged, np.zeros(len(self.exchanged)))

    @cached_property
    def _target(self) -> NDArray[np.float32]:
        """Masks less their mean over the picture, of length 1: shape (n, tokens)."""
        centred = self.mask - self.mask.mean(1, keepdims=True)
        return (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)

    def told(self, x: NDArray[np.float32]) -> Told:
        """How well features tell the part.

        Parameters
        ----------
        x : float32 array of shape (n, tokens, width), which is written to
        """
        x -= x.mean(1, keepdims=True)
        x /= np.sqrt(np.square(x).mean((0, 1), dtype=np.float64)).clip(1e-12).astype(np.float32)
        solve = [self._solver(x, fold) for fold in np.unique(self.fold)]
        own = np.arange(len(self.mask))[None]
        scores = self._scores(x, solve, own)[0]
        null = np.concatenate([
            self._match(self._scores(x, solve, some), some)
            for some in np.array_split(self.exchanged, -(-len(self.exchanged) // TOGETHER))
        ])
        return self._judged(scores, null)

    def where(self) -> Told:
        """How well the place alone tells it: the share of the other prompts' masks that hold the place."""
        whole = self.mask.sum(0)
        scores = np.empty(self.mask.shape, np.float32)
        for fold in np.unique(self.fold):
            scores[self.fold == fold] = whole - self.mask[self.fold == fold].sum(0)
        scores -= scores.mean(1, keepdims=True)
        null = np.concatenate([self._match(scores[None], some[None]) for some in self.exchanged])
        return self._judged(scores, null)

    def gain(self, one: Told, other: Told) -> tuple[float, tuple[float, float]]:
        """How much higher one AUC is than another over the same pictures, with its 95% interval over prompts."""
        return self._mean(one.of_picture - other.of_picture, (-1.0, 1.0))

    def _solver(self, x: NDArray[np.float32], fold: int) -> tuple[np.ndarray, bool]:
        rows = x[self.fold != fold].reshape(-1, x.shape[2])
        scatter = (rows.T @ rows).astype(np.float64)
        scatter.flat[:: len(scatter) + 1] += SHRINKAGE * max(np.trace(scatter) / len(scatter), 1e-12)
        return cho_factor(scatter, check_finite=False)

    def _scores(
        self, x: NDArray[np.float32], solve: list[tuple[np.ndarray, bool]], masks: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Held-out scores of shape (exchanges, n, tokens), fitted to the masks of these pictures in their places."""
        folds, scores = np.unique(self.fold), np.empty((len(masks), *self.mask.shape), np.float32)
        width = x.shape[2]
        moments = np.zeros((len(folds), width, len(masks)))
        for place, fold in enumerate(folds):
            mine = self.fold == fold
            target = self._target[masks[:, mine]].reshape(len(masks), -1)
            moments[place] = x[mine].reshape(-1, width).T @ target.T
        for place, fold in enumerate(folds):
            mine = self.fold == fold
            weights = cho_solve(solve[place], moments.sum(0) - moments[place], check_finite=False).astype(np.float32)
            scores[:, mine] = np.moveaxis(x[mine] @ weights, 2, 0)
        return scores

    def _match(self, scores: NDArray[np.float32], masks: NDArray[np.intp]) -> Array:
        """The mean correlation of centred scores with the masks of these pictures."""
        length = np.linalg.norm(scores, axis=2)
        dots = np.einsum("ent,ent->en", np.broadcast_to(scores, (len(masks), *self.mask.shape)), self._target[masks])
        return (dots / np.maximum(length, 1e-30)).mean(1, dtype=np.float64)

    def _judged(self, scores: NDArray[np.float32], null: Array) -> Told:
        match = float(self._match(scores[None], np.arange(len(self.mask))[None])[0])
        ranks, count = rankdata(scores, axis=1), self.mask.sum(1)
        above = (ranks * self.mask).sum(1) - count * (count + 1) / 2
        auc = above / (count * (self.mask.shape[1] - count))
        mean, interval = self._mean(auc, (0.0, 1.0))
        return Told(mean, interval, auc, match, null, p_value(match, null))

    def _mean(self, values: Array, bounds: tuple[float, float]) -> tuple[float, tuple[float, float]]:
        sums, counts = np.bincount(self.groups, values), np.bincount(self.groups)
        mean = float(values.mean())
        return mean, jackknife_interval(mean, (sums.sum() - sums) / (counts.sum() - counts), bounds)
