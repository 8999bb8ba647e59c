"""Attribution patching: what an interchange would do at every cell of a step, to first order, from one backward pass.

The effect is the share of the way to the donor that the clean latents predicted at that step go, at the chosen tokens
(`share_of_way`); its gradient at the recipient's values, times the donor's values less the recipient's, estimates it at
each cell (Nanda 2023, "Attribution patching"; Syed et al. 2023, https://arxiv.org/abs/2310.10348). `exact` measures the
same effect, with a forward for each cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..extract.address import Block, Cell, Plan
from ..extract.hooks import edit
from .interchange import Drawn, Interchange, Values, share_of_way

Effects = dict[Cell, NDArray[np.float64]]
"""Of each cell, the effect on each sample, (samples,)."""


def attributed(
    interchange: Interchange,
    recipients: Drawn,
    donors: Drawn,
    blocks: Sequence[str | Block],
    step: int,
    masks: NDArray[np.bool_],
) -> Effects:
    """The estimate at every block or site of a step: two forwards without gradients, one with, and its backward.

    Parameters
    ----------
    blocks : sequence of str or Block
    masks : bool array of shape (samples, tokens)
        Tokens that are exchanged, and at which the effect is measured.
    """
    plan = Plan(blocks, [step], of=interchange.steps)
    given = interchange.values(donors, plan, masks)
    with torch.no_grad():
        goal = interchange.clean(donors, step)
    added: dict[Cell, Tensor] = {}
    own: dict[Cell, Tensor] = {}

    def change(values: Tensor, cell: Cell) -> Tensor:
        own[cell] = values.detach()
        added[cell] = torch.zeros_like(values, requires_grad=True)
        return values + added[cell]

    with _gradients(interchange, step, plan, change, masks):
        clean = interchange.clean(recipients, step)
        share = _shares(clean, clean.detach(), goal, masks)
        # Samples share no token, so the sum's gradient is that of each sample's own share.
        slopes = torch.autograd.grad(share.sum(), list(added.values()))
    rows = np.repeat(np.arange(len(masks)), masks.sum(1))
    effects = {}
    for cell, slope in zip(added, slopes):
        by_token = (slope * (given[cell].to(slope) - own[cell])).double().flatten(1).sum(1).cpu().numpy()
        effects[cell] = np.bincount(rows, by_token, minlength=len(masks)).astype(np.float64)
    return effects


def exact(
    interchange: Interchange,
    recipients: Drawn,
    donors: Drawn,
    blocks: Sequence[str | Block],
    step: int,
    masks: NDArray[np.bool_],
    values: Values | None = None,
) -> Effects:
    """The same effects, each from a forward with the donor's values put in."""
    plan = Plan(blocks, [step], of=interchange.steps)
    given = interchange.values(donors, plan, masks) if values is None else values
    effects = {}
    with torch.no_grad():
        before, goal = interchange.clean(recipients, step), interchange.clean(donors, step)
        for cell in plan.cells:
            at_cell = Plan([cell.block], [step], of=interchange.steps)
            with _edited(interchange, at_cell, lambda found, at: given[at].to(found), masks):
                effects[cell] = share_of_way(interchange.clean(recipients, step), before, goal, masks)
    return effects


@contextmanager
def _gradients(
    interchange: Interchange, step: int, plan: Plan, change: Any, masks: NDArray[np.bool_]
) -> Iterator[None]:
    """Edits whose gradients are kept: gradient checkpointing, which would run the blocks again, is off meanwhile."""
    transformer = interchange.model.transformer
    again = bool(getattr(transformer, "is_gradient_checkpointing", False))
    if again:
        transformer.disable_gradient_checkpointing()
    try:
        with torch.enable_grad(), _edited(interchange, plan, change, masks):
            yield
    finally:
        if again:
            transformer.enable_gradient_checkpointing()


@contextmanager
def _edited(interchange: Interchange, plan: Plan, change: Any, masks: NDArray[np.bool_]) -> Iterator[None]:
    """An edit around one call of the transformer, which is step 1 of 1 to its hooks."""
    steps = {Cell(block, 1): Cell(block, step) for block in plan.blocks for step in plan.steps}
    once = Plan(plan.blocks, [1], of=1)
    with edit(interchange.model.transformer, once, lambda found, cell: change(found, steps[cell]), masks):
        yield


def _shares(changed: Tensor, before: Tensor, goal: Tensor, masks: NDArray[np.bool_]) -> Tensor:
    """As `share_of_way`, with gradients; 0 where recipient and donor are one."""
    chosen = torch.as_tensor(masks, device=changed.device)[..., None]
    way = torch.where(chosen, goal - before, 0.0).flatten(1)
    moved = torch.where(chosen, changed - before, 0.0).flatten(1)
    return (moved * way).sum(1) / way.square().sum(1).clamp_min(torch.finfo(way.dtype).tiny)
