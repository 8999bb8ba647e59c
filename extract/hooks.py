"""Hooks that change what a transformer computes at chosen steps: counted as a capture counts, removed in any case."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..errors import HandscopeError
from ..models.calls import named
from ..models.flux import Lengths, adapter_for
from .address import Block, Plan


@dataclass
class Call:
    """The call of the transformer that is running.

    Attributes
    ----------
    step : int
        Steps that remain; the same for the conditional and the unconditional call of a step.
    unconditional : bool
    kwargs : dict
        The call's keyword arguments.
    lengths : Lengths
        Numbers of text, image and reference tokens.
    """

    step: int
    unconditional: bool
    kwargs: dict[str, Any]
    lengths: Lengths


class Counter:
    """Counts the calls of runs of `of` steps; `call` is the one that is running, None between calls."""

    def __init__(self, of: int) -> None:
        self.of = of
        self.call: Call | None = None
        self.calls = {False: 0, True: 0}
        self.timestep = 0.0

    def count(self, unconditional: bool, timestep: float) -> int:
        """The step of a call; a run begins where the timestep rises."""
        if not unconditional:
            if timestep > self.timestep:
                self.check()
                self.calls = {False: 0, True: 0}
            self.timestep = timestep
        self.calls[unconditional] += 1
        if max(self.calls.values()) > self.of:
            self.check()
        return self.of - self.calls[unconditional] + 1

    def check(self) -> None:
        """Refuse a run of another length, whose steps would be named wrongly."""
        found = max(self.calls.values())
        if found not in (0, self.of):
            more = " or more" if found > self.of else ""
            raise HandscopeError(
                f"Expected a run of {self.of} steps, and the transformer was called {found}{more} times: make `of` the "
                "number of inference steps."
            )


@contextmanager
def counting(transformer: Any, of: int) -> Iterator[Counter]:
    """Follow runs of `of` steps, one after the other; conditional and unconditional calls are counted apart.

    Raises
    ------
    HandscopeError
        The transformer cannot be hooked, as in `capture`; or it was called another number of times than `of`.
    """
    adapter = adapter_for(transformer)
    counter = Counter(of)
    with ExitStack() as hooks:
        names = hooks.enter_context(named(transformer))

        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            unconditional = names.is_unconditional(kwargs)
            step = counter.count(unconditional, adapter.model_timestep(kwargs))
            counter.call = Call(step, unconditional, kwargs, adapter.lengths(kwargs))

        def returned(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            counter.call = None

        hooks.enter_context(transformer.register_forward_pre_hook(called, with_kwargs=True))
        hooks.enter_context(transformer.register_forward_hook(returned, always_call=True))
        yield counter
    counter.check()


Change = Callable[[Call, Block, Tensor], Tensor]
"""From the call, the block and the image tokens (batch, tokens, width) that leave it to what shall leave it instead."""


@contextmanager
def changing(transformer: Any, counter: Counter, plan: Plan, change: Change) -> Iterator[None]:
    """Let `change` replace the image tokens that leave the blocks of a plan at its steps."""
    adapter = adapter_for(transformer)
    modules = adapter.blocks(transformer)
    plan.check(list(modules))

    def left(block: Block, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        call = counter.call
        if call is None or call.step not in plan.steps:
            return None
        streams = adapter.output_streams(output, call.lengths, transformer.inner_dim, str(block))
        image = change(call, block, streams.image)
        return output[0], torch.cat([image, output[1][:, call.lengths.image :]], 1) if call.lengths.reference else image

    with ExitStack() as hooks:
        for block in plan.blocks:
            hook = torch.compiler.disable(partial(left, block))
            hooks.enter_context(modules[str(block)].register_forward_hook(hook))
        yield


def share(tokens: ArrayLike | Tensor, image: Tensor) -> Tensor:
    """A token mask as float32 (1 or batch, tokens) on the device of image tokens (batch, tokens, width).

    Raises
    ------
    HandscopeError
        The mask is not boolean, or has another number of tokens.
    """
    mask = torch.as_tensor(tokens)
    batch, count = image.shape[:2]
    if mask.dtype != torch.bool:
        raise HandscopeError(f"Expected tokens to be a boolean mask, found {mask.dtype}.")
    if mask.shape != (batch, count) and mask.numel() != count:
        raise HandscopeError(
            f"Expected a mask of {count} image tokens, or of shape ({batch}, {count}), found shape "
            f"{tuple(mask.shape)}: it was made for a token grid of another size, or for another batch."
        )
    return mask.reshape(-1, count).to(image.device, torch.float32)
