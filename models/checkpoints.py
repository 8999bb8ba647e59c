"""Where a pipeline's files are, and reading them: the organism, a folder, a hub id, or one file of weights."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256 as hasher
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError

from .. import files
from ..errors import HandscopeError
from .embedded import ORGANISMS, folder_of
from .family import Family
from .registry import family_in, family_named, pipeline_class

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """Files of one pipeline.

    Attributes
    ----------
    folder : pathlib.Path
        With a `model_index.json`.
    single : pathlib.Path or None
        A file of transformer weights, or a transformer's folder, that takes the place of those in `folder`.
    """

    folder: Path
    single: Path | None = None

    @property
    def revision(self) -> str | None:
        """The hub's commit of `folder`, None for a folder of one's own."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    def weight_hash(self, quantisation: str | None) -> str:
        """SHA-256 over names and contents of the transformer's safetensors files, and the quantisation made of them.

        The name of a single file says nothing and is left out.
        """
        alone = self.single is not None and self.single.is_file()
        folder = self.single or self.folder / "transformer"
        total = hasher()
        for path in [folder] if alone else sorted(folder.glob("*.safetensors")):
            total.update(f"{'' if alone else path.name} {files.sha256(path)}\n".encode())
        if quantisation is not None:
            total.update(f"quantisation {quantisation}\n".encode())
        return total.hexdigest()


def find(name: str, revision: str | None, base: str | None) -> Checkpoint:
    """The files of a model by its name, downloaded where they are the hub's.

    Raises
    ------
    HandscopeError
        There are none, a single file is a pickle or comes without a `base`, or a `base` without a single file.
    """
    single = Path(name)
    suffix = "" if single.is_dir() else single.suffix.lower()
    if suffix in PICKLES:
        raise HandscopeError(
            f"{name} is a pickle by its name, and loading a pickle can run any code in it: use a .safetensors file."
        )
    if single.is_dir() and base is not None and not (single / "model_index.json").exists():
        if not (single / "config.json").is_file() or not any(single.glob("*.safetensors")):
            raise HandscopeError(
                f"Expected a transformer in {single}, a config.json and its .safetensors files as save_pretrained "
                "writes them: give the folder that holds these."
            )
        return Checkpoint(_folder(base, revision), single.resolve())
    if suffix != ".safetensors":
        if single.is_file():
            raise HandscopeError(
                f"Expected weights in a .safetensors file, found {name}: convert it, or give a folder."
            )
        if base is not None:
            raise HandscopeError(
                f"base={base!r} names the rest of the pipeline for a transformer's folder or a .safetensors file, and "
                f"{name!r} is neither: leave base out."
            )
        return Checkpoint(_folder(name, revision))
    if not single.is_file():
        raise HandscopeError(f"There is no file {single}: give the path of a .safetensors file on this machine.")
    if base is None:
        raise HandscopeError(
            f"{single} holds a transformer only: say in base= (--base) which pipeline the rest comes from, "
            "a folder or a hub id such as black-forest-labs/FLUX.1-dev."
        )
    return Checkpoint(_folder(base, revision), single.resolve())


