"""The condition a transformer is in: what makes its activations unreadable is refused, the rest is put on record.

diffusers can swap, skip or split what blocks compute, mostly through hooks of its own, which it keeps by name in each
module's registry. PyTorch's own forward hooks run outside these and see what they return.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import xxhash
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from ..errors import HandscopeError, HandscopeWarning
from .calls import edits

LAYER_SKIP = "layer_skip_hook"
PARALLEL = ("cp_input---", "cp_output---")
CACHES = (
    "faster_cache",
    "fbc_",
    "mag_cache",
    "pyramid_attention_broadcast",
    "sea_cache",
    "taylorseer_cache",
    "text_kv_cache",
)
KNOWN = ("accelerate", "bitsandbytes", "diffusers", "handscope", "peft", "torch", "torchao", "transformers")
"""Packages whose forwards and attention processors are told of otherwise, or change no value."""
HARMLESS = (
    "group_offloading",
    "lazy_prefetch_group_offloading",
    "layer_execution_tracker",
    "layerwise_casting",
    "peft_autocast_disable",
)


def check_whole(transformer: Any) -> None:
    """Refuse a transformer that is compiled as a whole: the module, in place, or its forward alone."""
    if (
        isinstance(transformer, OptimizedModule)
        or transformer._compiled_call_impl is not None
        or hasattr(transformer.forward, "_torchdynamo_orig_callable")
    ):
        raise HandscopeError(
            "The whole transformer is compiled by torch.compile, and hooks on its blocks would never fire: "
            "load it anew, and use compile_repeated_blocks() if it must be compiled."
        )


def check_readable(transformer: Any, blocks: dict[str, nn.Module]) -> None:
    """Refuse, or warn of, what stands between a block's output and the model's residual stream.

    Parameters
    ----------
    blocks : dict
        The transformer's blocks by name.

    Raises
    ------
    HandscopeError
        A diffusers cache is set, a layer is skipped, or the model runs in parallel over several devices.

    Warns
    -----
    HandscopeWarning
        The model is in float16, which residual streams overflow; a hook of diffusers is set that handscope does not
        know.
    """
    if getattr(transformer, "is_cache_enabled", False):
        raise HandscopeError(
            f"A diffusers cache is enabled ({type(transformer._cache_config).__name__}), and a block that it skips "
            "returns its input: "
            "call transformer.disable_cache() first."
        )
    if getattr(transformer, "_parallel_config", None) is not None:
        raise HandscopeError(
            "The transformer runs in parallel over several devices, and each block sees only a part: load it without a "
            "parallel config."
        )
    names = {module: name for name, module in blocks.items()}
    for where, module, hook in _diffusers_hooks(transformer):
        if hook.startswith(CACHES):
            raise HandscopeError(
                f"A diffusers cache is set on {where} (its hook {hook}), and what it skips is not computed: load the "
                "transformer anew."
            )
        if hook.startswith(PARALLEL):
            raise HandscopeError(
                f"Context parallelism is set on {where}, and each block sees only a part of the tokens: load the "
                "transformer without it."
            )
        if hook == LAYER_SKIP:
            effect = "then swaps or repeats its streams" if module in names else "is then not computed"
            raise HandscopeError(
                f"A layer skip is set on {names.get(module, where)}, which {effect}: remove it first."
            )
        if hook not in HARMLESS:
            warnings.warn(
                f"A hook of diffusers that handscope does not know, {hook}, is set on {where}: activations are what it "
                "returns, so make sure that it does not change them.",
                HandscopeWarning,
                stacklevel=3,
            )
    if getattr(transformer, "dtype", None) == torch.float16:
        warnings.warn(
            "The transformer is in float16, which clips residual streams at 65504: use bfloat16.",
            HandscopeWarning,
            stacklevel=3,
        )


def conditions(transformer: Any, arguments: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What may change the bits of activations from one machine or session to another, to be kept beside them.

    Parameters
    ----------
    arguments : mapping, optional
        Those of a call by name, which may hold a scale for adapters.

    Returns
    -------
    dict
        device, attention_backend, quantisation (layerwise casting too), offload (``none``, ``model``, ``sequential`` or
        ``group``), compiled_blocks (``yes`` or ``no``), adapters (LoRA: those that act, each by name and a hash of its
        weights, with the scale of the call where it has one), autocast (a dtype) and replaced (forwards and attention
        processors that are not diffusers').
    """
    device = _device(transformer)
    casting = _casting(transformer)
    quantisation = [part for part in (_quantisation(transformer), casting) if part]
    scale = _scale(arguments or {})
    at = "" if scale == 1 else f" at scale {scale:g}"
    return {
        "device": str(device),
        "attention_backend": _attention_backend(transformer),
        "quantisation": ", ".join(quantisation) or "none",
        "offload": _offload(transformer),
        "compiled_blocks": "yes" if any(map(_is_compiled, transformer.modules())) else "no",
        "adapters": ", ".join(f"{adapter}{at}" for adapter in _adapters(transformer)) or "none",
        "autocast": _autocast(device) or "none",
        "replaced": ", ".join(_replaced(transformer)) or "none",
    }


