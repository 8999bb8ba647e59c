"""A second source of where hands are: boxes, from Handtrack.js's detector (Dibia, MIT; NOTICE.md).

    boxes = find_boxes(images)                          # for each picture (k, 4), x0, y0, x1, y1 in pixels

A single-shot detector over a feature pyramid of MobileNetV2 (Liu et al. 2016, arXiv 1512.02325; Lin et al. 2017, arXiv
1708.02002), which learnt whole hands at a webcam, held objects among them, and faces apart; the palm network looks for
palms. Its landmarks come from MediaPipe's networks all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from .graph import WEIGHTS, Graph
from .palm import overlap, whole
from .regions import crop

SIDE = 320  # pixels of the square that it looks at
STRIDES = (8, 16, 32, 64, 128)
HANDS, FACE = slice(1, 5), 5  # classes: open, closed, pinching and pointing hands; 0 is none of them
THRESHOLD = 0.2  # score of a hand: low, since landmarks have to agree
MOST = 4  # boxes a picture, each of which costs eight looks
SAME = 0.4  # boxes that overlap by more are one hand


class BoxNetwork(nn.Module):
    """Pictures (n, 3, 320, 320) in [0, 1] -> boxes (n, 12804, 4) in [0, 1] of them, and scores (n, 12804, 8)."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.register_buffer("anchors", anchors())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw, scores = self.graph(2 * x - 1)
        centre, size = self.get_buffer("anchors").split(2, -1)
        middle = centre + raw[..., [1, 0]] / 10 * size
        half = (raw[..., [3, 2]] / 5).exp() * size / 2
        return torch.cat([middle - half, middle + half], -1), scores.sigmoid()


def anchors() -> Tensor:
    """Centre x and y, width and height of the anchors, (12804, 4), in [0, 1] of the input.

    At each place of five grids two sizes, each as a square, lying and standing (TensorFlow's multiscale grid anchors).
    """
    parts = []
    for stride in STRIDES:
        first = stride / 2 if SIDE % stride == 0 else 0.0  # where the grid does not fit, it begins at the corner
        line = (torch.arange(math.ceil(SIDE / stride), dtype=torch.float32) * stride + first) / SIDE
        y, x = torch.meshgrid(line, line, indexing="ij")
        sides = [
            (size * math.sqrt(ratio), size / math.sqrt(ratio))
            for ratio in (1.0, 2.0, 0.5)
            for size in (4 * stride / SIDE, 4 * stride * math.sqrt(2) / SIDE)
        ]
        at = torch.stack([x, y], -1)[:, :, None].expand(-1, -1, len(sides), -1)
        parts.append(torch.cat([at, torch.tensor(sides).expand_as(at)], -1).reshape(-1, 4))
    return torch.cat(parts)


@cache
def load_handtrack(device: str = "cpu") -> BoxNetwork:
    """The detector."""
    return BoxNetwork(Graph.load(WEIGHTS / "handtrack.safetensors")).eval().to(device)


def find_boxes(images: Sequence[Tensor], threshold: float = THRESHOLD, most: int = MOST) -> list[Tensor]:
    """The boxes (k, 4) of what looks like a hand, and less like a face, in each picture (3, h, w), the surest first."""
    found = []
    for image in images:
        view = whole(image)
        with torch.no_grad():
            boxes, scores = (out[0] for out in load_handtrack(str(image.device))(crop([image], view[None], SIDE)))
        hand = scores[:, HANDS].amax(1)
        kept = (hand >= threshold) & (hand > scores[:, FACE])
        order = hand[kept].argsort(descending=True)
        boxes = boxes[kept][order]
        chosen: list[Tensor] = []
        while len(boxes) and len(chosen) < most:
            chosen.append(boxes[0])
            boxes = boxes[overlap(boxes[0], boxes) <= SAME]
        corner = (view[:2] - view[2] / 2).repeat(2)
        found.append(torch.stack(chosen) * view[2] + corner if chosen else image.new_zeros(0, 4))
    return found
