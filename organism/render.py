"""Pictures of hands with their ground truth: tapered capsules under an orthographic camera, shaded, in torch.

Each bone is a tapered capsule. For the ray through a pixel the point where it meets a capsule has a closed form, so a
picture is a maximum over capsules, vectorised over pixels; no mesh and no z-buffer is needed.
"""

from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from .captions import BACKGROUNDS, CAPTIONS, SKINS, Caption
from .hands import FAULTS, Hands, pose_hands, sample_pose

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


def _rotation(degrees: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) from angles (n, 3) about x, y and z, applied in that order."""
    (cx, cy, cz), (sx, sy, sz) = torch.deg2rad(degrees).cos().unbind(-1), torch.deg2rad(degrees).sin().unbind(-1)
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)
    x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], -1).reshape(-1, 3, 3)
    y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).reshape(-1, 3, 3)
    z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return z @ y @ x


def _place(points: Tensor, captions: list[Caption], camera: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Points (n, m, 3) of posed hands, in millimetres of the picture: side, view and camera applied."""
    turn = torch.tensor([180.0 if caption.view == "back" else 0.0 for caption in captions])
    rotation = _rotation(camera) @ _rotation(torch.stack([torch.zeros_like(turn), turn, torch.zeros_like(turn)], -1))
    points = (points - torch.tensor([0.0, 84.0, 0.0])) @ rotation.transpose(1, 2)
    mirror = torch.tensor([-1.0 if caption.side == "left" else 1.0 for caption in captions])
    points = points * torch.stack([mirror, torch.ones_like(mirror), torch.ones_like(mirror)], -1)[:, None]
    return points * scale[:, None, None] + shift[:, None]


