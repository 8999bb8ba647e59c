"""The path of one generation: its packed latents before each step and after the last, and their times."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..brief import brief
from ..errors import HandscopeError
from ..files import atomic, check_readable, order_header, refuse_unusable
from ..models.clean import clean_between, velocity_between

TENSORS = ("latents", "sigmas", "timesteps", "model_timesteps")
LATER = {"weight_hash", "height", "width", "scheduler"}
"""Metadata that files of the first version lack."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One sample's generation, indexed from 0 (pure noise); index i is step ``steps - i``.

    Attributes
    ----------
    latents : Tensor of shape (steps + 1, tokens, channels), in the dtype of the run
        ``latents[i]`` went into the transformer at index i; the last was decoded.
    sigmas : Tensor of shape (steps + 1,), float32
        Share of noise in each; the last is 0.
    timesteps : Tensor of shape (steps,), float32
        The scheduler's timesteps, 0 to 1000.
    model_timesteps : Tensor of shape (steps,), float32
        The same as the transformer saw them, after rounding to the dtype of the run.
    prediction : str
        What the model predicts, as in `handscope.models.clean`; in a file it is named where it is not ``flow``.
    """

    latents: Tensor
    sigmas: Tensor
    timesteps: Tensor
    model_timesteps: Tensor
    prediction: str = "flow"

    __repr__ = brief

    @property
    def noise(self) -> Tensor:
        """The initial noise, (tokens, channels)."""
        return self.latents[0]

    def noisy(self, i: int) -> Tensor:
        """The latents that went into the transformer at index i, (tokens, channels)."""
        return self.latents[i]

    def velocity(self, i: int) -> Tensor:
        """The velocity at index i, (tokens, channels) in float32: the Euler step to the next latents solved for it."""
        return velocity_between(*self._step(i))

    def x0(self, i: int) -> Tensor:
        """The clean latents predicted at index i, (tokens, channels) in float32."""
        noisy, less, sigma, later = self._step(i)
        return clean_between(noisy, less, self.prediction, sigma, later)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
        """Write a safetensors file, whole or not at all."""
        with atomic(path) as temporary:
            kind = {} if self.prediction == "flow" else {"prediction": self.prediction}
            tensors = {name: getattr(self, name).contiguous() for name in TENSORS}
            save_file(tensors, temporary, {**metadata, **kind, "checksum": checksum(tensors[name] for name in TENSORS)})
            order_header(temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> "Trajectory":
        """Read what `save` wrote.

        A file from before handscope recorded model, size and scheduler is held to the sample and its noise only.

        Raises
        ------
        HandscopeError
            The file is missing or truncated, or its metadata differ from `metadata`.
        """
        path = Path(path)
        try:
            check_readable(path)
            with safe_open(path, framework="pt") as file:
                found = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in TENSORS}
                trajectory = cls(**tensors, prediction=found.get("prediction", "flow"))
        except (OSError, SafetensorError, TypeError) as error:
            refuse_unusable(error, path)
            if not path.exists():
                raise HandscopeError(
                    f"The trajectory {path} is missing: run generate again with trajectories, which makes it anew."
                ) from error
            raise HandscopeError(
                f"The trajectory {path} is damaged: remove it and run generate again, which makes it anew."
            ) from error
        wrong = _noted_otherwise(found, tensors)
        if wrong:
            raise HandscopeError(
                f"The trajectory {path} is damaged: {wrong}. Remove it and run generate again, which makes it anew."
            )
        old = not LATER & found.keys()
        for key, value in metadata.items():
            if found.get(key) != value and not (old and key in LATER):
                raise HandscopeError(
                    f"The trajectory {path} belongs to another generation: expected {key} = {value}, found "
                    f"{found.get(key)}. Remove it and run generate again."
                )
        return trajectory

    def _step(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The latents before and after the step at index i, and their shares of noise."""
        return self.latents[i].float(), self.latents[i + 1].float(), self.sigmas[i], self.sigmas[i + 1]


def checksum(tensors: Iterable[Tensor]) -> str:
    """A checksum of what is in the tensors, which tells damage and not forgery."""
    hasher = xxhash.xxh3_128()
    for tensor in tensors:
        hasher.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"xxh3-128:{hasher.hexdigest()}"


def _noted_otherwise(found: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """What a file notes of its tensors and they are not; empty where all fits.

    Files from before there was a checksum are held to the hash of their initial noise, which those of float32 hold bit
    for bit.
    """
    if "checksum" in found:
        same = found["checksum"] == checksum(tensors[name] for name in TENSORS)
        return "" if same else "its numbers are not those that were written"
    noise, noted = tensors["latents"][0], found.get("noise_sha256")
    if noted is None or noise.dtype != torch.float32 or "prediction" in found:
        return ""
    same = hashlib.sha256(noise.contiguous().numpy().tobytes()).hexdigest() == noted
    return "" if same else "its initial noise is not the one that was drawn (noise_sha256)"


def stack(trajectories: Sequence[Trajectory], i: int) -> Tensor:
    """Latents at index i of several samples, (n, tokens, channels)."""
    return torch.stack([trajectory.latents[i] for trajectory in trajectories])
