"""The correction of a velocity by the gradient of a loss: where the gradient is taken, and how far it is followed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import HandscopeError
from .losses import Loss

LIMIT = 4.0  # sigma / (1 - sigma) diverges towards pure noise; this is sigma = 0.8


@dataclass(frozen=True)
class Strength:
    """How far the velocity is corrected.

    Attributes
    ----------
    scale : float
        The weight of the loss in ``exp(-scale * loss)``; or, where `relative`, the length of the correction as a share
        of the velocity's.
    limit : float
        Upper limit of the factor sigma / (1 - sigma).
    relative : bool
        Take of the gradient its direction alone.
    """

    scale: float
    limit: float = LIMIT
    relative: bool = False

    def correction(self, gradient: Tensor, velocity: Tensor, sigma: float) -> Tensor:
        """What is added to the velocity (batch, tokens, channels), float32, for the gradient of the loss at x_t."""
        if self.relative:
            return self.scale * gradient * (length(velocity) / length(gradient).clamp_min(1e-20))
        factor = self.limit if sigma >= 1 else min(sigma / (1 - sigma), self.limit)
        return self.scale * factor * gradient


def at_clean(loss: Loss, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (batch,) of predicted clean latents, and their gradient, with the velocity taken as constant."""
    with torch.enable_grad():
        clean = clean.detach().requires_grad_()
        losses = loss(clean)
        return losses.detach(), gradient_of(losses, clean)


def gradient_of(losses: Tensor, to: Tensor) -> Tensor:
    """The gradient of each image's loss (batch,) with respect to its own part of `to` (batch, ...).

    Raises
    ------
    HandscopeError
        The losses are not one number an image, not finite, or do not depend on `to`.
    """
    if losses.shape != to.shape[:1]:
        raise HandscopeError(
            f"Expected the loss to be one number an image, of shape ({len(to)},), found shape {tuple(losses.shape)}."
        )
    if not bool(losses.isfinite().all()):
        raise HandscopeError(f"Expected finite losses, found {losses.tolist()}: there is no gradient to follow.")
    if torch.is_inference_mode_enabled():
        raise HandscopeError(
            "Guidance needs gradients, and within torch.inference_mode there are none: use torch.no_grad() instead."
        )
    if not losses.requires_grad:
        raise HandscopeError("The loss does not depend on what it was given: there is no gradient to follow.")
    (gradient,) = torch.autograd.grad(losses, to, torch.ones_like(losses))
    return gradient


def length(x: Tensor) -> Tensor:
    """Of each image (batch, tokens, channels), as (batch, 1, 1)."""
    return x.flatten(1).norm(dim=1)[:, None, None]