def _surface(start: Tensor, end: Tensor, radii: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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


def _shade(
    hands: Hands,
    i: int,
    start: Tensor,
    end: Tensor,
    radii: Tensor,
    dorsal: Tensor,
    skin: Tensor,
    background: Tensor,
    light: Tensor,
    palm_view: bool,
    size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """One picture (3, size, size), its silhouette and depth (size, size), before averaging to the final size."""
    step = FIELD / size
    centres = (torch.arange(size) + 0.5) * step - FIELD / 2
    y, x = (-centres)[:, None].expand(size, size).reshape(-1), centres[None].expand(size, size).reshape(-1)
    keep = hands.exists[i]
    digit, bone = hands.digit[keep], hands.bone[keep]
    depth, nx, ny, t = _surface(start[i, keep], end[i, keep], radii[i, keep], x, y)
    top, part = depth.max(0)
    inside = top > -torch.inf
    # Parts that meet at nearly the same depth share their shading, so that a palm of five bones looks like one surface.
    weight = torch.softmax((depth - torch.where(inside, top, 0.0)) / 2.5, 0).nan_to_num_(0)
    nx, ny = (weight * nx).sum(0), (weight * ny).sum(0)
    nz = (1 - nx * nx - ny * ny).clamp_min(0.02).sqrt()
    lambert = (nx * light[0] + ny * light[1] + nz * light[2]).clamp_min(0)
    tone = skin * torch.tensor([1.04, 1.0, 1.0]) if palm_view else skin * 0.97
    colour = tone[:, None] * (0.52 + 0.5 * lambert)
    out = dorsal[i, keep][part]
    position = t.gather(0, part[None])[0]
    nail = (
        (bone[part] == 2)
        & (position > 0.3)
        & (position < 0.95)
        & (out[:, 0] * nx + out[:, 1] * ny + out[:, 2] * nz > 0.72)
    )
    colour = torch.where(nail & inside, colour * 0.6 + 0.4 * torch.tensor([[0.98], [0.82], [0.80]]), colour)

    # Outlines: the edge of the hand, jumps in depth, and where one digit lies beside another.
    top, inside = top.reshape(1, 1, size, size), inside.reshape(1, 1, size, size)
    ids = torch.where(inside.reshape(-1), digit[part], -2).float().reshape(1, 1, size, size)
    filled = torch.where(inside, top, torch.full_like(top, -200.0))
    nearest, farthest = max_pool2d(filled, 3, 1, 1), -max_pool2d(-filled, 3, 1, 1)
    high, low = max_pool2d(ids, 3, 1, 1), -max_pool2d(-ids, 3, 1, 1)
    beside = (high != low) & (low >= 0)
    line = inside & ((nearest - farthest > 6.0) | beside)
    line = avg_pool2d(line.float(), 3, 1, 1).clamp(0, 1)
    colour = colour.reshape(3, size, size) * (1 - (1 - OUTLINE) * line[0])
    image = torch.where(inside[0], colour, background[:, None, None].expand(3, size, size))
    return image.clamp(0, 1), inside[0, 0], filled[0, 0]


def render(
    hands: Hands, captions: list[Caption], generator: torch.Generator, size: int = 96, supersample: int = 2
) -> Renders:
    """Draw posed hands as their captions say; the camera, light and colours vary with `generator`."""
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

    def placed(points: Tensor) -> Tensor:
        return _place(points, captions, camera, scale, shift)

    start, end, joints = placed(hands.start), placed(hands.end), placed(hands.joints)
    dorsal = placed(hands.start + hands.dorsal) - start
    radii = hands.radii * scale[:, None, None]
    images, silhouettes, visibility = [], [], []
    pixels = torch.stack(
        [
            (joints[..., 0] + FIELD / 2) * size / FIELD,
            (FIELD / 2 - joints[..., 1]) * size / FIELD,
            joints[..., 2] * size / FIELD,
        ],
        -1,
    )
    for i, caption in enumerate(captions):
        image, inside, depth = _shade(
            hands,
            i,
            start,
            end,
            radii,
            dorsal,
            skin[i],
            background[i],
            light[i],
            caption.view == "palm",
            size * supersample,
        )
        images.append(avg_pool2d(image[None], supersample)[0])
        silhouettes.append(avg_pool2d(inside[None, None].float(), supersample)[0, 0] > 0.5)
        at = (pixels[i, :, :2] * supersample).long()
        framed = ((at >= 0) & (at < size * supersample)).all(-1)
        at = at.clamp(0, size * supersample - 1)
        # A joint lies inside its own bone, so it is hidden only by something well in front of it.
        hidden = depth[at[:, 1], at[:, 0]] > joints[i, :, 2] + 18
        digits = hands.exists[i, hands.digit >= 0][:15:3]
        drawn = torch.cat([torch.ones(1, dtype=torch.bool), digits.repeat_interleave(4)])
        visibility.append(framed & drawn & ~hidden)
    return Renders(
        (torch.stack(images) * 255).round().to(torch.uint8),
        [str(c) for c in captions],
        torch.stack(silhouettes),
        pixels,
        torch.stack(visibility),
        hands.angles,
        hands.ratios,
        hands.count,
        hands.fault,
    )


def render_dataset(n: int, seed: int, size: int = 96, corrupt: bool = False) -> Renders:
    """Draw `n` hands with captions of the trained family, the same for the same seed.

    Parameters
    ----------
    corrupt : draw only hands with a fault from FAULTS, in equal shares; the caption then says what should have been
        drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([2.0 if caption.gesture == "five" else 1.0 for caption in CAPTIONS])
    captions = [CAPTIONS[i] for i in torch.multinomial(weights, n, replacement=True, generator=generator).tolist()]
    parts = []
    for at in range(0, n, 64):
        chunk = captions[at : at + 64]
        pose = sample_pose([caption.gesture for caption in chunk], generator)
        faults = [FAULTS[(at + i) % len(FAULTS)] for i in range(len(chunk))] if corrupt else None
        parts.append(render(pose_hands(*pose, generator, faults), chunk, generator, size))
    return _join(parts)


def _join(parts: list[Renders]) -> Renders:
    columns: dict[str, Any] = {}
    for name in (field.name for field in fields(Renders)):
        values = [getattr(part, name) for part in parts]
        columns[name] = torch.cat(values) if isinstance(values[0], Tensor) else list(chain.from_iterable(values))
    return Renders(**columns)


def mirror_caption(caption: str) -> str:
    """The caption of the mirrored picture."""
    return str(Caption.parse(caption).mirrored())
