"""Weights in fewer bits, through diffusers' own quantisation configs."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError

if TYPE_CHECKING:
    import torch

QUANTISATIONS = ("bnb-4bit", "bnb-8bit", "torchao-int8")
"""bitsandbytes NF4, bitsandbytes LLM.int8(), torchao weights in int8; each of the transformer's linear layers only."""

_PACKAGES = {"bnb": "bitsandbytes", "torchao": "torchao"}


def config_of(quantisation: str, dtype: "torch.dtype", device: "torch.device") -> Any:
    """The diffusers config of a name in `QUANTISATIONS`; the arithmetic is done in `dtype`.

    Raises
    ------
    HandscopeError
        There is no such quantisation, its package is not installed, or it does not run on this device.
    """
    if quantisation not in QUANTISATIONS:
        raise HandscopeError(f"Expected quantisation to be one of {', '.join(QUANTISATIONS)}, found {quantisation!r}.")
    package = _PACKAGES[quantisation.split("-")[0]]
    if find_spec(package) is None:
        raise HandscopeError(
            f"Quantisation {quantisation} needs {package}, which is not installed: pip install {package}."
        )
    _check_device(package, device)
    if package == "torchao":
        from diffusers import TorchAoConfig
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    from diffusers import BitsAndBytesConfig

    if quantisation == "bnb-8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def check_saved(folder: Path, quantisation: str | None, device: "torch.device") -> str | None:
    """How the transformer in a pipeline's folder was quantised when it was saved; None where it was not.

    Raises
    ------
    HandscopeError
        It is quantised and shall be quantised again, or its package is not installed or does not run on this device.
    """
    try:
        settings = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        saved = settings.get("quantization_config")
    except (OSError, ValueError, AttributeError):  # whoever loads the folder says what is wrong with it
        return None
    if saved is None:
        return None
    package = str(saved.get("quant_method"))
    if quantisation is not None:
        raise HandscopeError(
            f"The transformer in {folder} is quantised already, by {package}: load it without quantisation="
            f"{quantisation!r}."
        )
    if package in _PACKAGES.values():
        if find_spec(package) is None:
            raise HandscopeError(
                f"The transformer in {folder} was quantised by {package}, which is not installed: pip install "
                f"{package}."
            )
        _check_device(package, device)
    return package


def is_quantised(transformer: "torch.nn.Module") -> bool:
    """Whether any weight is kept in something else than a plain tensor of floating point."""
    import torch

    return any(
        type(weight.data) is not torch.Tensor or not weight.is_floating_point() for weight in transformer.parameters()
    )


def _check_device(package: str, device: "torch.device") -> None:
    if package == "bitsandbytes" and device.type == "cpu":
        raise HandscopeError(
            "bitsandbytes weights need a GPU in diffusers, and the device is cpu: use torchao-int8, or no quantisation."
        )
