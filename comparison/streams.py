"""Tokens of the samples that two runs share: one prompt, one noise, two models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.folds import codes, grouped_folds
from ..analysis.subject_tokens import SubjectTokens
from ..extract.address import Block, Cell
from .runs import Compared
from .similarity import Stream

if TYPE_CHECKING:
    from ..extract.store.store import ActivationStore

POSITIONS = 64
"""At most about so many places of the grid are read, evenly spread: neighbours say the same."""

FEWEST, FEWEST_PROMPTS = 8, 5
"""Samples, and prompts, below which nothing is said: an unbiased CKA takes four prompts, and its interval one more."""

SAME_SIGMA = 0.02
"""Steps of two runs whose noise levels are no further apart are compared."""


@dataclass(frozen=True, eq=False)
class Shared:
    """The samples that are in both runs.

    Attributes
    ----------
    samples : DataFrame with sample and prompt, a row a sample, those of a prompt together
    places : of each run the rows of its store, int array of shape (n, positions); None where the means of the subject's
        tokens are compared
    """

    a: Compared
    b: Compared
    samples: pd.DataFrame = field(repr=False)
    places: tuple[NDArray[np.intp], NDArray[np.intp]] | None = field(repr=False)

    @classmethod
    def of(cls, a: Compared, b: Compared, most: int | None = None) -> Shared | str:
        """The samples of the same prompt and the same noise, or in a sentence why there are none.

        Where both stores hold all tokens of one grid, tokens at the same places are compared; else the mean of the
        subject's tokens of each sample, which every store has, wherever each model drew the subject.

        Parameters
        ----------
        most : about so many samples, spread evenly over the prompts
        """
        if a.store is None or b.store is None:
            lacking = next(one.name for one in (a, b) if one.store is None)
            return f"{lacking} was kept without its activations"
        both, reason = _common(a, b)
        if reason:
            return reason
        grids = [_grid(one.store, both) for one in (a, b)]
        whole = grids[0] is not None and grids[0] == grids[1]
        if not whole:
            stores = [store for store in (a.store, b.store) if store is not None]
            tokens = [SubjectTokens(store, both["sample"].tolist()).samples for store in stores]
            both = both[both["sample"].isin(set(tokens[0]) & set(tokens[1]))]
        if len(both) < FEWEST or both["prompt"].nunique() < FEWEST_PROMPTS:
            return f"they share {len(both)} samples of {both['prompt'].nunique()} prompts with a subject in both"
        both = _spread(both, most)
        places = (_chosen(a.store, both, grids[0]), _chosen(b.store, both, grids[1])) if whole else None
        return cls(a, b, both.reset_index(drop=True), places)

    @property
    def rows(self) -> str:
        return "tokens" if self.places is not None else "means"

    @cached_property
    def prompts(self) -> NDArray[np.intp]:
        """The prompt of each sample, 0, 1, ..."""
        return codes(self.samples["prompt"].to_numpy(object))

    @cached_property
    def folds(self) -> NDArray[np.intp]:
        """Folds of prompts, and so of noises, since each prompt has its own."""
        return grouped_folds(self.prompts, min(5, int(self.prompts.max()) + 1))

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Steps of both runs at the same noise level, from the noisiest."""
        found = []
        for step, sigma in self.a.sigma.items():
            other = min(self.b.sigma, key=lambda one: abs(self.b.sigma[one] - sigma))
            if abs(self.b.sigma[other] - sigma) <= SAME_SIGMA:
                found.append((step, other))
        return sorted(found, key=lambda pair: -self.a.sigma[pair[0]])

    def pairings(self, count: int, seed: int = 0) -> NDArray[np.intp]:
        """As of `pairings_of`, inside prompts; inside folds where no prompt has two samples."""
        return pairings_of(self.prompts if self.within else self.folds, count, seed)

    @property
    def within(self) -> bool:
        """Whether a prompt has more than one sample."""
        return len(self.prompts) > self.prompts.max() + 1

    def read(self, one: Compared, block: str, step: int) -> Stream:
        """A block's tokens of the samples: shape (n, positions, width), or (n, 1, width) of means."""
        assert one.store is not None
        if self.places is None:
            cell = Cell(Block.parse(block), step)
            means = SubjectTokens(one.store, self.samples["sample"].tolist()).read(cell)[0].mean
            return Stream.of(means.astype(np.float32)[:, None])
        rows = self.places[0 if one is self.a else 1]
        x, _ = one.store.read(block, step, rows=rows.ravel())
        return Stream.of(x.reshape(*rows.shape, -1))

    def streams(self, one: Compared, step: int) -> Iterator[Stream]:
        """`read` of all blocks in turn."""
        for block in one.blocks:
            yield self.read(one, block, step)


