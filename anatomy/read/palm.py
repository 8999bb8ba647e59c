"""From a picture to palms: letterbox, the palm network, anchors, weighted non-maximum suppression.

After MediaPipe's hand detector graph (Zhang et al. 2020, arXiv 2006.10214; mediapipe 0.10.21, Apache-2.0), with its
constants. Coordinates are pixels of the picture, whole numbers at the centres of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .networks import PALM_INPUT, PalmNetwork
from .regions import crop, place

OVERLAP = 0.3  # boxes that overlap by more (intersection over union) are one palm
LARGEST_SCORE = 100.0  # of a logit


@dataclass(frozen=True)
class Palms:
    """The palms of one picture, the surest first.

    Attributes
    ----------
    boxes : (k, 4), x0, y0, x1, y1 in pixels.
    points : (k, 7, 2), pixels: wrist, index, middle, ring and little MCP, thumb CMC and MCP.
    scores : (k,), probabilities.
    """

    boxes: Tensor
    points: Tensor
    scores: Tensor


def find_palms(
    images: Sequence[Tensor], network: PalmNetwork, threshold: float = 0.5, views: Tensor | None = None
) -> list[Palms]:
    """The palms of each picture whose probability is at least `threshold`.

    Parameters
    ----------
    images : n pictures (3, h, w) in [0, 1]
    views : (n, 4), optional: the square of each picture that the network sees, as regions are given (centre x and y,
        size in pixels, rotation in radians); the whole picture, letterboxed, unless given
    """
    if views is None:
        views = torch.stack([whole(image) for image in images])
    seen = crop(images, views, PALM_INPUT)
    boxes, scores = network(seen)
    boxes, points = decode(boxes.to(views.dtype))
    scores = scores.to(views.dtype).clamp(-LARGEST_SCORE, LARGEST_SCORE).sigmoid()
    palms = []
    for view, box, point, score in zip(views, boxes, points, scores):
        kept = score >= threshold
        palms.append(_placed(suppress(box[kept], point[kept], score[kept]), view))
    return palms


def whole(image: Tensor) -> Tensor:
    """The smallest square that holds a picture (3, h, w), as a region (4,)."""
    height, width = image.shape[-2:]
    return image.new_tensor([width / 2, height / 2, max(height, width), 0.0])


@lru_cache
def anchors() -> Tensor:
    """Centres of the anchors, (2016, 2), in [0, 1] of the input: two a place on a grid of 24, six on one of 12."""
    centres = []
    for cells, a_place in ((24, 2), (12, 6)):
        middle = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(middle, middle, indexing="ij")
        centres.append(torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, a_place, -1).reshape(-1, 2))
    return torch.cat(centres)


def decode(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (n, 2016, 4) and points (n, 2016, 7, 2), in [0, 1] of the input, from the output (n, 2016, 18)."""
    anchor = anchors().to(raw)
    centre = raw[..., :2] / PALM_INPUT + anchor
    half = raw[..., 2:4] / PALM_INPUT / 2
    points = raw[..., 4:].unflatten(-1, (7, 2)) / PALM_INPUT + anchor[:, None]
    return torch.cat([centre - half, centre + half], -1), points


def suppress(boxes: Tensor, points: Tensor, scores: Tensor) -> Palms:
    """Weighted non-maximum suppression: a palm is the mean, by score, of the boxes that overlap its best one."""
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        best = order[0]
        alike = overlap(boxes[best], boxes[order]) > OVERLAP
        alike[0] = True
        group = order[alike]
        weight = scores[group] / scores[group].sum()
        kept.append(((weight[:, None] * boxes[group]).sum(0), (weight[:, None, None] * points[group]).sum(0), best))
        order = order[~alike]
    if not kept:
        return Palms(boxes[:0], points[:0], scores[:0])
    box, point, best_of = zip(*kept)
    return Palms(torch.stack(box), torch.stack(point), scores[torch.stack(best_of)])


def distinct(views: Sequence[Palms]) -> Palms:
    """The palms that several views of one picture show, each once, as its best view shows it, the surest first."""
    boxes, points, scores = (
        torch.cat([getattr(palms, name) for palms in views]) for name in ("boxes", "points", "scores")
    )
    order, kept = scores.argsort(descending=True, stable=True), []
    while len(order):
        kept.append(order[0])
        order = order[overlap(boxes[order[0]], boxes[order]) <= OVERLAP]
    chosen = torch.stack(kept) if kept else order
    return Palms(boxes[chosen], points[chosen], scores[chosen])


def overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of one box (4,) with many (k, 4)."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - shared).clamp(min=1e-9)


def _placed(palms: Palms, view: Tensor) -> Palms:
    """From [0, 1] of a view to pixels of the picture. A box stays upright in the view's turn: only its corners move."""
    view = view[None]
    points = place(palms.points.reshape(1, -1, 2), view).reshape(-1, 7, 2)
    half = (palms.boxes[:, 2:] - palms.boxes[:, :2]) / 2 * view[0, 2]
    centre = place(((palms.boxes[:, :2] + palms.boxes[:, 2:]) / 2)[None], view)[0]
    return Palms(torch.cat([centre - half, centre + half], -1), points, palms.scores)