def acting(transformer: Any) -> list[str]:
    """What makes a transformer compute something else than the weights that it was loaded from, in words."""
    found = {
        "adapters": ", ".join(_adapters(transformer)),
        "casting": _casting(transformer),
        "autocast": _autocast(_device(transformer)),
        "replaced": ", ".join(_replaced(transformer)),
        "edits": ", ".join(edits(transformer)),
    }
    return [f"{what} {said}" for what, said in found.items() if said]


def _device(transformer: Any) -> torch.device:
    devices = [getattr(hook, "execution_device", None) for hook in _accelerate_hooks(transformer)]
    told = next((device for device in devices if device is not None), None)
    return next(transformer.parameters()).device if told is None else torch.device(told)


def _scale(arguments: Mapping[str, Any]) -> float:
    """The scale that a call gives to adapters, in `joint_attention_kwargs` or what a family calls them."""
    given = [said for name, said in arguments.items() if name.endswith("attention_kwargs") and isinstance(said, dict)]
    return float(next((said["scale"] for said in given if said.get("scale") is not None), 1.0))


def _autocast(device: torch.device) -> str:
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return ""
    return str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")


def _casting(transformer: nn.Module) -> str:
    """diffusers' layerwise casting: the dtypes that weights are kept in between calls."""
    kept = {
        str(hook.storage_dtype).removeprefix("torch.")
        for module in transformer.modules()
        for name, hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).items()
        if name == "layerwise_casting"
    }
    return f"layerwise casting {', '.join(sorted(kept))}" if kept else ""


def _replaced(transformer: nn.Module) -> list[str]:
    """Forwards of the transformer and its parts, and attention processors, that are neither their own nor diffusers'.

    TeaCache and its like replace a forward; so does whoever edits a model by hand.
    """
    found = set()
    for module in transformer.modules():
        if isinstance(module, OptimizedModule):
            continue
        for forward in _layers(module.forward):
            if (owner := _owner(forward)) not in (type(module).__module__, "") and owner.split(".")[0] not in KNOWN:
                found.add(f"{type(module).__name__}.forward by {owner}.{forward.__qualname__}")
    for processor in getattr(transformer, "attn_processors", {}).values():
        if (owner := type(processor).__module__).split(".")[0] not in KNOWN:
            found.add(f"attention processor {owner}.{type(processor).__qualname__}")
    return sorted(found)


def _layers(forward: Any) -> Iterator[Any]:
    """The functions of a forward, from the outermost to the one that it began with."""
    while forward is not None:
        function = getattr(forward, "func", forward)  # of a partial, as accelerate and diffusers make of their hooks
        yield getattr(function, "__func__", function)
        forward = getattr(forward, "__wrapped__", None)


def _owner(function: Any) -> str:
    """The module in which a function was written; what it wraps lends it its name, but not its globals."""
    return str(getattr(function, "__globals__", {}).get("__name__", ""))


def _is_compiled(module: nn.Module) -> bool:
    """In place, or wrapped as ``blocks[i] = torch.compile(block)`` does."""
    return isinstance(module, OptimizedModule) or module._compiled_call_impl is not None


def _adapters(transformer: nn.Module) -> list[str]:
    """PEFT's adapters that act, by name and a hash of weights and scales: two of them may have one name.

    Weights that are on no device, as under sequential offload, are left out of the hash.
    """
    hashes: dict[str, Any] = {}
    for where, module in transformer.named_modules():
        if getattr(module, "disable_adapters", True):
            continue  # no layer of PEFT, or one that is switched off
        for name in module.active_adapters:
            scale = getattr(module, "scaling", {}).get(name)
            hashes.setdefault(name, xxhash.xxh3_64()).update(f"{where} {scale}".encode())
            for part, weight in module.named_parameters():
                if name in part.split(".") and not weight.is_meta:
                    hashes[name].update(part.encode())
                    hashes[name].update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return [f"{name} {found.hexdigest()}" for name, found in sorted(hashes.items())]


def _diffusers_hooks(transformer: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(where, module, hook's name) of each hook that diffusers has set."""
    for where, module in transformer.named_modules():
        for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}):
            yield where or "the transformer", module, hook


def _attention_backend(transformer: Any) -> str:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    default = _AttentionBackendRegistry.get_active_backend()[0]
    processors = getattr(transformer, "attn_processors", {}).values()
    chosen = {getattr(processor, "_attention_backend", None) or default for processor in processors}
    return ", ".join(sorted(str(getattr(backend, "value", backend)) for backend in chosen or {default}))


def _quantisation(transformer: Any) -> str:
    """Empty where there is none."""
    config = getattr(getattr(transformer, "config", None), "quantization_config", None)
    if config is not None:
        return str(config)
    # Weights quantised by hand leave no config, only their class.
    kinds = {type(parameter).__name__ for parameter in transformer.parameters()} - {"Parameter"}
    return ", ".join(sorted(kinds))


def _offload(transformer: nn.Module) -> str:
    if any(hook == "group_offloading" for _, _, hook in _diffusers_hooks(transformer)):
        return "group"
    hooks = list(_accelerate_hooks(transformer))
    if any(getattr(hook, "offload", False) for hook in hooks):
        return "sequential"
    return "model" if hooks else "none"


def _accelerate_hooks(transformer: nn.Module) -> Iterator[Any]:
    for module in transformer.modules():
        hook = getattr(module, "_hf_hook", None)
        yield from getattr(hook, "hooks", () if hook is None else (hook,))
