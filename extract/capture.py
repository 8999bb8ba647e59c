"""Read residual streams with forward hooks, only the cells and the tokens that were asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import HandscopeError
from .adapter import adapter_for
from .address import Block, Cell, Plan

Tokens = np.ndarray | Tensor | None


class Seen:
    """What a capture saw: ``seen["single.3", 12]`` is one cell, on the CPU, in the transformer's dtype.

    Attributes
    ----------
    plan : Plan
    calls : int
        Conditional calls of the transformer so far.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calls = 0
        self._cells: dict[Cell, Tensor] = {}

    def __getitem__(self, key: tuple[str | Block, int]) -> Tensor:
        cell = Cell(Block.parse(key[0]), key[1])
        if cell not in self.plan.cells:
            raise HandscopeError(
                f"{cell} is not in the plan, which has blocks {', '.join(map(str, self.plan.blocks))} at steps "
                f"{', '.join(map(str, self.plan.steps))}."
            )
        if cell not in self._cells:
            raise HandscopeError(
                f"{cell} was not reached: the transformer was called {self.calls} times, and step {cell.step} is call "
                f"{self.plan.index(cell.step) + 1}."
            )
        return self._cells[cell]

    def put(self, block: Block, step: int, rows: Tensor) -> None:
        """Add one cell."""
        self._cells[Cell(block, step)] = rows


@contextmanager
def capture(transformer: Any, plan: Plan, tokens: Tokens = None) -> Iterator[Seen]:
    """Capture cells of the residual stream while any diffusers pipeline runs.

    >>> with capture(pipe.transformer, plan, tokens=mask) as seen:      # doctest: +SKIP
    ...     pipe("an open hand", num_inference_steps=20, max_sequence_length=16, height=96, width=96)
    >>> seen["single.3", 12].shape                                      # doctest: +SKIP
    torch.Size([1, 40, 128])

    The hooks select tokens on the device and copy the selection to the CPU; they never keep a view of the whole stream,
    and they are removed however the block ends. Steps are counted by the transformer's own conditional calls: a call
    inside diffusers' ``cache_context("uncond")`` is neither counted nor read.

    Parameters
    ----------
    transformer : torch.nn.Module
        A FLUX.1 transformer.
    plan : Plan
        `plan.of` is the number of calls that the pipeline makes.
    tokens : bool array, optional
        Image tokens to keep. Of shape (n_tokens,) or (rows, columns), the same for every image of the batch: a cell is
        then of shape (batch, kept, width). Of shape (batch, n_tokens), which may differ from image to image: a cell is
        then of shape (all kept, width), image after image. None keeps every token.

    Raises
    ------
    HandscopeError
        Before anything runs: the transformer has no adapter, lacks a block, is compiled as a whole, or a diffusers
        cache is enabled. At the first call: a block's output is not (text, image), or the mask has another number of
        tokens. At the end: the number of calls was not `plan.of`, so that steps would be named wrongly.
    """
    adapter = adapter_for(transformer)
    modules = adapter.blocks(transformer)
    plan.check(list(modules))
    seen = Seen(plan)
    context = ""
    lengths = (0, 0)
    select: Callable[[Tensor], Tensor] | None = None

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal lengths, select
        if context == "uncond":
            return
        seen.calls += 1
        if seen.calls > plan.of:
            raise HandscopeError(
                f"The plan is for a run of {plan.of} steps, and the transformer was called once more: "
                "make the plan's `of` the number of inference steps."
            )
        lengths = adapter.lengths(kwargs)
        if select is None:
            select = _selector(tokens, kwargs["hidden_states"].shape[0], lengths[1], kwargs["hidden_states"].device)

    def after(block: Block, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        step = plan.of + 1 - seen.calls
        if context == "uncond" or step not in plan.steps:
            return
        assert select is not None
        stream = adapter.image_stream(output, *lengths, width=transformer.inner_dim, block=str(block))
        seen.put(block, step, select(stream.detach()))

    @contextmanager
    def named_call(name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
        nonlocal context
        with cache_context(name, *args, **kwargs):
            context = name
            try:
                yield
            finally:
                context = ""

    cache_context = transformer.cache_context
    handles = []
    instance = vars(transformer)
    outer = instance.get("cache_context")
    try:
        # diffusers names its two calls of true classifier-free guidance here and nowhere else.
        instance["cache_context"] = named_call
        handles.append(transformer.register_forward_pre_hook(before, with_kwargs=True))
        for block in plan.blocks:
            handles.append(modules[str(block)].register_forward_hook(partial(after, block)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        del instance["cache_context"]
        if outer is not None:
            instance["cache_context"] = outer
    if seen.calls != plan.of:
        raise HandscopeError(
            f"The plan is for a run of {plan.of} steps, but the transformer was called {seen.calls} times: "
            "make the plan's `of` the number of inference steps."
        )


def _selector(tokens: Tokens, batch: int, image: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from a stream (batch, image, width) on `device` to a copy of the wanted tokens on the CPU."""
    if tokens is None:
        return lambda stream: stream.to("cpu", copy=True)
    mask = torch.as_tensor(tokens)
    if mask.dtype != torch.bool:
        raise HandscopeError(f"Expected tokens to be a boolean mask, found {mask.dtype}.")
    if mask.shape == (batch, image):
        sample, token = (index.to(device) for index in mask.nonzero(as_tuple=True))
        return lambda stream: stream[sample, token].cpu()
    if mask.numel() != image:
        raise HandscopeError(
            f"Expected a mask of {image} tokens, or of shape ({batch}, {image}), found shape {tuple(mask.shape)}: "
            "it was made for a token grid of another size, or for another batch."
        )
    kept = mask.flatten().nonzero()[:, 0].to(device)
    return lambda stream: stream[:, kept].cpu()
