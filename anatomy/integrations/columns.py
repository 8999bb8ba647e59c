"""A function for ``datasets.Dataset.map``: what the score says of a column of pictures, as columns."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ...errors import HandscopeError
from ..judge.scoring import score
from .redraw import reasons, worst


@dataclass(frozen=True)
class ScoreColumns:
    """Add outcome, score and reasons of a column of pictures.

    >>> dataset.map(ScoreColumns("image"), batched=True, batch_size=16)         # doctest: +SKIP

    Attributes
    ----------
    image : the column: PIL pictures, paths, or the dictionaries of bytes and path that undecoded pictures are.
    prefix : of the columns that are added: outcome; score, the lowest of the picture's hands; reasons, a list; hands,
        how many were found. A missing picture has None in each.
    options : of `score`.
    """

    image: str = "image"
    prefix: str = "hands_"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        if self.image not in batch:
            raise HandscopeError(f"There is no column {self.image!r} of pictures among {', '.join(batch)}.")
        given = batch[self.image]
        if not isinstance(given, (list, tuple)):
            raise HandscopeError("Expected a batch of pictures, found a single one: call map with batched=True.")
        there = [i for i, one in enumerate(given) if one is not None]
        columns: dict[str, list[Any]] = {name: [None] * len(given) for name in ("outcome", "score", "reasons", "hands")}
        if there:
            scores = score([_opened(given[i]) for i in there], **self.options)
            image = scores.examined.hands.image.tolist()
            found = [image.count(i) for i in range(len(there))]
            values: tuple[list[Any], ...] = (scores.outcomes(), worst(scores), reasons(scores), found)
            for name, column in zip(columns, values, strict=True):
                for i, value in zip(there, column, strict=True):
                    columns[name][i] = value
        return {f"{self.prefix}{name}": values for name, values in columns.items()}


def _opened(image: Any) -> Any:
    if isinstance(image, Mapping):
        return Image.open(io.BytesIO(image["bytes"])) if image.get("bytes") else image["path"]
    return image
