"""Reading activations from disk, shards or consolidated: by cell, by sample, by token, as float32 or torch tensors."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from ..address import Block, Cell, Plan
from .bits import to_float32
from .contents import Part, common, common_plan, described, files, merged, token_table
from .joining import Source, join
from .shard import activations, mark, places_of, plan_of, reading

if TYPE_CHECKING:
    import torch

    from .dataset import ActivationDataset

PIECE_BYTES = 4 * 2**20  # decoded at once: small enough to stay in the processor's cache
GAP_BYTES = 64 * 2**10  # reading this much that nobody asked for is quicker than another read


class ActivationStore:
    """Activations of a run. Nothing is read before it is asked for, and no file stays open.

    Given a folder ``activations/`` (its `store.h5` is read where there is one, else its shards), a folder of shards, a
    `store.h5`, or a list of these: shards made on several machines read as one store, samples in the order of the list.

    Attributes
    ----------
    plan : Plan
        Of all cells, whichever extraction read them; `read_by` says which.
    cells : tuple of Cell
        Those that all samples have.
    width : int
        Of the residual stream.
    samples : list of str
    tokens : DataFrame
        sample, row, col, label, instance; one row a token, in the order of `read`.
    records : array of dtype `RECORD` (contents.py)
        `tokens` with `sample` as a position in `samples`.
    unstored : dict of str to int
        How many tokens of the subject a labelled sample has that are not in the store, by sample.
    steps : DataFrame
        step, index, sigma, timestep, model_timestep, of the first sample: schedules depend on the size of the image.
    parts : list of Part
        Where each sample's rows lie, and what its shard says of it.
    attrs : dict
        Model, revision, weight_hash, dtype and how the activations were made: what all samples share.

    Labels are joined to the tokens here, as they are now: those of the run folder that the activations lie in, or the
    `labels` given (a file, `Labels`, or annotations by sample). Where there are none, label and instance are 0, and in
    activations of 0.3 those that were written with them. A store that is open does not see later changes: open it anew.

    Raises
    ------
    HandscopeError
        There are no activations, a file is truncated or not of this schema, activations of different models or widths
        lie side by side, or of several folders those of different plans, or a sample is there twice and differs; labels
        are of another image or token grid.
    """

    def __init__(
        self, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], labels: Source | None = None
    ) -> None:
        several = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(one) for one in path]
        if not several:
            raise HandscopeError("Expected at least one folder of activations, found an empty list.")
        groups = merged([(one, files(one)) for one in several])
        self.parts: list[Part] = [part for _, group in groups for part in group]
        self.attrs: dict[str, Any] = common(part.attrs for part in self.parts)
        _, self.width = described(self.parts[0])
        self.plan = common_plan(self.parts)
        steps = pd.DataFrame(self.parts[0].steps)
        self.steps = steps[steps["step"].isin(self.plan.steps)].reset_index(drop=True)
        self.cells = self.plan.cells
        self.samples = [part.sample for part in self.parts]
        joined = join(groups, labels)
        self.records, self.unstored = joined.records, joined.unstored
        self.tokens = token_table(self.records, self.samples)
        counts = np.array([len(part.tokens) for part in self.parts])
        self._stops = np.cumsum(counts)
        # From a row of the store to the row in its file; and files, numbered in the order of the store.
        self._shift = np.array([part.start or 0 for part in self.parts]) - (self._stops - counts)
        paths = [part.path for part in self.parts]
        self._file = np.cumsum([path != before for path, before in zip(paths, [None, *paths])])

    def __repr__(self) -> str:
        form = f"{len(self.plan.blocks)} blocks {'of' if self.plan.only else '×'} {len(self.plan.steps)} steps"
        return (
            f"<ActivationStore: {len(self.samples):,} samples, {len(self.records):,} tokens of width {self.width}, "
            f"{len(self.cells)} cells ({form})>"
        )

    def read_by(self, block: str | Block, step: int, sample: str | None = None) -> Plan:
        """The plan of the extraction that read a cell: of the first sample, or of the one that is named.

        Raises
        ------
        HandscopeError
            The cell or the sample is not in the store.
        """
        cell, _ = self._cell(block, step), self._rows(None if sample is None else [sample], None)
        part = self.parts[0 if sample is None else self.samples.index(sample)]
        added = [plan_of(json.dumps(one["plan"])) for one in json.loads(part.attrs.get("added") or "[]")]
        later = {cell for plan in added for cell in plan.cells}
        whole = plan_of(part.attrs["plan"])
        first = whole.reading([one for one in whole.cells if one not in later])
        return next(plan for plan in (*added, first) if cell in plan.cells)

    def read(
        self,
        block: str | Block,
        step: int,
        samples: Sequence[str] | None = None,
        rows: ArrayLike | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], pd.DataFrame]:
        """One cell.

        >>> x, tokens = store.read("single.3", 12)                       # doctest: +SKIP

        Parameters
        ----------
        samples : sequence of str, optional
            Keep tokens of these samples only, in the order of the store.
        rows : bool array of shape (all tokens,) or int array, optional
            Keep these tokens of `store.tokens`, in the order given. Only what is asked for is read from the disk.
        out : float32 array of shape (n_tokens, width), optional
            Written to and returned as `x`: memory used again is several times faster than new memory.

        Returns
        -------
        x : float32 array of shape (n_tokens, width)
        tokens : DataFrame
            sample, row, col, label, instance of each row of `x`.

        Raises
        ------
        HandscopeError
            The cell or a sample is not in the store, a row is out of range, or `out` is of another shape.
        """
        cell, chosen = self._cell(block, step), self._rows(samples, rows)
        shape = (len(self.tokens) if chosen is None else len(chosen), self.width)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise HandscopeError(
                f"Expected `out` to be a contiguous float32 array of shape {shape}, found {out.dtype} of shape "
                f"{out.shape}."
            )
        self._fill(out, cell, chosen)
        return out, self._tokens(chosen)

    def read_tensor(
        self, block: str | Block, step: int, samples: Sequence[str] | None = None, rows: ArrayLike | None = None
    ) -> tuple["torch.Tensor", pd.DataFrame]:
        """One cell as `read` gives it, its bits untouched: torch.bfloat16 of shape (n_tokens, width)."""
        import torch

        cell, chosen = self._cell(block, step), self._rows(samples, rows)
        out = np.empty((len(self.tokens) if chosen is None else len(chosen), self.width), np.uint16)
        for place, bits in self._pieces(cell, chosen):
            out[place] = bits
        return torch.from_numpy(out.view(np.int16)).view(torch.bfloat16), self._tokens(chosen)

    def chunks(
        self, block: str | Block, step: int, rows: int = 4096, where: ArrayLike | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp]]]:
        """One cell in chunks, for a pass in bounded memory.

        >>> for x, index in store.chunks("single.3", 12):                # doctest: +SKIP
        ...     labels = store.records["label"][index]

        Parameters
        ----------
        rows : int
            Tokens in a chunk; the last may have fewer.
        where : bool array of shape (all tokens,) or int array, optional
            Read these tokens of `store.tokens` only, in the order given.

        Yields
        ------
        x : float32 array of shape (m, width)
        index : int array of shape (m,), the rows of `store.tokens`

        Raises
        ------
        HandscopeError
            The cell is not in the store, or a row is out of range.
        """
        cell, chosen = self._cell(block, step), self._rows(None, where)
        count = len(self.tokens) if chosen is None else len(chosen)
        for start in range(0, count, rows):
            index = np.arange(start, min(start + rows, count)) if chosen is None else chosen[start : start + rows]
            x = np.empty((len(index), self.width), np.float32)
            self._fill(x, cell, index)
            yield x, index

    def sample(self, sample: str) -> tuple[NDArray[np.float32], pd.DataFrame]:
        """All cells of one sample: float32 of shape (cells, tokens, width), and its tokens.

        Raises
        ------
        HandscopeError
            The sample is not in the store.
        """
        self._rows([sample], None)
        number = self.samples.index(sample)
        bits = self.sample_bits(self.parts[number])
        x = np.empty(bits.shape, np.float32)
        to_float32(bits, x)
        return x, self._tokens(np.flatnonzero(self.records["sample"] == number))

    def sample_bits(self, part: Part) -> NDArray[np.uint16]:
        """The bits of one sample, of shape (cells, tokens, width), of the cells that all samples have."""
        with reading(part.path) as file:
            if part.start is None:
                whole: NDArray[np.uint16] = activations(file)[:]
                places = [places_of(part.attrs["plan"])[cell] for cell in self.cells]
                return whole if places == list(range(len(whole))) else whole[places]
            stop = part.start + len(part.tokens)
            bits = np.empty((len(self.cells), len(part.tokens), self.width), np.uint16)
            for number, cell in enumerate(self.cells):
                bits[number] = activations(file)[str(cell)][part.start : stop]
            return bits

    def dataset(self, cells: Sequence[Cell | tuple[str, int]] | None = None) -> "ActivationDataset":
        """The tokens as a `torch.utils.data.Dataset`: see `ActivationDataset`."""
        from .dataset import ActivationDataset

        return ActivationDataset(
            self, self.cells if cells is None else [self._cell(*_address(cell)) for cell in cells]
        )

    def _cell(self, block: str | Block, step: int) -> Cell:
        cell = Cell(Block.parse(block), step)
        if cell not in self.cells:
            raise HandscopeError(
                f"{cell} is not in the store, which has blocks {', '.join(map(str, self.plan.blocks))} at steps "
                f"{', '.join(map(str, self.plan.steps))}: "
                "extract it with another plan."
            )
        return cell

    def _rows(self, samples: Sequence[str] | None, rows: ArrayLike | None) -> NDArray[np.intp] | None:
        if samples is not None and rows is not None:
            raise HandscopeError("Expected `samples` or `rows`, found both: choose tokens by one of them.")
        if samples is not None:
            unknown = sorted(set(samples) - set(self.samples))
            if unknown:
                raise HandscopeError(
                    f"{len(unknown)} of the samples are not in the store, {unknown[0]} among them: extract them first."
                )
            wanted = set(samples)
            return np.flatnonzero(np.array([name in wanted for name in self.samples])[self.records["sample"]])
        if rows is None:
            return None
        chosen, count = np.asarray(rows), len(self.records)
        if chosen.dtype == bool and chosen.shape == (count,):
            return np.flatnonzero(chosen)
        integers = chosen.ndim == 1 and (chosen.dtype.kind in "iu" or chosen.size == 0)
        if not integers or (chosen.size and not 0 <= chosen.min() <= chosen.max() < count):
            raise HandscopeError(
                f"Expected rows as a bool array of shape ({count},) or whole numbers from 0 to {count - 1}, found "
                f"{chosen.dtype} of shape {chosen.shape}."
            )
        return chosen.astype(np.intp)

    def _tokens(self, chosen: NDArray[np.intp] | None) -> pd.DataFrame:
        return self.tokens.copy() if chosen is None else self.tokens.iloc[chosen].reset_index(drop=True)

    def _fill(self, out: NDArray[np.float32], cell: Cell, chosen: NDArray[np.intp] | None) -> None:
        for place, bits in self._pieces(cell, chosen):
            if isinstance(place, slice):
                to_float32(bits, out[place])
            else:
                x = np.empty(bits.shape, np.float32)
                to_float32(bits, x)
                out[place] = x

    def _pieces(
        self, cell: Cell, chosen: NDArray[np.intp] | None
    ) -> Iterator[tuple[slice | NDArray[np.intp], NDArray[np.uint16]]]:
        """Bits of the chosen tokens, a few MB at a time, and where in the result they go.

        The bits lie in a buffer that the next piece overwrites.
        """
        rows = np.arange(len(self.records)) if chosen is None else chosen
        order = None
        if chosen is not None and (np.diff(chosen) < 0).any():
            order = np.argsort(chosen, kind="stable")
            rows = chosen[order]
        part = np.searchsorted(self._stops, rows, side="right")
        in_file, file = rows + self._shift[part], self._file[part]
        done = 0
        for mine in np.split(in_file, np.flatnonzero(np.diff(file)) + 1) if len(rows) else []:
            for local, bits in self._read_file(self.parts[part[done]], cell, mine):
                place = slice(done, done + len(local))
                yield place if order is None else order[place], bits
                done = place.stop

    def _read_file(
        self, part: Part, cell: Cell, rows: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint16]]]:
        with reading(part.path) as file:
            if mark(file.attrs) != part.mark:
                raise HandscopeError(f"{part.path} was written again since it was opened: open it anew.")
            data = activations(file) if part.start is None else activations(file)[str(cell)]
            above = (places_of(part.attrs["plan"])[cell],) if part.start is None else ()
            row_bytes = 2 * self.width
            # A compressed chunk is decoded whole, whatever part of it is wanted.
            piece = data.chunks[1] if data.chunks else max(1, PIECE_BYTES // row_bytes)
            gap = piece if data.chunks else max(1, GAP_BYTES // row_bytes)
            buffer = np.empty((piece, self.width), np.uint16)
            for own in _spans(rows, gap, piece):
                first, stop = own[0], own[-1] + 1
                bits = buffer[: stop - first]
                data.read_direct(bits, (*above, slice(first, stop)))
                whole = len(own) == len(bits) and (np.diff(own) == 1).all()
                yield own, bits if whole else bits[own - first]


def _spans(rows: NDArray[np.intp], gap: int, piece: int) -> list[NDArray[np.intp]]:
    """Rows in rising order, cut where more than `gap` lies between two, and at multiples of `piece`."""
    cuts = (np.diff(rows) > gap) | (np.diff(rows // piece) > 0)
    return np.split(rows, np.flatnonzero(cuts) + 1)


def _address(cell: Cell | tuple[str, int]) -> tuple[str | Block, int]:
    return (cell.block, cell.step) if isinstance(cell, Cell) else cell
