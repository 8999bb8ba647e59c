"""A model's own steps, one at a time: for what must look between them, or leave samples out on the way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HandscopeError
from .clean import predicted_clean, stepped
from .model import Model


class Sampling:
    """The generation of `handscope.generate`, step by step: the same bits as the pipeline's at the same batch size.

    >>> sampling = Sampling(model, steps=20)                            # doctest: +SKIP
    >>> x = sampling.noise([0, 1])                                      # doctest: +SKIP
    >>> for index in range(20):                                         # doctest: +SKIP
    ...     x, output = sampling.step(x, prompts, index)
    >>> images = sampling.images(x)                                     # doctest: +SKIP

    Parameters
    ----------
    model : Model
    steps : int
    guidance : float
        As in `generate`.
    height, width : int, optional
        In pixels; by default what the model was trained for.

    Attributes
    ----------
    sigmas : Tensor of shape (steps + 1,), float32; the last is 0
    timesteps : Tensor of shape (steps,), float32, 1000 to 0
    calls : int
        Calls of the transformer so far, times the samples in each: what a generation costs.
    """

    def __init__(
        self, model: Model, steps: int = 20, guidance: float = 3.5, height: int | None = None, width: int | None = None
    ) -> None:
        model.check()
        self.model, self.steps, self.guidance = model, steps, guidance
        self.height, self.width = height or model.height, width or model.width
        self.sigmas, self.timesteps = model.family.schedule(model.pipe, steps, self.height, self.width)
        self.calls = 0
        self._given: tuple[tuple[str, ...], Any] = ((), None)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Initial latents of seeds, (batch, tokens, channels): those of `generate`."""
        drawn = [self.model.noise(seed, self.height, self.width) for seed in seeds]
        kept = torch.float32 if self.model.family.keeps_float32 else self.model.dtype
        return torch.stack(drawn).to(self.model.device, kept)

    def inputs(self, prompts: Sequence[str]) -> Any:
        """What does not change from step to step in the calls of these prompts: made once for those that go on."""
        if self._given[0] != tuple(prompts):
            given = self.model.family.inputs(self.model, prompts, self.guidance, self.height, self.width)
            self._given = tuple(prompts), given
        return self._given[1]

    @torch.no_grad()
    def step(self, latents: Tensor, prompts: Sequence[str], index: int) -> tuple[Tensor, Tensor]:
        """One step from the latents at `index`, counted from 0.

        Returns
        -------
        latents, output : Tensors of shape (batch, tokens, channels)
            The latents at index + 1, and what the model predicted (for FLUX.1 the velocity) in its dtype.
        """
        if not 0 <= index < self.steps:
            raise HandscopeError(f"Expected an index of 0 to {self.steps - 1}, found {index}.")
        model, family = self.model, self.model.family
        outputs = family.call(model.transformer, latents, self.timesteps[index], self.inputs(prompts))
        output = family.predicted(outputs, self.guidance)
        self.calls += (2 if family.guided(model.pipe, self.guidance) else 1) * len(latents)
        # As the scheduler steps: in float32, rounded once.
        sigma, later = self.sigmas[index : index + 2].to(latents.device)
        return stepped(latents.float(), output, family.prediction, sigma, later).to(output.dtype), output

    def clean(self, latents: Tensor, output: Tensor, index: int) -> Tensor:
        """Predicted clean latents (batch, tokens, channels), float32, from what went into a step and came out."""
        sigma = self.sigmas[index].to(latents.device)
        return predicted_clean(latents.float(), output.float(), self.model.family.prediction, sigma)

    def images(self, latents: Tensor) -> np.ndarray:
        """Decoded pictures of latents, uint8 of shape (batch, height, width, 3)."""
        pictures = self.model.decode(latents, self.height, self.width)
        return (pictures.permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)
