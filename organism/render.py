"""Pictures of hands with their ground truth: tapered capsules under an orthographic camera, shaded, in torch.

Each bone is a tapered capsule. For the ray through a pixel the point where it meets a capsule has a closed form, so a
picture is a maximum over capsules, vectorised over pixels; no mesh and no z-buffer is needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from .captions import BACKGROUNDS, CAPTIONS, SKINS, Caption
from .hands import FAULTS, PosedHands, pose_hands, sample_pose

FIELD = 226.0  # millimetres across the picture
OUTLINE = 0.42  # how dark an outline is, as a share of the skin's colour


@dataclass(frozen=True)
class Renders:
    """A batch of pictures and what they show.

    Attributes
    ----------
    images : (n, 3, size, size) uint8.
    captions : list of n prompts.
    silhouettes : (n, size, size) bool, hand and forearm.
    landmarks : (n, 21, 3) float: column and row in pixels, and depth in pixels towards the viewer; MediaPipe's order.
    visibility : (n, 21) bool: drawn, inside the picture, and not hidden behind another part.
    angles : (n, 15) degrees; ratios : (n, 5); count : (n,) int; fault : list of n names ("" for a plausible hand).
    """

    images: Tensor
    captions: list[str]
    silhouettes: Tensor
    landmarks: Tensor
    visibility: Tensor
    angles: Tensor
    ratios: Tensor
    count: Tensor
    fault: list[str]


def rotation_of(degrees: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) from angles (n, 3) about x, y and z, applied in that order."""
    (cx, cy, cz), (sx, sy, sz) = torch.deg2rad(degrees).cos().unbind(-1), torch.deg2rad(degrees).sin().unbind(-1)
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)
    x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], -1).reshape(-1, 3, 3)
    y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(-1, 3, 3)
    z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return z @ y @ x


@dataclass(frozen=True)
class Placed:
    """Posed hands where the camera sees them, in millimetres of the picture: what `PosedHands` calls so, and light.

    skin, background, light : (n, 3)
    """

    joints: Tensor
    start: Tensor
    end: Tensor
    radii: Tensor
    dorsal: Tensor
    skin: Tensor
    background: Tensor
    light: Tensor


def place_hands(hands: PosedHands, captions: list[Caption], generator: torch.Generator) -> Placed:
    """Side, view and colours as the captions say; camera, light and tones vary with `generator`."""
    n = len(captions)
    camera = (torch.rand(n, 3, generator=generator) * 2 - 1) * torch.tensor([10.0, 14.0, 11.0])
    scale = 1 + 0.05 * (torch.rand(n, generator=generator) * 2 - 1)
    shift = torch.cat([(torch.rand(n, 2, generator=generator) * 2 - 1) * 6, torch.zeros(n, 1)], 1)
    light = torch.nn.functional.normalize(
        torch.tensor([-0.35, 0.45, 0.85]) + 0.15 * torch.randn(n, 3, generator=generator), dim=-1
    )
    skin = torch.tensor([SKINS[c.skin] for c in captions]) + 0.02 * torch.randn(n, 3, generator=generator).clamp(-2, 2)
    background = torch.tensor([BACKGROUNDS[c.background] for c in captions])
    background = background + 0.015 * torch.randn(n, 3, generator=generator).clamp(-2, 2)
    turn = torch.tensor([180.0 if caption.view == "back" else 0.0 for caption in captions])
    still = torch.zeros_like(turn)
    rotation = rotation_of(camera) @ rotation_of(torch.stack([still, turn, still], -1))
    mirror = torch.tensor([-1.0 if caption.side == "left" else 1.0 for caption in captions])
    mirror = torch.stack([mirror, torch.ones_like(mirror), torch.ones_like(mirror)], -1)[:, None]

    def place(points: Tensor) -> Tensor:
        points = (points - torch.tensor([0.0, 84.0, 0.0])) @ rotation.transpose(1, 2)
        return points * mirror * scale[:, None, None] + shift[:, None]

    start = place(hands.start)
    return Placed(
        joints=place(hands.joints),
        start=start,
        end=place(hands.end),
        radii=hands.radii * scale[:, None, None],
        dorsal=place(hands.start + hands.dorsal) - start,
        skin=skin,
        background=background,
        light=light,
    )