def open_pipeline(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, quantisation: Any) -> Any:
    """A pipeline on the CPU (weights of bitsandbytes: on the device), from safetensors files only.

    Parameters
    ----------
    quantisation : diffusers quantisation config or None
        Of the transformer.

    Raises
    ------
    HandscopeError
        The files are damaged, tensors are missing, or the pipeline is of no known family.
    """
    family = family_in(checkpoint.folder)
    # bitsandbytes loads onto the current device, whichever the pipeline is meant for.
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    shown = checkpoint.single or checkpoint.folder
    try:
        with current, quiet_libraries():
            from diffusers import PipelineQuantizationConfig

            pipeline = resolve_name(pipeline_class(checkpoint.folder))
            given = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
            if checkpoint.single:
                given["transformer"] = _single_file(family, checkpoint, dtype, quantisation)
            elif quantisation is not None:
                given["quantization_config"] = PipelineQuantizationConfig(quant_mapping={"transformer": quantisation})
            pipe = pipeline.from_pretrained(checkpoint.folder, **given)
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        LookupError,
        ImportError,
        SafetensorError,
    ) as error:
        expected = (
            f"{family.name} transformer weights that fit the config in {checkpoint.folder / 'transformer'}"
            if checkpoint.single
            else f"a whole {next(iter(family.pipelines))} folder with safetensors weights, as save_pretrained writes it"
        )
        raise HandscopeError(
            f"The model in {shown} could not be loaded ({_first_line(error)}): expected {expected}; copy or download "
            "it again."
        ) from error
    # diffusers leaves a tensor that no file has without contents, and says so only in a log.
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            empty = [key for key, weight in part.named_parameters() if weight.is_meta]
            if empty:
                raise HandscopeError(
                    f"The model in {shown} lacks {len(empty)} tensors of its {name}, {empty[0]} among them: copy or "
                    "download it again."
                )
    return pipe


def open_any(folder: Path) -> Any:
    """The pipeline of any class in a folder, on the CPU, from safetensors files only: to be called, not loaded.

    Raises
    ------
    HandscopeError
        diffusers cannot open it.
    """
    try:
        with quiet_libraries():
            from diffusers import DiffusionPipeline

            return DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, LookupError, ImportError) as error:
        raise HandscopeError(
            f"diffusers could not open the pipeline in {folder} ({_first_line(error)}): expected a folder as "
            "save_pretrained writes it, with safetensors weights."
        ) from error


def _single_file(family: Family, checkpoint: Checkpoint, dtype: torch.dtype, quantisation: Any) -> Any:
    from diffusers import TorchAoConfig

    assert checkpoint.single is not None
    if checkpoint.single.is_dir():
        return getattr(diffusers, family.transformer).from_pretrained(
            checkpoint.single,
            torch_dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            quantization_config=quantisation,
        )
    # diffusers 0.42 takes a torchao config here and leaves the weights as they are.
    later = isinstance(quantisation, TorchAoConfig)
    transformer = getattr(diffusers, family.transformer).from_single_file(
        str(checkpoint.single),
        config=str(checkpoint.folder),
        subfolder="transformer",
        torch_dtype=dtype,
        local_files_only=True,
        quantization_config=None if later else quantisation,
    )
    if later:
        from torchao.quantization import quantize_

        quantize_(transformer, quantisation.get_apply_tensor_subclass())
    return transformer


def _folder(name: str, revision: str | None) -> Path:
    folder = folder_of(name)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise HandscopeError(
                f"Expected a pipeline folder with a model_index.json, found none in {folder}: give the folder that "
                "save_pretrained wrote."
            )
        return folder.resolve()
    try:
        with quiet_libraries():
            from diffusers import DiffusionPipeline

            described = DiffusionPipeline.load_config(name, revision=revision)
            kind = described["_class_name"]
            loaded_as = family_named(kind, name).pipelines[kind]
            # Only what the pipeline needs: the hub's FLUX folders hold the transformer a second time, as one file.
            return Path(resolve_name(loaded_as).download(name, revision=revision, use_safetensors=True))
    except (OSError, ValueError, HFValidationError) as error:
        raise HandscopeError(
            f"There is no model {name!r}: it is neither one of {', '.join(ORGANISMS)} nor a folder on this machine, "
            f"and the hub did not give it ({_first_line(error)})."
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the bars that both libraries draw while they load, and warnings of packages that no model needs."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    drawing = [library for library in libraries if library.is_progress_bar_enabled()]
    disabled = logging.root.manager.disable
    for library in libraries:
        library.disable_progress_bar()
    logging.disable(max(disabled, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(disabled)
        for library in drawing:
            library.enable_progress_bar()
