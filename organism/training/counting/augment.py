"""Drawn hands put into pictures: backgrounds, crops, occluders, a second hand, light, blur, noise and block artefacts.

For training and measuring only. Every call draws anew, so that no two epochs show the same picture.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from ....anatomy.measure.count import RELATIONS
from ....anatomy.measure.count import SIDE as CROP
from .data import FIELD

WINDOW = 240.0  # millimetres across a crop: what the detector's region holds around a hand of common size
KEPT, LOST = 0.06, 0.4  # shares of the digits' pixels covered: labels stay below the first, unreadable above the second
EMPTY = 0.04  # share of pictures without a hand
POOL = 384


def textures(family: str, seed: int, n: int = POOL, size: int = 160) -> Tensor:
    """Backgrounds (n, 3, size, size) in [0, 1]; the two families share no kind of texture but the plain ones."""
    g = torch.Generator().manual_seed(seed)
    kinds = {"seen": (_gradient, _noise, _stripes, _boxes, _discs, _photo), "unseen": (_cells, _rings, _weave)}[family]
    return torch.stack([kinds[i % len(kinds)](size, g) for i in range(n)]).clamp(0, 1)


def _colours(k: int, g: torch.Generator) -> Tensor:
    return torch.rand(k, 3, 1, 1, generator=g)


def _axes(size: int) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1, 1, size)
    return line[:, None].expand(size, size), line[None].expand(size, size)


def _gradient(size: int, g: torch.Generator) -> Tensor:
    y, x = _axes(size)
    turn = torch.rand(1, generator=g) * 2 * math.pi
    a, b = _colours(2, g)
    share = float(torch.rand(1, generator=g))
    return a + (b - a) * share * (0.5 + 0.5 * (x * turn.cos() + y * turn.sin()))


def _noise(size: int, g: torch.Generator) -> Tensor:
    image = _colours(1, g)[0].expand(3, size, size).clone()
    for cells in (4, 9, 20, 45):
        amount = 0.35 * torch.rand(1, generator=g)
        coarse = torch.rand(1, 3, cells, cells, generator=g) - 0.5
        image += amount * interpolate(coarse, size, mode="bicubic")[0] * (20 / (cells + 16))
    return image


def _stripes(size: int, g: torch.Generator) -> Tensor:
    y, x = _axes(size)
    turn, wide = torch.rand(1, generator=g) * math.pi, 4 + 30 * torch.rand(1, generator=g)
    a, b = _colours(2, g)
    wave = torch.sigmoid(4 * torch.sin(wide * (x * turn.cos() + y * turn.sin())))
    return a + (b - a) * wave * (0.3 + 0.7 * torch.rand(1, generator=g))


def _boxes(size: int, g: torch.Generator) -> Tensor:
    image = _gradient(size, g)
    y, x = _axes(size)
    for colour in _colours(int(torch.randint(4, 14, (1,), generator=g)), g):
        u = torch.rand(4, generator=g).tolist()
        inside = ((x - 2.4 * u[0] + 1.2).abs() < 0.8 * u[2]) & ((y - 2.4 * u[1] + 1.2).abs() < 0.8 * u[3])
        image = torch.where(inside, colour, image)
    return image + 0.05 * torch.randn(3, size, size, generator=g)


def _discs(size: int, g: torch.Generator) -> Tensor:
    image = _noise(size, g)
    y, x = _axes(size)
    for colour in _colours(int(torch.randint(3, 16, (1,), generator=g)), g):
        u = torch.rand(3, generator=g).tolist()
        inside = (x - 2.4 * u[0] + 1.2) ** 2 + (y - 2.4 * u[1] + 1.2) ** 2 < (0.4 * u[2] + 0.04) ** 2
        image = torch.where(inside, colour * 0.7 + image * 0.3, image)
    return image


@cache
def _photos() -> Tensor:
    """The two photographs without hands that scikit-learn carries (CC BY), (2, 3, 427, 640)."""
    from sklearn.datasets import load_sample_images

    return torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]) / 255


def _photo(size: int, g: torch.Generator) -> Tensor:
    photos = _photos()
    side = int(torch.randint(80, 400, (1,), generator=g))
    which, top, left = (torch.rand(3, generator=g) * torch.tensor([2, 427 - side, 640 - side])).long().tolist()
    window = photos[which : which + 1, :, top : top + side, left : left + side]
    return interpolate(window, (size, size), mode="bilinear", antialias=True)[0]


def _cells(size: int, g: torch.Generator) -> Tensor:
    y, x = _axes(size)
    k = int(torch.randint(6, 40, (1,), generator=g))
    at = torch.rand(k, 2, generator=g) * 2.2 - 1.1
    near = ((x[None] - at[:, :1, None]) ** 2 + (y[None] - at[:, 1:, None]) ** 2).argmin(0)
    return torch.rand(k, 3, generator=g)[near].permute(2, 0, 1)


def _rings(size: int, g: torch.Generator) -> Tensor:
    y, x = _axes(size)
    cx, cy = (torch.rand(2, generator=g) * 2 - 1).tolist()
    a, b = _colours(2, g)
    r = ((x - cx) ** 2 + (y - cy) ** 2).sqrt() + 0.05 * torch.sin(9 * x + 5 * y)
    return a + (b - a) * (0.5 + 0.5 * torch.sin(r * (8 + 30 * torch.rand(1, generator=g))))


def _weave(size: int, g: torch.Generator) -> Tensor:
    y, x = _axes(size)
    f, h = (8 + 22 * torch.rand(2, generator=g)).tolist()
    a, b, c = _colours(3, g)
    return a + (b - a) * torch.sin(f * x + h * y) ** 2 + (c - a) * 0.5 * torch.sin(f * y - h * x) ** 2


@dataclass(frozen=True)
class Composed:
    """Pictures (n, 3, CROP, CROP) in [0, 1]; the relation (n,) they show, "unreadable" where an occluder or the crop's
    edge hides most of the digits, or where there is no hand; and where labels hold: `sure` (n,) bool, and `counted`
    (n,) bool, sure and with a hand to count the digits of.
    """

    pictures: Tensor
    relation: Tensor
    sure: Tensor
    counted: Tensor


def compose(drawn: Tensor, relation: Tensor, pool: Tensor, g: torch.Generator) -> Composed:
    """Put drawn hands (n, 5, ., .) uint8, which show `relation` (n,), into pictures; `pool` comes from `textures`."""
    n = len(drawn)
    layers = drawn.float() / 255

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*(shape or (n,)), generator=g)

    wild = uniform(0, 1) < 0.12
    turn = torch.deg2rad(torch.where(wild, uniform(-70, 70), 11 * torch.randn(n, generator=g)))
    scale = torch.exp(uniform(-0.34, 0.16)) * WINDOW / FIELD
    shift = torch.stack([uniform(-0.12, 0.12), uniform(-0.12, 0.12)], -1) * WINDOW / FIELD
    side = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    empty = uniform(0, 1) < EMPTY
    hand = _sample(layers, turn, scale, shift, side) * ~empty[:, None, None, None]

    picture = _background(pool, n, g, uniform)
    dark = uniform(0, 0.5) * (uniform(0, 1) < 0.5)
    coarse = avg_pool2d(avg_pool2d(hand[:, 3:4], 4), 5, 1, 2)
    shade = interpolate(coarse, CROP, mode="bilinear").roll((3, 2), (2, 3))
    picture = picture * (1 - dark[:, None, None, None] * shade)
    toward, turned = uniform(0, 2 * math.pi), uniform(-2, 2)
    beyond = torch.stack([toward.cos(), toward.sin()], -1) * uniform(0.75, 1.0)[:, None]
    i = (uniform(0, 1) < 0.12).nonzero()[:, 0]
    if len(i):  # a part of a second hand, behind the first
        second = _sample(layers[i - 1], turned[i], scale[i], beyond[i], side[i])
        picture[i] = picture[i] * (1 - second[:, 3:4]) + second[:, :3]
    picture = picture * (1 - hand[:, 3:4]) + hand[:, :3]

    cover = _occluder(n, uniform) * (uniform(0, 1) < 0.3)[:, None, None, None]
    picture = torch.where(cover > 0.5, _background(pool, n, g, uniform), picture)
    outside = _outside(n, turn, uniform) * (uniform(0, 1) < 0.35)[:, None, None, None]
    # Digits that the crop or the picture's edge cuts off count as covered: without, their area follows from the scale.
    area = layers[:, 4].sum((1, 2)) * (CROP / layers.shape[-1] / scale) ** 2
    shown = (hand[:, 4:5] * (cover <= 0.5) * (1 - outside)).sum((1, 2, 3))
    covered = torch.where((area > 20) & ~empty, 1 - shown / area.clamp_min(1), 0.0)
    lost = (covered > LOST) | empty
    sure = (covered < KEPT) | lost
    relation = torch.where(lost, RELATIONS.index("unreadable"), relation)
    return Composed(photographed(picture, g) * (1 - outside), relation, sure, sure & ~lost)


def _sample(layers: Tensor, turn: Tensor, scale: Tensor, shift: Tensor, side: Tensor) -> Tensor:
    c, s = turn.cos() * scale, turn.sin() * scale
    theta = torch.stack([torch.stack([c * side, -s, shift[:, 0]], -1), torch.stack([s * side, c, shift[:, 1]], -1)], 1)
    grid = affine_grid(theta, [len(layers), 5, CROP, CROP], align_corners=False)
    return grid_sample(layers, grid, mode="bilinear", align_corners=False)


def _background(pool: Tensor, n: int, g: torch.Generator, uniform: Callable[..., Tensor]) -> Tensor:
    """Random windows of the pool, mirrored and tinted; a third of them nearly plain."""
    pick = torch.randint(len(pool), (n,), generator=g).tolist()
    room = pool.shape[-1] - CROP
    at = torch.randint(room, (n, 2), generator=g).tolist()
    windows = torch.stack([pool[p, :, a : a + CROP, b : b + CROP] for p, (a, b) in zip(pick, at, strict=True)])
    tint, strength = uniform(0, 1, n, 3, 1, 1), torch.where(uniform(0, 1) < 0.33, uniform(0.0, 0.2), uniform(0.4, 1.0))
    return windows * strength[:, None, None, None] + tint * (1 - strength[:, None, None, None])


def _occluder(n: int, uniform: Callable[..., Tensor]) -> Tensor:
    """Masks (n, 1, CROP, CROP): a disc or a bar somewhere."""
    y, x = _axes(CROP)
    cx, cy, turn = uniform(-1, 1)[:, None, None], uniform(-1, 1)[:, None, None], uniform(0, math.pi)[:, None, None]
    u, v = (x - cx) * turn.cos() + (y - cy) * turn.sin(), (y - cy) * turn.cos() - (x - cx) * turn.sin()
    wide, long = uniform(0.03, 0.4)[:, None, None], uniform(0.1, 1.2)[:, None, None]
    bar = (u.abs() < long) & (v.abs() < wide)
    disc = (u / long.clamp_max(0.6)) ** 2 + (v / wide) ** 2 < 1
    return torch.where((uniform(0, 1) < 0.5)[:, None, None], bar, disc)[:, None].float()


def _outside(n: int, turn: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """Masks (n, 1, CROP, CROP) of what lies beyond the picture's edge, on one or two sides: a detector's crop is black
    there."""
    y, x = _axes(CROP)
    masks = []
    for _ in range(2):
        angle = (uniform(0, 4).floor() * math.pi / 2 + turn)[:, None, None]
        masks.append(x * angle.cos() + y * angle.sin() > uniform(0.5, 1.3)[:, None, None])
    return (masks[0] | masks[1])[:, None].float()


def photographed(picture: Tensor, g: torch.Generator) -> Tensor:
    """Exposure, colour cast, contrast, grey, blur, block artefacts and noise, each on some of the pictures."""
    n = len(picture)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*(shape or (n,)), generator=g)

    def some(share: float) -> Tensor:
        return (uniform(0, 1) < share)[:, None, None, None]

    cast = 1 + 0.16 * (uniform(0, 1, n, 3, 1, 1) - 0.5)
    contrast, light = uniform(0.6, 1.25)[:, None, None, None], uniform(-0.15, 0.15)[:, None, None, None]
    picture = ((picture * cast - 0.5) * contrast + 0.5 + light).clamp(0, 1)
    picture = picture ** torch.exp(uniform(-0.4, 0.4))[:, None, None, None]
    picture = torch.where(some(0.07), picture.mean(1, keepdim=True).expand_as(picture), picture)
    coarse = uniform(0.02, 0.09)[:, None, None, None, None]
    changes: list[tuple[float, Callable[[Tensor, Tensor], Tensor]]] = [
        (0.25, lambda its, i: avg_pool2d(its, 3, 1, 1, count_include_pad=False)),
        (0.15, lambda its, i: interpolate(avg_pool2d(its, 2), CROP, mode="bilinear")),
        (0.25, lambda its, i: _blocks(its, coarse[i])),
    ]
    for share, change in changes:
        i = (uniform(0, 1) < share).nonzero()[:, 0]
        if len(i):
            picture[i] = change(picture[i], i)
    noise = torch.randn(picture.shape, generator=g) * uniform(0, 0.04)[:, None, None, None]
    return (picture + noise * some(0.5)).clamp(0, 1)


def _blocks(picture: Tensor, coarse: Tensor) -> Tensor:
    """What a JPEG does: the cosine transform of blocks of 8x8 pixels, rounded, the finer the coarser."""
    n, c, h, w = picture.shape
    k = torch.arange(8.0)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * torch.where(k == 0, 0.125, 0.25)[:, None].sqrt()
    blocks = picture.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5).reshape(n, c, -1, 8, 8)
    step = coarse * (1 + k[:, None] + k[None])
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ ((coefficients / step).round() * step) @ basis
    return blocks.reshape(n, c, h // 8, w // 8, 8, 8).permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)
