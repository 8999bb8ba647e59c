"""The tokens of an activation store as a torch Dataset."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..address import Cell

if TYPE_CHECKING:
    from .store import ActivationStore


class ActivationDataset(Dataset[dict[str, Any]]):
    """One item a token, for a `torch.utils.data.DataLoader`; workers may be forked or spawned.

    >>> loader = DataLoader(store.dataset([("single.3", 12)]), batch_size=256, num_workers=2)    # doctest: +SKIP

    An item has `x`, float32 of shape (cells, width), and as whole numbers the columns of `store.tokens`: `sample` (a
    position in `store.samples`), `row`, `col`, `label` and `instance`. No file is open between reads, so that processes
    share none. A batch is read in one go; in shuffled order that is one read a token, which a consolidated store
    answers much faster than shards. Choose tokens with `torch.utils.data.Subset`.
    """

    def __init__(self, store: "ActivationStore", cells: Sequence[Cell]) -> None:
        self.store = store
        self.cells = tuple(cells)

    def __len__(self) -> int:
        return len(self.store.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items at several places, read together; a DataLoader calls this for a batch."""
        x = np.empty((len(indices), len(self.cells), self.store.width), np.float32)
        for number, cell in enumerate(self.cells):
            x[:, number] = self.store.read(cell.block, cell.step, rows=indices)[0]
        records = self.store.records[list(indices)]
        columns = records.dtype.names or ()
        return [
            {"x": torch.from_numpy(mine), **{name: int(record[name]) for name in columns}}
            for mine, record in zip(x, records)
        ]
