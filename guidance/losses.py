"""What guidance can follow: a function of the predicted clean latents or picture, or probes on activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import HandscopeError
from ..extract.hooks import Call, mask_of

if TYPE_CHECKING:
    from ..models.model import Model

Loss = Callable[[Tensor], Tensor]
"""From predicted clean latents (batch, tokens, channels), float32, to losses (batch,): lower is better."""


@dataclass(frozen=True, eq=False)
class PictureLoss:
    """A loss of the decoded picture.

    Attributes
    ----------
    model : Model
    of : function
        From pictures (batch, 3, height, width), float32 in [0, 1], to losses (batch,).
    height, width : int
        Of the generation, in pixels.
    decoder : function, optional
        From packed latents (batch, tokens, channels) to pictures of any size: a small decoder in place of the model's
        own, which is most of what this loss costs.
    """

    model: Model
    of: Callable[[Tensor], Tensor]
    height: int
    width: int
    decoder: Callable[[Tensor], Tensor] | None = None

    def __call__(self, latents: Tensor) -> Tensor:
        if self.decoder is not None:
            return self.of(self.decoder(latents))
        return self.of(self.model.family.decode(self.model.pipe, latents, self.height, self.width))


@dataclass(frozen=True, eq=False)
class LatentLoss:
    """Log-odds of bad by a linear probe of the predicted clean latents of all tokens.

    Attributes
    ----------
    probe : with ``coef_`` of shape (tokens * channels,) and ``intercept_``
    """

    probe: Any

    def __call__(self, latents: Tensor) -> Tensor:
        weights = torch.as_tensor(self.probe.coef_, dtype=torch.float32, device=latents.device)
        return latents.flatten(1) @ weights + self.probe.intercept_


@dataclass(frozen=True, eq=False)
class ProbeLoss:
    """Mean log-odds of bad over image tokens, by linear probes on blocks' outputs; over several blocks their mean.

    Attributes
    ----------
    probes : for each block, a probe with ``coef_`` of shape (width,) and ``intercept_``; or of shape (tokens * width,),
        a probe of all tokens with their places kept, which has one log-odds for the whole
    tokens : bool array, optional
        The tokens that count, as in `capture`: those of an instance, for a probe that was fitted to such tokens. All
        by default.
    """

    probes: Mapping[str, Any]
    tokens: ArrayLike | None = None
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.probes:
            raise HandscopeError("Expected a probe for at least one block, found none.")
        for block, probe in self.probes.items():
            self._weights[block] = torch.as_tensor(probe.coef_, dtype=torch.float32)

    def of_block(self, block: str, image: Tensor, call: Call) -> Tensor:
        """The block's part of the loss, (batch,), from image tokens (batch, tokens, width) of a conditional call."""
        weights, intercept = self._weights[block].to(image.device), self.probes[block].intercept_
        if len(weights) == image[0].numel() and image.shape[1] > 1:
            return (image.float().flatten(1) @ weights + intercept) / len(self.probes)
        scores = image.float() @ weights + intercept
        if self.tokens is None:
            return scores.mean(1) / len(self.probes)
        counted = mask_of(self.tokens, call, "cond", "image").to(image.device, torch.float32)
        return (scores * counted).sum(1) / counted.sum(-1).clamp_min(1) / len(self.probes)
