"""Faults planted in a photograph of a sound hand, by its landmarks, and changes that leave it sound.

    faulty = plant(canvas, "six", random)        # None where this hand has nothing that the fault could be made of

Each fault moves, copies, stretches or takes away pieces of the hand that is there. `unharmed` does to a hand whatever
blending and resampling a fault does, without a fault, and `elsewhere` does it to the background of both, so that traces
of the work tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .canvas import (
    SIDE,
    Canvas,
    filled,
    grid,
    mirrored,
    near,
    over,
    placed,
    sampled,
    soft,
    stretched,
    wavy,
)

LEAST = 0.05  # palm lengths squared that a fault has to change, so that it can be seen
SEEN = 0.08  # by how much of white


def plant(canvas: Canvas, fault: str, random: torch.Generator) -> Canvas | None:
    """The hand with a fault of `FAULTS`, or None where it cannot be planted in it so that it is seen."""
    for _ in range(3):
        image = FAULTS[fault](canvas, random)
        if image is None:
            return None
        changed = ((image - canvas.image).abs().amax(0) > SEEN).sum()
        if float(changed) > LEAST * canvas.palm**2:
            return canvas.with_image(image)
    return None


def six(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """A digit once more, turned about its base: between its neighbours, or beside them."""
    digit = _one_of(canvas.raised(), random)
    if digit is None:
        return None
    return _again(canvas, canvas.image, digit, random)


def seven(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """Two more digits."""
    raised = canvas.raised()
    if len(raised) < 2:
        return None
    image = canvas.image
    for _ in range(2):
        image = _again(canvas, image, raised[_below(len(raised), random)], random)
    return image


def _again(canvas: Canvas, image: Tensor, digit: int, random: torch.Generator) -> Tensor:
    mask = canvas.piece(digit)
    turn = math.radians(_between(20, 42, random)) * _sign(random)
    scale = _between(0.8, 1.05, random)
    pivot = canvas.chain(digit)[0] + 0.15 * canvas.palm * _between(-1, 1, random) * _across(canvas)
    shift = _between(-0.12, 0.12, random) * canvas.palm * _across(canvas)
    both = placed(torch.cat([canvas.image, mask[None]]), pivot, turn, scale, shift)
    new = both[3]
    if _chance(0.4, random):  # behind the hand
        new = new * (1 - canvas.body())
    return over(image, both[:3], new)


def missing(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """A digit taken away, down to its base or nearly."""
    digit = _one_of([d for d in canvas.raised() if d], random)
    if digit is None:
        return None
    return _without(canvas, digit, _between(0.05, 0.2, random), random)


def _without(canvas: Canvas, digit: int, from_: float, random: torch.Generator) -> Tensor:
    """The image without a digit, from a part of its way on."""
    at = canvas.chain(digit)
    start = at[0] + from_ * (at[-1] - at[0])
    axis = _unit(at[-1] - at[0])
    beyond = (((grid() - start) @ axis) / (0.5 * canvas.width(digit))).clamp(0, 1)
    hole = canvas.piece(digit, wide=1.45 if canvas.skin is None else 1.8) * beyond
    return filled(canvas.image, hole, canvas.body(without=[digit]), random)


def fused(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """Two neighbours with skin between them, up to near their tips."""
    raised = canvas.raised()
    pairs = [(d, d + 1) for d in range(4) if d in raised and d + 1 in raised]
    pairs = [pair for pair in pairs if _gap(canvas, *pair) < (1.1 if pair[0] else 0.8)]
    if not pairs:
        return None
    return _webbed(canvas, canvas.image, *pairs[_below(len(pairs), random)], random)


def _gap(canvas: Canvas, one: int, other: int) -> float:
    return float((canvas.chain(one)[-1] - canvas.chain(other)[-1]).norm()) / canvas.palm


def _webbed(canvas: Canvas, image: Tensor, one: int, other: int, random: torch.Generator) -> Tensor:
    chains = [canvas.chain(one), canvas.chain(other)]
    top = _between(0.7, 1.0, random)
    chains = [torch.cat([at[:-1], (at[-2] + top * (at[-1] - at[-2]))[None]]) for at in chains]
    inside = soft(_polygon(torch.cat([chains[0], chains[1].flip(0)])), 3)
    colours, weights = [], []
    for digit, at in zip((one, other), chains):
        nearest, away = _nearest(at)
        colours.append(soft_image(sampled(image, nearest)))
        weights.append(1 / (away / canvas.width(digit) + 0.3) ** 2)
    total = weights[0] + weights[1]
    mixed = (colours[0] * weights[0] + colours[1] * weights[1]) / total
    crease = 1 - _between(0, 0.2, random) * (4 * weights[0] * weights[1] / total.square()) ** 4
    grain = image - soft_image(image)
    return over(image, mixed * crease + 0.6 * sampled(grain, _nearest(chains[0])[0]), inside)


def soft_image(image: Tensor) -> Tensor:
    return torch.stack([soft(channel, 3) for channel in image])


def bent(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """A digit broken: turned at a middle joint, sideways or back, by an angle that no joint has."""
    digit = _one_of(canvas.raised(), random)
    if digit is None:
        return None
    joint = 1 + _below(2, random)
    turn = math.radians(_between(45, 120, random)) * _sign(random)
    mask = canvas.piece(digit, joint)
    both = placed(torch.cat([canvas.image, mask[None]]), canvas.chain(digit)[joint], turn)
    at = canvas.chain(digit)
    share = float((at[joint] - at[0]).norm() / (at[-1] - at[0]).norm().clamp_min(1e-3))
    return over(_without(canvas, digit, share, random), both[:3], both[3])


def long(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """A digit much too long."""
    return _of_length(canvas, _between(1.4, 1.9, random), random)


def short(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """A digit much too short."""
    return _of_length(canvas, _between(0.3, 0.55, random), random)


def _of_length(canvas: Canvas, factor: float, random: torch.Generator) -> Tensor | None:
    digit = _one_of([d for d in canvas.raised() if d], random)
    if digit is None:
        return None
    at = canvas.chain(digit)
    axis = _unit(at[-1] - at[0])
    both = stretched(torch.cat([canvas.image, canvas.piece(digit)[None]]), at[0], axis, factor)
    image = _without(canvas, digit, min(factor, 0.2), random) if factor < 1 else canvas.image
    return over(image, both[:3], both[3])


def thumb(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """The thumb on the little finger's side, with or without the one that is there."""
    if 0 not in canvas.raised():
        return None
    middle, axis = canvas.points[[0, 9]].mean(0), canvas.up()
    both = mirrored(torch.cat([canvas.image, canvas.piece(0, 1)[None]]), middle, axis)
    image = canvas.image if _chance(0.4, random) else _without(canvas, 0, _between(0.25, 0.45, random), random)
    new = both[3] * (1 - canvas.body()) if _chance(0.5, random) else both[3]
    return over(image, both[:3], new)


