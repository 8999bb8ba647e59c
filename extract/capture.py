"""Read residual streams with forward hooks, only the cells and the tokens that were asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import HandscopeError
from ..models.calls import CallNames, named
from ..models.condition import conditions
from ..models.flux import FluxAdapter, Lengths, Streams, adapter_for
from .address import Block, Plan
from .deepest import Index, only_rows
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
        A FLUX.1 transformer.
    plan : Plan
        `plan.of` is the number of steps that the pipeline makes.
    tokens : bool array, optional
        Tokens to keep of the plan's stream; tokens of a reference picture (Kontext) are never among them. Of shape
        (n_tokens,) or (rows, columns), the same for every image of the batch: a cell is then of shape (batch, kept,
        width). Of shape (batch, n_tokens), which may differ from image to image: a cell is then of shape (all kept,
        width), image after image. None keeps every token.
    reduce : function, optional
        Called with the selected tokens on the device, of a shape as above; what it returns is copied to the CPU instead
        of them.

    Raises
    ------
    HandscopeError
        Before anything runs: the transformer has no adapter, lacks a block, is compiled as a whole, runs in parallel,
        or has a diffusers cache or a layer skip. At the first call: a block's streams are not (text, image), or the
        mask has another number of tokens. At the end: the number of calls was not `plan.of`, so that steps would be
        named wrongly, or a block was computed without being called.
    """
    with reading(transformer, plan, range(plan.of, 0, -1), tokens, reduce) as seen:
        yield seen
    if seen.calls != plan.of and plan.call == "uncond":
        raise HandscopeError(
            f"The plan is for a run of {plan.of} unconditional calls, but the transformer had {seen.calls}: make the "
            "plan's `of` the number of inference steps, and give the pipeline a negative prompt and a true_cfg_scale "
            "above 1."
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
    transformer: Any, plan: Plan, steps: Sequence[int], tokens: Tokens, reduce: Reduce, stop: bool = False
) -> Iterator[Seen]:
    """Set a plan's hooks on a transformer whose next calls are these `steps`; see `capture`.

    With `stop`, each call ends in a `DeepestReachedError` as soon as the plan's deepest block is read, and that block
    leaves out what is not read of it.
    """
    adapter = adapter_for(transformer)
    modules = adapter.blocks(transformer)
    plan.check(list(modules))
    seen = Seen(plan)
    deepest = next(name for name in reversed(modules) if name in map(str, plan.blocks)) if stop else ""
    # Compiled blocks run these as they are: traced, they would be compiled anew for each step.
    untraced = torch.compiler.disable
    with ExitStack() as hooks:
        names = hooks.enter_context(named(transformer))
        reader = _Reader(adapter, transformer, names, steps, tokens, reduce, deepest, seen)
        hooks.callback(reader.ends.close)
        hooks.enter_context(transformer.register_forward_pre_hook(reader.called, with_kwargs=True))
        hooks.enter_context(transformer.register_forward_hook(reader.returned, always_call=True))
        for block in plan.blocks:
            module = modules[str(block)]
            if plan.at == "input":
                hook = untraced(partial(reader.entering, block))
                hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hooks.enter_context(module.register_forward_hook(untraced(partial(reader.left, block))))
        yield seen


