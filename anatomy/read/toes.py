"""Feet, which the networks take for hands: toes are short, all point on from the ball, and end in a line."""

from __future__ import annotations

from torch import Tensor

from .skeleton import BASES, CHAINS, WRIST

SHORT = 0.62  # of the way from wrist to knuckles: the way from a finger's knuckle to its tip, in the mean
LINE = 0.12  # of the same: how far the tips' distances from the wrist scatter (standard deviation)
CERTAIN = 0.975  # presence from which a hand is one all the same


def like_feet(points: Tensor, presence: Tensor) -> Tensor:
    """Which of m hands look like feet: (m,) bool.

    A finger that is folded points back, so that its tip is nearer to the wrist than its knuckle; fingers that point at
    the camera are short as well, but their tips lie in no line. The limits are set on some sixty finds of bare feet and
    250 hands (docs/anatomy_detection.md).

    Parameters
    ----------
    points : (m, 21, 2 or 3), as in `Hands`
    presence : (m,)
    """
    points = points[..., :2]
    tips, knuckles = points[:, CHAINS[1:, -1]], points[:, list(BASES)]
    reach = (knuckles - points[:, WRIST, None]).norm(dim=-1)
    palm = reach.mean(1, keepdim=True).clamp(min=1e-6)
    short = (tips - knuckles).norm(dim=-1).mean(1) / palm[:, 0] <= SHORT
    beyond = (tips - points[:, WRIST, None]).norm(dim=-1)
    on = (beyond > reach).all(1)
    scatter = ((beyond - beyond.mean(1, keepdim=True)) / palm).square().mean(1).sqrt()
    return short & on & (scatter <= LINE) & (presence < CERTAIN)
