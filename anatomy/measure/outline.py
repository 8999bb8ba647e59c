"""What the skeleton does not explain about a silhouette: residual, parts, and digits counted on circles."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..read.capsules import Shape
from .webbing import sample

EXPLAINED = 1.35  # half-widths within which the skeleton explains a pixel; skin and sleeves are wider than bones
REACH = 4.5  # half-widths from the skeleton beyond which a face or another hand begins; nothing is looked at there
RINGS = (0.8, 0.95, 1.1, 1.25, 1.4)  # circles around the middle of the palm, in palm lengths
STEPS = 180  # samples on a circle
GAP = 35.0  # degrees on each side of the forearm that are not looked at
RIM = 0.03  # palm lengths taken off all round the residual: outlines go, digits stay
PART = 0.01  # palm lengths squared from which a piece of silhouette counts as a part


@dataclass(frozen=True)
class Outline:
    """Attributes, for m hands; areas in palm lengths squared.

    residual : (m,) foreground near the skeleton that no capsule explains. joined : (m,) what of it hangs together with
    the hand. solid : (m,) what of it survives taking off a third of a finger's
    half-width all round: an extra digit does, a wide outline does not. missing : (m,) skeleton without foreground.
    parts : (m,) separate pieces. second : (m,) area of the second largest.
    holes : (m,) area of background enclosed by foreground.
    arcs : (m, 5) pieces of silhouette on each circle. explained : (m, 5) pieces of the skeleton's capsules there.
    """

    residual: Tensor
    joined: Tensor
    solid: Tensor
    missing: Tensor
    parts: Tensor
    second: Tensor
    holes: Tensor
    arcs: Tensor
    explained: Tensor


def outline(mask: Tensor, shape: Shape, inside: Tensor) -> Outline:
    """Compare silhouettes (m, size, size) bool with skeletons; only pixels `inside` the picture count."""
    unit = shape.palm.square()
    mask = mask & (shape.nearness < REACH)
    free = (shape.nearness > EXPLAINED) & ~shape.forearm & inside
    extra = mask & free
    kept = _eroded(extra, shape.palm * RIM)
    bare = (shape.nearness < 0.8) & inside & ~mask & ~shape.forearm
    main, parts, second, hollow = _pieces(mask & ~shape.forearm, shape.nearness < 1, unit)
    return Outline(
        residual=extra.sum((1, 2)) / unit,
        joined=(extra & main).sum((1, 2)) / unit,
        solid=kept.sum((1, 2)) / unit,
        missing=bare.sum((1, 2)) / unit,
        parts=parts,
        second=second,
        holes=hollow,
        arcs=_arcs(mask, shape),
        explained=_arcs(shape.nearness < 1.0, shape),
    )


def _eroded(mask: Tensor, radius: Tensor) -> Tensor:
    """Masks without their rim of about `radius` (m,) pixels, 1 to 5."""
    kept, rim = mask, (~mask).float()[:, None]
    for step in range(1, 6):
        rim = max_pool2d(rim, 3, 1, 1)
        kept = torch.where((radius.round() >= step)[:, None, None], rim[:, 0] < 0.5, kept)
    return kept


def _pieces(mask: Tensor, skeleton: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The piece of each mask with most of the skeleton, how many pieces, the area of the second and of the holes."""
    main, numbers = torch.zeros_like(mask), []
    for i, (one, bones, area) in enumerate(zip(mask.cpu().numpy(), skeleton.cpu().numpy(), unit.tolist())):
        labels, n = ndimage.label(one, structure=np.ones((3, 3)))
        sizes = np.sort(np.bincount(labels.reshape(-1), minlength=n + 1)[1:])[::-1] / area
        holes = float((ndimage.binary_fill_holes(one) & ~one).sum()) / area
        numbers.append((float((sizes > PART).sum()), float(sizes[1]) if n > 1 else 0.0, holes))
        if n:
            shared = np.bincount(labels[bones], minlength=n + 1)[1:]
            main[i] = torch.from_numpy(labels == 1 + shared.argmax()).to(mask.device)
    parts, second, holes = torch.tensor(numbers, dtype=torch.float32, device=mask.device).reshape(-1, 3).unbind(1)
    return main, parts, second, holes


def _arcs(mask: Tensor, shape: Shape) -> Tensor:
    """How many pieces of a mask lie on each circle around the palm, the forearm's side left out: (m, len(RINGS))."""
    middle = (shape.points[:, 0] + shape.points[:, [5, 9, 13]].mean(1)) / 2
    down = shape.points[:, 0] - middle
    start = torch.atan2(down[:, 1], down[:, 0])[:, None]
    turn = torch.deg2rad(torch.linspace(GAP, 360 - GAP, STEPS, device=start.device, dtype=start.dtype))
    direction = torch.stack([(start + turn).cos(), (start + turn).sin()], -1)
    radius = torch.tensor(RINGS, device=start.device, dtype=start.dtype) * shape.palm[:, None]
    at = middle[:, None, None] + radius[..., None, None] * direction[:, None]
    on = sample(mask.float(), at) > 0.5
    before = torch.cat([torch.zeros_like(on[..., :1]), on[..., :-1]], -1)
    # A piece starts where two samples on follow one off: a single sample is noise.
    after = torch.cat([on[..., 1:], torch.zeros_like(on[..., :1])], -1)
    return (on & ~before & after).sum(-1).float()