class _Reader:
    """What the hooks of one capture share: which call is running, which step that is, and how to read it."""

    def __init__(
        self,
        adapter: FluxAdapter,
        transformer: Any,
        names: CallNames,
        steps: Sequence[int],
        tokens: Tokens,
        reduce: Reduce,
        deepest: str,
        seen: Seen,
    ) -> None:
        self.adapter = adapter
        self.transformer = transformer
        self.names = names
        self.steps = steps
        self.tokens = tokens
        self.reduce = reduce
        self.deepest = deepest
        self.seen = seen
        self.step: int | None = None  # None outside a call that is read
        self.form: tuple[int, ...] = ()
        self.lengths = Lengths(0, 0)
        self.index: Index | None = None
        self.ends = ExitStack()
        self.copy = copier(torch.device("cpu"), fresh=False)

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.step = None
        plan, seen = self.seen.plan, self.seen
        if ("uncond" if self.names.is_unconditional(kwargs) else "cond") != plan.call:
            return
        if seen.calls == len(self.steps):
            raise HandscopeError(
                f"The plan is for a run of {len(self.steps)} steps, and the transformer was called once more: "
                "make the plan's `of` the number of inference steps."
            )
        step = self.steps[seen.calls]
        seen.calls += 1
        if step in plan.steps:
            self._see_form(kwargs)
            self.step = step

    def returned(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        # Gradient checkpointing runs blocks again in the backward pass, which is no call of the transformer.
        self.step = None

    def entering(self, block: Block, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.step is not None:
            width = self.transformer.inner_dim
            self._read(block, self.adapter.input_streams(args, kwargs, self.lengths, width, str(block)))

    def left(self, block: Block, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self.step is not None:
            width = self.transformer.inner_dim
            self._read(block, self.adapter.output_streams(output, self.lengths, width, str(block)))

    def _read(self, block: Block, streams: Streams) -> None:
        assert self.step is not None
        stream: Tensor = getattr(streams, self.seen.plan.stream).detach()
        rows = stream if self.index is None else stream[self.index]
        if self.reduce is not None:
            rows = self.reduce(rows)
        self.seen.put(block, self.step, *self.copy(rows))
        if str(block) == self.deepest:
            raise DeepestReachedError

    def _see_form(self, kwargs: dict[str, Any]) -> None:
        """Learn the call's form from the first that is read, and hold the others to it."""
        if not self.form:
            self.lengths = self.adapter.lengths(kwargs)
            image, stream = kwargs["hidden_states"], self.seen.plan.stream
            self.form = _form(kwargs)
            self.index = _index(self.tokens, len(image), getattr(self.lengths, stream), stream, image.device)
            self.copy = copier(image.device, fresh=self.tokens is not None and self.reduce is None)
            self.seen.conditions = {**conditions(self.transformer), "batch_size": str(len(image))}
            self._narrow()
        elif _form(kwargs) != self.form:
            raise HandscopeError(
                f"The capture began with calls of (samples, image tokens, text tokens) = {self.form}, and now found "
                f"{_form(kwargs)}: capture one run of a pipeline at a time."
            )

    def _narrow(self) -> None:
        """Let the block at which every call ends compute only the tokens that are read of it."""
        plan = self.seen.plan
        block = self.adapter.blocks(self.transformer).get(self.deepest)
        if block is None or self.index is None or plan.at == "input" or block._compiled_call_impl is not None:
            return
        *batch, tokens = self.index
        after_text = (*batch, tokens + (self.lengths.text if plan.stream == "image" else 0))
        wanted, nothing = {"both": after_text, plan.stream: self.index}, (slice(None), slice(0))
        layers = self.adapter.rowwise(block).items()
        self.ends.enter_context(
            only_rows([(layer, wanted.get(stream, nothing)) for stream, found in layers for layer in found])
        )


def _form(kwargs: dict[str, Any]) -> tuple[int, ...]:
    return (*kwargs["hidden_states"].shape[:2], kwargs["encoder_hidden_states"].shape[1])


def _index(tokens: Tokens, batch: int, count: int, stream: str, device: torch.device) -> Index | None:
    """What selects a copy of the wanted tokens of a stream (batch, count, width) on `device`; None for all of them."""
    if tokens is None:
        return None
    mask = torch.as_tensor(tokens)
    if mask.dtype != torch.bool:
        raise HandscopeError(f"Expected tokens to be a boolean mask, found {mask.dtype}.")
    if mask.shape == (batch, count):
        return tuple(index.to(device) for index in mask.nonzero(as_tuple=True))
    if mask.numel() != count:
        raise HandscopeError(
            f"Expected a mask of {count} {stream} tokens, or of shape ({batch}, {count}), found shape "
            f"{tuple(mask.shape)}: it was made for a token grid of another size, or for another batch."
        )
    return slice(None), mask.flatten().nonzero()[:, 0].to(device)
