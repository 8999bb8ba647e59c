"""The webbing graph: which neighbouring digits are joined, along how much of their length."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..read.capsules import Shape, along_digits, shape_of

SAMPLES = 10  # along each digit
BETWEEN = (0.3, 0.4, 0.5, 0.6, 0.7)  # where to look on the way from one digit to the next


@dataclass(frozen=True)
class Webbing:
    """Edges between neighbouring digits, thumb-index to ring-little; each (m, 4).

    Attributes
    ----------
    contact : share of the digits' length along which hand fills the way from one to the other. Closed fingers of a
        sound hand touch too.
    web : share along which that is so although their half-widths leave a gap: skin where there should be none.
    apart : distance between the digits in half-widths of both, mean; well below 1 two digits lie on one place.
    crease : where they touch, how much darker the darkest point between them is than the digits (0 to 1): a line
        between closed fingers, and none between fused ones. 0 where they do not touch.
    """

    contact: Tensor
    web: Tensor
    apart: Tensor
    crease: Tensor


def webbing(silhouette: Tensor, points: Tensor) -> Tensor:
    """Contact between neighbouring digits.

    Parameters
    ----------
    silhouette : (m, size, size) bool or float. points : (m, 21, 2) landmarks in its pixels.

    Returns
    -------
    (m, 4), share of the length, from the joint before the last two bones to the tip, along which the two are joined.
    """
    shape = shape_of(points[..., :2], silhouette.shape[-1])
    return web_graph(silhouette.float(), shape, torch.zeros_like(silhouette, dtype=torch.float32)).contact


def web_graph(silhouette: Tensor, shape: Shape, brightness: Tensor) -> Webbing:
    """The whole graph, from silhouettes and brightness (m, size, size) and the skeletons on them."""
    at, wide = along_digits(shape, SAMPLES)
    a, b, ra, rb = at[:, :-1], at[:, 1:], wide[:, :-1], wide[:, 1:]
    # Each point of a digit faces the nearest point of its neighbour.
    distance, facing = (a[..., :, None, :] - b[..., None, :, :]).norm(dim=-1).min(-1)
    b = b.gather(2, facing[..., None].expand_as(b))
    rb = rb.gather(2, facing)
    part = torch.tensor(BETWEEN, device=a.device, dtype=a.dtype)[:, None]
    path = a[..., None, :] * (1 - part) + b[..., None, :] * part
    joined = (sample(silhouette, path) > 0.5).all(-1)
    light = (sample(brightness, a) + sample(brightness, b)) / 2
    dark = (light - sample(brightness, path).amin(-1)).clamp_min(0)
    touching = joined.to(a.dtype)
    return Webbing(
        contact=touching.mean(-1),
        web=(joined & (distance > 1.15 * (ra + rb))).to(a.dtype).mean(-1),
        apart=(distance / (ra + rb)).mean(-1),
        crease=(dark * touching).sum(-1) / touching.sum(-1).clamp_min(1),
    )


def sample(maps: Tensor, at: Tensor) -> Tensor:
    """Values of maps (m, size, size) at points (m, ..., 2) in their pixels, bilinear, 0 outside."""
    grid = ((2 * at + 1) / maps.shape[-1] - 1).flatten(1, -2)[:, None]
    values = grid_sample(maps[:, None].to(at.dtype), grid, align_corners=False)
    return values.reshape(at.shape[:-1])