def pairings_of(groups: NDArray[np.intp], count: int, seed: int = 0) -> NDArray[np.intp]:
    """Which sample each of some is paired with instead, of its own group: int array of shape (count, n)."""
    random = np.random.default_rng([seed, 7])
    out = np.tile(np.arange(len(groups)), (count, 1))
    for one in np.unique(groups):
        members = np.flatnonzero(groups == one)
        out[:, members] = random.permuted(np.tile(members, (count, 1)), axis=1)
    return out


def _common(a: Compared, b: Compared) -> tuple[pd.DataFrame, str]:
    columns = ["sample", "noise_sha256"]
    tables = [one.samples[one.samples["sample"].isin(set(one.store.samples))] for one in (a, b)]  # type: ignore[union-attr]
    named = tables[0][["sample", "prompt", "noise_sha256"]].merge(tables[1][columns], on="sample")
    same = named[(named["noise_sha256_x"] == named["noise_sha256_y"]) & (named["noise_sha256_x"] != "")]
    if len(same) >= FEWEST:
        return same[["sample", "prompt"]].sort_values(["prompt", "sample"]), ""
    if len(named) >= FEWEST:
        return named, (
            f"their {len(named)} samples of the same prompts and seeds began from other noises, as latents of another "
            "shape do"
        )
    prompts = len(set(a.samples["prompt"]) & set(b.samples["prompt"]))
    if prompts:
        return named, f"they share {prompts} prompts, and {len(named)} samples of the same prompt and seed"
    return named, "they share no prompt"


def _grid(store: ActivationStore | None, both: pd.DataFrame) -> tuple[int, int] | None:
    """Rows and columns of the grid of a store that holds every token of these samples; None of any other store."""
    assert store is not None
    rows, columns = (int(store.attrs.get(name, 0)) for name in ("rows", "columns"))
    wanted = np.isin(np.array(store.samples, object), both["sample"].to_numpy(object))
    whole = int(wanted[store.records["sample"]].sum()) == len(both) * rows * columns > 0
    return (rows, columns) if whole else None


def _chosen(store: ActivationStore | None, both: pd.DataFrame, grid: tuple[int, int] | None) -> NDArray[np.intp]:
    """The rows of a store of each sample at every few places of the grid: shape (n, positions)."""
    assert store is not None and grid is not None
    apart = int(np.ceil(np.sqrt(grid[0] * grid[1] / POSITIONS)))
    order = pd.Index(both["sample"]).get_indexer(store.samples)[store.records["sample"]]
    row, col = store.records["row"], store.records["col"]
    rows = np.flatnonzero((order >= 0) & (row % apart == apart // 2) & (col % apart == apart // 2))
    rows = rows[np.lexsort((col[rows], row[rows], order[rows]))]
    return rows.reshape(len(both), -1)


def _spread(both: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """As many samples of each prompt as come to `most`, the first by their names."""
    if most is None or len(both) <= most:
        return both
    each = max(1, most // both["prompt"].nunique())
    return both[both.groupby("prompt").cumcount() < each]
