"""How long each digit is, over the middle finger."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ..read.skeleton import CHAINS
from .angles import checked


def digit_ratios(world: Tensor) -> Tensor:
    """Length of each digit over the middle finger's.

    A digit's length is the sum of its phalanges, from the MCP joint to the tip; so the thumb has two.

    Parameters
    ----------
    world : (m, 21, 3) float, any unit: landmarks in space; pictures foreshorten, so pixels give other ratios.

    Returns
    -------
    (m, 5), thumb first; the middle finger's is 1. A middle finger without length gives large, finite ratios.
    """
    world = checked(world)
    bones = vector_norm(world[:, CHAINS[:, 1:]] - world[:, CHAINS[:, :-1]], dim=-1)
    thumb, fingers = bones[:, :1, 1:].sum(-1), bones[:, 1:].sum(-1)
    lengths = torch.cat([thumb, fingers], 1)
    return lengths / lengths[:, 2:3].clamp_min(1e-9)
