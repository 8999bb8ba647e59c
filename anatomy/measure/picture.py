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
from ..read.skeleton import CHAINS
from .count import count_region

WEIGHTS = Path(__file__).parents[1] / "weights" / "picture.safetensors"
SIDE = 160  # pixels of the crop, whose region is `count_region`
MAPS = ("113", "120", "131")  # of the full landmark network: 24 channels at 40 × 40 places, 40 at 20, 80 at 10
FEATURES = 4608  # of a crop
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
    fault, strange = load_picture()(picture_features(images, hands).cpu())
    return {"picture_fault": fault.mean(0), "picture_strange": strange.mean(0)}


def picture_features(images: Tensor | Sequence[Tensor], hands: Hands) -> Tensor:
    """`features` of m hands and of their mirror images: (2, m, d); no gradient."""
    region = count_region(hands.region)
    with torch.no_grad():
        view = crop(images, region, SIDE, hands.image).clamp(0, 1), in_crop(hands.points, region, 1)
        return torch.stack([features(*view), features(*mirrored(*view))])


def mirrored(crops: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Crops (m, 3, s, s) and points (m, k, 2) in [0, 1] of them, left and right exchanged."""
    return crops.flip(-1), torch.stack([1 - points[..., 0], points[..., 1]], -1)


def features(crops: Tensor, points: Tensor) -> Tensor:
    """What the landmark network sees of crops (m, 3, s, s) whose landmarks are at points (m, 21, 2) in [0, 1]: (m, d).

    Of each map the mean and the largest value over the crop, and the mean, the largest value and the spread over each
    kind of place of `places`.
    """
    network = _landmarks().to(crops.device)
    if crops.shape[-1] != SIDE:
        crops = F.interpolate(crops, (SIDE, SIDE), mode="bilinear", align_corners=False)
    at = places(points)
    rows = []
    for start in range(0, len(crops), BATCH):
        part = slice(start, start + BATCH)
        found = []
        for seen in network.graph(crops[part], list(MAPS)):
            found += [seen.mean((2, 3)), seen.amax((2, 3))]
            values = F.grid_sample(seen, torch.cat(at, 1)[part, None] * 2 - 1, align_corners=False)[:, :, 0]
            for of_kind in values.split([kind.shape[1] for kind in at], 2):
                found += [of_kind.mean(2), of_kind.amax(2), of_kind.std(2)]
        rows.append(torch.cat(found, 1))
    return torch.cat(rows) if rows else crops.new_zeros(0, FEATURES)


def places(points: Tensor) -> list[Tensor]:
    """Where faults show, of hands with landmarks (m, 21, 2), a tensor (m, k, 2) a kind.

    Tips; the joints before them; middle joints; the middles of the first and of the last bones; beyond the tips;
    between neighbours at their tips, at their middle joints and at their bases; and beside the hand's edges.
    """
    base, first, second, tip = points[:, CHAINS].unbind(2)  # (m, 5, 2) each
    between = [(row[:, :-1] + row[:, 1:]) / 2 for row in (tip, first, base)]
    little, thumb = first[:, 4:] * 1.6 - first[:, 3:4] * 0.6, first[:, :1] * 1.4 - points[:, 5:6] * 0.4
    heel = points[:, :1] * 0.5 + base[:, 4:] * 0.5
    edges = torch.cat([little, thumb, heel * 1.3 - base[:, 1:2] * 0.3], 1)
    return [tip, second, first, (base + first) / 2, (second + tip) / 2, tip * 1.6 - second * 0.6, *between, edges]


_landmarks = cache(lambda: load_landmarks("full"))
