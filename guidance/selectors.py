"""Selectors for triage: linear probes of what is known of an unfinished sample, as one vector for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HandscopeError
from .triage import Look

if TYPE_CHECKING:
    from ..models.model import Model

FEATURES = ("x0_flat", "image", "x_t_flat")
"""What can be read without a hook: the predicted clean latents of all tokens, statistics of their decoded picture, and
the noisy latents themselves. Any other name is a block's: its output at all tokens."""


@dataclass(frozen=True, eq=False)
class LinearSelector:
    """Log-odds of bad from a linear probe of one feature.

    Attributes
    ----------
    probe : with ``coef_`` of shape (width,) and ``intercept_``
    feature : str
        One of `FEATURES`, or a block.
    model : Model, height, width
        Of the generation; for ``image``, which is decoded.
    """

    probe: Any
    feature: str
    model: Model
    height: int
    width: int

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block whose output is read, if any."""
        return () if self.feature in FEATURES else (self.feature,)

    def __call__(self, look: Look) -> Tensor:
        x = features(self.feature, look, self.model, self.height, self.width)
        if x.shape[1] != len(self.probe.coef_):
            raise HandscopeError(
                f"The probe has {len(self.probe.coef_)} weights, and {self.feature} of this generation {x.shape[1]} "
                "numbers: it was fitted to another model or another size."
            )
        return torch.from_numpy(x @ self.probe.coef_ + self.probe.intercept_)


@dataclass(frozen=True, eq=False)
class ByPrompt:
    """A selector for each prompt: the one that has not seen it.

    Attributes
    ----------
    of : dict of selectors by prompt, all of the same blocks
    """

    of: dict[str, LinearSelector]

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that are read."""
        return next(iter(self.of.values())).blocks

    def __call__(self, look: Look) -> Tensor:
        scores = torch.empty(len(look.prompts), dtype=torch.float64)
        chosen = [self.of[prompt] for prompt in look.prompts]
        for selector in {id(one): one for one in chosen}.values():
            rows = [i for i, one in enumerate(chosen) if one is selector]
            scores[rows] = selector(_rows(look, rows)).double()
        return scores


def features(name: str, look: Look, model: Model, height: int, width: int) -> np.ndarray:
    """A feature of a batch of samples, float64 of shape (batch, width)."""
    if name == "image":
        from ..extract.picture_statistics import decode, image_statistics

        return image_statistics(decode(model, look.clean, height, width))
    latents = {**look.activations, "x0_flat": look.clean, "x_t_flat": look.latents}[name]
    return latents.flatten(1).double().cpu().numpy()


def _rows(look: Look, rows: list[int]) -> Look:
    return Look(
        [look.prompts[i] for i in rows],
        look.steps,
        look.latents[rows],
        look.clean[rows],
        {block: tokens[rows] for block, tokens in look.activations.items()},
    )
