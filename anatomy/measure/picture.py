"""The picture head: how much the pixels of a hand look like a fault, by features of MediaPipe's landmark network.

That network learnt from very many photographs of hands what fingers, tips and folds look like; where it *says* that the
joints are is of no use against a sixth finger, what it *sees* on the way there is. Feature maps of three depths are
averaged over the crop and over the digits' tips, middle joints and webs, and weighed by numbers that were learnt from
pairs: the same photograph with and without a planted fault (../planted, picture_card.md). A crop and its mirror image
are looked at, and the mean counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import HandscopeError
from ..read.capsules import in_crop
from ..read.hands import Hands
from ..read.networks import load_landmarks
from ..read.regions import crop
from .count import count_region

WEIGHTS = Path(__file__).parents[1] / "weights" / "picture.safetensors"
SIDE = 160  # pixels of the crop, whose region is `count_region`
MAPS = ("120", "131", "142")  # of the full landmark network: 40 channels a place of 20 × 20, 80 and 112 of 10 × 10
TIPS, MIDDLES = (4, 8, 12, 16, 20), (3, 6, 10, 14, 18)
WEBS = ((2, 6), (6, 10), (10, 14), (14, 18))  # halfway between these landmarks
BATCH = 32


@dataclass(frozen=True, eq=False)
class PictureHead:
    """Weights of the features.

    Attributes
    ----------
    mean, scale : (d,) of the features that were learnt from. weight : (d,). bias : ().
    usual : (), the mean distance of sound hands from the mean, in scales.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    usual: Tensor

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds of a fault, and how far from the photographs that were learnt from (1 is usual): (m,) each."""
        z = (features - self.mean) / self.scale
        return z.clamp(-6, 6) @ self.weight + self.bias, z.abs().clamp_max(20).mean(-1) / self.usual


@cache
def load_picture() -> PictureHead:
    """The shipped head; HandscopeError where its weights are missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return PictureHead(**{name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    except (OSError, SafetensorError, TypeError) as error:
        raise HandscopeError(f"The weights in {WEIGHTS} cannot be read ({error}): install handscope again.") from error


def picture_evidence(images: Tensor | Sequence[Tensor], hands: Hands) -> dict[str, Tensor]:
    """``picture_fault``, log-odds by the head, and ``picture_strange``, of m hands: (m,) each; no gradient."""
    head = load_picture()
    region = count_region(hands.region)
    with torch.no_grad():
        crops = crop(images, region, SIDE, hands.image).clamp(0, 1)
        points = in_crop(hands.points, region, 1)
        fault, strange = (both.mean(0) for both in both_views(head, crops, points))
    return {"picture_fault": fault, "picture_strange": strange}


def both_views(head: PictureHead, crops: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """What the head says of crops and of their mirror images: two tensors (2, m)."""
    seen = [head(features(*view)) for view in ((crops, points), mirrored(crops, points))]
    return torch.stack([fault for fault, _ in seen]), torch.stack([strange for _, strange in seen])


def mirrored(crops: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Crops (m, 3, s, s) and points (m, k, 2) in [0, 1] of them, left and right exchanged."""
    return crops.flip(-1), torch.stack([1 - points[..., 0], points[..., 1]], -1)


def features(crops: Tensor, points: Tensor) -> Tensor:
    """What the landmark network sees of crops (m, 3, s, s) whose landmarks are at points (m, 21, 2) in [0, 1]: (m, d).

    Of each map the mean, the largest value and the spread over the crop, and the mean and the largest value over tips,
    middle joints and webs.
    """
    network = _landmarks().to(crops.device)
    if crops.shape[-1] != SIDE:
        crops = F.interpolate(crops, (SIDE, SIDE), mode="bilinear", align_corners=False)
    webs = torch.stack([points[:, list(pair)].mean(1) for pair in WEBS], 1)
    places = [points[:, list(TIPS)], points[:, list(MIDDLES)], webs]
    rows = []
    for start in range(0, len(crops), BATCH):
        part = slice(start, start + BATCH)
        found = []
        for seen in network.graph(crops[part], list(MAPS)):
            found += [seen.mean((2, 3)), seen.amax((2, 3)), seen.std((2, 3))]
            for at in places:
                values = F.grid_sample(seen, at[part, None] * 2 - 1, align_corners=False)[:, :, 0]
                found += [values.mean(2), values.amax(2)]
        rows.append(torch.cat(found, 1))
    return torch.cat(rows) if rows else torch.zeros(0, 0)


_landmarks = cache(lambda: load_landmarks("full"))
