"""A hand of a photograph to be worked on: an upright square of it, its landmarks there, and cut-out pieces of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..read.capsules import DIGIT_RADII, in_crop, shape_of
from ..read.foreground import foreground
from ..read.regions import crop
from ..read.skeleton import CHAINS, DIGIT_BONES, PALM_BONES, WRIST

SIDE = 192  # pixels of a canvas
ROOM = 1.9  # of the region that landmarks were read in: what surrounds the hand, in which it can be moved
SKIN = 0.8  # confidence of the silhouette from which it is used


@dataclass(frozen=True)
class Canvas:
    """A hand on an upright square.

    Attributes
    ----------
    image : (3, SIDE, SIDE) in [0, 1]. points : (21, 2), its pixels. palm : palm length in pixels.
    skin : (SIDE, SIDE) in [0, 1], what of it is hand or arm by its colour; None where colours do not tell.
    away : (24, SIDE, SIDE), how far each pixel is from the 15 bones of the digits and the 9 rays of the palm, pixels.
    scale : pixels of the photograph to one of the canvas, before which details are not finer.
    """

    image: Tensor
    points: Tensor
    palm: float
    skin: Tensor | None
    away: Tensor
    scale: float

    @classmethod
    def of(cls, picture: Tensor, region: Tensor, points: Tensor) -> Canvas:
        """From a picture (3, h, w), the region (4,) that was read and landmarks (21, 3), as in `Hands`."""
        square = region * region.new_tensor([1, 1, ROOM, 1])
        at = in_crop(points[None], square[None], SIDE)
        image = crop([picture], square[None], SIDE)
        shape = shape_of(at, SIDE)
        seen = foreground(image, shape, torch.ones(1, SIDE, SIDE, dtype=torch.bool))
        known = bool(seen.confidence[0] >= SKIN)
        skin = F.avg_pool2d(seen.probability[None], 3, 1, 1)[0, 0] if known else None
        points = at[0, :, :2]
        away = _distances(points[torch.cat([DIGIT_BONES, PALM_BONES])])
        return cls(image[0].clamp(0, 1), points, float(shape.palm[0]), skin, away, float(square[2]) / SIDE)

    def with_image(self, image: Tensor) -> Canvas:
        """The same hand after its pixels were changed."""
        return replace(self, image=image.clamp(0, 1))

    def chain(self, digit: int, first: int = 0) -> Tensor:
        """Landmarks (k, 2) of a digit from its `first` (0 is MCP, of the thumb CMC) to its tip."""
        return self.points[CHAINS[digit, first:]]

    def width(self, digit: int) -> float:
        """Half of the width of a digit, pixels."""
        return self.palm * float(DIGIT_RADII[digit, 1:].mean())

    def reach(self, digit: int) -> float:
        """From base to tip as seen, over what its bones measure as seen: 1 for a straight digit."""
        at = self.chain(digit)
        return float((at[-1] - at[0]).norm() / (at[1:] - at[:-1]).norm(dim=1).sum().clamp_min(1e-3))

    def raised(self) -> list[int]:
        """Digits that are seen from the side or front, straight and long enough to be worked on."""
        long = 0.45 * self.palm
        return [
            d for d in range(5) if self.reach(d) > 0.85 and float((self.chain(d)[-1] - self.chain(d)[0]).norm()) > long
        ]

    def piece(self, digit: int, first: int = 0, wide: float = 1.15) -> Tensor:
        """The soft mask (SIDE, SIDE) of a digit from its `first` landmark on, no more than skin where that is known."""
        away = self.away[3 * digit + first : 3 * digit + 3].amin(0) / self.width(digit)
        mask = ((wide + 0.3 - away) / 0.3).clamp(0, 1)
        return mask if self.skin is None else mask * (2 * self.skin).clamp(0, 1)

    def body(self, without: Sequence[int] = ()) -> Tensor:
        """The soft mask of the palm and the digits but some."""
        mask = ((1.2 - self.away[15:].amin(0) / (0.2 * self.palm)) / 0.3).clamp(0, 1)
        for digit in range(5):
            if digit not in without:
                mask = torch.maximum(mask, self.piece(digit, wide=1.05))
        return mask

    def up(self) -> Tensor:
        """The direction (2,) from the wrist to the knuckles."""
        along = self.points[[5, 9, 13, 17]].mean(0) - self.points[WRIST]
        return along / along.norm().clamp_min(1e-6)


def near(path: Tensor) -> Tensor:
    """How far each pixel is from a polyline (k, 2): (SIDE, SIDE), pixels."""
    return _distances(torch.stack([path[:-1], path[1:]], 1)).amin(0)


def _distances(bones: Tensor) -> Tensor:
    """How far each pixel is from straight bones (k, 2 ends, 2): (k, SIDE, SIDE)."""
    start, axis = bones[:, 0], bones[:, 1] - bones[:, 0]
    step = torch.arange(SIDE, dtype=torch.float32)
    x, y = step[None, None] - start[:, 0, None, None], step[None, :, None] - start[:, 1, None, None]
    ax, ay = axis[:, 0, None, None], axis[:, 1, None, None]
    t = (x * ax + y * ay).div_(axis.square().sum(1).clamp_min(1e-6)[:, None, None]).clamp_(0, 1)
    return (x - t * ax).square_().add_((y - t * ay).square_()).sqrt_()


@cache
def grid() -> Tensor:
    """Coordinates x, y of every pixel of a canvas: (SIDE, SIDE, 2)."""
    step = torch.arange(SIDE, dtype=torch.float32)
    y, x = torch.meshgrid(step, step, indexing="ij")
    return torch.stack([x, y], -1)


def sampled(image: Tensor, at: Tensor) -> Tensor:
    """An image (c, SIDE, SIDE) at places (SIDE, SIDE, 2), edges repeated."""
    return F.grid_sample(
        image[None], ((2 * at + 1) / SIDE - 1)[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def placed(image: Tensor, pivot: Tensor, turn: float = 0.0, scale: float = 1.0, shift: Tensor | None = None) -> Tensor:
    """An image turned by radians (clockwise as seen) and scaled about a pivot (2,), then shifted."""
    away = grid() - pivot - (0 if shift is None else shift)
    return sampled(image, pivot + _turned(away, -turn) / scale)


def stretched(image: Tensor, start: Tensor, axis: Tensor, factor: float) -> Tensor:
    """An image in which what lies beyond `start` (2,) along the unit vector `axis` is `factor` times as long."""
    away = grid() - start
    along = away @ axis
    shift = torch.where(along > 0, along / factor - along, torch.zeros_like(along))
    return sampled(image, grid() + shift[..., None] * axis)


def mirrored(image: Tensor, at: Tensor, axis: Tensor) -> Tensor:
    """An image mirrored about the line through `at` along the unit vector `axis`."""
    away = grid() - at
    along = (away @ axis)[..., None] * axis
    return sampled(image, at + 2 * along - away)


def over(image: Tensor, piece: Tensor, mask: Tensor) -> Tensor:
    """A piece laid over an image where its mask is."""
    return image * (1 - mask) + piece * mask


def filled(image: Tensor, hole: Tensor, also: Tensor | None, random: torch.Generator) -> Tensor:
    """An image in which a hole (a soft mask) is filled from around it, but not from where `also` is.

    Push and pull: colours at half the size and half of that and so on, each level filling what the finer ones left
    open; and grain as strong as that of the surroundings.
    """
    free = (1 - hole) * (1 if also is None else 1 - also)
    free = torch.where(free > 0.9, free, torch.zeros_like(free))
    levels = [(torch.cat([image * free, free[None]]))[None]]
    while min(levels[-1].shape[-2:]) > 4:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    out = levels[-1]
    for fine in reversed(levels[:-1]):
        known = (4 * fine[:, 3:]).clamp(0, 1)
        coarse = F.interpolate(out / out[:, 3:].clamp_min(1e-6), fine.shape[-2:], mode="bilinear", align_corners=False)
        mixed = fine[:, :3] / fine[:, 3:].clamp_min(1e-6) * known + coarse[:, :3] * (1 - known)
        out = torch.cat([mixed, torch.ones_like(known)], 1)
    rough = image - F.avg_pool2d(image[None], 5, 1, 2, count_include_pad=False)[0]
    grain = (rough.square() * free).sum((1, 2)) / free.sum().clamp_min(1)
    noise = torch.randn(image.shape, generator=random) * grain.sqrt()[:, None, None].clamp_max(0.04)
    return over(image, (out[0, :3] + noise).clamp(0, 1), soft(hole))


def soft(mask: Tensor, radius: int = 2) -> Tensor:
    """A mask with softer edges."""
    rows = F.avg_pool2d(mask[None, None], (2 * radius + 1, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, 2 * radius + 1), 1, (0, radius), count_include_pad=False)[0, 0]


def wavy(amplitude: float, waves: float, random: torch.Generator) -> Tensor:
    """A smooth random displacement (SIDE, SIDE, 2) of about `amplitude` pixels, with a wave `waves` pixels long."""
    cells = max(3, round(SIDE / waves) + 1)
    coarse = torch.randn(1, 2, cells, cells, generator=random)
    return amplitude * F.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)


def _turned(offset: Tensor, turn: float) -> Tensor:
    cosine, sine = math.cos(turn), math.sin(turn)
    x, y = offset.unbind(-1)
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine], -1)
