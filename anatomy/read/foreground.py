"""Which pixels of a crop are hand, from colour alone: no learnt segmentation, and an honest "unknown".

Pixels deep inside the skeleton's capsules say what colours the hand has; pixels far from the skeleton say what colours
the rest has. Two colour histograms, and the logarithm of their ratio at each pixel, make the estimate; how well it
tells its own two sets of pixels apart is its confidence. Skin before a face, an arm or wood of the same colour gives a
low confidence, and then the silhouette is unknown.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d

from .capsules import Shape

BINS = 14  # of a histogram, for each of red, green and blue
CORE, FAR = 0.5, 2.0  # half-widths from a bone within which a pixel is hand, and beyond which it is background
LEAST = 30  # pixels of either kind without which nothing is said
SURE = 0.7  # confidence from which the silhouette counts as known


@dataclass(frozen=True)
class Foreground:
    """Estimated silhouettes of m hands.

    Attributes
    ----------
    probability : (m, size, size) in [0, 1].
    mask : (m, size, size) bool.
    confidence : (m,), from 0 (the colours do not differ) to 1: balanced accuracy on the pixels that were learnt from,
        twice its distance from one half.
    known : (m,) bool, confidence of at least `SURE`.
    """

    probability: Tensor
    mask: Tensor
    confidence: Tensor
    known: Tensor


def foreground(crops: Tensor, shape: Shape, inside: Tensor) -> Foreground:
    """Estimate silhouettes.

    Parameters
    ----------
    crops : (m, 3, size, size) in [0, 1]. shape : the skeletons on them.
    inside : (m, size, size) bool, pixels that belong to the picture.
    """
    m, _, size, _ = crops.shape
    level = (crops.clamp(0, 1) * BINS).long().clamp_max(BINS - 1)
    colour = (level[:, 0] * BINS + level[:, 1]) * BINS + level[:, 2]
    hand = (shape.nearness < CORE) & inside
    rest = (shape.nearness > FAR) & inside & ~shape.forearm
    ratio = (_frequency(colour, hand).log() - _frequency(colour, rest).log()).gather(1, colour.flatten(1))
    ratio = avg_pool2d(ratio.reshape(m, 1, size, size), 3, 1, 1, count_include_pad=False)[:, 0]
    probability = ratio.sigmoid() * inside
    mask = probability > 0.5
    enough = (hand.sum((1, 2)) >= LEAST) & (rest.sum((1, 2)) >= LEAST)
    right = (mask & hand).sum((1, 2)) / hand.sum((1, 2)).clamp_min(1)
    wrong = (mask & rest).sum((1, 2)) / rest.sum((1, 2)).clamp_min(1)
    confidence = (right - wrong).clamp(0, 1) * enough
    return Foreground(probability, mask, confidence, confidence >= SURE)


def _frequency(colour: Tensor, chosen: Tensor) -> Tensor:
    """Smoothed shares of the colours of the chosen pixels: (m, BINS ** 3), none of them 0."""
    m = len(colour)
    counts = torch.zeros(m, BINS**3, device=colour.device)
    counts.scatter_add_(1, colour.flatten(1), chosen.flatten(1).float())
    spread = avg_pool3d(counts.reshape(m, 1, BINS, BINS, BINS), 3, 1, 1).flatten(1)
    total = spread.sum(1, keepdim=True).clamp_min(1)
    return spread / total + 1e-4
