"""Prompts and seeds to images, with the trajectories that let activations be read later."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ..errors import HandscopeError, HandscopeWarning
from ..files import atomic
from ..models.calls import named
from ..models.family import hookable
from ..models.model import Model
from ..progress import Progress, quiet
from ..run.design import design_of, noise_owners
from ..run.folder import Run, check_name, sample_id
from ..run.prompts import check_prompts, check_seeds, own_seed
from ..run.trajectory import Trajectory
from .address import is_count, plain_int


def generate(
    model: Model,
    run: Run,
    prompts: Iterable[str],
    seeds: Iterable[int],
    steps: int = 20,
    guidance: float = 3.5,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 16,
    trajectories: bool = True,
    design: str | None = None,
    pairs: Iterable[Sequence[str]] = (),
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Make one sample of every prompt for every seed, or only those that the run does not have yet.

    Unless a design says otherwise, each prompt has noises of its own: the seed of a sample is `own_seed` of its prompt
    and the seed that was asked for.
    The initial noise comes from a CPU generator of its own, so a seed means the same image in every batch and on every
    device, up to rounding. Every call of the pipeline has the same batch size (a short last batch is filled up with
    copies), so that a run that was killed and started again has the same bits as one that was not.

    Parameters
    ----------
    prompts : iterable of str
    seeds : iterable of int
        0 to 2**32 - 1.
    steps, guidance : int, float
        Inference steps, and guidance as the model's family has it (FLUX.1: embedded).
    height, width : int, optional
        In pixels; by default what the model was trained for.
    batch_size : int
        Samples in one call of the pipeline; prompts may differ within it.
    trajectories : bool
        Keep each sample's latents: 11 MB in bfloat16 for 20 steps of FLUX at 1024 by 1024. Without them `extract`
        generates again. Asked for in a later call, they are added.
    design : str, optional
        ``own``, as when it is left out; ``paired``: the two prompts of a pair from the same noises, which are the first
        one's; ``crossed``: every prompt from the same noises, with the seeds as they are given. Where it is said, the
        samples of the run as a whole must be of that design. It decides how a run is analysed (docs/designs.md).
    pairs : iterable of (str, str)
        The pairs of a paired design; two prompts are one pair. Every prompt is in one of them.

    Returns
    -------
    DataFrame
        The rows of `run.samples()` that were asked for.

    Raises
    ------
    HandscopeError
        A setting is out of range, or the run was begun with another model or other settings or has samples of another
        design, or another process is generating into it, or the disk is full.
    """
    steps, batch_size = plain_int(steps), plain_int(batch_size)
    wanted = _wanted(prompts, seeds, design, pairs)
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if not is_count(value):
            raise HandscopeError(f"Expected {name} to be a whole number of at least 1, found {value!r}.")
    if not isinstance(guidance, Real) or isinstance(guidance, bool) or not math.isfinite(guidance):
        raise HandscopeError(f"Expected guidance to be a number, found {guidance!r}.")
    height = model.height if height is None else plain_int(height)
    width = model.width if width is None else plain_int(width)
    model.grid(height, width)
    if design is not None:
        _check_design(run, wanted, design)
    hookable(model.transformer)
    model.family.schedule(model.pipe, steps, height, width)

    run.check_drawn("generate")
    settings = {"steps": steps, "guidance": float(guidance), "height": height, "width": width}
    run.write_settings(
        {
            "model": model.identity,
            "generation": settings | {"scheduler": model.scheduler, "trajectories": trajectories},
        }
    )
    with run.writing_samples():
        _complete(model, run, wanted, settings, min(batch_size, len(wanted)), trajectories, progress)
    return run.samples().set_index("sample", drop=False).loc[list(wanted)].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Drawn:
    """One call of the pipeline on n prompts and seeds.

    Attributes
    ----------
    noise : list of n Tensors of shape (tokens, channels), float32
        Packed initial noise.
    images : uint8 array of shape (n, height, width, 3)
    trajectories : list of n Trajectory, or None where they were not asked for
    """

    noise: list[Tensor]
    images: np.ndarray
    trajectories: list[Trajectory] | None

    @property
    def image_sha256(self) -> list[str]:
        """SHA-256 of each image's pixels."""
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]

    @property
    def noise_sha256(self) -> list[str]:
        """SHA-256 of each initial noise."""
        return [hashlib.sha256(noise.numpy().tobytes()).hexdigest() for noise in self.noise]


