"""How long, how fast and in what numbers something is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import HandscopeError

WEIGHTINGS = ("logit_normal", "sigma_sqrt", "cosmap", "mode", "none")
"""As in diffusers' training scripts: logit_normal and mode say which times are drawn, the others how these count."""
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Training:
    """A training; the defaults are those of diffusers' scripts for FLUX.1.

    Attributes
    ----------
    steps : int
        Of the optimiser.
    batch, accumulate : int
        Pictures in one forward of one process, and forwards in one step.
    rate, decay : float
        AdamW's learning rate and weight decay.
    schedule, warm_up : str, int
        What becomes of the rate, one of `SCHEDULES`, and steps in which it rises.
    weighting : str
        One of `WEIGHTINGS`.
    guidance : float
        Strength that a model with embedded guidance is told.
    dropout : float
        Share of captions that are left out.
    prior_weight : float
        How much the loss on pictures of the class counts, where there are any.
    precision : str
        What forwards compute in, one of `PRECISIONS`; what is learnt is kept in float32.
    checkpointing : bool
        Compute activations again for the gradient instead of keeping them.
    average : float
        Decay of an exponential moving average of what is learnt, which is then what is saved; 0 for none.
    seed : int
        Of every random number: those of a step depend on it, the step and the process alone.
    save_every, sample_every : int
        Steps between checkpoints, and between samples (0 for none).
    """

    steps: int = 1000
    batch: int = 4
    accumulate: int = 1
    rate: float = 1e-4
    decay: float = 1e-4
    schedule: str = "constant"
    warm_up: int = 0
    weighting: str = "logit_normal"
    guidance: float = 3.5
    dropout: float = 0.0
    prior_weight: float = 1.0
    precision: str = "float32"
    checkpointing: bool = False
    average: float = 0.0
    seed: int = 0
    save_every: int = 250
    sample_every: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("weighting", WEIGHTINGS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise HandscopeError(f"Expected {name} to be {', '.join(choices)}, found {getattr(self, name)!r}.")
        for name in ("steps", "batch", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise HandscopeError(f"Expected {name} to be at least 1, found {getattr(self, name)}.")
        for name, most in (("dropout", 1.0), ("average", 1.0), ("rate", float("inf")), ("prior_weight", float("inf"))):
            if not 0 <= getattr(self, name) < most:
                raise HandscopeError(f"Expected {name} from 0 to below {most:g}, found {getattr(self, name):g}.")

    def decisive(self) -> dict[str, Any]:
        """What a training that goes on must share with the one that was stopped.

        The number of steps is not among it where the rate does not depend on it: a training can be lengthened.
        """
        free = {"save_every", "sample_every", "checkpointing"}
        if self.schedule.startswith("constant"):
            free.add("steps")
        return {name: value for name, value in asdict(self).items() if name not in free}


def names() -> list[str]:
    """Of all settings."""
    return [field.name for field in fields(Training)]
