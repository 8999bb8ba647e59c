"""Samples of a run that may share a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

    from ..models.model import Model


def batches_of(
    model: Model, prompts: Sequence[str], size: int, apart: ArrayLike | None = None
) -> list[list[int]]:
    """Places of prompts in batches of at most `size`, of one number of text tokens, and of one value of `apart`."""
    kinds = model.text_tokens(prompts)
    others = np.zeros(len(prompts), int) if apart is None else np.asarray(apart)
    together: dict[tuple[int, int], list[int]] = {}
    for place, prompt in enumerate(prompts):
        together.setdefault((int(others[place]), kinds[prompt]), []).append(place)
    return [some[first : first + size] for some in together.values() for first in range(0, len(some), size)]


def in_turn(table: pd.DataFrame, samples: int) -> pd.DataFrame:
    """So many rows of a table of samples, prompts taking turns, in the order in which they stand."""
    turn = table.groupby("prompt").cumcount().sort_values(kind="stable")
    return table.loc[turn.index[:samples]].sort_index().reset_index(drop=True)
