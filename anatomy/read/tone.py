"""Grey pictures in the tones of skin: the networks learnt from photographs in colour, and colour is half of a hand."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
GAMMA = (0.7, 1.0, 1.25)  # of red, green and blue: dark greys brown, light ones pale
COLOURLESS = 0.04  # a picture is grey whose channels lie, in the mean, no farther apart than this share of its light
STEP = 8  # a pixel in so many, each way, tells


def is_grey(image: Tensor) -> bool:
    """Whether a picture (3, h, w) has next to no colour."""
    some = image[:, ::STEP, ::STEP]
    return bool((some.amax(0) - some.amin(0)).mean() <= COLOURLESS * some.mean())


def toned(image: Tensor) -> Tensor:
    """The light of a picture (3, h, w) in the tones of skin: the same shape, in [0, 1]."""
    light = torch.einsum("chw,c->hw", image, image.new_tensor(LUMA)).clamp(0, 1)
    return torch.stack([light if gamma == 1 else light**gamma for gamma in GAMMA])
