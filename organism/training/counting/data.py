"""Pictures to learn the finger count from: this project's kinematic hands, drawn with more variety than the organism's.

For training and measuring only; `count.py` does not need it. A hand is drawn once, with its digits' mask, and kept;
`augment.py` puts it before ever new backgrounds. Families of appearance: "seen" is learnt from, "unseen" is kept
for the test (skins of other hues, other light, and textures of another kind).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad

from ....anatomy.measure.count import FAULTS, RELATIONS
from ...hands import PosedHands, pose_hands
from ...render import front, outlines, rotation_of, surface

SIZE, FIELD = 144, 300.0  # pixels and millimetres across a drawn hand
HIDDEN = 0.3  # a tip of which a smaller share than this shows is not counted
# Skin from light to dark, in sRGB.
TONES = torch.tensor(
    [
        (0.97, 0.84, 0.76),
        (0.92, 0.74, 0.63),
        (0.82, 0.62, 0.48),
        (0.66, 0.46, 0.34),
        (0.48, 0.32, 0.23),
        (0.3, 0.2, 0.15),
    ]
)
# What is planted, and how often. "grown" is an extra digit at the hand's edge, a second thumb or a fork; "lost" one or
# two digits too few, thumb included; "seven" the organism's extra digit and a grown one. The others are the organism's.
PLANTED = {
    "": 0.47, "six": 0.11, "grown": 0.08, "seven": 0.03, "four": 0.09, "lost": 0.06, "fused": 0.05, "backward": 0.04,
    "proportion": 0.04, "detached": 0.03,
}  # fmt: skip
AS_FAULT = {"grown": "six", "seven": "six", "lost": "four"}


@dataclass(frozen=True)
class DrawnHands:
    """Hands without a background.

    Attributes
    ----------
    pixels : (n, 5, SIZE, SIZE) uint8: red, green, blue, opacity, and where raised digits show; palm and thumb as of a
        right hand, upright, the forearm below.
    count : (n,) raised digits whose tips show, 0 to 7. relation : (n,) index into RELATIONS. fault : (n,) into FAULTS.
    raised : (n,) bits of the digits that the gesture raises, thumb = 1. back : (n,) 1 where the back is seen.
    tilt : (n,) degrees between the palm's normal and the line of sight.
    """

    pixels: Tensor
    count: Tensor
    relation: Tensor
    fault: Tensor
    raised: Tensor
    back: Tensor
    tilt: Tensor


def draw(n: int, seed: int, family: str = "seen") -> DrawnHands:
    """Draw `n` hands; the same for the same seed and family ("seen" or "unseen")."""
    generator = torch.Generator().manual_seed(seed)
    raised = _gestures(n, generator)
    names, shares = list(PLANTED), torch.tensor(list(PLANTED.values()))
    planted = [names[i] for i in torch.multinomial(shares, n, replacement=True, generator=generator).tolist()]
    planted = [name if raised[i].sum() >= 2 else "" for i, name in enumerate(planted)]
    angles, abduction = _pose(raised, generator)
    given = [{"seven": "six", "grown": "", "lost": ""}.get(name, name) for name in planted]
    hands = _with_slot(pose_hands(angles, abduction, raised, generator, given))
    for i, name in enumerate(planted):
        if name in ("grown", "seven"):
            _grow(hands, i, generator)
        elif name == "lost":
            _lose(hands, i, generator)
    back = torch.rand(n, generator=generator) < 0.5
    camera = torch.randn(n, 3, generator=generator).clamp(-2, 2) * torch.tensor([13.0, 16.0, 0.0])
    away = 350 + 650 * torch.rand(n, 1, generator=generator)
    start, end, radii, dorsal = _place(hands, camera, back, away)
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(planted):
        pixels, tips = _paint(hands, i, (start[i], end[i], radii[i], dorsal[i]), family, generator)
        shown = {d for d, share in tips.items() if share >= HIDDEN}
        up = set(raised[i].nonzero()[:, 0].tolist())
        extra, gone = shown & {5, 6}, {d for d in up if not hands.exists[i, 6 + 3 * d]}
        hidden = (up - gone) - shown
        relation = "more" if extra and not gone else "fewer" if gone else "five"
        # A hand of which a digit is hidden, or that raises none, does not show how many it has.
        if not up or (hidden and not extra):
            relation = "unreadable"
        fault = AS_FAULT.get(name, name) or "none"
        if fault == "six" and not extra:
            fault = "none"
        rows.append(
            {
                "pixels": pixels,
                "count": len(shown & (up | {5, 6})),
                "relation": RELATIONS.index(relation),
                "fault": FAULTS.index(fault),
                "raised": sum(1 << d for d in up),
                "back": int(back[i]),
            }
        )
    tilt = torch.rad2deg(torch.acos(rotation_of(camera)[:, 2, 2]))
    labels = {k: torch.tensor([row[k] for row in rows]) for k in ("count", "relation", "fault", "raised", "back")}
    return DrawnHands(torch.stack([row["pixels"] for row in rows]), **labels, tilt=tilt)


def _gestures(n: int, generator: torch.Generator) -> Tensor:
    """Which digits are raised, (n, 5) bool: four in ten hands open, one in sixteen a fist, the rest any."""
    raised = torch.rand(n, 5, generator=generator) < torch.tensor([0.5, 0.75, 0.7, 0.6, 0.55])
    kind = torch.rand(n, generator=generator)
    raised[kind < 0.4] = True
    raised[(kind >= 0.4) & (kind < 0.5)] = torch.tensor([False, True, True, True, True])
    raised[kind > 0.94] = False
    return raised


def _pose(raised: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Angles (n, 15) and abductions (n, 5), in degrees, of hands that are straight, relaxed, spread or closed."""
    n = len(raised)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    straight = torch.stack([uniform(-8, 12, n, 5), uniform(-3, 14, n, 5), uniform(-3, 10, n, 5)], -1)
    relaxed = (uniform(0, 1, n, 1) > 0.5) * uniform(0, 1, n, 1) * uniform(0.6, 1.1, n, 5)
    straight += relaxed[..., None] * torch.tensor([28.0, 36.0, 20.0])
    folded = torch.stack([uniform(68, 88, n, 5), uniform(90, 106, n, 5), uniform(54, 68, n, 5)], -1)
    folded[:, 0] = torch.stack([uniform(24, 34, n), uniform(34, 52, n), uniform(30, 62, n)], -1)
    angles = torch.where(raised[..., None], straight, folded)
    angles[:, 0, 0] = torch.where(raised[:, 0], uniform(-8, 10, n), angles[:, 0, 0])
    closed = uniform(0, 1, n, 1) < 0.25
    spread = torch.where(closed, uniform(0.05, 0.45, n, 1), uniform(0.6, 1.35, n, 1))
    abduction = torch.tensor([0.0, 10.0, 1.0, -8.0, -18.0]) * spread + uniform(-2, 2, n, 5)
    thumb = torch.where(closed[:, 0], uniform(14, 40, n), uniform(32, 60, n))
    abduction[:, 0] = torch.where(raised[:, 0], thumb, uniform(16, 24, n))
    abduction[:, 1:] = torch.where(raised[:, 1:], abduction[:, 1:], abduction[:, 1:] * 0.25)
    return angles.reshape(n, 15), abduction