def detached(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """A digit whose end hangs in the air."""
    digit = _one_of([d for d in canvas.raised() if d], random)
    if digit is None:
        return None
    joint = 1 + _below(2, random)
    at = canvas.chain(digit)
    axis = _unit(at[-1] - at[0])
    both = placed(
        torch.cat([canvas.image, canvas.piece(digit, joint)[None]]),
        at[joint],
        math.radians(_between(-25, 25, random)),
        _between(0.8, 1.0, random),
        _between(0.15, 0.35, random) * canvas.palm * (axis + 0.5 * _between(-1, 1, random) * _across(canvas)),
    )
    share = float((at[joint] - at[0]).norm() / (at[-1] - at[0]).norm().clamp_min(1e-3))
    return over(_without(canvas, digit, share * 0.8, random), both[:3], both[3])


def melted(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """The digits run into waves a finger wide."""
    strong = _between(0.5, 1.1, random) * canvas.width(2)
    moved = wavy(strong, _between(2.5, 5, random) * canvas.width(2), random)
    where = soft((_hand(canvas) * 1.5).clamp(0, 1), 9)
    return sampled(canvas.image, grid() + moved * where[..., None])


def tangled(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """Pieces of digits laid over the hand at any angle."""
    raised = canvas.raised()
    if not raised:
        return None
    image = canvas.image
    for _ in range(2 + _below(3, random)):
        digit = raised[_below(len(raised), random)]
        base = canvas.chain(digit, 1)
        target = canvas.chain(_below(5, random))[_below(3, random)]
        both = torch.cat([canvas.image, canvas.piece(digit, 1)[None]])
        both = placed(both, base[0], _between(-math.pi, math.pi, random), _between(0.7, 1.1, random), target - base[0])
        image = over(image, both[:3], both[3])
    return image


def merged(canvas: Canvas, random: torch.Generator) -> Tensor | None:
    """All raised digits webbed, and melted a little: a mitten with remains of fingers."""
    raised = canvas.raised()
    pairs = [(d, d + 1) for d in range(1, 4) if d in raised and d + 1 in raised]
    if len(pairs) < 2:
        return None
    image = canvas.image
    for one, other in pairs:
        image = _webbed(canvas, image, one, other, random)
    return melted(canvas.with_image(image), random)


FAULTS: dict[str, Callable[[Canvas, torch.Generator], Tensor | None]] = {
    "six": six,
    "seven": seven,
    "missing": missing,
    "fused": fused,
    "bent": bent,
    "long": long,
    "short": short,
    "thumb": thumb,
    "detached": detached,
    "melted": melted,
    "tangled": tangled,
    "merged": merged,
}


def unharmed(canvas: Canvas, random: torch.Generator) -> Canvas:
    """The hand after the same work without a fault: digits cut out, turned and scaled by next to nothing, laid back;
    a hole at the rim of the arm's side filled; waves much longer than a finger.
    """
    image = canvas.image
    for digit in canvas.raised():
        if _chance(0.5, random):
            both = torch.cat([image, canvas.piece(digit)[None]])
            turn, scale = math.radians(_between(-4, 4, random)), _between(0.95, 1.05, random)
            both = placed(both, canvas.chain(digit)[0], turn, scale)
            image = over(image, both[:3], both[3])
    if _chance(0.5, random):
        moved = wavy(_between(0, 0.06, random) * canvas.palm, _between(1.0, 2.0, random) * canvas.palm, random)
        image = sampled(image, grid() + moved)
    return canvas.with_image(image)


def elsewhere(canvas: Canvas, random: torch.Generator) -> Canvas:
    """The background after the same work: pieces shaped like digits copied from it to it, and holes in it filled."""
    image, body = canvas.image, soft((_hand(canvas) * 2).clamp(0, 1), 7)
    free = 1 - (body if canvas.skin is None else torch.maximum(body, canvas.skin))
    for _ in range(1 + _below(3, random)):
        ends = torch.rand(2, 2, generator=random) * SIDE
        ends[1] = ends[0] + _unit(ends[1] - ends[0]) * _between(0.4, 0.9, random) * canvas.palm
        away = near(ends) / canvas.width(2)
        mask = ((1.45 - away) / 0.3).clamp(0, 1)
        if _chance(0.5, random):
            image = over(image, filled(image, mask, body, random), (free * 1.5 - 0.5).clamp(0, 1))
        else:
            shift = (torch.rand(2, generator=random) - 0.5) * SIDE
            both = placed(torch.cat([image, (mask * free)[None]]), ends[0], _between(-3, 3, random), 1.0, shift)
            image = over(image, both[:3], both[3] * (free * 1.5 - 0.5).clamp(0, 1))
    return canvas.with_image(image)


def _hand(canvas: Canvas) -> Tensor:
    return canvas.body()


def _across(canvas: Canvas) -> Tensor:
    up = canvas.up()
    return torch.stack([-up[1], up[0]])


def _nearest(path: Tensor) -> tuple[Tensor, Tensor]:
    """The point of a polyline (k, 2) that is nearest to each pixel: (SIDE, SIDE, 2), and how far it is."""
    at = grid()
    best, least = torch.zeros(SIDE, SIDE, 2), torch.full((SIDE, SIDE), torch.inf)
    for start, end in zip(path[:-1], path[1:]):
        axis = end - start
        t = ((at - start) @ axis / axis.square().sum().clamp_min(1e-6)).clamp(0, 1)
        point = start + t[..., None] * axis
        away = (at - point).norm(dim=-1)
        best = torch.where((away < least)[..., None], point, best)
        least = torch.minimum(least, away)
    return best, least


def _polygon(corners: Tensor) -> Tensor:
    """1 inside a polygon (k, 2), by even and odd crossings: (SIDE, SIDE)."""
    at, inside = grid(), torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for (x0, y0), (x1, y1) in zip(corners.tolist(), corners.roll(-1, 0).tolist()):
        if y0 != y1:
            crosses = (at[..., 1] < y0) != (at[..., 1] < y1)
            inside ^= crosses & (at[..., 0] < x0 + (at[..., 1] - y0) * (x1 - x0) / (y1 - y0))
    return inside.float()


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-6)


def _between(low: float, high: float, random: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))


def _below(n: int, random: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=random))


def _chance(p: float, random: torch.Generator) -> bool:
    return float(torch.rand((), generator=random)) < p


def _sign(random: torch.Generator) -> int:
    return 1 if _chance(0.5, random) else -1


def _one_of(digits: list[int], random: torch.Generator) -> int | None:
    return digits[_below(len(digits), random)] if digits else None
