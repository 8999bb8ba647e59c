"""What a capture saw, and its way from the device to the CPU."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import HandscopeError
from .address import Block, Cell, Plan


class Seen:
    """What a capture saw: ``seen["single.3", 12]`` is one cell, on the CPU, in the transformer's dtype.

    Attributes
    ----------
    plan : Plan
    conditions : dict of str
        What may change the bits, as `handscope.models.condition` says it, and `batch_size`; empty before the first
        call.
    index : tuple or None
        What selects the tokens that are read, of (batch, tokens); None for all of them.
    """

    def __init__(self, plan: Plan, calls: Mapping[str, int]) -> None:
        self.plan = plan
        self._calls = calls
        self.conditions: dict[str, str] = {}
        self.index: tuple[Any, ...] | None = None
        self._cells: dict[Cell, tuple[Tensor, torch.cuda.Event | None]] = {}
        self._reached: set[Cell] = set()

    @property
    def calls(self) -> int:
        """Calls of the transformer so far that the plan counts: the conditional ones, or the unconditional."""
        return self._calls[self.plan.call]

    def __getitem__(self, key: tuple[str | Block, int]) -> Tensor:
        cell = Cell(Block.parse(key[0]), key[1])
        if cell not in self.plan.cells:
            raise HandscopeError(
                f"{cell} is not in the plan, which has blocks {', '.join(map(str, self.plan.blocks))} at steps "
                f"{', '.join(map(str, self.plan.steps))}."
            )
        if cell not in self._cells:
            raise HandscopeError(
                f"{cell} was not reached, or was taken: the transformer was called {self.calls} times, and step "
                f"{cell.step} is call {self.plan.index(cell.step) + 1}."
            )
        return _arrived(*self._cells[cell])

    def put(self, block: Block, step: int, rows: Tensor, copied: "torch.cuda.Event | None" = None) -> None:
        """Add one cell; `copied` happens when all of it is on the CPU."""
        cell = Cell(block, step)
        self._cells[cell] = rows, copied
        self._reached.add(cell)

    def has(self, block: Block, step: int) -> bool:
        """Whether a cell was read."""
        return Cell(block, step) in self._reached

    @property
    def unreached(self) -> list[Cell]:
        """Cells of the plan that were not read."""
        return [cell for cell in self.plan.cells if cell not in self._reached]

    def take(self) -> dict[Cell, Tensor]:
        """Give every cell, in the plan's order, and keep none."""
        cells, self._cells = self._cells, {}
        return {cell: _arrived(*cells[cell]) for cell in self.plan.cells if cell in cells}


def copier(device: torch.device, fresh: bool) -> Callable[[Tensor], tuple[Tensor, "torch.cuda.Event | None"]]:
    """A function from rows to their copy on the CPU, and the event of its being complete (None: at once).

    `fresh` rows are a copy of the stream already.
    """
    side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(rows: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        if side is None or rows.device.type != "cuda":
            with torch.inference_mode(False):  # a copy made within it could not be trained on
                return rows.to("cpu", copy=not fresh or rows.is_inference()), None
        # Beside the computation, which goes on at once. Written against the documentation of CUDA streams; not yet run.
        pinned = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            pinned.copy_(rows, non_blocking=True)
            copied = side.record_event()
        rows.record_stream(side)  # until then, its memory is given to no other tensor
        return pinned, copied

    return copy


def _arrived(rows: Tensor, copied: "torch.cuda.Event | None") -> Tensor:
    if copied is not None:
        copied.synchronize()
    return rows
