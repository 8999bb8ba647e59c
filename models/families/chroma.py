"""Chroma: FLUX.1's blocks with real guidance; single blocks take and give one sequence, the text first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..family import BlockList
from .around import Around, grid_by_ids
from .flow import needed


@dataclass(frozen=True, kw_only=True, eq=False)
class Chroma(Around):
    """Packed latents, whose places are in ``img_ids``."""

    def token_grid(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns, from the image's ids."""
        latents, ids = needed(arguments, "hidden_states", "img_ids", of=self.name)
        return grid_by_ids(ids[0] if ids.ndim == 3 else ids, latents.shape[1], self.name)


_BOTH = (("text", "image"),)

FAMILY = Chroma(
    name="Chroma",
    transformer="ChromaTransformer2DModel",
    lists=(
        BlockList(
            "transformer_blocks",
            "transformer_blocks",
            {("encoder_hidden_states", 1): ("text",), ("hidden_states", 0): ("image",)},
            (("text",), ("image",)),
        ),
        BlockList("single_transformer_blocks", "single_transformer_blocks", {("hidden_states", 0): _BOTH[0]}, _BOTH),
    ),
    end=1.0,
)
