"""Read activations from saved trajectories: one forward for each wanted step, as deep as is wanted."""

from collections.abc import Sequence
from typing import Any

import torch

from .address import Plan
from .capture import Seen, Tokens, capture
from .models import Model
from .trajectory import Trajectory, stack


class _DeepestReachedError(Exception):
    """Nothing after this block is wanted."""


@torch.no_grad()
def replay(
    model: Model,
    plan: Plan,
    prompts: Sequence[str],
    trajectories: Sequence[Trajectory],
    guidance: float,
    height: int,
    width: int,
    tokens: Tokens = None,
) -> Seen:
    """What `capture` would have seen of these samples' generation.

    The bits are the same when the batch is as large as it was then.

    Parameters
    ----------
    prompts : sequence of str, one a sample
    trajectories : sequence of Trajectory, one a sample
        Of `plan.of` steps.
    tokens : bool array, optional
        As in `capture`.

    Returns
    -------
    Seen
        ``seen["single.3", 12]``, shaped as in `capture`.
    """
    inputs = model.adapter.inputs(model.pipe, prompts, guidance, height, width, model.max_sequence_length)
    modules = model.adapter.blocks(model.transformer)
    plan.check(list(modules))
    deepest = next(module for name, module in reversed(modules.items()) if name in map(str, plan.blocks))
    bare = Plan(plan.blocks, [1], of=1)
    seen = Seen(plan)
    for step in plan.steps:
        index = plan.index(step)
        latents = stack(trajectories, index).to(model.device)
        timestep = model.adapter.timestep(trajectories[0].timesteps[index], latents)
        with capture(model.transformer, bare, tokens) as call:
            handle = deepest.register_forward_hook(_stop)
            try:
                model.transformer(hidden_states=latents, timestep=timestep, **inputs)
            except _DeepestReachedError:
                pass
            finally:
                handle.remove()
        for block in plan.blocks:
            seen.put(block, step, call[block, 1])
    seen.calls = plan.of
    return seen


def _stop(*_: Any) -> None:
    raise _DeepestReachedError
