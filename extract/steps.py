"""The steps of a plan with their times, as they are kept beside activations."""

import numpy as np

from ..run.noised import Noised
from ..run.trajectory import Trajectory
from .address import Plan
from .store.shard import STEP


def step_table(plan: Plan, path: Trajectory | Noised) -> np.ndarray:
    """The steps of a plan: an array of dtype `STEP`, in the plan's order, with the times of a sample's latents."""
    indices = [plan.index(step) for step in plan.steps]
    times = (path.sigmas[indices], path.timesteps[indices], path.model_timesteps[indices])
    return np.array(list(zip(plan.steps, indices, *times, strict=True)), STEP)