def draw(
    model: Model,
    pairs: Sequence[tuple[str, int]],
    steps: int,
    guidance: float,
    height: int,
    width: int,
    trajectories: bool = True,
) -> Drawn:
    """One call of the pipeline, with an image for each (prompt, seed)."""
    model.check()
    prompts = [prompt for prompt, _ in pairs]
    family = model.family
    noise = [model.noise(seed, height, width) for _, seed in pairs]
    latents: list[Tensor] = []
    model_timesteps: list[float] = []

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = family.arguments(args, kwargs)
        if "cond" not in names.rows(arguments):
            return
        latents.append(family.noisy(arguments).to("cpu", copy=True))
        model_timesteps.append(family.model_timestep(arguments))

    def after(pipe: Any, index: int, timestep: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        made = family.from_pipeline(kwargs["latents"])
        _check_finite(made.isfinite().flatten(1).all(1).tolist(), prompts, f"step {steps - index} of {steps}")
        if trajectories and index == steps - 1:
            # Some pipelines keep latents in float32, and give the transformer others.
            latents.append(made.to("cpu", latents[0].dtype, copy=True))
        return kwargs

    with ExitStack() as hooks:
        if trajectories:
            names = hooks.enter_context(named(model.transformer, family))
            hooks.enter_context(model.transformer.register_forward_pre_hook(before, with_kwargs=True))
        images = model.pipe(
            **family.generation(model, prompts, guidance),
            latents=family.to_pipeline(model.pipe, torch.stack(noise), height, width),
            num_inference_steps=steps,
            height=height,
            width=width,
            callback_on_step_end=after,
            output_type="np",
        ).images
    _check_finite(np.isfinite(images).reshape(len(images), -1).all(1).tolist(), prompts, "the decoder")
    images = (images * 255).round().astype(np.uint8)
    if not trajectories:
        return Drawn(noise, images, None)
    times = (*family.times(model.pipe), torch.tensor(model_timesteps, dtype=torch.float32, device="cpu"))
    paths = [Trajectory(path, *times, prediction=family.prediction) for path in torch.stack(latents, dim=1)]
    return Drawn(noise, images, paths)


def _check_finite(finite: Sequence[bool], prompts: Sequence[str], where: str) -> None:
    """Refuse a batch as soon as one of its samples is not numbers any more: what comes of it is a black picture."""
    if not all(finite):
        broken = prompts[finite.index(False)]
        raise HandscopeError(
            f"After {where}, {finite.count(False)} of {len(finite)} samples are not numbers (NaN or infinite), that of "
            f"{broken!r} among them, and nothing of this batch is kept: look for damaged weights or an adapter that "
            "does not fit, and use float32 or bfloat16."
        )


def _complete(
    model: Model,
    run: Run,
    wanted: dict[str, tuple[str, int]],
    settings: dict[str, Any],
    together: int,
    trajectories: bool,
    progress: Progress,
) -> None:
    """Make the wanted samples that the run lacks, `together` at a time."""
    rows = run.metadata()
    for sample in wanted.keys() & rows.keys():
        check_name(sample, wanted[sample][0], rows[sample]["prompt"])
    missing = [
        sample
        for sample in wanted
        if sample not in rows
        or not run.image_path(sample).exists()
        or (trajectories and not run.trajectory_path(sample).exists())
    ]
    if missing:
        run.write_settings({"provenance": model.provenance})
        encoded = model.encode([wanted[sample][0] for sample in missing], progress)
        _warn_of_cut(model, encoded.cut, {wanted[sample][0] for sample in missing})
    done = len(wanted) - len(missing)
    progress("generate", done, len(wanted))
    for batch in _batches(model, {sample: wanted[sample][0] for sample in missing}, together):
        filled = [wanted[sample] for sample in batch] + [wanted[batch[-1]]] * (together - len(batch))
        drawn = draw(model, filled, **settings, trajectories=trajectories)
        for i, (sample, image_sha256, noise_sha256) in enumerate(zip(batch, drawn.image_sha256, drawn.noise_sha256)):
            prompt, seed = wanted[sample]
            rows[sample] = {
                "sample": sample,
                "prompt": prompt,
                "seed": seed,
                "file_name": f"{sample}.png",
                "image_sha256": image_sha256,
                "noise_sha256": noise_sha256,
                **settings,
                "batch_size": together,
                "embedding": encoded.digest(prompt),
            }
            with atomic(run.image_path(sample)) as temporary:
                Image.fromarray(drawn.images[i]).save(temporary)
            if drawn.trajectories is not None:
                drawn.trajectories[i].save(run.trajectory_path(sample), run.trajectory_metadata(rows[sample]))
        # Only now do the samples exist: a line here promises that their files are whole.
        run.append_metadata(rows[sample] for sample in batch)
        done += len(batch)
        progress("generate", done, len(wanted))


def _warn_of_cut(model: Model, cut: set[str], prompts: set[str]) -> None:
    if cut & prompts:
        warnings.warn(
            f"{len(cut & prompts)} of {len(prompts)} prompts are longer than the {model.max_sequence_length} tokens of "
            f"text that the model reads, {min(cut & prompts)!r} among them: it does not see how they end. Prompts that "
            "it sees alike are one prompt to the analyses.",
            HandscopeWarning,
            stacklevel=4,
        )


def _batches(model: Model, prompts: dict[str, str], together: int) -> Iterator[list[str]]:
    """Samples that are drawn in one call: those of prompts with equally many text tokens."""
    groups: dict[int, list[str]] = {}
    text = model.text_tokens(prompts.values())
    for sample, prompt in prompts.items():
        groups.setdefault(text[prompt], []).append(sample)
    for group in groups.values():
        for first in range(0, len(group), together):
            yield group[first : first + together]


def _wanted(
    prompts: Iterable[str], seeds: Iterable[int], design: str | None, pairs: Iterable[Sequence[str]]
) -> dict[str, tuple[str, int]]:
    if isinstance(prompts, str):
        raise HandscopeError(f"Expected a list of prompts, found one text: write [{prompts!r}].")
    prompts, seeds = list(prompts), list(seeds)
    check_prompts(prompts)
    check_seeds(seeds)
    if not prompts or not seeds:
        raise HandscopeError(
            f"Expected at least one prompt and one seed, found {len(prompts)} prompts and {len(seeds)} seeds."
        )
    owners = noise_owners(prompts, design, pairs)
    wanted: dict[str, tuple[str, int]] = {}
    for prompt, number in product(prompts, seeds):
        owner = owners[prompt]
        seed = int(number) if owner is None else own_seed(owner, number)
        name = sample_id(prompt, seed)
        check_name(name, prompt, wanted.setdefault(name, (prompt, seed))[0])
    return wanted


def _check_design(run: Run, wanted: dict[str, tuple[str, int]], design: str) -> None:
    """Refuse samples that would not be of the design with those that the run has."""
    there = {sample: (row["prompt"], row["seed"]) for sample, row in run.metadata().items()} | wanted
    samples = pd.DataFrame(there.values(), columns=["prompt", "seed"]).astype({"seed": str})
    found = design_of(samples.rename(columns={"seed": "noise_sha256"}), run.path).kind
    # Two prompts at all noises are a pair, and one prompt shares its noises with none.
    if found != design and not (design == "crossed" and samples["prompt"].nunique() <= 2):
        raise HandscopeError(
            f"Expected samples of the design {design} in {run.path}, and with those that are there they would be "
            f"of the design {found}: use another run folder, or name the prompts and seeds of the whole design."
        )
