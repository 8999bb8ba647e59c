"""Which probes are watched: those of a run's best block, each at the steps nearest to its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import HandscopeError
from .linear import LinearProbe
from .saved import load_probe

if TYPE_CHECKING:
    from ..models.model import Model

TOKENS = "token"
"""A probe whose metadata name their input with this word was fitted to single tokens."""


def saved_probes(folder: Path, blocks: Sequence[str] | None = None) -> list[LinearProbe]:
    """The probes of these blocks in a run's ``probes/``; without names, of the block that is best in the mean of steps.

    Best by the held-out AUC within prompts, or between them where no prompt has both good and bad samples.

    Raises
    ------
    HandscopeError
        There is none, or a named block has none.
    """
    probes_of: dict[str, list[LinearProbe]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        probe = load_probe(path)
        probes_of.setdefault(str(probe.metadata_["block"]), []).append(probe)
    if not probes_of:
        raise HandscopeError(f"There are no probes in {folder}: run `handscope probe` first.")
    if blocks:
        unknown = [block for block in blocks if block not in probes_of]
        if unknown:
            raise HandscopeError(
                f"There is no probe of {unknown[0]} in {folder}, which has those of {', '.join(sorted(probes_of))}."
            )
        return [probe for block in blocks for probe in probes_of[block]]
    return max(probes_of.values(), key=lambda probes: float(np.mean([_held_out(probe) for probe in probes])))


def by_block(probes: Iterable[Any], model: Model) -> dict[str, list[Any]]:
    """Probes of each block, in the order in which blocks run; HandscopeError for one that does not fit the model."""
    probes_of: dict[str, list[Any]] = {}
    width = model.stream_width
    for probe in probes:
        metadata = getattr(probe, "metadata_", {})
        if "block" not in metadata or "step" not in metadata:
            raise HandscopeError(
                "A probe to watch must say in metadata_ what block and step it was fitted at; this one says "
                f"{sorted(metadata) or 'nothing'}. Take one that `handscope probe` saved, or set them."
            )
        if len(probe.coef_) != width:
            raise HandscopeError(
                f"The probe of {metadata['block']} at step {metadata['step']} has width {len(probe.coef_)}, and the "
                f"model {model.name} has {width}: it was fitted to another model."
            )
        probes_of.setdefault(str(metadata["block"]), []).append(probe)
    if not probes_of:
        raise HandscopeError("Expected at least one probe to watch, found none: run `handscope probe` first.")
    # In the order in which blocks run; one that the model lacks is refused by the plan.
    order = model.blocks
    return dict(sorted(probes_of.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


def nearest(probes: list[Any], step: int) -> Any:
    """The probe that was fitted nearest to a step; of two as near, the noisier."""
    return min(probes, key=lambda probe: (abs(int(probe.metadata_["step"]) - step), -int(probe.metadata_["step"])))


def of_tokens(probe: Any) -> bool:
    """Whether a probe was fitted to single tokens."""
    return str(probe.metadata_.get("input", "")).startswith(TOKENS)


def _held_out(probe: LinearProbe) -> float:
    within = probe.metadata_.get("held_out_within_auc")
    return float(probe.metadata_.get("held_out_auc", 0.5) if within is None or np.isnan(within) else within)
