"""The latents of a given picture, which no generation drew: with noise on them, and as the model predicts them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..brief import brief
from ..errors import HandscopeError
from ..files import atomic, check_readable, order_header, refuse_unusable
from .trajectory import checksum

TENSORS = ("noise", "indices", "latents", "clean", "sigmas", "timesteps", "model_timesteps")


@dataclass(frozen=True, eq=False)
class Noised:
    """What was read of one given picture. Where it was read with several noises, their mean.

    Attributes
    ----------
    noise : Tensor of shape (tokens, channels), float32
        The noise that was put on it.
    indices : int64 Tensor of shape (n,)
        Of the steps that were read, counted from 0, as in a `Trajectory`.
    latents : Tensor of shape (n, tokens, channels), in the dtype of the run
        What went into the transformer: the picture's latents with the noise of that step on them.
    clean : Tensor of shape (n, tokens, channels), float32
        The clean latents that the model predicted from these.
    sigmas, timesteps, model_timesteps : Tensors of shape (steps + 1,), (steps,) and (steps,), float32
        As in a `Trajectory`; `model_timesteps` is NaN where nothing was read.
    """

    noise: Tensor
    indices: Tensor
    latents: Tensor
    clean: Tensor
    sigmas: Tensor
    timesteps: Tensor
    model_timesteps: Tensor

    __repr__ = brief

    def noisy(self, i: int) -> Tensor:
        """The latents that went into the transformer at index i, (tokens, channels)."""
        return self.latents[self._place(i)]

    def x0(self, i: int) -> Tensor:
        """The clean latents predicted at index i, (tokens, channels) in float32."""
        return self.clean[self._place(i)]

    def _place(self, i: int) -> int:
        places = (self.indices == i).nonzero()
        if not len(places):
            raise HandscopeError(
                f"A given picture was read at indices {self.indices.tolist()}, and {i} is asked for: extract that step."
            )
        return int(places[0])

    def joined(self, before: "Noised") -> "Noised":
        """With the steps that were read before of the same picture under the same noise, in the order of the steps."""
        kept = [i for i, index in enumerate(before.indices.tolist()) if index not in self.indices.tolist()]
        indices = torch.cat([self.indices, before.indices[kept]])
        order = indices.argsort()
        looks = {
            name: torch.cat([getattr(self, name), getattr(before, name)[kept]])[order] for name in ("latents", "clean")
        }
        seen = torch.where(self.model_timesteps.isnan(), before.model_timesteps, self.model_timesteps)
        return replace(self, indices=indices[order], **looks, model_timesteps=seen)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
        """Write a safetensors file, whole or not at all."""
        with atomic(path) as temporary:
            tensors = {name: getattr(self, name).contiguous() for name in TENSORS}
            save_file(tensors, temporary, {**metadata, "checksum": checksum(tensors.values())})
            order_header(temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> "Noised":
        """Read what `save` wrote.

        Raises
        ------
        HandscopeError
            The file is missing or damaged, or its metadata differ from `metadata`.
        """
        path = Path(path)
        mend = "remove the run's activations and run extract again, which makes it anew."
        if not path.exists():
            raise HandscopeError(f"{path}, what was read of a given picture, is missing: {mend}")
        try:
            check_readable(path)
            with safe_open(path, framework="pt") as file:
                found = file.metadata() or {}
                read = cls(**{name: file.get_tensor(name) for name in TENSORS})
        except (OSError, SafetensorError) as error:
            refuse_unusable(error, path)
            raise HandscopeError(f"{path}, what was read of a given picture, is damaged: {mend}") from error
        if found.get("checksum") not in (None, checksum(getattr(read, name) for name in TENSORS)):
            raise HandscopeError(f"{path}, what was read of a given picture, is not what was written: {mend}")
        for key, value in metadata.items():
            if found.get(key) != value:
                raise HandscopeError(
                    f"{path} is of another picture or model: expected {key} = {value}, found {found.get(key)}: {mend}"
                )
        return read


def mean_of(parts: list[Noised]) -> Noised:
    """The mean over several noises of one picture."""
    first = parts[0]
    means = {
        name: torch.stack([getattr(part, name).float() for part in parts]).mean(0).to(getattr(first, name).dtype)
        for name in ("noise", "latents", "clean")
    }
    others = {name: getattr(first, name) for name in TENSORS if name not in means}
    return Noised(**means, **others)
