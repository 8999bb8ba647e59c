"""What families share that are read around a pipeline call of one's own: their calls, as a table says them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from ..family import Family, Lengths
from .flow import cells, needed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Around(Family):
    """A family that handscope reads and edits and does not generate with.

    `width` may be a product of config entries: ``num_attention_heads * attention_head_dim``.

    Attributes
    ----------
    time : str
        Argument with the time.
    end : float
        The time of pure noise.
    rising : bool
        Whether the time is 0 in pure noise and rises to `end`.
    registers : int
        Learned tokens before those of the text.
    """

    width: str = "num_attention_heads * attention_head_dim"
    time: str = "timestep"
    end: float = 1000.0
    rising: bool = False
    registers: int = 0

    def stream_width(self, transformer: Any) -> int:
        """Width of the residual streams."""
        return prod(int(transformer.config[name]) for name in self.width.split(" * "))

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of image tokens in a call, of text tokens where its blocks have any, and of registers."""
        lengths: dict[str, int | tuple[int, ...]] = {"image": prod(self.token_grid(arguments))}
        if any("text" in part for blocks in self.lists for part in blocks.gives):
            lengths |= {"register": self.registers, "text": self.words(arguments)}
        return lengths

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int]:
        """Rows and columns; frames of a video stand below each other."""
        return self.token_grid(arguments)

    def token_grid(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns, from the latents in their places."""
        (latents,) = needed(arguments, self.latents, of=self.name)
        rows, columns = cells(latents, self.patch)
        return prod(latents.shape[2:-2]) * rows, columns

    def words(self, arguments: Mapping[str, Any]) -> int | tuple[int, ...]:
        """Text tokens in a call."""
        (text,) = needed(arguments, self.text, of=self.name)
        return int(text.shape[1])

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        """0 to 1000, higher for more noise."""
        time = 1000 * float(arguments[self.time].max()) / self.end
        return 1000 - time if self.rising else time


def grid_by_ids(ids: Tensor, total: int, name: str) -> tuple[int, int]:
    """Rows and columns by ids (tokens, axes) whose last two numbers are row and column.

    Raises
    ------
    HandscopeError
        The tokens are not those of one picture, row after row.
    """
    from ...errors import HandscopeError

    rows, columns = (int(last) + 1 for last in ids[:total, -2:].amax(0))
    if rows * columns != total:
        raise HandscopeError(
            f"Expected the {total} image tokens of a call of {name} to be those of one picture, row after row; its ids "
            f"go to row {rows - 1} and column {columns - 1}."
        )
    return rows, columns
