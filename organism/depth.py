"""How near the surface of posed hands is, pixel by pixel: what a ControlNet of the organism is told."""

import torch
from torch import Tensor

from .captions import Caption
from .hands import PosedHands
from .render import FIELD, Renders, place_hands, posed, render, surface

DEEP = 60.0  # millimetres before and behind the middle of the picture that are told apart
LEAST = 0.1  # of the farthest part of a hand; 0 is the background


def depth_maps(hands: PosedHands, captions: list[Caption], generator: torch.Generator, size: int = 96) -> Tensor:
    """Depth of the pictures that `render` draws with a generator in the same state: (n, size, size), 1 nearest."""
    placed = place_hands(hands, captions, generator)
    centres = (torch.arange(size) + 0.5) * (FIELD / size) - FIELD / 2
    y, x = (-centres)[:, None].expand(size, size).reshape(-1), centres[None].expand(size, size).reshape(-1)
    maps = []
    for i in range(len(captions)):
        keep = hands.exists[i]
        top = surface(placed.start[i, keep], placed.end[i, keep], placed.radii[i, keep], x, y)[0].amax(0)
        near = ((top + DEEP) / (2 * DEEP)).clamp(LEAST, 1)
        maps.append(torch.where(top > -torch.inf, near, 0.0).reshape(size, size))
    return torch.stack(maps)


def render_with_depth(n: int, seed: int, size: int = 96) -> tuple[list[Renders], Tensor]:
    """The pictures of `render_dataset`, in parts, and their depth (n, size, size)."""
    parts, maps = [], []
    for hands, captions, generator in posed(n, seed):
        same = torch.Generator()
        same.set_state(generator.get_state())
        maps.append(depth_maps(hands, captions, same, size))
        parts.append(render(hands, captions, generator, size))
    return parts, torch.cat(maps)
