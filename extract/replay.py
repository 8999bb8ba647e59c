"""Read activations from saved trajectories: one forward for each wanted step, as deep as is wanted."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import HandscopeError
from ..models.model import Model
from ..run.trajectory import Trajectory, stack
from .address import Cell, Plan
from .agreement import refuse_disagreement, steps_off
from .capture import DeepestReachedError, Reduce, Seen, Tokens, reading


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
    reduce: Reduce = None,
) -> Seen:
    """What `capture` would have seen of these samples' generation.

    The bits are the same when the batch is as large as it was then; `batch_difference` measures what another size does.
    Each forward ends at the deepest block of the plan; where that is the model's last, what the model says is compared
    with the trajectories.

    Parameters
    ----------
    prompts : sequence of str, one a sample
    trajectories : sequence of Trajectory, one a sample
        Of `plan.of` steps.
    guidance, height, width : float, int, int
        As in the generation; size in pixels.
    tokens, reduce : optional
        As in `capture`.

    Returns
    -------
    Seen
        ``seen["single.3", 12]``, shaped as in `capture`.

    Raises
    ------
    HandscopeError
        A trajectory is of another length, number of tokens, dtype or schedule than this model gives; the plan wants
        unconditional calls, whose prompt no trajectory holds; or as in `capture`. What the model says is not what made
        the trajectory, which is seen where the model's last block is read; `check_agreement` looks without. Another
        model, and a height and width that were swapped, are noticed where trajectories are read: by `Run.trajectory`.
    """
    _check(model, plan, prompts, trajectories, height, width)
    plan = plan.on(model.blocks, model.carrying(plan.stream))
    family, first = model.family, trajectories[0]
    inputs = family.inputs(model, prompts, guidance, height, width)
    # What the model says costs nothing more where the last block is read and no other side has to be called.
    said = plan.stream == "image" and plan.at == "output" and not family.guided(model.pipe, guidance)
    off = []
    with reading(model.transformer, plan, plan.steps, tokens, reduce, stop=True, to_end=said) as seen:
        for step in plan.steps:
            index = plan.index(step)
            noisy = stack(trajectories, index).to(model.device)
            with suppress(DeepestReachedError):
                outputs = family.call(model.transformer, noisy, first.timesteps[index], inputs)
                less, output = stack(trajectories, index + 1).to(model.device), family.predicted(outputs, guidance)
                sigma, later = first.sigmas[index], first.sigmas[index + 1]
                off.append(steps_off(family, noisy, less, output, sigma, later, seen.index))
    if off:
        of_each = [step for step in plan.steps for _ in prompts]
        refuse_disagreement(model, torch.cat(off), [*prompts] * len(off), of_each, plan.of)
    return seen


@dataclass(frozen=True)
class BatchDifference:
    """How far activations read at one batch size are from those read at another.

    Attributes
    ----------
    sizes : tuple of two ints
    absolute : float
        Largest difference of any value.
    relative : float
        Largest difference of any value in units of its cell's root mean square.
    cell : Cell
        Where that is.
    """

    sizes: tuple[int, int]
    absolute: float
    relative: float
    cell: Cell


def batch_difference(
    model: Model,
    plan: Plan,
    prompts: Sequence[str],
    trajectories: Sequence[Trajectory],
    guidance: float,
    height: int,
    width: int,
    tokens: Tokens = None,
    size: int = 1,
) -> BatchDifference:
    """Replay samples all in one batch and again `size` at a time, and compare.

    Parameters
    ----------
    prompts, trajectories, guidance, height, width, tokens
        As in `replay`.
    size : int
        Smaller than the number of samples.
    """
    if not 1 <= size < len(prompts):
        raise HandscopeError(
            f"Expected a batch size of at least 1 and less than {len(prompts)}, the samples given, found {size}."
        )
    together = replay(model, plan, prompts, trajectories, guidance, height, width, tokens).take()
    own = tokens is not None and tuple(tokens.shape) == (len(prompts), len(trajectories[0].latents[0]))
    parts = []
    for first in range(0, len(prompts), size):
        some = slice(first, first + size)
        mask = tokens[some] if own and tokens is not None else tokens
        parts.append(replay(model, plan, prompts[some], trajectories[some], guidance, height, width, mask).take())
    absolute, relative = {}, {}
    for cell, rows in together.items():
        rows = rows.double()
        absolute[cell] = _largest(rows - torch.cat([part[cell] for part in parts]))
        scale = float(rows.square().mean().sqrt()) if rows.numel() else 0.0
        relative[cell] = absolute[cell] / (scale or 1.0)
    worst = max(relative, key=relative.__getitem__)
    return BatchDifference((size, len(prompts)), max(absolute.values()), relative[worst], worst)


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max()) if difference.numel() else 0.0


def _check(
    model: Model, plan: Plan, prompts: Sequence[str], trajectories: Sequence[Trajectory], height: int, width: int
) -> None:
    if plan.call != "cond":
        raise HandscopeError(
            "A trajectory does not hold the negative prompt, so unconditional calls cannot be replayed: capture them "
            "while the pipeline runs."
        )
    if len(prompts) != len(trajectories) or not prompts:
        raise HandscopeError(
            f"Expected a prompt and a trajectory for each sample, found {len(prompts)} prompts and {len(trajectories)} "
            "trajectories."
        )
    rows, columns = model.grid(height, width)
    family = model.family
    shape = (plan.of + 1, rows * columns, family.channels(model.transformer) * family.patch**2)
    sigmas, timesteps = family.schedule(model.pipe, plan.of, height, width)
    for number, trajectory in enumerate(trajectories, 1):
        which = f"Trajectory {number} of {len(trajectories)} ({prompts[number - 1]!r})"
        if trajectory.latents.shape != shape:
            raise HandscopeError(
                f"{which} is of another generation: expected latents of shape {shape} (steps + 1, tokens, channels) "
                f"for {plan.of} steps of {height} by {width} pixels, found {tuple(trajectory.latents.shape)}: generate "
                "anew, or name the size and steps that it was made with."
            )
        if trajectory.latents.dtype != model.dtype:
            raise HandscopeError(
                f"{which} is in {trajectory.latents.dtype}, and the model in {model.dtype}: load the model with the "
                "dtype that it generated with."
            )
        for name, expected, found in (
            ("sigmas", sigmas, trajectory.sigmas),
            ("timesteps", timesteps, trajectory.timesteps),
        ):
            if not np.allclose(expected, found, rtol=1e-5, atol=1e-6):
                first = int((expected - found).abs().gt(1e-5 * expected.abs() + 1e-6).nonzero()[0])
                raise HandscopeError(
                    f"{which} was made with another schedule: at index {first} this model's scheduler expects {name} "
                    f"{float(expected[first]):.6g}, found {float(found[first]):.6g}. Load the model that generated it, "
                    "with its scheduler and shift."
                )
