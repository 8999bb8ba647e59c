"""Prompts and seeds to images, with the trajectories that let activations be read later."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ..files import atomic, listed
from ..models.calls import named
from ..models.model import Model
from ..models.registry import hookable
from ..parallel import Failed, finished, on_cluster, warn_of_failed
from ..progress import Progress, quiet
from ..run.design import design_of, noise_owners
from ..run.folder import Run, check_name, sample_id
from ..run.part import Part, check_part, in_part
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
    shard: Part | None = None,
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
    shard : tuple of int, optional
        (i, n), counted from 1: this machine's part of the samples, by their names. All parts may write into one folder
        at a time; prompts and seeds are those of the whole.

    Returns
    -------
    DataFrame
        The rows of `run.samples()` that were asked for and are there. Those that a cluster has tried in vain are named
        by a warning, and tried again by the next call.

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
    check_part(shard)
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
    own = {sample: pair for sample, pair in wanted.items() if in_part(sample, shard)}
    with run.writing_samples(among_others=shard is not None):
        _complete(model, run, own, settings, min(batch_size, len(wanted)), trajectories, progress)
    samples = run.samples().set_index("sample", drop=False)
    if wanted.keys() <= {*samples.index}:
        run.put_together(wanted)
        samples = samples.loc[list(wanted)]
    return samples.loc[[sample for sample in own if sample in samples.index]].reset_index(drop=True)


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
    negative: str | None = None,
    true_cfg: float = 1.0,
    pipe: Any = None,
    more: Mapping[str, Any] | None = None,
) -> Drawn:
    """One call of the pipeline, with an image for each (prompt, seed).

    Parameters
    ----------
    negative, true_cfg : str and float, optional
        A prompt to be led away from, and how far where guidance has another number for that.
    pipe : optional
        Another pipeline around the model's parts, and `more` that its call takes.
    """
    model.check()
    pipe = model.pipe if pipe is None else pipe
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
        away = () if negative is None else ([negative] * len(prompts), true_cfg)
        images = pipe(
            **family.generation(model, prompts, guidance, *away),
            **(more or {}),
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
    images, paths = listed(run.samples_dir), listed(run.trajectories_dir)
    missing = {
        sample: pair
        for sample, pair in wanted.items()
        if sample not in rows
        or run.image_path(sample).name not in images
        or (trajectories and run.trajectory_path(sample).name not in paths)
    }
    if missing:
        run.write_settings({"provenance": model.provenance})
        if not on_cluster():  # whose workers encode what they draw
            prompts = {prompt for prompt, _ in missing.values()}
            _warn_of_cut(model, model.encode([prompt for prompt, _ in missing.values()], progress).cut, prompts)
    done = len(wanted) - len(missing)
    progress("generate", done, len(wanted))
    failed: list[Failed] = []
    artist, todo = _Artist(model, run, settings, trajectories), list(_batches(model, missing, together))
    for _, made in finished(artist, todo, "generate", model, progress):
        if isinstance(made, Failed):
            failed.append(made)
            continue
        # Only now do the samples exist: a line here promises that their files are whole.
        run.append_metadata(made)
        done += len(made)
        progress("generate", done, len(wanted))
    warn_of_failed("generate", failed)


@dataclass(frozen=True)
class _Batch:
    """Samples that share a call of the pipeline.

    Attributes
    ----------
    wanted : prompt and seed by sample
    together : int
        The size to which the batch is filled up with copies.
    """

    wanted: dict[str, tuple[str, int]]
    together: int

    @property
    def samples(self) -> list[str]:
        """Their names."""
        return list(self.wanted)

    def parts(self) -> list["_Batch"]:
        """Each sample alone, among as many."""
        return [_Batch({sample: pair}, self.together) for sample, pair in self.wanted.items()]


@dataclass(frozen=True, eq=False)
class _Artist:
    """Draws batches and writes their files, in whichever process."""

    model: Model
    run: Run
    settings: dict[str, Any]
    trajectories: bool

    def __call__(self, batch: _Batch) -> list[dict[str, Any]]:
        """The lines of `samples/metadata.jsonl` of a batch, whose files are written."""
        pairs = list(batch.wanted.values())
        encoded = self.model.encode(prompt for prompt, _ in pairs)
        filled = pairs + pairs[-1:] * (batch.together - len(pairs))
        drawn = draw(self.model, filled, **self.settings, trajectories=self.trajectories)
        rows, images, noises = [], drawn.image_sha256, drawn.noise_sha256
        for i, (sample, (prompt, seed)) in enumerate(batch.wanted.items()):
            row = {
                "sample": sample,
                "prompt": prompt,
                "seed": seed,
                "file_name": f"{sample}.png",
                "image_sha256": images[i],
                "noise_sha256": noises[i],
                **self.settings,
                "batch_size": batch.together,
                "embedding": encoded.digest(prompt),
            }
            with atomic(self.run.image_path(sample)) as temporary:
                Image.fromarray(drawn.images[i]).save(temporary)
            if drawn.trajectories is not None:
                path, metadata = self.run.trajectory_path(sample), self.run.trajectory_metadata(row)
                drawn.trajectories[i].save(path, metadata)
            rows.append(row)
        return rows


def _warn_of_cut(model: Model, cut: set[str], prompts: set[str]) -> None:
    if cut & prompts:
        warnings.warn(
            f"{len(cut & prompts)} of {len(prompts)} prompts are longer than the {model.max_sequence_length} tokens of "
            f"text that the model reads, {min(cut & prompts)!r} among them: it does not see how they end. Prompts that "
            "it sees alike are one prompt to the analyses.",
            HandscopeWarning,
            stacklevel=4,
        )


def _batches(model: Model, wanted: dict[str, tuple[str, int]], together: int) -> Iterator[_Batch]:
    """Samples that are drawn in one call: those of prompts with equally many text tokens."""
    groups: dict[int, list[str]] = {}
    text = model.text_tokens(prompt for prompt, _ in wanted.values())
    for sample, (prompt, _) in wanted.items():
        groups.setdefault(text[prompt], []).append(sample)
    for group in groups.values():
        for first in range(0, len(group), together):
            yield _Batch({sample: wanted[sample] for sample in group[first : first + together]}, together)


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
