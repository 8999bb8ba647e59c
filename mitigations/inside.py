"""What a LoRA is from inside: how far it changes each block, and the model with its part in some blocks left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch

from ..errors import HandscopeError
from ..models.model import Model


def reach(model: Model) -> pd.DataFrame:
    """How far the adapters that are loaded change each linear layer.

    Returns
    -------
    DataFrame of one row a layer, in the order in which blocks run: block, layer, adapter, and share, the Frobenius norm
    of the change scale * B @ A over that of the weight that it is added to

    Raises
    ------
    HandscopeError
        There are none.
    """
    rows = [
        {"block": block, "layer": layer, "adapter": adapter, "share": _share(module, adapter)}
        for block, layer, module in _adapted(model)
        for adapter in module.lora_A
    ]
    return pd.DataFrame(rows)


@torch.no_grad()
def _share(module: Any, adapter: str) -> float:
    change = module.lora_B[adapter].weight @ module.lora_A[adapter].weight * module.scaling[adapter]
    return float(change.float().norm() / module.base_layer.weight.float().norm())


@contextmanager
def without(model: Model, blocks: Sequence[str]) -> Iterator[None]:
    """The model with its adapters left out of some blocks, while the block of code lasts.

    Raises
    ------
    HandscopeError
        No adapters are loaded, or they change nothing in one of the blocks.
    """
    layers = _adapted(model)
    if strange := set(blocks) - {block for block, _, _ in layers}:
        raise HandscopeError(f"The adapters of {model.name} change nothing in {', '.join(sorted(strange))}.")
    kept = [(module, dict(module.scaling)) for block, _, module in layers if block in blocks]
    try:
        for module, scales in kept:
            module.scaling.update(dict.fromkeys(scales, 0.0))
        yield
    finally:
        for module, scales in kept:
            module.scaling.update(scales)


def _adapted(model: Model) -> list[tuple[str, str, Any]]:
    """Block, name within it, and module of every linear layer that has adapters."""
    found = [
        (block, name, module)
        for block, whole in model.family.blocks(model.transformer).items()
        for name, module in whole.named_modules()
        if getattr(module, "lora_A", None)
    ]
    if not found:
        raise HandscopeError(f"No LoRA is loaded into {model.name}: call model.pipe.load_lora_weights first.")
    return found
