"""The steps of a plan with their times, as they are kept beside activations."""

import numpy as np

from ..run.trajectory import Trajectory
from .address import Plan
from .store.shard import STEP


def step_table(plan: Plan, trajectory: Trajectory) -> np.ndarray:
    """The steps of a plan: an array of dtype `STEP`, in the plan's order, with the times of a run's trajectory."""
    indices = [plan.index(step) for step in plan.steps]
    times = (trajectory.sigmas[indices], trajectory.timesteps[indices], trajectory.model_timesteps[indices])
    return np.array(list(zip(plan.steps, indices, *times, strict=True)), STEP)
