"""Affine translators from a block's stream to the last block's, by ridge regression, from sums that are added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import HandscopeError

RIDGE = 1e-3
"""Strength of the ridge, in units of the mean variance of the stream: one for all blocks, so that none is chosen."""


@dataclass(frozen=True, eq=False)
class Translator:
    """``stream + (stream - mean) @ weights + shift``: what a later block adds, as far as it is affine in the stream.

    Attributes
    ----------
    mean, shift : Tensors of shape (width,), float32
    weights : Tensor of shape (width, width), float32
    """

    mean: Tensor
    weights: Tensor
    shift: Tensor

    def __call__(self, stream: Tensor) -> Tensor:
        """(..., tokens, width) to the same, float32."""
        stream = stream.float()
        return stream + (stream - self.mean) @ self.weights + self.shift


class TranslatorSums:
    """Sums of a block's tokens and the last block's, from which a translator is fitted.

    >>> sums = TranslatorSums(width)                                    # doctest: +SKIP
    >>> for stream, last in batches:                                    # doctest: +SKIP
    ...     sums.add(stream, last)
    >>> translate = fitted([sums])                                      # doctest: +SKIP

    Sums of several folds are fitted together, so that each fold can be left out in turn. They are float64 of the
    distance from an `origin`, which folds share, so that channels of large mean take no digits from the others.
    """

    def __init__(self, origin: Tensor) -> None:
        self.origin = origin.float()
        width = len(origin)
        self.count = 0
        self.x, self.y = (torch.zeros(width, dtype=torch.float64, device=origin.device) for _ in range(2))
        self.xx, self.xy = (torch.zeros(width, width, dtype=torch.float64, device=origin.device) for _ in range(2))

    def add(self, stream: Tensor, last: Tensor) -> None:
        """Tokens of a block and of the last one, both of shape (..., width)."""
        x = stream.flatten(0, -2).float()
        y = last.flatten(0, -2).float() - x
        x = x - self.origin
        self.count += len(x)
        self.x += x.sum(0, dtype=torch.float64)
        self.y += y.sum(0, dtype=torch.float64)
        self.xx += x.T @ x
        self.xy += x.T @ y


def fitted(sums: Sequence[TranslatorSums], ridge: float = RIDGE) -> Translator:
    """The translator that minimises ``|y - x - f(x)|² / n + ridge * mean variance of x * |weights|²`` over all sums.

    What it adds to the stream is shrunk to its mean, so that the translator of the last block changes nothing.

    Raises
    ------
    HandscopeError
        The sums are of fewer than two tokens.
    """
    count = sum(one.count for one in sums)
    if count < 2:
        raise HandscopeError(f"Expected tokens to fit a translator to, found {count}: give more samples.")
    x, y, xx, xy = (torch.stack([getattr(one, name) for one in sums]).sum(0) for name in ("x", "y", "xx", "xy"))
    mean, shift = x / count, y / count
    covariance, cross = xx / count - torch.outer(mean, mean), xy / count - torch.outer(mean, shift)
    strength = ridge * covariance.diagonal().mean().clamp(min=1e-12)
    covariance.diagonal().add_(strength)
    weights = torch.linalg.solve(covariance, cross)
    return Translator(sums[0].origin + mean.float(), weights.float(), shift.float())
