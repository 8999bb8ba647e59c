"""HiDream-I1: double blocks, then single ones, the image first; every block is given a text of its own beside the rest.

A picture that is not square is filled up to the longest sequence that the model takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import HandscopeError
from ..family import BlockList, Lengths
from .around import Around
from .flow import needed


@dataclass(frozen=True, kw_only=True, eq=False)
class HiDream(Around):
    """Latents in their places; texts of T5, of the last layer of Llama and of the block's own.

    Attributes
    ----------
    longest : int
        Image tokens to which a picture that is not square is filled up: those of ``max_resolution``.
    """

    longest: int = 4096

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """With the tokens that fill up a picture that is not square."""
        lengths = dict(super().lengths(arguments))
        rows, columns = self.token_grid(arguments)
        return lengths | {"pad": 0 if rows == columns else self.longest - rows * columns}

    def token_grid(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns, from the latents; those that were packed before are refused."""
        (latents,) = needed(arguments, "hidden_states", of=self.name)
        if latents.ndim != 4:
            raise HandscopeError(
                f"Expected the latents of {self.name} in their places, (batch, channels, rows, columns), found "
                f"{tuple(latents.shape)}: call the pipeline, or the transformer without hidden_states_masks."
            )
        return super().token_grid(arguments)

    def words(self, arguments: Mapping[str, Any]) -> int:
        """Of T5, and twice of Llama."""
        first, last = needed(arguments, "encoder_hidden_states_t5", "encoder_hidden_states_llama3", of=self.name)
        return int(first.shape[1] + 2 * last.shape[2])


_IMAGE = ("image", "pad")

FAMILY = HiDream(
    name="HiDream",
    transformer="HiDreamImageTransformer2DModel",
    lists=(
        BlockList(
            "double_stream_blocks",
            "double_stream_blocks",
            {("hidden_states", 0): _IMAGE, ("encoder_hidden_states", 2): ("text",)},
            (_IMAGE, ("text",)),
        ),
        BlockList(
            "single_stream_blocks",
            "single_stream_blocks",
            {("hidden_states", 0): (*_IMAGE, "text")},
            ((*_IMAGE, "text"),),
        ),
    ),
    text="encoder_hidden_states_t5",
    form="places",
    together=("uncond", "cond"),
    time="timesteps",
)
