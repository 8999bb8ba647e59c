"""FLUX.3: text and image have blocks of their own, then single blocks take both. Read at bare calls of the transformer.

Reference pictures have blocks of their own too, which are not read; in single blocks they stand behind the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..family import BlockList, Lengths
from .around import Around, grid_by_ids
from .flow import needed


@dataclass(frozen=True, kw_only=True, eq=False)
class Flux3(Around):
    """Packed latents, whose places are in ``img_ids``."""

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """With the tokens of a reference picture."""
        reference = arguments.get("image_cond_hidden_states")
        return {**super().lengths(arguments), "reference": 0 if reference is None else reference.shape[1]}

    def token_grid(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns, from the image's ids, whose axes are (time, row, column, …)."""
        latents, ids = needed(arguments, "hidden_states", "img_ids", of=self.name)
        return grid_by_ids((ids[0] if ids.ndim == 3 else ids)[:, 1:3], latents.shape[1], self.name)


FAMILY = Flux3(
    name="FLUX.3",
    transformer="Flux3Transformer2DModel",
    lists=(
        BlockList("txt_mode_blocks", "txt_mode_blocks", {("hidden_states", 0): ("text",)}, (("text",),)),
        BlockList("image_mode_blocks", "mode_blocks.image", {("hidden_states", 0): ("image",)}, (("image",),)),
        BlockList(
            "single_transformer_blocks",
            "single_transformer_blocks",
            {("encoder_hidden_states", 1): ("text",), ("hidden_states", 0): ("image", "reference")},
            (("text",), ("image", "reference")),
        ),
    ),
    end=1.0,
)
