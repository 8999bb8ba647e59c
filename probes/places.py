"""A block's activations with their places kept, as the whole predicted picture keeps its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore

Array = NDArray[Any]

SIDE, CHANNELS = 16, 512
"""A larger grid is averaged over neighbours to at most this many places a side, and a wider stream is projected."""


def has_all_tokens(store: ActivationStore) -> bool:
    """Whether every sample of the store has every token of its grid."""
    count = store.tokens.groupby("sample", sort=False).size()
    return bool((count == int(store.attrs["rows"]) * int(store.attrs["columns"])).all())


def flat_block(store: ActivationStore, cell: Cell, samples: list[str], seed: int = 0) -> NDArray[np.float32]:
    """One vector a sample from all tokens of its grid, place by place.

    Parameters
    ----------
    store : with all tokens, see `has_all_tokens`
    samples : list of str, in the order of the rows of the result

    Returns
    -------
    float32 array of shape (n_samples, places * channels)

    Notes
    -----
    No label is looked at. Grids of more than 16 places a side are averaged over neighbouring tokens; a stream wider
    than 512 channels is projected at random, the same for every place, which keeps distances (Johnson and
    Lindenstrauss 1984): FLUX.1's 4,096 tokens of 3,072 channels come to 131,072 numbers.
    """
    rows, columns = (int(store.attrs[side]) for side in ("rows", "columns"))
    down, right = min(rows, SIDE), min(columns, SIDE)
    number = store.tokens["sample"].map({sample: k for k, sample in enumerate(samples)}).fillna(-1).to_numpy(np.intp)
    place = (store.tokens["row"] * down // rows * right + store.tokens["col"] * right // columns).to_numpy(np.intp)
    projection = None
    if store.width > CHANNELS:
        normal = np.random.default_rng(seed).normal(size=(store.width, CHANNELS)) / np.sqrt(CHANNELS)
        projection = normal.astype(np.float32)
    out = np.zeros((len(samples) * down * right, min(store.width, CHANNELS)), np.float32)
    for x, index in store.chunks(str(cell.block), cell.step, where=number >= 0):
        x = x if projection is None else x @ projection
        key = number[index] * (down * right) + place[index]
        order = np.argsort(key, kind="stable")
        keys, starts = np.unique(key[order], return_index=True)
        out[keys] += np.add.reduceat(x[order], starts, axis=0)
    count = np.bincount((number * (down * right) + place)[number >= 0], minlength=len(out))
    out /= np.maximum(count, 1)[:, None].astype(np.float32)
    return out.reshape(len(samples), -1)