def surface(start: Tensor, end: Tensor, radii: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where vertical rays meet tapered capsules.

    For parts (p, 3), (p, 3), (p, 2) and pixels x, y of shape (q,): depth (p, q), -inf outside; unit normals' x and y
    (p, q); and the position along the bone, 0 to 1. A capsule is a sphere swept along its axis; the sphere that a ray
    touches last follows from the cylinder around the axis, so the answer is exact for equal radii and close for a
    gentle taper.
    """
    axis = end - start
    length = axis.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    ux, uy, uz = (axis / length).unbind(-1)
    flat = (ux * ux + uy * uy).sqrt().clamp_min(1e-3)
    dx, dy = x - start[:, :1], y - start[:, 1:2]
    along = (dx * ux[:, None] + dy * uy[:, None]) / flat[:, None]
    aside = (dx * uy[:, None] - dy * ux[:, None]) / flat[:, None]
    mean = radii.mean(1, keepdim=True)
    height = (mean * mean - aside * aside).clamp_min_(0).sqrt_()
    t = ((along + height * uz[:, None]) / flat[:, None] / length).clamp_(0, 1)
    r = radii[:, :1] + t * (radii[:, 1:] - radii[:, :1])
    nx, ny = (dx - t * axis[:, :1]) / r, (dy - t * axis[:, 1:2]) / r
    rest = 1 - nx * nx - ny * ny
    depth = start[:, 2:] + t * axis[:, 2:] + r * rest.clamp_min(0).sqrt()
    return depth.masked_fill_(rest < 0, -torch.inf), nx, ny, t


def front(depth: Tensor, nx: Tensor, ny: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """What a pixel shows of the parts that its ray meets, as `surface` gives them: (p, q) to (q,).

    Returns
    -------
    Depth of the foremost part, -inf outside; which part it is; the normal there. Parts that meet at nearly the same
    depth share their normals, so that a palm of five bones looks like one surface.
    """
    top, part = depth.max(0)
    weight = torch.softmax((depth - torch.where(top > -torch.inf, top, 0.0)) / 2.5, 0).nan_to_num_(0)
    nx, ny = (weight * nx).sum(0), (weight * ny).sum(0)
    return top, part, (nx, ny, (1 - nx * nx - ny * ny).clamp_min(0.02).sqrt())


def _shade(
    hands: PosedHands, placed: Placed, i: int, palm_view: bool, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Picture i (3, size, size), its silhouette and depth (size, size), before averaging to the final size."""
    step = FIELD / size
    centres = (torch.arange(size) + 0.5) * step - FIELD / 2
    y, x = (-centres)[:, None].expand(size, size).reshape(-1), centres[None].expand(size, size).reshape(-1)
    keep = hands.exists[i]
    digit, bone = hands.digit[keep], hands.bone[keep]
    depth, nx, ny, t = surface(placed.start[i, keep], placed.end[i, keep], placed.radii[i, keep], x, y)
    top, part, (nx, ny, nz) = front(depth, nx, ny)
    inside = top > -torch.inf
    light, skin = placed.light[i], placed.skin[i]
    lambert = (nx * light[0] + ny * light[1] + nz * light[2]).clamp_min(0)
    tone = skin * torch.tensor([1.04, 1.0, 1.0]) if palm_view else skin * 0.97
    colour = tone[:, None] * (0.52 + 0.5 * lambert)
    out = placed.dorsal[i, keep][part]
    position = t.gather(0, part[None])[0]
    nail = (
        (bone[part] == 2)
        & (position > 0.3)
        & (position < 0.95)
        & (out[:, 0] * nx + out[:, 1] * ny + out[:, 2] * nz > 0.72)
    )
    colour = torch.where(nail & inside, colour * 0.6 + 0.4 * torch.tensor([[0.98], [0.82], [0.80]]), colour)

    top, inside = top.reshape(1, 1, size, size), inside.reshape(1, 1, size, size)
    ids = torch.where(inside.reshape(-1), digit[part], -2).float().reshape(1, 1, size, size)
    filled = torch.where(inside, top, torch.full_like(top, -200.0))
    colour = colour.reshape(3, size, size) * (1 - (1 - OUTLINE) * outlines(inside, filled, ids))
    image = torch.where(inside[0], colour, placed.background[i][:, None, None].expand(3, size, size))
    return image.clamp(0, 1), inside[0, 0], filled[0, 0]


def outlines(inside: Tensor, depth: Tensor, digit: Tensor) -> Tensor:
    """How much of a line each pixel is, (1, size, size): the hand's edge, jumps in depth, one digit beside another."""
    nearest, farthest = max_pool2d(depth, 3, 1, 1), -max_pool2d(-depth, 3, 1, 1)
    high, low = max_pool2d(digit, 3, 1, 1), -max_pool2d(-digit, 3, 1, 1)
    beside = (high != low) & (low >= 0)
    line = inside & ((nearest - farthest > 6.0) | beside)
    return avg_pool2d(line.float(), 3, 1, 1).clamp(0, 1)[0]


def render(
    hands: PosedHands, captions: list[Caption], generator: torch.Generator, size: int = 96, supersample: int = 2
) -> Renders:
    """Draw posed hands as their captions say; the camera, light and colours vary with `generator`."""
    placed = place_hands(hands, captions, generator)
    joints = placed.joints
    pixels = torch.stack(
        [
            (joints[..., 0] + FIELD / 2) * size / FIELD,
            (FIELD / 2 - joints[..., 1]) * size / FIELD,
            joints[..., 2] * size / FIELD,
        ],
        -1,
    )
    images, silhouettes, visibility = [], [], []
    for i, caption in enumerate(captions):
        image, inside, depth = _shade(hands, placed, i, caption.view == "palm", size * supersample)
        images.append(avg_pool2d(image[None], supersample)[0])
        silhouettes.append(avg_pool2d(inside[None, None].float(), supersample)[0, 0] > 0.5)
        digits = hands.exists[i, hands.digit >= 0][:15:3]
        drawn = torch.cat([torch.ones(1, dtype=torch.bool), digits.repeat_interleave(4)])
        visibility.append(drawn & _seen((pixels[i, :, :2] * supersample).long(), joints[i, :, 2], depth))
    return Renders(
        images=(torch.stack(images) * 255).round().to(torch.uint8),
        captions=[str(c) for c in captions],
        silhouettes=torch.stack(silhouettes),
        landmarks=pixels,
        visibility=torch.stack(visibility),
        angles=hands.angles,
        ratios=hands.ratios,
        count=hands.count,
        fault=hands.fault,
    )


def _seen(at: Tensor, height: Tensor, depth: Tensor) -> Tensor:
    """Which joints, at columns and rows (21, 2) and heights (21,), are in the picture and not behind something."""
    size = len(depth)
    framed = ((at >= 0) & (at < size)).all(-1)
    at = at.clamp(0, size - 1)
    # A joint lies inside its own bone, so it is hidden only by something well in front of it.
    return framed & ~(depth[at[:, 1], at[:, 0]] > height + 18)


def render_dataset(n: int, seed: int, size: int = 96, corrupt: bool = False) -> Renders:
    """Draw `n` hands with captions of the trained family, the same for the same seed.

    Parameters
    ----------
    corrupt : draw only hands with a fault from FAULTS, in equal shares; the caption then says what should have been
        drawn.
    """
    return _join([render(hands, captions, generator, size) for hands, captions, generator in posed(n, seed, corrupt)])


def posed(n: int, seed: int, corrupt: bool = False) -> Iterator[tuple[PosedHands, list[Caption], torch.Generator]]:
    """The hands of `render_dataset`, up to 64 at a time, before anything is drawn of them with the generator."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([2.0 if caption.gesture == "five" else 1.0 for caption in CAPTIONS])
    captions = [CAPTIONS[i] for i in torch.multinomial(weights, n, replacement=True, generator=generator).tolist()]
    for at in range(0, n, 64):
        chunk = captions[at : at + 64]
        pose = sample_pose([caption.gesture for caption in chunk], generator)
        faults = [FAULTS[(at + i) % len(FAULTS)] for i in range(len(chunk))] if corrupt else None
        yield pose_hands(*pose, generator, faults), chunk, generator


def _join(parts: list[Renders]) -> Renders:
    columns: dict[str, Any] = {}
    for name in (field.name for field in fields(Renders)):
        values = [getattr(part, name) for part in parts]
        columns[name] = torch.cat(values) if isinstance(values[0], Tensor) else list(chain.from_iterable(values))
    return Renders(**columns)


def mirror_caption(caption: str) -> str:
    """The caption of the mirrored picture."""
    return str(Caption.parse(caption).mirrored())
