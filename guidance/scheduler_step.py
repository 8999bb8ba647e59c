"""What a pipeline's scheduler was given at a step, and what it made of it, for a ``callback_on_step_end``.

A callback sees the latents after the step alone. What the model said cannot be told from them in every pipeline: one
that inpaints has put the known picture over a part of them, and one that begins in the middle of the schedule counts
from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SchedulerStep:
    """One step of a scheduler.

    Attributes
    ----------
    step : int
        Steps that remained when it began, counted from the schedule's end.
    sigma, later : float
        The share of noise before it and after it.
    latents, output, stepped : Tensor
        What it was given of the picture and of the model, in which guidance is applied, and what it made of them; as
        the pipeline has latents.
    """

    step: int
    sigma: float
    later: float
    latents: Tensor
    output: Tensor
    stepped: Tensor


class StepReader:
    """Reads the steps of a pipeline that has the callback ``reader.after(pipe, index)`` called at the end of each.

    The first step of a run is not read: nothing has been called before it.
    """

    def __init__(self) -> None:
        self._found: tuple[float, Tensor, Tensor, Tensor] | None = None

    def after(self, pipe: Any, index: int, times: Any) -> SchedulerStep | None:
        """The step that has just ended; None after the first. The next one will be read, if there is one.

        Parameters
        ----------
        index : int
            As the pipeline counts, from 0.
        times : Times
            Of the family.
        """
        found, self._found = (self._found if index else None), None
        of = len(times.timesteps)
        if found is None:
            self._read_next(pipe.scheduler)
            return None
        timestep, latents, output, stepped = found
        place = int((times.timesteps - timestep).abs().argmin())
        if place + 1 < of:
            self._read_next(pipe.scheduler)
        sigma, later = times.sigmas[place : place + 2].tolist()
        return SchedulerStep(of - place, sigma, later, latents, output, stepped)

    def _read_next(self, scheduler: Any) -> None:
        """Read the next call of the scheduler's `step`, which is as it was from then on."""
        own: Callable[..., Any] = scheduler.step
        instance = vars(scheduler)
        outer = instance.get("step")

        def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            del instance["step"]
            if outer is not None:
                instance["step"] = outer
            result = own(model_output, timestep, sample, *args, **kwargs)
            stepped = result[0] if isinstance(result, tuple) else result.prev_sample
            self._found = float(torch.as_tensor(timestep)), sample, model_output, stepped
            return result

        instance["step"] = step