def _with_slot(hands: PosedHands) -> PosedHands:
    """The same hands with room for one more digit, number 6, which does not exist yet."""
    n = len(hands.start)

    def more(x: Tensor, like: slice) -> Tensor:
        return torch.cat([x, x[:, like]], 1).clone()

    like = slice(6, 9)
    return replace(
        hands,
        start=more(hands.start, like),
        end=more(hands.end, like),
        radii=more(hands.radii, like),
        dorsal=more(hands.dorsal, like),
        exists=torch.cat([hands.exists, torch.zeros(n, 3, dtype=torch.bool)], 1),
        digit=torch.cat([hands.digit, torch.full((3,), 6)]),
        bone=torch.cat([hands.bone, torch.arange(3)]),
    )


def _grow(hands: PosedHands, i: int, generator: torch.Generator) -> None:
    """Give hand `i` a digit 6: beside its outermost finger or thumb, or as a fork of a raised one."""
    up = hands.raised[i].nonzero()[:, 0]
    u = torch.rand(5, generator=generator)
    k = int(up[int(u[0] * len(up))])
    fork = bool(u[1] < 0.35)
    outside = -1.0 if k >= 2 else 1.0
    if not fork and k in (2, 3):  # inside the hand there is no room: go to its edge
        k = int(up[-1])
    old, new = slice(6 + 3 * k, 9 + 3 * k), slice(-3, None)
    turn = torch.deg2rad(torch.tensor(-outside * float(18 + 16 * u[2])))
    c, s = turn.cos(), turn.sin()
    spin = torch.stack([torch.stack([c, -s, 0 * c]), torch.stack([s, c, 0 * c]), torch.tensor([0.0, 0.0, 1.0])])
    pivot = hands.end[i, old][0] if fork else hands.start[i, old][0]
    shift = torch.zeros(3) if fork or k == 0 else torch.tensor([outside * float(10 + 7 * u[3]), -2.0, 0.0])
    length = 0.75 + 0.3 * u[4]
    for points in (hands.start, hands.end):
        points[i, new] = (points[i, old] - pivot) @ spin.T * length + pivot + shift
    hands.dorsal[i, new] = hands.dorsal[i, old] @ spin.T
    hands.radii[i, new] = hands.radii[i, old] * (0.85 + 0.15 * u[4])
    hands.exists[i, new] = torch.tensor([not fork, True, True])


