"""Losses, velocities and a distribution that is known, shared by the tests of guidance."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from flux_calls import PROMPTS
from handscope.guidance import guide
from handscope.models.model import Model
from torch import Tensor


def distance(wanted: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss that `wanted` has none of."""
    return lambda clean: (clean - wanted).square().mean((1, 2))


def tilt(a: float) -> Callable[[Tensor], Tensor]:
    """The loss that takes independent standard normal numbers to normal ones of mean `a`."""
    return lambda clean: -a * clean.sum((1, 2))


def velocity(model: Model, latents: Tensor, sigma: float, no_grad: bool = True) -> Tensor:
    """What the transformer makes of the latents of the two prompts."""
    inputs = model.family.inputs(model, PROMPTS, 3.5, 32, 32)["calls"]["cond"]
    with torch.no_grad() if no_grad else nullcontext():
        return model.transformer(hidden_states=latents, timestep=torch.full([2], sigma), **inputs)[0]


class FluxTransformer2DModel(diffusers.FluxTransformer2DModel):
    """The exact velocity of independent standard normal latents."""

    def forward(self, hidden_states: Tensor, timestep: Tensor, **kwargs: Any) -> tuple[Tensor]:
        sigma = timestep[:, None, None]
        return ((2 * sigma - 1) * hidden_states / (sigma**2 + (1 - sigma) ** 2),)


def normal_pipe(steps: int) -> SimpleNamespace:
    """As much of a pipeline as guidance needs, around the exact velocity."""
    transformer = FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=0,
        attention_head_dim=4,
        num_attention_heads=1,
        joint_attention_dim=4,
        pooled_projection_dim=4,
        axes_dims_rope=(0, 2, 2),
    )
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    return SimpleNamespace(transformer=transformer, scheduler=scheduler)


def sample_normal(scale: float, loss: Callable[[Tensor], Tensor], travel: int = 1, steps: int = 200) -> Tensor:
    """Euler steps from noise to 20,000 standard normal numbers, guided; (20, 250, 4)."""
    pipe = normal_pipe(steps)
    latents = torch.randn(20, 250, 4, generator=torch.Generator().manual_seed(0))
    text, ids = torch.zeros(20, 3, 4), torch.zeros(250, 3)
    window = range(steps - 1, 0, -1)
    with torch.no_grad(), guide(pipe, loss, scale, steps=window, of=steps, limit=1e9, travel=travel):
        for t in pipe.scheduler.timesteps:
            v = pipe.transformer(
                hidden_states=latents, timestep=(t / 1000).expand(20), encoder_hidden_states=text, img_ids=ids
            )[0]
            latents = pipe.scheduler.step(v, t, latents, return_dict=False)[0]
    return latents
