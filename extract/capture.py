"""Read residual streams with forward hooks, only the cells and the tokens that were asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HandscopeError
from ..models.condition import conditions
from ..models.registry import blocks
from .address import Block, Plan
from .deepest import only_rows
from .hooks import Call, Index, following, index_of, visiting
from .seen import Seen, copier

__all__ = ["Reduce", "Seen", "Tokens", "capture"]

Tokens = np.ndarray | Tensor | None
Reduce = Callable[[Tensor], Tensor] | None


@contextmanager
def capture(transformer: Any, plan: Plan, tokens: Tokens = None, reduce: Reduce = None) -> Iterator[Seen]:
    """Capture cells of the residual stream while any diffusers pipeline runs.

    >>> with capture(pipe.transformer, plan, tokens=mask) as seen:      # doctest: +SKIP
    ...     pipe("an open hand", num_inference_steps=20, max_sequence_length=16, height=96, width=96)
    >>> seen["single.3", 12].shape                                      # doctest: +SKIP
    torch.Size([1, 40, 128])

    The hooks select tokens on the device and copy the selection to the CPU; they never keep a view of the whole stream,
    and they are removed however the block ends. Steps are counted by the transformer's own calls, conditional and
    unconditional ones apart (see `handscope.models.calls`).

    Parameters
    ----------
    transformer : torch.nn.Module
        A transformer of a family that handscope knows.
    plan : Plan
        `plan.of` is the number of steps that the pipeline makes.
    tokens : bool array, optional
        Tokens to keep of the plan's stream; tokens of a reference picture (Kontext) are never among them. Of shape
        (n_tokens,) or (rows, columns), the same for every image of the batch: a cell is then of shape (batch, kept,
        width), at queries, keys and values (batch, kept, heads, head_dim). Of shape (batch, n_tokens), which may differ
        from image to image: a cell is then of shape (all kept, width), image after image. None keeps every token.
    reduce : function, optional
        Called with the selected tokens on the device, of a shape as above; what it returns is copied to the CPU instead
        of them.

    Raises
    ------
    HandscopeError
        Before anything runs: the transformer is of no known family, lacks a block, is compiled as a whole, runs in
        parallel, or has a diffusers cache or a layer skip. At the first call: a block's streams are in other places, or
        the mask has another shape. At the end: the number of calls was not `plan.of`, so that steps would be named
        wrongly, or a block was computed without being called.
    """
    with reading(transformer, plan, range(plan.of, 0, -1), tokens, reduce) as seen:
        yield seen
    if seen.calls != plan.of and plan.call == "uncond":
        raise HandscopeError(
            f"The plan is for a run of {plan.of} unconditional calls, but the transformer had {seen.calls}: make the "
            "plan's `of` the number of inference steps, and give the pipeline a negative prompt and guidance that uses "
            "it."
        )
    if seen.calls != plan.of:
        raise HandscopeError(
            f"The plan is for a run of {plan.of} steps, but the transformer was called {seen.calls} times: "
            "make the plan's `of` the number of inference steps."
        )
    if seen.unreached:
        raise HandscopeError(
            f"The transformer ran, but {len(seen.unreached)} cells were not read, {seen.unreached[0]} among them: "
            "something computes its blocks without calling them, as a compiled forward does. Load it anew."
        )


class DeepestReachedError(Exception):
    """Nothing after this block is wanted."""


@contextmanager
def reading(
    transformer: Any,
    plan: Plan,
    steps: Sequence[int],
    tokens: Tokens,
    reduce: Reduce,
    stop: bool = False,
    to_end: bool = False,
) -> Iterator[Seen]:
    """Set a plan's hooks on a transformer whose next calls are these `steps`; see `capture`.

    With `stop`, each call ends in a `DeepestReachedError` as soon as the plan's deepest block is read, and that block
    leaves out what is not read of it. With `to_end`, calls whose deepest block is the model's last go on to their
    output, which is whole in the tokens that are read.
    """
    if plan.call == "both":
        raise HandscopeError("A capture reads one kind of call: make the plan's `call` cond or uncond.")
    reader = _Reader(transformer, tokens, reduce, stop, to_end)
    with ExitStack() as hooks:
        hooks.callback(reader.ends.close)
        counter = hooks.enter_context(following(transformer, steps, plan.call, began=reader.began))
        family = counter.family
        plan = plan.on(list(family.blocks(transformer)), family.carrying(transformer, plan.stream))
        reader.seen = seen = Seen(plan, counter.calls)
        hooks.enter_context(visiting(transformer, counter, plan, reader.read, edits=False))
        yield seen


class _Reader:
    """What the hooks of one capture share: the form of its calls, and how they are read."""

    seen: Seen

    def __init__(self, transformer: Any, tokens: Tokens, reduce: Reduce, stop: bool, to_end: bool) -> None:
        self.transformer, self.tokens, self.reduce, self.stop = transformer, tokens, reduce, stop
        self.to_end = to_end
        self.form: tuple[object, ...] = ()
        self.index: Index | None = None
        self.ends = ExitStack()
        self.copy = copier(torch.device("cpu"), fresh=False)

    @cached_property
    def deepest(self) -> str:
        """The last block of the plan to run, where calls end there."""
        wanted = {str(block.whole) for block in self.seen.plan.blocks}
        return next(name for name in reversed(blocks(self.transformer)) if name in wanted) if self.stop else ""

    @cached_property
    def goes_on(self) -> bool:
        """Whether calls go on behind the deepest block."""
        return self.to_end and self.deepest == list(blocks(self.transformer))[-1]

    def began(self, call: Call) -> None:
        """Learn a call's form from the first that is read, and hold the others to it."""
        plan = self.seen.plan
        if call.step not in plan.steps:
            return
        lengths, samples, device = call.lengths, call.samples(plan.call), call.device
        form = (samples, call.count("image") + call.count("reference"), lengths.get("text", 0))
        if self.form and form != self.form:
            raise HandscopeError(
                f"The capture began with calls of (samples, image tokens, text tokens) = {self.form}, and now found "
                f"{form}: capture one run of a pipeline at a time."
            )
        if self.form:
            return
        self.form = form
        self.index = self.seen.index = index_of(self.tokens, call, plan.call, plan.stream)
        self.copy = copier(device, fresh=self.tokens is not None and self.reduce is None)
        self.seen.conditions = {**conditions(self.transformer, call.arguments), "batch_size": str(samples)}
        self._narrow(call)

    def read(self, call: Call, side: str, block: Block, stream: Tensor) -> None:
        """Copy what is read of a stream (batch, tokens, width)."""
        stream = stream.detach()
        rows = stream if self.index is None else stream[self.index]
        if self.reduce is not None:
            rows = self.reduce(rows)
        self.seen.put(block, call.step, *self.copy(rows))
        if str(block.whole) == self.deepest and not self.goes_on and self._all_read(call.step):
            raise DeepestReachedError

    def _all_read(self, step: int) -> bool:
        """Whether the deepest block is read in a call, with all sites inside it."""
        blocks = [block for block in self.seen.plan.blocks if str(block.whole) == self.deepest]
        return len(blocks) == 1 or all(self.seen.has(block, step) for block in blocks)

    def _narrow(self, call: Call) -> None:
        """Let the block at which every call ends compute only the tokens that are read of it."""
        plan, family = self.seen.plan, call.family
        block = family.blocks(self.transformer).get(self.deepest)
        whole = call.rows[plan.call] == slice(None)
        if block is None or self.index is None or plan.at == "input" or block._compiled_call_impl or not whole:
            return
        *batch, tokens = self.index
        after_text = (*batch, tokens + (call.count("text") if plan.stream == "image" else 0))
        wanted, nothing = {"both": after_text, plan.stream: self.index}, (slice(None), slice(0))
        layers = family.rowwise(block).items()
        self.ends.enter_context(
            only_rows([(layer, wanted.get(stream, nothing)) for stream, found in layers for layer in found])
        )