def _lose(hands: PosedHands, i: int, generator: torch.Generator) -> None:
    """Take one raised digit of hand `i`, or two, the thumb included."""
    up = hands.raised[i].nonzero()[:, 0]
    many = 2 if len(up) > 2 and torch.rand(1, generator=generator) < 0.4 else 1
    for d in up[torch.randperm(len(up), generator=generator)[:many]].tolist():
        hands.exists[i, 6 + 3 * d : 9 + 3 * d] = False


def _place(hands: PosedHands, camera: Tensor, back: Tensor, away: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Parts turned to the camera, seen from `away` millimetres: nearer parts are larger."""
    rotation = rotation_of(camera) @ rotation_of(torch.stack([0 * back, 180.0 * back, 0 * back], -1))
    mirror = torch.stack([1 - 2.0 * back, torch.ones(len(back)), torch.ones(len(back))], -1)[:, None]

    def turned(points: Tensor) -> Tensor:
        return (points - torch.tensor([0.0, 84.0, 0.0])) @ rotation.transpose(1, 2) * mirror

    start, end = turned(hands.start), turned(hands.end)
    dorsal = turned(hands.start + hands.dorsal) - start
    near_start, near_end = (away / (away - p[..., 2]) for p in (start, end))
    radii = hands.radii * torch.stack([near_start, near_end], -1)
    return start * near_start[..., None], end * near_end[..., None], radii, dorsal


def _paint(
    hands: PosedHands,
    i: int,
    parts: tuple[Tensor, Tensor, Tensor, Tensor],
    family: str,
    g: torch.Generator,
) -> tuple[Tensor, dict[int, float]]:
    """One hand, its parts as of `_place`: (5, SIZE, SIZE) uint8, and for each digit the share of its tip that shows."""
    keep = hands.exists[i]
    start, end, radii, dorsal = (part[keep] for part in parts)
    left, right, above, below = _box(start, end, radii)
    centres = (torch.arange(SIZE) + 0.5) * FIELD / SIZE - FIELD / 2
    shape = (below - above, right - left)
    y = (-centres[above:below])[:, None].expand(shape).reshape(-1)
    x = centres[None, left:right].expand(shape).reshape(-1)
    digit, bone = hands.digit[keep], hands.bone[keep]
    depth, nx, ny, t = surface(start, end, radii, x, y)
    top, part, (nx, ny, nz) = front(depth, nx, ny)
    inside = top > -torch.inf
    tips = {}
    for p in (bone == 2).nonzero()[:, 0].tolist():
        if digit[p] >= 0:
            tips[int(digit[p])] = float((inside & (part == p)).sum() / (depth[p] > -torch.inf).sum().clamp_min(1))
    position, out = t.gather(0, part[None])[0], dorsal[part]

    u = torch.rand(16, generator=g)
    skin = _skin(family, u[:6])
    light = normalize(torch.stack([2 * u[6] - 1, 1.4 * u[7] - 0.4, 0.5 + 0.7 * u[8]]), dim=0)
    ambient = 0.25 + 0.45 * u[9]
    lambert = (nx * light[0] + ny * light[1] + nz * light[2]).clamp_min(0)
    colour = skin[:, None] * (ambient + (1.08 - ambient) * lambert)
    crease = 0.35 * u[10] * torch.exp(-((position / 0.07) ** 2)) * ((bone[part] > 0) & (digit[part] >= 0))
    colour = colour * (1 - crease)
    facing = out[:, 0] * nx + out[:, 1] * ny + out[:, 2] * nz
    nail = (bone[part] == 2) & (position > 0.3) & (position < 0.95) & (facing > 0.72) & bool(u[11] < 0.75)
    paint = torch.rand(3, generator=g) if u[11] < 0.12 else torch.tensor([0.98, 0.82, 0.80])
    colour = torch.where(nail, colour * 0.55 + 0.45 * paint[:, None], colour)
    if u[12] < 0.4:  # a sleeve: the forearm up to somewhere below the wrist
        sleeve = (part == 0) & (position < 0.45 + 0.5 * u[13])
        cloth = torch.rand(3, generator=g)[:, None] * (0.75 + 0.25 * torch.sin(y * 0.6 * u[14])) * (0.4 + 0.6 * nz)
        colour = torch.where(sleeve, cloth, colour)
    spots = torch.rand(1, 1, 18, 18, generator=g) * 2 - 1
    colour = colour * (1 + 0.16 * u[15] * interpolate(spots, shape, mode="bilinear").reshape(-1))

    top, inside = top.reshape(1, 1, *shape), inside.reshape(1, 1, *shape)
    filled = torch.where(inside, top, torch.full_like(top, -200.0))
    ids = torch.where(inside.reshape(-1), digit[part], -2).float().reshape(1, 1, *shape)
    darkness = 0.15 + 0.6 * torch.rand(1, generator=g)
    colour = colour.reshape(3, *shape) * (1 - darkness * outlines(inside, filled, ids))
    up = hands.raised[i].nonzero()[:, 0].tolist()
    fingers = torch.isin(digit[part], torch.tensor([*up, 5, 6])).reshape(1, *shape) & inside[0]
    opaque = inside[0].float()
    painted = (torch.cat([colour.clamp(0, 1) * opaque, opaque, fingers]) * 255).round().to(torch.uint8)
    return pad(painted, (left, SIZE - right, above, SIZE - below)), tips


def _box(start: Tensor, end: Tensor, radii: Tensor) -> tuple[int, int, int, int]:
    """First and last columns and rows that hold any of the parts, and a pixel more on every side."""
    r, xy = radii.amax(1, keepdim=True), torch.stack([start, end])[..., :2]
    low, high = (xy - r).amin((0, 1)), (xy + r).amax((0, 1))
    edges = torch.stack([low[0], high[0], -high[1], -low[1]]) * SIZE / FIELD + SIZE / 2
    left, right, above, below = (edges + torch.tensor([-2.0, 2.0, -2.0, 2.0])).clamp(0, SIZE).long().tolist()
    return left, right, above, below


def _skin(family: str, u: Tensor) -> Tensor:
    """A skin colour (3,) from six uniform numbers: a natural tone, or in the unseen family any hue, or grey."""
    at = float(u[0]) * (len(TONES) - 1)
    natural = torch.lerp(TONES[int(at)], TONES[int(at) + 1], at - int(at)) + 0.06 * (u[1:4] - 0.5)
    if family == "seen":
        return natural
    return u[1:4] * 0.7 + 0.25 if u[4] < 0.6 else (0.3 + 0.65 * u[5]).expand(3)
