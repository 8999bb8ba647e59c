"""Whether the weights in memory are those that were loaded: some numbers of each, compared.

What is done to a model in memory (an adapter fused, a weight edited, another dtype) leaves the files as they are, by
which a model is known. A few numbers of every weight take milliseconds to read and miss a change of a few others only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

SOME = 8
"""Numbers of each weight."""
WRAPPERS = ("base_layer.", "_orig_mod.")
"""What PEFT and torch.compile put into the name of a weight that stays as it is."""

Sampled = Mapping[str, bytes]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A pipeline as it was loaded.

    Attributes
    ----------
    dtype : torch.dtype
        Of its transformer.
    weights : mapping
        Some numbers of each weight of each of its parts, by the part's name.
    """

    dtype: torch.dtype
    weights: Mapping[str, Sampled]

    @classmethod
    def of(cls, pipe: Any) -> "Loaded":
        """A pipeline as it is now."""
        parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
        return cls(pipe.transformer.dtype, {name: sampled(part) for name, part in parts.items()})


def sampled(module: nn.Module) -> dict[str, bytes]:
    """Some numbers of each weight and buffer of a module, by name; of one that is on no device, none."""
    pieces: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
    found = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        for wrapper in WRAPPERS:
            name = name.replace(wrapper, "")
        data, count = tensor.data, tensor.numel()
        found[name] = f"{tuple(data.shape)} {data.dtype}".encode()
        if type(data) is not Tensor or data.is_meta or not count:
            continue  # of torchao, or under sequential offload
        apart = max(1, count // SOME - 1)  # one less, so that they are not all of a matrix's first column
        pieces.setdefault((data.device, data.dtype), []).append((name, data.reshape(-1)[::apart][:SOME]))
    for (_, dtype), some in pieces.items():
        numbers = torch.cat([piece for _, piece in some]).cpu().view(torch.uint8).numpy().tobytes()
        at = 0
        for name, piece in some:
            end = at + dtype.itemsize * len(piece)
            found[name] += numbers[at:end]
            at = end
    return found


def changed(now: Sampled, loaded: Sampled) -> str:
    """A hash of the weights that are not as they were loaded; empty where there are none.

    Weights that were not there, such as those of adapters, are left out.
    """
    other = [name for name, numbers in loaded.items() if now.get(name) != numbers]
    if not other:
        return ""
    said = xxhash.xxh3_64()
    for name in other:
        said.update(name.encode() + now.get(name, b""))
    return said.hexdigest()


def fingerprint(modules: Mapping[str, Any]) -> str:
    """A hash of some numbers of every weight of modules, adapters too, and of how strongly these act."""
    said = xxhash.xxh3_64()
    for name, module in modules.items():
        for part, numbers in sampled(module).items():
            said.update(f"{name} {part}".encode() + numbers)
        for where, layer in module.named_modules():
            if hasattr(layer, "active_adapters"):
                acts = layer.active_adapters, layer.disable_adapters, getattr(layer, "scaling", None)
                said.update(f"{where} {acts}".encode())
    return said.hexdigest()
