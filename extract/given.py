"""Activations of given pictures, which the model did not draw: noise is put on them, and each step is one forward."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.clean import noised, predicted_clean
from ..models.model import Model
from ..run.folder import Run
from ..run.noised import Noised, mean_of
from ..run.prompts import LAST_SEED
from .address import Cell, Plan
from .capture import Reduce, Seen, Tokens, reading


def seeds_of(row: dict[str, Any]) -> list[int]:
    """The seeds of a given picture's noises, which follow each other; `row` is one of `Run.metadata`."""
    return [(row["seed"] + number) % (LAST_SEED + 1) for number in range(row["given"]["noises"])]


@torch.no_grad()
def read_given(
    model: Model,
    run: Run,
    plan: Plan,
    rows: Sequence[dict[str, Any]],
    tokens: Tokens = None,
    reduce: Reduce = None,
) -> tuple[Seen, list[Noised]]:
    """Encode given pictures, put the noise of each wanted step on them, and read one forward a step.

    A sample that is drawn comes to its latents by steps of its own; a given picture is put where such a path would be
    if it were straight: at ``(1 - sigma) * clean + sigma * noise`` for flow matching. With several noises, activations
    are the mean over them: one picture stays one sample.

    Parameters
    ----------
    rows : sequence of dict
        Of `Run.metadata`: pictures of one size, with as many noises each.
    tokens, reduce : optional
        As in `capture`.

    Returns
    -------
    seen : Seen
        Shaped as in `capture`; in float32.
    noised : list of Noised, one a row

    Raises
    ------
    HandscopeError
        The picture of a sample is another than was given; or as in `capture`.
    """
    family, first = model.family, rows[0]
    height, width, guidance = first["height"], first["width"], first["guidance"]
    clean = model.encode_image(_images(run, rows)).float()
    times = family.schedule(model.pipe, plan.of, height, width)
    kept = torch.float32 if family.keeps_float32 else model.dtype
    inputs = family.inputs(model, [row["prompt"] for row in rows], guidance, height, width)
    sums: dict[Cell, Tensor] = {}
    parts: list[list[Noised]] = [[] for _ in rows]
    every = list(zip(*map(seeds_of, rows), strict=True))
    for seeds in every:
        noise = torch.stack([model.noise(seed, height, width) for seed in seeds]).to(clean.device)
        seen_by_model = torch.full((plan.of,), torch.nan)
        looks: dict[int, tuple[Tensor, Tensor]] = {}
        with reading(model.transformer, plan, plan.steps, tokens, reduce) as seen, _timesteps(model) as timesteps:
            for step in plan.steps:
                index = plan.index(step)
                sigma = times.sigmas[index].to(clean.device)
                latents = noised(clean, noise, family.prediction, sigma).to(model.device, kept)
                outputs = family.call(model.transformer, latents, times.timesteps[index], inputs)
                output = family.predicted(outputs, guidance).float()
                predicted = predicted_clean(latents.float(), output, family.prediction, sigma)
                looks[index] = latents.cpu(), predicted.cpu()
                seen_by_model[index] = timesteps[-1]
        for cell, values in seen.take().items():
            share = values.float() / len(every)
            sums[cell] = sums[cell] + share if cell in sums else share
        indices = torch.tensor(list(looks))
        latents, predicted = (torch.stack([look[part] for look in looks.values()]) for part in (0, 1))
        for i, part in enumerate(parts):
            part.append(Noised(noise[i].cpu(), indices, latents[:, i], predicted[:, i], *times, seen_by_model))
    for cell, values in sums.items():
        seen.put(cell.block, cell.step, values)
    return seen, [mean_of(part) for part in parts]


def _images(run: Run, rows: Sequence[dict[str, Any]]) -> Tensor:
    """The pictures, float32 of shape (n, 3, height, width) in [0, 1]."""
    images = np.stack([run.image(row["sample"]) for row in rows])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@contextmanager
def _timesteps(model: Model) -> Iterator[list[float]]:
    """The timesteps of the calls in the block, as the transformer sees them."""
    seen: list[float] = []

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(model.family.model_timestep(model.family.arguments(args, kwargs)))

    handle = model.transformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
