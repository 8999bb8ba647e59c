"""The picture head is learnt from pairs, and judged on sources that it did not learn from.

A ridge regression on standardised features: towards -1 for sound and 1 for faulty hands, and towards 2 for the
difference of a pair, in which scene, pose and style cancel. It is linear since 2,650 pairs carry no more: a network of
one hidden layer did as well on held-out sources (AUC .74 against .75), and a small convolutional one worse (.58).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..measure.picture import PictureHead

CLIP = 6.0
FLAT = 1e-3  # of a feature's spread, which divides


@dataclass(frozen=True, eq=False)
class Learnt:
    """Features of pairs.

    Attributes
    ----------
    sound, faulty : (2 views, n, d) float32. fault, source : n names. size : (n,), pixels of the crops' regions.
    """

    sound: Tensor
    faulty: Tensor
    fault: Sequence[str]
    source: Sequence[str]
    size: NDArray[np.float64]

    def weight(self, most: float = 250.0) -> Tensor:
        """How much each pair counts: a source counts as `most` pairs at most, and no pair more than 1.5."""
        number = {name: self.source.count(name) for name in set(self.source)}
        return torch.tensor([min(1.5, most / number[name]) for name in self.source])


def fit(pairs: Learnt, rows: NDArray[np.intp], l2: float) -> PictureHead:
    """A head from some of the pairs.

    Parameters
    ----------
    rows : which pairs
    l2 : times the squared length of the weights, beside the squared errors, summed and divided by the number of hands
    """
    chosen = torch.from_numpy(rows)
    sound, faulty = pairs.sound[:, chosen].flatten(0, 1), pairs.faulty[:, chosen].flatten(0, 1)
    weight = pairs.weight()[chosen].repeat(2)[:, None]
    both = torch.cat([sound, faulty])
    mean, scale = both.mean(0), both.std(0) + FLAT
    z, q = ((sound - mean) / scale).clamp(-CLIP, CLIP), ((faulty - mean) / scale).clamp(-CLIP, CLIP)
    away = q - z
    gram = z.T @ (weight * z) + q.T @ (weight * q) + away.T @ (weight * away)
    toward = 3 * (weight * away).sum(0)  # once for -1 and 1, and twice for the difference
    total = 2 * weight.sum()
    solved = torch.linalg.solve(gram / total + l2 * torch.eye(len(mean)), toward / total)
    return PictureHead(mean, scale, solved, torch.zeros(()), z.abs().mean())


def held_out(pairs: Learnt, folds: NDArray[np.intp], l2: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the sound and of the faulty hand of each pair by heads that did not see its source: (n,) each.

    Parameters
    ----------
    folds : (n,), the fold of each pair; pairs of a source are of one
    """
    sound, faulty = np.zeros(len(folds)), np.zeros(len(folds))
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        head = fit(pairs, np.flatnonzero(folds != fold), l2)
        for out, seen in ((sound, pairs.sound), (faulty, pairs.faulty)):
            out[rows] = np.mean([head(view)[0].numpy() for view in seen[:, torch.from_numpy(rows)]], 0)
    return sound, faulty


def folds_of_sources(sources: Sequence[str], folds: int) -> NDArray[np.intp]:
    """The fold of each pair: whole sources, the largest first, each to the fold that has fewest pairs so far."""
    names = sorted(set(sources), key=lambda name: (-list(sources).count(name), name))
    held, where = [0] * folds, {}
    for name in names:
        where[name] = held.index(min(held))
        held[where[name]] += list(sources).count(name)
    return np.array([where[name] for name in sources])
