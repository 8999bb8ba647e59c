"""What families of flow matching share: the schedule of Euler steps, calls with and without guidance, decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import HandscopeError
from ..family import Family, Times
from ..packing import in_places, packed

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow(Family):
    """A family that predicts the velocity of flow matching, stepped by Euler.

    A family of this kind says `side`, what its pipeline gives in every call of one side; `time`, what it makes of a
    timestep; `schedule`, `encode`, `text_length`, `generation`, `model_timestep` and `decode`; and where they are its
    own, `guided` and `combined`.

    Attributes
    ----------
    negated : bool
        Whether the transformer gives the velocity with its sign turned.
    unguided : float
        Guidance up to this number is none: one side is evaluated.
    """

    negated: bool = False
    unguided: float = 1.0

    def guided(self, pipe: Any, guidance: float) -> bool:
        """Whether there is a negative prompt, and guidance is above `unguided`."""
        return self.negative is not None and guidance > self.unguided

    def side(
        self, model: Model, embeddings: Mapping[str, Any], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """Arguments of a call of embeddings, from `Encoded.batch`, that are the same in each step."""
        raise self._lacks("side")

    def time(self, transformer: Any, timestep: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """The argument that says the time, by name, for as many rows as `latents` has, in the transformer's form."""
        raise self._lacks("time")

    def inputs(
        self, model: Model, prompts: Sequence[str], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """The grid, and the arguments of each call of a step: those of the sides, in order, or of both in one."""
        texts = {"cond": list(prompts)}
        if self.guided(model.pipe, guidance):
            texts["uncond"] = self.away(prompts)
            if self.together:
                texts = {"both": [text for side in self.together for text in texts[side]]}
        calls = {}
        for name, text in texts.items():
            given = self.side(model, self.encoded(model, text), guidance, height, width)
            calls[name] = {**given, "return_dict": False}
        return {"calls": calls, "grid": self.grid(model.pipe, height, width)}

    def call(self, transformer: Any, latents: Tensor, timestep: Tensor, inputs: dict[str, Any]) -> list[Any]:
        """A call of all rows, or one for each side, by the names that diffusers gives its contexts."""
        outputs = []
        for name, given in inputs["calls"].items():
            copies = 2 if name == "both" else 1
            rows = self._native(latents, inputs["grid"], copies, transformer.dtype)
            times = timestep.to(latents.device).repeat(copies) if timestep.ndim else timestep.to(latents.device)
            arguments = {self.latents: rows, **self.time(transformer, times, rows), **given}
            args = [arguments.pop(name) for name in self.positional]
            named = hasattr(transformer, "cache_context") and name != "both"
            with transformer.cache_context(name) if named else nullcontext():
                outputs.append(transformer(*args, **arguments))
        return outputs

    def predictions(self, output: Any) -> Tensor:
        """The velocity of each row, packed; in float32 where the pipeline combines the sides so."""
        import torch

        raw = output[0] if isinstance(output, tuple) else output.sample
        if self.form == "list":
            raw = torch.stack(list(raw)).squeeze(2)
        if self.keeps_float32:
            raw = raw.float()
        if self.form != "packed":
            raw = packed(raw, self.patch)
        return -raw if self.negated else raw

    def predicted(self, outputs: Sequence[Any], guidance: float) -> Tensor:
        """The velocity; that of both sides together where there are two."""
        return self.sided([self.predictions(output) for output in outputs], guidance)

    def output_rows(self, rows: Tensor) -> Tensor:
        """The velocity of each row, packed, as `predictions` has it."""
        if self.keeps_float32:
            rows = rows.float()
        if self.channels_last:
            rows = rows.unflatten(-1, (self.patch**2, -1)).transpose(-1, -2).flatten(-2)
        return -rows if self.negated else rows

    def sided(self, rows: Sequence[Tensor], guidance: float) -> Tensor:
        """The velocity; that of both sides together where there are two."""
        if self.together and guidance > self.unguided:
            halves = dict(zip(self.together, rows[0].chunk(2)))
            rows = [halves["cond"], halves["uncond"]]
        return rows[0] if len(rows) == 1 else self.combined(rows[0], rows[1], guidance)

    def shifted(self, output: Any, change: Tensor) -> Any:
        """The output with the change added to what each half of its batch predicts of the picture's tokens."""
        raw = output[0] if isinstance(output, tuple) else output.sample
        change = -change if self.negated else change
        if self.form == "packed":
            new = raw.detach().clone()
            new[:, : change.shape[1]] += change.to(raw.dtype).repeat(len(raw) // len(change), 1, 1)
        else:
            rows, columns = (side // self.patch for side in raw[0].shape[-2:])
            added = in_places(change, rows, columns, self.patch).repeat(len(raw) // len(change), 1, 1, 1)
            if self.form == "list":
                new = [one.detach() + more[:, None].to(one.dtype) for one, more in zip(raw, added, strict=True)]
            else:
                new = raw.detach() + added.to(raw.dtype)
        return (new, *output[1:]) if isinstance(output, tuple) else type(output)(sample=new)

    def with_latents(self, arguments: Mapping[str, Any], latents: Tensor) -> Any:
        """The call's latents with the picture's replaced, in each half of its batch; references stay behind it."""
        import torch

        old = arguments[self.latents]
        copies = len(old) // len(latents)
        if self.form == "packed":
            rows = torch.cat([latents] * copies).to(old.dtype)
            return torch.cat([rows, old[:, rows.shape[1] :]], 1) if rows.shape[1] < old.shape[1] else rows
        height, width = old[0].shape[-2:]
        return self._native(latents, (height // self.patch, width // self.patch), copies, old[0].dtype)

    def noisy(self, arguments: Mapping[str, Any]) -> Tensor:
        """The picture's latents of the conditional half, packed."""
        import torch

        rows = self.sides(arguments).get("cond", slice(None))
        latents = arguments[self.latents][rows]
        if self.form == "packed":
            return latents[:, : self.lengths(arguments)["image"]]
        return packed(torch.stack(list(latents)).squeeze(2) if self.form == "list" else latents, self.patch)

    def times(self, pipe: Any) -> Times:
        """The scheduler's, as the generation left them."""
        return Times(pipe.scheduler.sigmas.float().cpu(), pipe.scheduler.timesteps.float().cpu())

    def to_pipeline(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Packed, or in their places, as the transformer takes them."""
        return latents if self.form == "packed" else self.unpack(pipe, latents, height, width)

    def channels(self, transformer: Any) -> int:
        """Channels of the VAE's latents."""
        return int(transformer.config.in_channels // (self.patch**2 if self.form == "packed" else 1))

    def encode_image(self, pipe: Any, images: Tensor) -> Tensor:
        """As image-to-image pipelines encode, but for the mode of what the VAE says, where they draw from it."""
        config = pipe.vae.config
        shift = config.get("shift_factor") or 0.0
        return packed((modes(pipe, images) - shift) * config["scaling_factor"], self.patch)

    def encoded(self, model: Model, prompts: Sequence[str]) -> dict[str, Any]:
        """Embeddings of prompts on the device."""
        return model.encode(prompts).batch(prompts, model.device, model.dtype)

    def away(self, prompts: Sequence[str]) -> list[str]:
        """The prompt that is led away from, for each of these."""
        return [str(self.negative)] * len(prompts)

    def _native(self, latents: Tensor, grid: tuple[int, int], copies: int, dtype: Any) -> Any:
        """Packed latents as the transformer takes them, so many times over."""
        import torch

        latents = latents.to(dtype)
        if self.form == "packed":
            return torch.cat([latents] * copies) if copies > 1 else latents
        placed = in_places(latents, *grid, self.patch)
        placed = torch.cat([placed] * copies) if copies > 1 else placed
        return list(placed.unsqueeze(2).unbind(0)) if self.form == "list" else placed


def euler_times(
    family: Family, pipe: Any, steps: int, sigmas: Sequence[float] | None = None, mu: float | None = None
) -> Times:
    """The times of a generation in Euler steps, from a copy of the pipeline's scheduler.

    Parameters
    ----------
    sigmas : sequence of float, optional
        What the pipeline gives to its scheduler; by default the scheduler makes them from the number of steps.
    mu : float, optional
        The shift that goes with the picture's size, where the pipeline gives one.

    Raises
    ------
    HandscopeError
        The scheduler does not take one Euler step a call, without noise of its own, as trajectories are read.
    """
    kind, config = type(pipe.scheduler), pipe.scheduler.config
    if kind.__name__ != "FlowMatchEulerDiscreteScheduler" or config.get("stochastic_sampling"):
        raise HandscopeError(
            f"Expected a FlowMatchEulerDiscreteScheduler without stochastic_sampling for {family.name}, found "
            f"{kind.__name__}: a trajectory is read as Euler steps. Save the pipeline with that scheduler."
        )
    scheduler = deepcopy(pipe.scheduler)  # not from its config, which does not know of set_shift
    given = {} if mu is None else {"mu": mu}
    if sigmas is None:
        scheduler.set_timesteps(steps, device="cpu", **given)
    else:
        scheduler.set_timesteps(sigmas=list(sigmas), device="cpu", **given)
    return Times(scheduler.sigmas.float(), scheduler.timesteps.float())


def falling(steps: int) -> list[float]:
    """Sigmas from 1 to 1 / steps, evenly, as FLUX and Qwen-Image give them to their schedulers."""
    import numpy as np

    return np.linspace(1.0, 1 / steps, steps).tolist()


def shift_by_size(pipe: Any, tokens: int, longest: float = 1.15) -> float:
    """The shift mu of a picture of so many tokens, by the scheduler's config."""
    config = pipe.scheduler.config
    small, large = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", longest)
    slope = (most - least) / (large - small)
    return tokens * slope + (least - slope * small)


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Pictures of latents that are scaled as the decoder takes them, float32 in [0, 1]."""
    return (vae.decode(latents.to(vae.dtype), return_dict=False)[0] * 0.5 + 0.5).clamp(0, 1).float()


def cells(latents: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of tokens of latents in their places, (..., rows, columns)."""
    return latents.shape[-2] // patch, latents.shape[-1] // patch


def parted_by_ids(ids: Tensor, total: int) -> dict[str, int]:
    """Image and reference tokens of a sequence, by ids (..., tokens, axes) whose first number is 0 for the image.

    Raises
    ------
    HandscopeError
        The image's tokens are not the first.
    """
    other = (ids[0] if ids.ndim == 3 else ids)[:, 0] != 0
    reference = int(other.sum())
    if reference == total or bool(other[: total - reference].any()):
        raise HandscopeError(
            f"Expected the image's tokens first and those of a reference picture after them, as in Kontext; the first "
            f"number of img_ids is not 0 at {reference} of {total} tokens."
        )
    return {"image": total - reference, "reference": reference}


def modes(pipe: Any, images: Tensor) -> Tensor:
    """What the encoder makes of images in [0, 1], float32: of a distribution its mode."""
    vae = pipe.vae
    made = vae.encode(images.to(pipe._execution_device, vae.dtype) * 2 - 1)
    return (made.latent_dist.mode() if hasattr(made, "latent_dist") else made.latent).float()


def needed(arguments: Mapping[str, Any], *names: str, of: str) -> list[Any]:
    """Arguments that a call must have.

    Raises
    ------
    HandscopeError
        One is missing.
    """
    missing = [name for name in names if arguments.get(name) is None]
    if missing:
        raise HandscopeError(
            f"A transformer of {of} must be called as its pipelines do, with {', '.join(names)}; this call gave "
            f"{sorted(arguments)}."
        )
    return [arguments[name] for name in names]
