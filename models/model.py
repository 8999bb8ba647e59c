"""Load a pipeline of a known family, and say what an experiment needs to know of it."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from .. import files
from ..errors import HandscopeError
from ..progress import Progress, quiet
from .checkpoints import Checkpoint, find, open_pipeline, quiet_libraries
from .condition import acting
from .embedded import NAME, ORGANISMS
from .encode import Encoded, encode
from .family import Family
from .placement import check_offload, place, release
from .quantise import check_saved, config_of, is_quantised
from .registry import hookable
from .weights import Loaded, changed, fingerprint, sampled

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LARGE = 2**31
"""Bytes of a transformer from which on one call of it keeps all cores busy, and several at a time have no memory."""


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded pipeline and its address book.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
    name : str
        What was asked for: ``organism``, a folder, a hub id or a file.
    device, dtype : torch.device, torch.dtype
        Where it computes, and in what.
    family : Family
        Its architecture.
    offload, quantisation, base : str or None
        As given to `load`.
    quantised : str or None
        The package that had quantised the weights when they were saved.
    loaded : Loaded or None
        The pipeline as it was loaded; None where nobody looked.
    """

    pipe: Any
    name: str
    checkpoint: Checkpoint = field(repr=False)
    device: torch.device
    dtype: torch.dtype
    family: Family = field(repr=False)
    offload: str | None = None
    quantisation: str | None = None
    base: str | None = None
    quantised: str | None = None
    loaded: Loaded | None = field(default=None, repr=False)
    _encoded: Encoded = field(default_factory=Encoded, init=False, repr=False)

    def __repr__(self) -> str:
        how = ", ".join([str(self.dtype).removeprefix("torch."), *filter(None, (self.quantisation, self.offload))])
        return (
            f"<Model {self.name!r}: {self.family.name}, {len(self.blocks)} blocks of width {self.stream_width}, "
            f"{how} on {self.device}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """A model is sent to another process by its address, and loaded there once.

        Raises
        ------
        HandscopeError
            Something acts in this one that would not be there.
        """
        if self.state != "plain":
            raise HandscopeError(
                f"The model was changed after loading ({self.state}), which workers on other machines would not see: "
                "work on this machine, or save the changed pipeline as a folder and load that."
            )
        name = str(Path(self.name).absolute()) if Path(self.name).exists() and self.name not in ORGANISMS else self.name
        device, dtype = self.device.type, str(self.dtype)
        return _loaded, (name, device, dtype, self.revision, self.offload, self.quantisation, self.base)

    @property
    def shared(self) -> bool:
        """Whether forked processes can share it, each with a call of its own: it is on the CPU, and not `LARGE`."""
        return self.device.type == "cpu" and self.weight_bytes < LARGE

    @cached_property
    def weight_bytes(self) -> int:
        """Of the transformer's weights in memory."""
        return sum(weight.nbytes for weight in self.transformer.parameters())

    @property
    def folder(self) -> Path:
        """Where the pipeline's files lie."""
        return self.checkpoint.folder

    @property
    def revision(self) -> str | None:
        """The hub's commit, None for a folder."""
        return self.checkpoint.revision

    @property
    def transformer(self) -> Any:
        """The pipeline's transformer."""
        return self.pipe.transformer

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks in the order in which they run."""
        return list(self.family.blocks(self.transformer))

    def carrying(self, stream: str) -> list[str]:
        """Names of those blocks that give a stream, ``image`` or ``text``."""
        return self.family.carrying(self.transformer, stream)

    @property
    def stream_width(self) -> int:
        """Width of the residual streams."""
        return self.family.stream_width(self.transformer)

    @property
    def height(self) -> int:
        """Height in pixels of the images that the model was trained for."""
        return self.family.size(self.pipe)[0]

    @property
    def width(self) -> int:
        """Width in pixels of the images that the model was trained for."""
        return self.family.size(self.pipe)[1]

    @property
    def max_sequence_length(self) -> int:
        """Text tokens of a call."""
        return self.family.text_length(self.pipe)

    @cached_property
    def weight_hash(self) -> str:
        """SHA-256 over the transformer's weights as they lie on disk, and the quantisation made of them in loading."""
        return self.checkpoint.weight_hash(self.quantisation)

    @property
    def identity(self) -> dict[str, str]:
        """What a run notes of the model that drew its pictures, and must find again in the one that reads them."""
        return {
            "weight_hash": self.weight_hash,
            "dtype": str(self.dtype).removeprefix("torch."),
            "state": self.state,
        }

    @property
    def state(self) -> str:
        """What makes the pipeline compute something else than what was loaded, in words; ``plain`` where nothing does.

        Adapters, casting, autocast, replaced forwards, steering and other edits that are open, and weights that have
        changed in memory since; see `handscope.models.weights` for which changes are seen.

        Raises
        ------
        HandscopeError
            As in `check`.
        """
        self.check()
        found = acting(self.transformer)
        for name, weights in (self.loaded.weights if self.loaded else {}).items():
            if other := changed(sampled(getattr(self.pipe, name)), weights):
                found.append(f"weights of {name} changed after loading {other}")
        return "; ".join(found) or "plain"

    def check(self) -> None:
        """Forget embeddings that other text encoders made, and refuse a transformer that was cast after loading.

        Raises
        ------
        HandscopeError
            It was, with ``pipe.to(torch.bfloat16)`` for instance.
        """
        autocast = torch.is_autocast_enabled(self.device.type) and torch.get_autocast_dtype(self.device.type)
        encoders = {name: getattr(self.pipe, name) for name in self.family.encoders}
        self._encoded.made_by(f"{fingerprint(encoders)} {autocast}")
        if self.loaded and self.transformer.dtype != self.loaded.dtype:
            raise HandscopeError(
                f"The transformer was loaded in {self.loaded.dtype} and is in {self.transformer.dtype} now: load the "
                "model with the dtype that it shall have instead of casting the pipeline."
            )

    @property
    def scheduler(self) -> str:
        """The scheduler's class and a digest of its config.

        Switches that are off are left out, so that a version of diffusers that brings a new one changes nothing.
        """
        config = {
            key: value
            for key, value in self.pipe.scheduler.config.items()
            if not key.startswith("_") and value is not None and value is not False
        }
        shift = getattr(self.pipe.scheduler, "shift", None)
        if shift != self.pipe.scheduler.config.get("shift", shift):
            config["set_shift"] = shift  # by `set_shift`, after the config was read
        digest = files.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        return f"{type(self.pipe.scheduler).__name__} {digest[:16]}"

    @property
    def provenance(self) -> dict[str, Any]:
        """What a reader needs to make the same again: identity, versions, device, scheduler; plain values for YAML."""
        return {
            "name": self.name,
            "family": self.family.name,
            "blocks": dict(Counter(name.rpartition(".")[0] for name in self.blocks)),
            "revision": self.revision,
            "base": self.base,
            "device": str(self.device),
            "offload": self.offload,
            "quantisation": self.quantisation,
            "quantised_checkpoint": self.quantised,
            "torch": str(torch.__version__),
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
            "scheduler": type(self.pipe.scheduler).__name__,
        }

    def encode(self, prompts: Iterable[str], progress: Progress = quiet) -> Encoded:
        """Embeddings of the prompts, each encoded once in the life of the model and kept on the CPU.

        The prompt that classifier-free guidance leads away from is encoded with them, where the family has one.

        When there were new ones, the text encoders leave the device afterwards, as `release` says.
        """
        if not len(self._encoded):
            self.check()  # whose encoders these are: a later look forgets what others have made
        negative = [] if self.family.negative is None else [self.family.negative]
        if encode(self.family, self.pipe, [*prompts, *negative], self._encoded, self.device, progress):
            self.release()
        return self._encoded

    def text_tokens(self, prompts: Iterable[str]) -> dict[str, int]:
        """Text tokens of each prompt where the family's prompts differ in them, else 0; only equals share a batch.

        In a batch of others, the shorter ones would be filled up, and a sample's bits would change with its company.
        """
        kinds = dict.fromkeys(prompts, 0)
        if not self.family.varying_text:
            return kinds
        encoded = self.encode(kinds)
        return {prompt: self.family.text_tokens(encoded.embeddings(prompt)) for prompt in kinds}

    def release(self) -> None:
        """Move the text encoders off the device, so that the transformer and its activations have it to themselves.

        ``model.pipe("a prompt")`` goes on working: a call brings them back. On a CPU nothing moves.
        """
        release(self.pipe, self.family.encoders)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the token grid of an image in pixels; HandscopeError where it is not whole tokens."""
        return self.family.grid(self.pipe, height, width)

    def noise(self, seed: int, height: int, width: int) -> Tensor:
        """Packed initial noise of a seed, float32 of shape (tokens, channels), the same on every device."""
        return self.family.noise(self.pipe, seed, height, width)

    @torch.no_grad()
    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Images of packed latents (batch, tokens, channels), float32 of shape (batch, 3, height, width) in [0, 1]."""
        return self.family.decode(self.pipe, latents, height, width)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Packed latents (batch, tokens, channels), float32, of images (batch, 3, height, width) in [0, 1]."""
        return self.family.encode_image(self.pipe, images)


def load(
    name: str = NAME,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    offload: str | None = None,
    quantisation: str | None = None,
    base: str | None = None,
) -> Model:
    """Load a pipeline of a known family: FLUX.1, FLUX.2, Stable Diffusion 3 and 3.5, Qwen-Image, Z-Image or Sana.

    Finetunes load as what they are made of; one that edits pictures, such as FLUX.1 Kontext, as text to image.

    Text encoders and transformer come to a GPU when they are first called: encode the prompts first (`generate` does),
    and the two are never there together.

    Parameters
    ----------
    name : str
        ``organism`` (the small model that ships with handscope), another of `embedded.ORGANISMS`, a folder
        written by ``save_pretrained`` (quantised or not), a hub id, or a ``.safetensors`` file or
        a folder of a transformer.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``.
    dtype : str, optional
        ``float32`` or ``bfloat16``; by default float32 on a CPU and bfloat16 elsewhere. float16 is refused: residual
        streams overflow it.
    revision : str, optional
        A commit, tag or branch of the hub.
    offload : str, optional
        ``model`` or ``sequential``: diffusers keeps the weights on the CPU and brings a whole model, or a layer, at a
        time.
    quantisation : str, optional
        ``bnb-4bit``, ``bnb-8bit`` (bitsandbytes, on a GPU) or ``torchao-int8``: of the transformer's linear layers.
    base : str, optional
        For a transformer alone: the folder or hub id that the rest of the pipeline comes from.

    Raises
    ------
    HandscopeError
        There is no such model, its files are damaged or pickles, the device is not there, a package for the
        quantisation is missing, or the model is of no known family.
    """
    device = _device(device)
    dtype = _dtype(dtype, device)
    check_offload(offload, device)
    with quiet_libraries():
        config = None if quantisation is None else config_of(quantisation, dtype, device)
    checkpoint = find(str(name), revision, base)
    quantised = None if checkpoint.single else check_saved(checkpoint.folder, quantisation, device)
    pipe = open_pipeline(checkpoint, dtype, device, config)
    if quantisation is not None and not is_quantised(pipe.transformer):
        raise HandscopeError(
            f"This version of diffusers ({diffusers.__version__}) left the weights of {name} as they are, and "
            f"{quantisation} was asked for: save the pipeline as a folder and load that."
        )
    family = hookable(pipe.transformer)
    _check_channels(pipe, family, name)
    pipe.set_progress_bar_config(disable=True)
    place(pipe, family.encoders, device, offload)
    loaded = Loaded.of(pipe)
    return Model(pipe, str(name), checkpoint, device, dtype, family, offload, quantisation, base, quantised, loaded)


@cache
def _loaded(*arguments: Any) -> Model:
    """One model for all that is sent to this process."""
    return load(*arguments)


def _check_channels(pipe: Any, family: Family, name: str) -> None:
    """Refuse a transformer that is given more than the noisy latents, which text to image does not have."""
    takes, has = family.channels(pipe.transformer), pipe.vae.config.get("latent_channels")
    if has is not None and takes != has:
        raise HandscopeError(
            f"The transformer of {name} takes {takes} channels and its VAE has {has}: it is one for Control or "
            "Fill, which is given a picture beside the latents, and handscope draws from text alone. Capture and steer "
            "around a pipeline call of your own."
        )


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise HandscopeError(
            f"Device {str(device)!r} cannot be used on this machine ({str(error).splitlines()[0]}): use cpu, or a cuda "
            "device that torch sees."
        ) from error


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise HandscopeError(f"Expected dtype to be one of {', '.join(DTYPES)}, found {name!r}.")
    return DTYPES[name]
