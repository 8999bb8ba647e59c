"""Krea 2: one sequence, the text first; guidance of 3 is what others call 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..family import BlockList
from .around import Around, grid_by_ids
from .flow import needed


@dataclass(frozen=True, kw_only=True, eq=False)
class Krea2(Around):
    """Packed latents, whose places are in ``position_ids``, behind those of the text."""

    def token_grid(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns, from the places."""
        latents, text, ids = needed(
            arguments, "hidden_states", "encoder_hidden_states", "position_ids", of=self.name
        )
        return grid_by_ids(ids[text.shape[1] :], latents.shape[1], self.name)


FAMILY = Krea2(
    name="Krea2",
    transformer="Krea2Transformer2DModel",
    lists=(
        BlockList(
            "transformer_blocks", "transformer_blocks", {("hidden_states", 0): ("text", "image")}, (("text", "image"),)
        ),
    ),
    end=1.0,
)
