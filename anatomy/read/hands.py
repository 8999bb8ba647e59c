"""The hands that were found in a batch of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hands:
    """m hands of a batch of pictures; a picture without one has no row here.

    Attributes
    ----------
    image : (m,) long, which picture.
    region : (m, 4), centre x and y, size (pixels) and rotation (radians, clockwise as seen) of the square that was
        read.
    points : (m, 21, 3), pixels of the picture, MediaPipe's order (wrist; thumb CMC, MCP, IP, tip; index MCP, PIP, DIP,
        tip; …); z is depth relative to the wrist at the same scale, smaller is nearer.
    world : (m, 21, 3), metres, about the hand's centre, in the picture's orientation.
    presence : (m,), probability that the region shows a hand.
    right : (m,), probability that it is a right hand.
    embedding : (m, c), the landmark network's last features of the region; c is 1152, or 672 of the lite network.
    found_by : list of m: "palm" (MediaPipe's own way), "lower threshold", "detector", "rotation", "tile", or "box".
    """

    image: Tensor
    region: Tensor
    points: Tensor
    world: Tensor
    presence: Tensor
    right: Tensor
    embedding: Tensor
    found_by: list[str]

    def __len__(self) -> int:
        return len(self.image)

    def select(self, chosen: Tensor) -> Hands:
        """The hands that a mask (m,) bool, or a list of places (k,) long, names."""
        places = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
        tensors = {name: getattr(self, name)[places] for name in TENSORS}
        return Hands(**tensors, found_by=[self.found_by[i] for i in places.tolist()])

    @classmethod
    def cat(cls, parts: Sequence[Hands]) -> Hands:
        """Several, one after the other; at least one."""
        tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS}
        return cls(**tensors, found_by=[name for part in parts for name in part.found_by])


TENSORS = ("image", "region", "points", "world", "presence", "right", "embedding")
