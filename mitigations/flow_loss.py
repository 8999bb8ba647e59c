"""How far a model's velocity is from the one that leads from pictures to noise, at the model's own times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from torch import Tensor

from ..errors import HandscopeError
from ..models.families.flow import Flow
from ..models.model import Model

FINE = 50
"""Steps of the model's own schedule, between whose times those of a training lie."""


class FlowLoss:
    """The loss of flow matching on packed latents (Lipman et al. 2023, arXiv 2210.02747; Esser et al. 2024).

    A share of the way u of the model's own schedule is drawn for each row, as diffusers' training scripts do it; the
    schedule's shift makes of it sigma and the timestep. The loss is the mean square of velocity - (noise - latents).

    Parameters
    ----------
    model : Model
        Of a family of flow matching.
    height, width : int
        In pixels.
    weighting : str
        One of `handscope.mitigations.settings.WEIGHTINGS`.
    guidance : float
        For embedded guidance. A model with classifier-free guidance is trained on the side of the caption.

    Raises
    ------
    HandscopeError
        The family has no loss here.
    """

    def __init__(self, model: Model, height: int, width: int, weighting: str, guidance: float) -> None:
        family = model.family
        if not isinstance(family, Flow) or family.prediction != "flow":
            raise HandscopeError(
                f"There is no training loss for {family.name} here, which is no model of flow matching that handscope "
                "draws with: train it with diffusers' own scripts."
            )
        self.model, self.family, self.size, self.weighting = model, family, (height, width), weighting
        self.guidance = family.unguided if family.guided(model.pipe, guidance) else guidance
        times = family.schedule(model.pipe, FINE, height, width)
        self.sigmas = times.sigmas.double()
        self.timesteps = torch.cat([times.timesteps, torch.zeros(1)]).double()

    def __call__(self, latents: Tensor, embeddings: Mapping[str, Any], draws: torch.Generator) -> Tensor:
        """The loss of each row, float32 of shape (rows,).

        Parameters
        ----------
        latents : Tensor of shape (rows, tokens, channels)
        embeddings : mapping
            Of the rows' captions, as `handscope.models.encode.Encoded.batch` gives them.
        draws : torch.Generator
            On the CPU, for times and noise.
        """
        rows, device = len(latents), latents.device
        share = compute_density_for_timestep_sampling(self.weighting, rows, 0.0, 1.0, 1.29, generator=draws)
        sigma, timestep = (between(each, share).to(device) for each in (self.sigmas, self.timesteps))
        noise = torch.randn(latents.shape, generator=draws).to(device)
        at = sigma[:, None, None]
        velocity = self._velocity((1 - at) * latents + at * noise, timestep, embeddings)
        weight = compute_loss_weighting_for_sd3(self.weighting, sigma)
        return weight * (velocity.float() - (noise - latents)).square().mean((1, 2))

    def _velocity(self, noisy: Tensor, timestep: Tensor, embeddings: Mapping[str, Any]) -> Tensor:
        model, family = self.model, self.family
        side = family.side(model, embeddings, self.guidance, *self.size)
        inputs = {"calls": {"cond": {**side, "return_dict": False}}, "grid": family.grid(model.pipe, *self.size)}
        (output,) = family.call(model.transformer, noisy, timestep, inputs)
        return family.predictions(output)


def between(table: Tensor, share: Tensor) -> Tensor:
    """Values at shares of the way through a table of equal steps, 0 its first and 1 its last: float32."""
    at = share.double().clamp(0, 1) * (len(table) - 1)
    low = at.floor().long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], at - low).float()
