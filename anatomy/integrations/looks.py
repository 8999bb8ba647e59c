"""The score of what a diffusion model will have drawn, read while it draws: to stop it, or to draw again."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ...models.registry import family_of
from ..judge.scoring import score
from .redraw import worst


class Look(Protocol):
    """What is known of a batch of unfinished samples: at least the clean latents that the model predicts."""

    @property
    def clean(self) -> Tensor: ...


class PlausibleHands:
    """How implausible the hands of predicted pictures are: a selector for `stop_callback` and `triage`.

    >>> look = PlausibleHands(pipe, 512, 512)                                   # doctest: +SKIP
    >>> stop = stop_callback(look, step=6, threshold=0.5)                       # doctest: +SKIP
    >>> pipe(prompt, callback_on_step_end=stop).images                          # doctest: +SKIP

    A score is 1 less that of the worst hand, and `unseen` where no hand is found: early pictures are blurred, so that
    little is found before the last third of the steps. Whether a look is worth its cost is to be measured, as
    `guidance.triage` does.

    Parameters
    ----------
    pipe : a pipeline of a known family
    height, width : of its pictures, in pixels
    unseen : the score of a picture in which no hand is found; 0 never stops for it
    options : of `anatomy.score`

    Attributes
    ----------
    scores : the `Scores` of the last look, or None.
    """

    blocks: tuple[str, ...] = ()

    def __init__(self, pipe: Any, height: int, width: int, unseen: float = 0.0, **options: Any) -> None:
        self.pipe, self.height, self.width, self.unseen, self.options = pipe, height, width, unseen, options
        self.scores: Any = None

    def __call__(self, look: Look) -> Tensor:
        """Scores of shape (batch,)."""
        with torch.no_grad():
            images = family_of(self.pipe).decode(self.pipe, look.clean, self.height, self.width)
        self.scores = score(images.float().clamp(0, 1), **self.options)
        lowest = worst(self.scores)
        return torch.tensor([self.unseen if one is None else 1 - one for one in lowest], dtype=torch.float64)
