"""Lumina-Image 2.0: two refiners, then layers in which each row's image stands behind its own text, without padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..family import BlockList, Lengths
from .around import Around
from .flow import needed


@dataclass(frozen=True, kw_only=True, eq=False)
class Lumina2(Around):
    """Text tokens differ from row to row; the context refiner has them with their padding."""

    def words(self, arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """Text tokens of each row, without padding."""
        (mask,) = needed(arguments, "encoder_attention_mask", of=self.name)
        return tuple(int(count) for count in mask.sum(1))

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """With the padding of each row's text."""
        lengths = dict(super().lengths(arguments))
        (text,) = needed(arguments, "encoder_hidden_states", of=self.name)
        return lengths | {"pad": tuple(text.shape[1] - count for count in self.words(arguments))}


def _list(name: str, streams: tuple[str, ...]) -> BlockList:
    return BlockList(name, name, {("hidden_states", 0): streams}, (streams,))


FAMILY = Lumina2(
    name="Lumina2",
    transformer="Lumina2Transformer2DModel",
    lists=(
        _list("context_refiner", ("text", "pad")),
        _list("noise_refiner", ("image",)),
        _list("layers", ("text", "image")),
    ),
    width="hidden_size",
    form="places",
    end=1.0,
    rising=True,
)
