"""Evidence about hands as named numbers, for a classifier to weigh: always finite, and what is missing says so.

Names begin with what they come from: `joints_`, `straight_`, `spread_`, `ratio_` and `side_` from the landmarks in
space, `points_` from those in the picture, `sil_`, `digit_`, `web_` and `arcs_` from the silhouette. Where the
silhouette is unknown its values are 0 and `sil_missing` is 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..read.capsules import in_crop, shape_of
from ..read.foreground import foreground
from ..read.hands import Hands
from ..read.regions import crop, place
from ..read.skeleton import DIGITS, PAIRS
from .angles import abductions, bend_votes, joint_angles, side
from .excess import angle_excess, ratio_deviation, spread_excess
from .outline import RINGS, outline
from .ratios import digit_ratios
from .visibility import coverage, visibility
from .webbing import web_graph

STRAIGHT = 110.0  # degrees that a finger's joints bend by together, below which it is straight rather than folded
SIZE = 112  # of the crops that silhouettes are estimated on


def evidence(images: Tensor | Sequence[Tensor], hands: Hands) -> dict[str, Tensor]:
    """What can be measured about each hand without a learnt counter or segmentation.

    Parameters
    ----------
    images : (n, 3, h, w) in [0, 1], or a sequence of (3, h, w).
    hands : m hands found in them.

    Returns
    -------
    dict of name to (m,) float32, the same names in the same order for any input; no gradient.
    """
    with torch.no_grad():
        values = {**landmark_evidence(hands), **picture_evidence(images, hands)}
    return {name: value.float().nan_to_num(0.0, 0.0, 0.0).clamp(-1e6, 1e6) for name, value in values.items()}


def landmark_evidence(hands: Hands) -> dict[str, Tensor]:
    """What the landmarks alone say of m hands: name to (m,)."""
    right = side(hands.world, hands.right)
    angles = joint_angles(hands.world, right)
    excess = angle_excess(angles)
    digits = excess.reshape(-1, 5, 3).square().sum(2)
    spread = spread_excess(abductions(hands.world, right), angles)
    deviation = ratio_deviation(digit_ratios(hands.world))
    bend = angles.reshape(-1, 5, 3).sum(2)
    values = {"joints_sum": excess.square().sum(1), "joints_max": excess.amax(1)}
    values |= {f"joints_{digit}": digits[:, d] for d, digit in enumerate(DIGITS)}
    values |= {f"bend_{digit}": bend[:, d] for d, digit in enumerate(DIGITS)}
    values |= {f"spread_{a}_{b}": spread[:, i] for i, (a, b) in enumerate(PAIRS)}
    values |= {"ratio_sum": F.relu(deviation.abs() - 2).square().sum(1)}
    values |= {f"ratio_{digit}": deviation[:, d] for d, digit in enumerate(DIGITS) if digit != "middle"}
    values |= {f"ratio_off_{digit}": deviation[:, d].abs() for d, digit in enumerate(DIGITS) if digit != "middle"}
    values |= {
        "straight_digits": (bend[:, 1:] < STRAIGHT).float().sum(1),
        "presence": hands.presence,
        "presence_doubt": -torch.logit(hands.presence, 1e-6),
        "side_sure": (2 * hands.right - 1).abs(),
        "side_bend": bend_votes(hands.world) * torch.where(right, 1.0, -1.0),
        "side_overruled": (right != (hands.right > 0.5)).float(),
        "points_mismatch": mismatch(hands.points, hands.world),
    }
    return values


def mismatch(points: Tensor, world: Tensor) -> Tensor:
    """How badly landmarks in the picture fit those in space: (m,), in palm lengths.

    The two are separate outputs of one network. The residual of the best affine map from space to the picture's plane,
    root mean square over the 21 landmarks.
    """
    flat = points[..., :2] - points[..., :2].mean(1, keepdim=True)
    space = (world - world.mean(1, keepdim=True)) * 10  # metres to decimetres: of the order of 1
    ridge = 1e-6 * torch.eye(3, device=world.device, dtype=world.dtype)
    solved = torch.linalg.solve(space.mT @ space + ridge, space.mT @ flat)
    palm = (points[:, 9, :2] - points[:, 0, :2]).norm(dim=-1)
    palm = torch.maximum(palm, 1.6 * (points[:, 5, :2] - points[:, 17, :2]).norm(dim=-1)).clamp_min(1e-6)
    return (flat - space @ solved).square().sum(-1).mean(-1).sqrt() / palm


def picture_evidence(images: Tensor | Sequence[Tensor], hands: Hands) -> dict[str, Tensor]:
    """What the silhouettes of m hands say, each estimated from its crop: name to (m,)."""
    crops = crop(images, hands.region, SIZE, hands.image)
    inside = inside_picture(images, hands)
    scale = SIZE / hands.region[:, 2, None]
    points = in_crop(hands.points, hands.region, SIZE)
    shape = shape_of(points, SIZE)
    seen = foreground(crops, shape, inside)
    drawn = outline(seen.mask, shape, inside)
    web = web_graph(seen.mask.float(), shape, crops.mean(1))
    covered = coverage(seen.mask, shape)
    visible = visibility(torch.cat([points, (hands.points[..., 2] * scale)[..., None]], -1), shape, inside)
    near = shape.nearness < 1.3
    soft = (4 * seen.probability * (1 - seen.probability) * near).sum((1, 2)) / near.sum((1, 2)).clamp_min(1)
    more = drawn.arcs - drawn.explained
    values = {
        "sil_residual": drawn.residual,
        "sil_joined": drawn.joined,
        "sil_solid": drawn.solid,
        "sil_bare": drawn.missing,
        "sil_parts": drawn.parts,
        "sil_second": drawn.second,
        "sil_holes": drawn.holes,
        "sil_soft": soft,
        "digit_cover_least": covered.amin(1),
        **{f"digit_cover_{digit}": covered[:, d] for d, digit in enumerate(DIGITS)},
        **{f"web_contact_{a}_{b}": web.contact[:, i] for i, (a, b) in enumerate(PAIRS)},
        **{f"web_{a}_{b}": web.web[:, i] for i, (a, b) in enumerate(PAIRS)},
        "web_most": web.web.amax(1),
        **{f"web_crease_{a}_{b}": web.crease[:, i] for i, (a, b) in enumerate(PAIRS)},
        **{f"arcs_more_{i}": F.relu(more[:, i]) for i in range(len(RINGS))},
        **{f"arcs_fewer_{i}": F.relu(-more[:, i]) for i in range(len(RINGS))},
        "arcs_most": drawn.arcs.amax(1),
        "arcs_more_most": F.relu(more.amax(1)),
        "arcs_fewer_most": F.relu(-more.amin(1)),
    }
    readable = seen.known
    values = {name: torch.where(readable, value, torch.zeros_like(value)) for name, value in values.items()}
    values |= {
        "sil_confidence": seen.confidence,
        "sil_missing": (~readable).float(),
        **{f"digit_apart_{a}_{b}": web.apart[:, i] for i, (a, b) in enumerate(PAIRS)},
        "digit_apart_least": web.apart.amin(1),
        **{f"digit_visible_{digit}": visible[:, d] for d, digit in enumerate(DIGITS)},
        "points_cut": (~inside).float().mean((1, 2)),
        "points_size": (hands.region[:, 2].clamp_min(1) / 100).log(),
    }
    return values


def inside_picture(images: Tensor | Sequence[Tensor], hands: Hands) -> Tensor:
    """Which pixels of the crops are of the picture: (m, SIZE, SIZE) bool."""
    step = torch.arange(SIZE, device=hands.region.device, dtype=hands.region.dtype) / SIZE
    y, x = torch.meshgrid(step, step, indexing="ij")
    at = place(torch.stack([x, y], -1).reshape(1, -1, 2).expand(len(hands), -1, -1), hands.region)
    sides = [images[i].shape[-2:] for i in hands.image.tolist()]
    limit = torch.tensor(sides, device=at.device, dtype=at.dtype).reshape(-1, 1, 2).flip(-1)
    return ((at >= -0.5) & (at <= limit - 0.5)).all(-1).reshape(-1, SIZE, SIZE)

