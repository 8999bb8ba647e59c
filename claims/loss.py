"""Whether a pixel loss sees a sixth finger: planted faults against shifts of the background's colour, on renders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..anatomy.judge.scoring import score
from ..organism.captions import CAPTIONS
from ..organism.hands import pose_hands, sample_pose
from ..organism.render import render
from ..organism.study.interventions import anatomy_loss
from ..progress import Progress, quiet

SMALLER = (1, 2, 4, 8)
"""How many times wider than the render a picture is, in which the same hand stands before the same background."""
TIMES = (1.0, 2.0, 4.0)
"""Shifts that the anatomy is asked about, over the one that costs as much as the fault."""


@dataclass(frozen=True, eq=False)
class Blindness:
    """What the losses say of n pairs of the same hand, sound and with a fault.

    Attributes
    ----------
    fault : str
    error : array of shape (n,), mean squared error of the fault, over pixels and channels in [0, 1]
    shift : array of shape (n,), by how many of 255 levels the background has to change to cost as much
    worse : dict of str to arrays of shape (len(TIMES), n), of each loss whether it ranks the fault below the picture
        whose background is shifted by `TIMES` times `shift`; one half for a tie. Losses: ``pixel``, ``anatomy`` (the
        soft loss that guidance follows) and ``verdict`` (the calibrated score; a hand that is not found is the worst)
    """

    fault: str
    error: NDArray[np.float64]
    shift: NDArray[np.float64]
    worse: dict[str, NDArray[np.float64]]

    def shifts(self) -> list[tuple[int, float, float, float]]:
        """Of each of `SMALLER` the median shift in levels, and its quartiles."""
        low, middle, high = (float(q) for q in np.quantile(self.shift, [0.25, 0.5, 0.75]))
        return [(k, middle / k, low / k, high / k) for k in SMALLER]


def blindness(n: int = 60, fault: str = "six", size: int = 192, seed: int = 0, progress: Progress = quiet) -> Blindness:
    """Draw hands twice, with and without a fault, and compare losses.

    Parameters
    ----------
    fault : one of the renderer's
    size : of the renders, pixels

    Notes
    -----
    The background is what the silhouette leaves over, moved by one number in all channels: its mean squared error is
    that number squared times its share of the picture. In a picture k times as wide the fault's error falls as 1 / k²,
    and the background is nearly all of it, so that the shift that costs as much falls nearly as 1 / k.
    """
    sound, faulty, outside = _pairs(n, fault, size, seed)
    progress("losses", 0, 1)
    error = (faulty - sound).square().mean((1, 2, 3))
    area = outside.mean((1, 2, 3))
    shift = (error / area).sqrt()
    moved = [_moved(sound, outside, times * shift) for times in TIMES]
    worse: dict[str, list[NDArray[np.float64]]] = {"pixel": [], "anatomy": [], "verdict": []}
    of_fault = {"anatomy": _anatomy(faulty), "verdict": _verdict(faulty)}
    for other in moved:
        worse["pixel"].append(_above(error.numpy(), (other - sound).square().mean((1, 2, 3)).numpy()))
        worse["anatomy"].append(_above(of_fault["anatomy"], _anatomy(other)))
        worse["verdict"].append(_above(of_fault["verdict"], _verdict(other)))
    progress("losses", 1, 1)
    found = {name: np.stack(values) for name, values in worse.items()}
    return Blindness(fault, error.double().numpy(), 255 * shift.double().numpy(), found)


def _pairs(n: int, fault: str, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same n open hands sound and faulty, (n, 3, size, size) in [0, 1], and what neither covers, (n, 1, …)."""
    captions = [caption for caption in CAPTIONS if caption.gesture == "five"]
    chosen = [captions[i % len(captions)] for i in np.random.default_rng(seed).permutation(max(n, len(captions)))[:n]]
    parts = []
    for number, caption in enumerate(chosen):
        for planted in ("", fault):
            pose, camera = (torch.Generator().manual_seed(2 * (seed * 10_000 + number) + k) for k in (0, 1))
            hands = pose_hands(*sample_pose(["five"], pose), pose, [planted])
            parts.append(render(hands, [caption], camera, size))
    images = torch.cat([part.images for part in parts]).float() / 255
    covered = torch.cat([part.silhouettes for part in parts]).reshape(len(parts), 1, size, size) > 0
    return images[::2], images[1::2], (~(covered[::2] | covered[1::2])).float()


def _moved(sound: Tensor, outside: Tensor, shift: Tensor) -> Tensor:
    """The background lighter, or darker where it is light, by a number for each picture."""
    level = (sound * outside).sum((1, 2, 3)) / (3 * outside.sum((1, 2, 3)))
    sign = torch.where(level < 0.5, 1.0, -1.0)
    return sound + (sign * shift)[:, None, None, None] * outside


def _anatomy(pictures: Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        loss = anatomy_loss()
        return np.concatenate([loss(some.clamp(0, 1)).double().numpy() for some in pictures.split(16)])


def _verdict(pictures: Tensor) -> NDArray[np.float64]:
    """Minus the lowest score in each picture; infinite where no hand is found."""
    table = score(pictures.clamp(0, 1)).table()
    lowest = table.groupby("image")["score"].min().reindex(range(len(pictures)))
    return -lowest.fillna(-np.inf).to_numpy(float)


def _above(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    close = np.isclose(one, other, rtol=1e-3)
    return np.where(close, 0.5, (one > other).astype(float))
