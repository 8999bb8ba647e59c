"""What a model computes, compared with what drew the pictures: the steps of their trajectories.

A weight hash says which files a model was loaded from. It says nothing of what has been done to the model since, nor of
what acted while the pictures were drawn: an adapter, a cache, another forward, steering, other text encoders. A step of
a trajectory does, since it goes where the model's output took it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import HandscopeError
from ..models.clean import stepped
from ..models.family import Family
from ..models.model import Model
from ..run.folder import Run
from ..run.trajectory import Trajectory
from .worklist import Batch

TOLERANCE = {torch.float32: 0.002, torch.bfloat16: 0.05}
"""How far a step may be off, as a share of its length, by the dtype of the model. On the machine that drew the
pictures, at the same batch size, the same model is off by nothing; `bench/validity/agreement.py` has what other kernels
and changes of a model do."""


def check_first(model: Model, run: Run, todo: Sequence[Batch]) -> None:
    """Compare a model with the trajectories of the first batch that has some, as `check_agreement` does."""
    first = next((batch for batch in todo if batch.road == "replayed"), None)
    if first is not None:
        rows, read = first.filled(), {sample: run.trajectory(sample) for sample in first.samples}
        prompts, paths = [row["prompt"] for row in rows], [read[row["sample"]] for row in rows]
        check_agreement(model, prompts, paths, rows[0]["guidance"], rows[0]["height"], rows[0]["width"])


@torch.no_grad()
def check_agreement(
    model: Model,
    prompts: Sequence[str],
    trajectories: Sequence[Trajectory],
    guidance: float,
    height: int,
    width: int,
) -> None:
    """Compare a model with trajectories in one forward, each row of it at another step.

    Parameters
    ----------
    prompts, trajectories, guidance, height, width
        As in `replay`.

    Raises
    ------
    HandscopeError
        A step is further off than `TOLERANCE`.
    """
    of = len(trajectories[0].timesteps)
    # As evenly over the steps as there are rows: a cache leaves some of them alone, often the first and the last.
    places = [(2 * row + 1) * of // (2 * len(trajectories)) for row in range(len(trajectories))]
    rows = list(zip(trajectories, places))
    noisy, less = (torch.stack([path.latents[i + later] for path, i in rows]).to(model.device) for later in (0, 1))
    timesteps, sigma, later = (
        torch.stack(times)
        for times in zip(*((path.timesteps[i], path.sigmas[i], path.sigmas[i + 1]) for path, i in rows))
    )
    inputs = model.family.inputs(model, prompts, guidance, height, width)
    output = model.family.predicted(model.family.call(model.transformer, noisy, timesteps, inputs), guidance)
    off = torch.cat(
        [steps_off(model.family, *row) for row in zip(*(x.split(1) for x in (noisy, less, output)), sigma, later)]
    )
    refuse_disagreement(model, off, prompts, [of - i for i in places], of)


def steps_off(
    family: Family,
    noisy: Tensor,
    less: Tensor,
    output: Tensor,
    sigma: Tensor,
    later: Tensor,
    index: tuple[Any, ...] | None = None,
) -> Tensor:
    """How far steps went from where the model's output takes them, as a share of their length, (batch,).

    What the rounding of the latents may explain is left out, so that it is never more than the relative error of the
    output; in bfloat16 it is less in steps that are short.

    Parameters
    ----------
    noisy, less, output : Tensors of shape (batch, tokens, channels)
        What went into a step, what came of it, and what the model says.
    sigma, later : Tensors of no dimension
        The share of noise before and after.
    index : tuple, optional
        Which of (batch, tokens) are looked at, where the output is whole in these only.
    """
    half = torch.finfo(less.dtype).eps / 2
    noisy, less = noisy.float(), less.float()
    rounding = half * (less.abs() + (noisy.abs() if family.keeps_float32 else 0))
    made = stepped(noisy, output, family.prediction, sigma, later)  # as the scheduler does, whose product rounds too
    beyond = ((made.float() - less).abs() - rounding).clamp(min=0).square().sum(2)
    length = (less - noisy).square().sum(2).mean(1).sqrt()  # of a token
    if index is not None:
        chosen = torch.zeros_like(beyond)
        chosen[index] = 1
        beyond, counts = torch.where(chosen > 0, beyond, 0), chosen.sum(1).clamp(min=1)
        return (beyond.sum(1) / counts).sqrt() / length.clamp(min=1e-12)
    return beyond.mean(1).sqrt() / length.clamp(min=1e-12)


def refuse_disagreement(model: Model, off: Tensor, prompts: Sequence[str], steps: Sequence[int], of: int) -> None:
    """Refuse what `steps_off` found, one a row, where any is more than `TOLERANCE`.

    Raises
    ------
    HandscopeError
        The message names the worst, and what may be the cause.
    """
    allowed = TOLERANCE.get(model.dtype, min(TOLERANCE.values()))
    shares = off.cpu()
    if bool((shares <= allowed).all()):
        return
    worst = int(shares.nan_to_num(torch.inf).argmax())
    acting = f"; now there acts {model.state}" if model.state != "plain" else ""
    raise HandscopeError(
        f"The model computes something else than what drew the picture of {prompts[worst]!r}: its step {steps[worst]} "
        f"of {of} is {float(shares[worst]):.2g} of its length off, and {allowed:g} is allowed. The picture was drawn "
        "under something that the run does not say (an adapter, a cache or another forward, steering, other text "
        f"encoders), or the model was changed since{acting}: load what drew it, or generate anew."
    )
