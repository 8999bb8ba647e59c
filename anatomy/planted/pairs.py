"""Pairs of crops of one hand, sound and faulty, as cameras and generators might have made them.

    for pair in pairs(hands, random): pair.sound, pair.faulty        # (3, CROP, CROP) uint8

Both crops of a pair go through the same work (faults.py), stand before the same background, are of one size and have
the same light; where they are cut, how they are compressed, blurred and how much noise they have is drawn for each.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..measure.count import MARGIN
from ..read.capsules import in_crop
from ..read.regions import crop
from .canvas import ROOM, SIDE, Canvas, grid, over
from .faults import FAULTS, elsewhere, plant, unharmed

CROP = 128  # pixels of a crop, whose region is `count_region`, as at inference
SIZES = (64.0, 240.0)  # pixels that a crop's region has in the picture, at least and at most
SHARES = {"six": 1.5, "seven": 0.7, "missing": 1.3, "fused": 1.3, "bent": 1.2, "long": 0.7, "short": 0.8}
SHARES |= {"thumb": 0.8, "detached": 0.7, "melted": 1.5, "tangled": 1.2, "merged": 0.8}  # how often each is tried
TRIES = 4  # faults that are tried on a hand


@dataclass(frozen=True)
class Pair:
    """One hand twice.

    Attributes
    ----------
    sound, faulty : (3, CROP, CROP) uint8. fault : its name. size : pixels of the region before it was enlarged.
    points_sound, points_faulty : (21, 2), landmarks of the hand that the pair was made of, in [0, 1] of the crop.
    blind_sound, blind_faulty : the same with the hand greyed out: what is left is background and traces of work.
    """

    sound: Tensor
    faulty: Tensor
    blind_sound: Tensor
    blind_faulty: Tensor
    points_sound: Tensor
    points_faulty: Tensor
    fault: str
    size: float


def pair_of(canvas: Canvas, backgrounds: Sequence[Tensor], random: torch.Generator) -> Pair | None:
    """A pair of a hand, or None where no fault can be planted in it.

    Parameters
    ----------
    backgrounds : pictures (3, SIDE, SIDE) without a hand, behind which some hands are put
    """
    if canvas.skin is not None and backgrounds and _uniform(random) < 0.5:
        canvas = _before(canvas, backgrounds[int(torch.randint(len(backgrounds), (), generator=random))])
    weights = torch.tensor([SHARES[name] for name in FAULTS])
    faulty = None
    for k in torch.multinomial(weights, len(weights), generator=random).tolist()[:TRIES]:
        fault = list(FAULTS)[k]
        faulty = plant(canvas, fault, random)
        if faulty is not None:
            break
    if faulty is None:
        return None
    sound, faulty = unharmed(canvas, random), unharmed(faulty, random)
    hidden = torch.maximum(_hull(canvas), ((faulty.image - canvas.image).abs().amax(0) > 0.02).float())
    sound, faulty = elsewhere(sound, random), elsewhere(faulty, random)
    mirror = _uniform(random) < 0.5
    native = canvas.scale * SIDE / ROOM * MARGIN
    size = math.exp(math.log(SIZES[0]) + _uniform(random) * math.log(SIZES[1] / SIZES[0]))
    size = min(size, max(native, SIZES[0]))
    light = _light(random)
    crops, blind, points = [], [], []
    for one in (sound, faulty):
        square = _square(random)
        image = light(one.image)
        crops.append(_seen(image, square, size, mirror, random))
        at = in_crop(canvas.points[None], square[None], 1)[0]
        points.append(torch.stack([1 - at[:, 0], at[:, 1]], 1) if mirror else at)
        blind.append(_seen(over(image, torch.full_like(image, 0.5), hidden), square, size, mirror, random))
    return Pair(crops[0], crops[1], blind[0], blind[1], points[0], points[1], fault, size)


def _hull(canvas: Canvas) -> Tensor:
    """A disc that holds the whole hand: (SIDE, SIDE)."""
    middle = canvas.points.mean(0)
    radius = (canvas.points - middle).norm(dim=1).max() + 0.5 * canvas.palm
    return ((grid() - middle).norm(dim=-1) < radius).float()


def _before(canvas: Canvas, background: Tensor) -> Canvas:
    assert canvas.skin is not None
    keep = torch.maximum((1.5 * canvas.skin).clamp(0, 1), canvas.body())
    return replace(canvas, image=over(background, canvas.image, keep))


def _square(random: torch.Generator) -> Tensor:
    """Where a crop is cut, on the canvas: a region (4,), about what the landmarks of the hand would give again."""
    middle = SIDE / 2 + SIDE * 0.03 * torch.randn(2, generator=random)
    size = SIDE / ROOM * MARGIN * (0.88 + 0.3 * _uniform(random))
    return torch.tensor([*middle.tolist(), size, 0.2 * float(torch.randn((), generator=random))])


def _seen(image: Tensor, square: Tensor, size: float, mirror: bool, random: torch.Generator) -> Tensor:
    """A crop (3, CROP, CROP) uint8 as it is after a picture in which it is `size` pixels wide was kept as a JPEG."""
    side = max(24, round(size))
    cut = crop([image], square[None], CROP)
    cut = F.interpolate(cut, (side, side), mode="bilinear", antialias=True)
    if _uniform(random) < 0.2:
        cut = _blurred(cut, 0.4 + 0.8 * _uniform(random))
    if _uniform(random) < 0.4:
        cut = cut + 0.03 * _uniform(random) * torch.randn(cut.shape, generator=random)
    if _uniform(random) < 0.2:  # sharpened, as phones do
        cut = cut + _uniform(random) * (cut - _blurred(cut, 1.0))
    pixels = (cut[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50 + int(46 * _uniform(random)))
    seen = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float()
    seen = F.interpolate(seen, (CROP, CROP), mode="bilinear", antialias=True)[0].round().byte()
    return seen.flip(-1) if mirror else seen


def _blurred(image: Tensor, sigma: float) -> Tensor:
    at = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, 7).expand(3, 1, 1, 7)
    padded = F.pad(image, (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)


class _light:
    """Exposure, contrast, colour cast and, now and then, grey: drawn once, for both of a pair."""

    def __init__(self, random: torch.Generator) -> None:
        self.gamma = math.exp(0.2 * float(torch.randn((), generator=random)))
        self.gain = 1 + 0.06 * torch.randn(3, 1, 1, generator=random)
        self.contrast = math.exp(0.12 * float(torch.randn((), generator=random)))
        self.grey = _uniform(random) < 0.1

    def __call__(self, image: Tensor) -> Tensor:
        image = (image.clamp(1e-3, 1) ** self.gamma * self.gain - 0.5) * self.contrast + 0.5
        image = image.clamp(0, 1)
        return image.mean(0, keepdim=True).expand(3, -1, -1) if self.grey else image


def _uniform(random: torch.Generator) -> float:
    return float(torch.rand((), generator=random))
