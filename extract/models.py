"""Load a diffusion pipeline, and say what an experiment needs to know of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256 as hasher
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from torch import Tensor

from .. import files
from ..errors import HandscopeError
from .adapter import FluxAdapter, adapter_for

ORGANISM = Path(__file__).parents[1] / "organism" / "pipe"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded pipeline and its address book.

    Attributes
    ----------
    pipe : diffusers.FluxPipeline
    name : str
        What was asked for: ``organism``, a folder or a hub id.
    folder : pathlib.Path
        Where its files lie.
    revision : str or None
        The hub's commit, None for a folder.
    device, dtype : torch.device, torch.dtype
    """

    pipe: Any
    name: str
    folder: Path
    revision: str | None
    device: torch.device
    dtype: torch.dtype
    adapter: FluxAdapter = field(repr=False)

    @property
    def transformer(self) -> Any:
        """The pipeline's transformer."""
        return self.pipe.transformer

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks in the order in which they run: ``double.0`` …, ``single.0`` …"""
        return list(self.adapter.blocks(self.transformer))

    @property
    def height(self) -> int:
        """Height in pixels of the images that the model was trained for."""
        return self.pipe.vae.config.sample_size

    @property
    def width(self) -> int:
        """Width in pixels of the images that the model was trained for."""
        return self.pipe.vae.config.sample_size

    @property
    def max_sequence_length(self) -> int:
        """Text tokens that the model was trained with.

        The pipeline's own default of 512 changes a small model's images entirely.
        """
        return min(512, self.pipe.tokenizer_2.model_max_length)

    @cached_property
    def weight_hash(self) -> str:
        """SHA-256 over the names and contents of the transformer's safetensors files."""
        total = hasher()
        for path in sorted((self.folder / "transformer").glob("*.safetensors")):
            total.update(f"{path.name} {files.sha256(path)}\n".encode())
        return total.hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """What a reader needs to make the same again: identity, versions, device, scheduler; plain values for YAML."""
        transformer = self.transformer
        quantisation = getattr(transformer.config, "quantization_config", None)
        return {
            "name": self.name,
            "revision": self.revision,
            "device": str(self.device),
            "torch": str(torch.__version__),
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
            "scheduler": type(self.pipe.scheduler).__name__,
            "quantisation": None if quantisation is None else str(quantisation),
        }

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the token grid of an image in pixels; HandscopeError where it is not whole tokens."""
        return self.adapter.grid(self.pipe, height, width)

    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Images of packed latents (batch, tokens, channels), float32 of shape (batch, 3, height, width) in [0, 1]."""
        return self.adapter.decode(self.pipe, latents, height, width)


def load(
    name: str = "organism",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
) -> Model:
    """Load a FLUX.1 pipeline.

    Parameters
    ----------
    name : str
        ``organism`` (the small model that ships with handscope), a folder written by ``save_pretrained``, or a hub id.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``.
    dtype : str, optional
        ``float32`` or ``bfloat16``; by default float32 on a CPU and bfloat16 elsewhere. float16 is refused: FLUX
        overflows it.
    revision : str, optional
        A commit, tag or branch of the hub.

    Raises
    ------
    HandscopeError
        There is no such model, its files are damaged, the device is not there, or the transformer is of a class without
        an adapter.
    """
    device = _device(device)
    dtype = _dtype(dtype, device)
    folder = _folder(name, revision)
    try:
        with _quiet_libraries():
            from diffusers import FluxPipeline

            pipe = FluxPipeline.from_pretrained(folder, local_files_only=True, dtype=dtype)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise HandscopeError(
            f"The model in {folder} could not be loaded ({str(error).splitlines()[0]}): "
            "expected a whole FluxPipeline folder as save_pretrained writes it; copy or download it again."
        ) from error
    adapter = adapter_for(pipe.transformer)
    pipe.set_progress_bar_config(disable=True)
    return Model(
        pipe.to(device),
        str(name),
        folder,
        folder.name if folder.parent.name == "snapshots" else None,
        device,
        dtype,
        adapter,
    )


def _device(device: str | torch.device) -> torch.device:
    try:
        torch.empty(0, device=device)
        return torch.device(device)
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


def _folder(name: str, revision: str | None) -> Path:
    folder = ORGANISM if name == "organism" else Path(name)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise HandscopeError(
                f"Expected a pipeline folder with a model_index.json, found none in {folder}: give the folder that "
                "save_pretrained wrote."
            )
        return folder.resolve()
    try:
        return Path(snapshot_download(str(name), revision=revision))
    except (OSError, ValueError, HFValidationError) as error:
        raise HandscopeError(
            f"There is no model {name!r}: it is neither 'organism' nor a folder on this machine, and the hub did not "
            f"give it ({str(error).splitlines()[0]})."
        ) from error


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence the bars that both libraries draw while they load, and warnings of image processors no FLUX needs."""
    loggers = (diffusers.utils.logging, transformers.utils.logging)
    before = [(library.is_progress_bar_enabled(), library.get_verbosity()) for library in loggers]
    for library in loggers:
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, (bars, verbosity) in zip(loggers, before):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
