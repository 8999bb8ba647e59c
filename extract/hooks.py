"""The hooks of captures and edits: one counter of steps, one check of masks, one way to a stream and back.

`following` counts the calls of a transformer, `visiting` reaches a stream at the blocks of a plan, and `edit` is both
for a change of one's own. They are removed however their block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import HandscopeError
from ..models.calls import named
from ..models.family import BlockList, Family, Lengths
from ..models.registry import hookable
from ..models.sites import inside
from .address import Block, Cell, Plan

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Index = tuple[Any, ...]
Change = Callable[[Tensor, Cell], Tensor]
"""From the values of the chosen tokens at a cell to what takes their place, of the same shape."""


@contextmanager
def edit(
    transformer: Any, plan: Plan, change: Change, tokens: ArrayLike | Tensor | None = None, doing: str = ""
) -> Iterator[None]:
    """Let `change` replace values of the residual stream while any diffusers pipeline runs.

    >>> def halve(values, cell):
    ...     return values / 2
    >>> with edit(pipe.transformer, Plan(["single.3"], [12], of=20), halve, tokens=mask):    # doctest: +SKIP
    ...     pipe("an open hand", num_inference_steps=20, max_sequence_length=16, height=96, width=96)

    Any number of runs of `plan.of` steps may follow each other. A capture whose context is opened inside that of the
    edit sees what the edit left.

    Parameters
    ----------
    transformer : torch.nn.Module
        A transformer of a family that handscope knows.
    plan : Plan
        Where: at the output of its blocks, their input, or sites inside them. ``call="both"`` edits unconditional calls
        like conditional ones.
    change : function
        ``change(values, cell)`` is called once for each cell, on the device, in the transformer's dtype. `values` is of
        shape (batch, kept tokens, width), or as `tokens` says; at queries, keys and values (…, heads, head_dim). It
        returns values of that shape, which are cast to that dtype. Gradients pass.
    tokens : bool array, optional
        Tokens of the plan's stream, as in `capture`: of shape (n_tokens,) or (rows, columns), the same for every image;
        or of shape (batch, n_tokens), and `values` is then of shape (all kept, width), image after image. All tokens by
        default.
    doing : str, optional
        What is changed, in words, for the record of pictures that are generated meanwhile. By default where, and the
        name of `change`.

    Raises
    ------
    HandscopeError
        The transformer cannot be hooked or lacks a block, the mask or what `change` returns has another shape, or the
        run has another number of calls than `plan.of`; as in `capture`.
    """
    doing = doing or f"edit by {getattr(change, '__qualname__', type(change).__name__)}, {plan.to_json()}"
    with following(transformer, range(plan.of, 0, -1), plan.call, again=True, doing=doing) as counter:
        family = counter.family
        plan = plan.on(list(family.blocks(transformer)), family.carrying(transformer, plan.stream))

        def visit(call: Call, side: str, block: Block, stream: Tensor) -> Tensor:
            index = index_of(tokens, call, side, plan.stream)
            values = stream if index is None else stream[index]
            changed = change(values, Cell(block, call.step))
            if not isinstance(changed, Tensor) or changed.shape != values.shape:
                found = f"shape {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
                raise HandscopeError(
                    f"Expected change to return a tensor of shape {tuple(values.shape)} at {block}, as it was given, "
                    f"found {found}."
                )
            if index is None:
                return changed.to(values)
            stream = stream.clone()
            stream[index] = changed.to(values)
            return stream

        with visiting(transformer, counter, plan, visit):
            yield


@dataclass
class Call:
    """The call of the transformer that is running.

    Attributes
    ----------
    step : int
        Steps that remain; the same for the conditional and the unconditional part of a step.
    rows : dict
        Of ``cond`` and of ``uncond``, as far as the call has them, the rows of the batch.
    arguments : dict
        The call's arguments by name.
    family : Family
    """

    step: int
    rows: Mapping[str, slice]
    arguments: dict[str, Any]
    family: Family

    @cached_property
    def lengths(self) -> Lengths:
        """Numbers of tokens of each stream."""
        return self.family.lengths(self.arguments)

    @property
    def device(self) -> torch.device:
        """Where the latents are."""
        return self.arguments[self.family.latents][0].device

    def numbers(self, side: str) -> range:
        """The rows of the batch that are ``cond``, or ``uncond``."""
        return range(*self.rows[side].indices(self.family.batch(self.arguments)))

    def samples(self, side: str) -> int:
        """How many these are."""
        return len(self.numbers(side))

    def count(self, stream: str) -> int:
        """Tokens of a stream in a row; HandscopeError where the rows differ in them."""
        length = self.lengths.get(stream, 0)
        if isinstance(length, int) or len(set(length)) == 1:
            return length if isinstance(length, int) else length[0]
        raise HandscopeError(
            f"The rows of the batch have {', '.join(map(str, length))} {stream} tokens, and a cell has as many of each "
            "sample: read prompts of one length at a time."
        )

    def index(self, part: Sequence[str], stream: str, side: str) -> Index:
        """What selects a stream of the ``cond`` or ``uncond`` rows from a tensor that holds the streams of `part`."""
        count, before = self.count(stream), part[: part.index(stream)]
        rows = self.numbers(side)
        starts = [sum(_of_row(self.lengths.get(name, 0), row) for name in before) for row in rows]
        if len(set(starts)) <= 1:
            start = starts[0] if starts else 0
            return self.rows[side], slice(start, start + count)
        tokens = torch.tensor(starts)[:, None] + torch.arange(count)
        return torch.tensor(rows)[:, None].to(self.device), tokens.to(self.device)

    @property
    def unconditional(self) -> bool:
        """Whether the call is unconditional as a whole."""
        return "cond" not in self.rows

    def grid(self, stream: str) -> tuple[int, int] | None:
        """Rows and columns of the tokens of a stream, where they have any and the call says."""
        return self.family.call_grid(self.arguments, self.lengths) if stream == "image" else None


class Counter:
    """Counts the calls of runs, conditional and unconditional ones apart.

    Attributes
    ----------
    family : Family
        Of the transformer.
    steps : sequence of int
        The step of each call of a run.
    call : Call or None
        The one that is running; None between calls.
    calls : dict
        Calls of the run so far, of ``cond`` and ``uncond``.
    own : function
        Whether this is the thread whose calls are counted.
    """

    own: Callable[[], bool]

    def __init__(self, family: Family, steps: Sequence[int], of: str, again: bool) -> None:
        self.family, self.steps, self.of, self.again = family, steps, of, again
        self.call: Call | None = None
        self.calls = {"cond": 0, "uncond": 0}
        self._timestep = 0.0

    def count(self, sides: Sequence[str], timestep: Callable[[], float]) -> int | None:
        """The step of a call that has these sides; None where none of them counts.

        Where runs may follow each other, one begins at a conditional call whose timestep has risen, or has stayed after
        a run that was whole: a run of one step begins where the one before did.
        """
        if self.again and "cond" in sides:
            now = timestep()
            whole = self.calls["cond"] == len(self.steps)
            if now > self._timestep or (whole and now == self._timestep):
                self.check()
                self.calls = {"cond": 0, "uncond": 0}
            self._timestep = now
        for side in sides:
            self.calls[side] += 1
        counted = [side for side in sides if self.of in (side, "both")]
        if not counted:
            return None
        if max(self.calls[side] for side in counted) > len(self.steps):
            raise HandscopeError(
                f"The plan is for a run of {len(self.steps)} steps, and the transformer was called once more: "
                "make the plan's `of` the number of inference steps."
            )
        return self.steps[self.calls[counted[0]] - 1]

    def check(self) -> None:
        """Refuse a run of another length, whose steps would be named wrongly; where runs may be many, none is one."""
        if self.again and not any(self.calls.values()):
            return
        side = "uncond" if self.of == "uncond" else "cond"
        found, of = self.calls[side], len(self.steps)
        if found == of and (self.of != "both" or self.calls["uncond"] in (0, of)):
            return
        if side == "uncond":
            raise HandscopeError(
                f"The plan is for a run of {of} unconditional calls, but the transformer had {found}: make the plan's "
                "`of` the number of inference steps, and give the pipeline a negative prompt and guidance that uses it."
            )
        raise HandscopeError(
            f"The plan is for a run of {of} steps, but the transformer was called {found} times: make the plan's `of` "
            "the number of inference steps."
        )


@contextmanager
def following(
    transformer: Any,
    steps: Sequence[int],
    of: str = "both",
    again: bool = False,
    began: Callable[[Call], None] | None = None,
    doing: str = "",
) -> Iterator[Counter]:
    """Follow the calls of a transformer.

    Parameters
    ----------
    steps : sequence of int
        The step of each call of a run.
    of : str
        Which calls count: ``cond``, ``uncond`` or ``both``.
    again : bool
        Whether runs may follow each other, each of as many steps. They are then checked as the context ends; one run is
        for the caller to check.
    began : function, optional
        Called as each call that counts begins.
    doing : str, optional
        What is done to the calls, in words; empty where they are only read.

    Raises
    ------
    HandscopeError
        The transformer cannot be hooked, as in `capture`; or it was called another number of times.
    """
    family = hookable(transformer)
    counter = Counter(family, steps, of, again)
    with ExitStack() as hooks:
        names = hooks.enter_context(named(transformer, family, doing))
        counter.own = names.own

        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments = family.arguments(args, kwargs)
            rows = names.rows(arguments)
            counter.call = None
            family.check_call(arguments)
            step = counter.count(list(rows), partial(family.model_timestep, arguments))
            if step is not None:
                counter.call = Call(step, rows, arguments, family)
                if began is not None:
                    began(counter.call)

        def returned(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            # Gradient checkpointing runs blocks again in the backward pass, which is no call of the transformer.
            if names.own():
                counter.call = None

        hooks.enter_context(transformer.register_forward_pre_hook(called, with_kwargs=True))
        hooks.enter_context(transformer.register_forward_hook(returned, always_call=True))
        yield counter
    if again:
        counter.check()


Visit = Callable[[Call, str, Block, Tensor], Tensor | None]
"""From the call, ``cond`` or ``uncond``, the block and a stream (batch, tokens, width) there to what takes its place;
None leaves it."""


@contextmanager
def visiting(transformer: Any, counter: Counter, plan: Plan, visit: Visit, edits: bool = True) -> Iterator[None]:
    """Call `visit` at the blocks, sites and steps of a plan, with the plan's stream of the plan's calls, a view.

    Parameters
    ----------
    edits : bool
        Whether `visit` may return anything but None.

    Raises
    ------
    HandscopeError
        The model lacks a block, or the block the site or the stream. In a call: a block's streams have another form.
    """
    family = counter.family
    modules, width = family.blocks(transformer), family.stream_width(transformer)
    plan.check(list(modules))

    def active() -> bool:
        return counter.call is not None and counter.call.step in plan.steps and counter.own()

    def visited(block: Block, whole: Tensor, part: Sequence[str]) -> Tensor | None:
        """The tensor of the streams `part` after the visits; None where none changed it."""
        call = counter.call
        assert call is not None
        changed = whole
        for side in call.rows:
            if plan.call in (side, "both"):
                index = call.index(part, plan.stream, side)
                new = visit(call, side, block, whole[index])
                if new is not None:
                    changed = _put(changed, index, new)
        return None if changed is whole else changed

    def reached(side: _Side, tensors: Sequence[object]) -> tuple[int, Tensor] | None:
        """The tensor of a block that was changed: its place among them, and what takes its place."""
        if not active():
            return None
        assert counter.call is not None
        place, part = side.found(tensors, counter.call.lengths, width)
        whole: Any = tensors[place]
        changed = visited(side.block, whole, part)
        return None if changed is None else (place, changed)

    def entered(block: Block, values: Tensor, part: tuple[str, ...]) -> Tensor | None:
        """The same of a site inside a block, or of one head of it."""
        assert counter.call is not None
        shape, expected = values.shape, _longest(part, counter.call.lengths)
        if shape[1] != expected or shape[2:].numel() != width:
            raise HandscopeError(
                f"Expected {block} to be of {expected} tokens and {width} wide ({', '.join(part)}), found shape "
                f"{tuple(shape)}: this version of diffusers, or a hook, orders it otherwise."
            )
        if block.head is None:
            return visited(block, values, part)
        changed = visited(block, values[:, :, block.head], part)
        return None if changed is None else _put(values, (slice(None), slice(None), block.head), changed)

    # Compiled blocks run these as they are: traced, they would be compiled anew for each step.
    untraced = torch.compiler.disable
    with ExitStack() as hooks:
        for block in plan.blocks:
            module = modules[str(block.whole)]
            if block.site:
                place = family.site(transformer, str(block.whole), block.site, plan.stream)
                enter = partial(entered, block)
                hooks.enter_context(inside(module, place, block.gated, width, active, enter, edits))
                continue
            last = f"{block.kind}.{block.index + 1}" not in modules
            side = _Side(block, family.list_of(block.kind), plan.at, plan.stream, last)
            if plan.at == "input":
                hook = untraced(partial(_entering, side, reached))
                hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hooks.enter_context(module.register_forward_hook(untraced(partial(_leaving, side, reached))))
        yield


class _Side:
    """One side of one block, and where a stream is there: its input or its output."""

    def __init__(self, block: Block, blocks: BlockList, at: str, stream: str, last: bool) -> None:
        self.block, self.at, self.stream = block, at, stream
        self.names, self.forms = list(blocks.takes), blocks.forms(at)
        self.lacking = blocks.lacking if last and at == "output" else ()
        given = [name for part in self.forms[0] for name in part if name not in self.lacking]
        if stream not in given:
            raise HandscopeError(f"The {at} of {block} has no {stream} stream; it has {', '.join(given)}.")

    def found(self, tensors: Sequence[object], lengths: Lengths, width: int) -> tuple[int, tuple[str, ...]]:
        """Which tensor the stream is in, and the streams of that.

        Tensors of another form are refused: a stream that is read from the wrong place looks like data.
        """
        found = [tuple(one.shape) if isinstance(one, Tensor) else None for one in tensors]
        for form in self.forms:
            wanted = [self._shape(part, lengths, width) for part in form]
            if [shape and shape[1:] for shape in found] == wanted:
                self._check_apart(wanted)
                return next((i, part) for i, part in enumerate(form) if self.stream in part)
        parts = [part for part in self.forms[0] if self._shape(part, lengths, width)]
        names = ", ".join(" + ".join(name for name in part if lengths.get(name, 1)) for part in parts)
        shapes = " and ".join(f"(batch, {_longest(part, lengths)}, {width})" for part in parts)
        seen = [shape or type(one).__name__ for shape, one in zip(found, tensors)]
        verb = "return" if self.at == "output" else "be given"
        raise HandscopeError(
            f"Expected {self.block} to {verb} ({names}) of shapes {shapes}, found {seen}: this version of diffusers, "
            "or a hook on the block, orders its streams otherwise."
        )

    def _check_apart(self, shapes: Sequence[tuple[int, int] | None]) -> None:
        """Refuse streams of one form in two tensors, of which a version of diffusers may turn the order."""
        if len(set(shapes)) < len(shapes):
            raise HandscopeError(
                f"Text and image both have {next(iter(filter(None, shapes)))[0]} tokens at {self.block}, so the two "
                "streams cannot be told apart: use another max_sequence_length or another image size."
            )

    def _shape(self, part: tuple[str, ...], lengths: Lengths, width: int) -> tuple[int, int] | None:
        """Tokens and width of a tensor; None where the last block gives none."""
        return None if part and set(part) <= set(self.lacking) else (_longest(part, lengths), width)


def _of_row(length: int | tuple[int, ...], row: int) -> int:
    return length if isinstance(length, int) else length[row]


def _longest(part: Sequence[str], lengths: Lengths) -> int:
    """Tokens of a tensor of these streams: of its longest row."""
    of = [lengths.get(name, 0) for name in part]
    rows = max((len(length) for length in of if not isinstance(length, int)), default=1)
    return max(sum(_of_row(length, row) for length in of) for row in range(rows))


_Reached = Callable[[_Side, Sequence[object]], tuple[int, Tensor] | None]


def _leaving(side: _Side, reached: _Reached, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    tensors = output if isinstance(output, tuple) else (output,)
    changed = reached(side, tensors)
    if changed is None:
        return None
    place, tensor = changed
    return (*tensors[:place], tensor, *tensors[place + 1 :]) if isinstance(output, tuple) else tensor


def _entering(
    side: _Side, reached: _Reached, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    changed = reached(side, [kwargs.get(name, *args[i : i + 1]) for name, i in side.names])
    if changed is None:
        return None
    place, tensor = changed
    name, i = side.names[place]
    if name in kwargs:
        return args, kwargs | {name: tensor}
    return (*args[:i], tensor, *args[i + 1 :]), kwargs


def _put(whole: Tensor, index: Index, new: Tensor) -> Tensor:
    """A tensor with what `index` selects of it replaced."""
    if new.shape == whole.shape:
        return new
    changed = whole.clone()
    changed[index] = new
    return changed


def mask_of(tokens: ArrayLike | Tensor, call: Call, side: str, stream: str) -> Tensor:
    """A mask for a stream of a call's `side` as bool of shape (count,), or (batch, count) where it is each image's own.

    Raises
    ------
    HandscopeError
        The mask is not boolean, or of another shape: also one of the right number of tokens in another form.
    """
    mask = torch.as_tensor(tokens)
    if mask.dtype != torch.bool:
        raise HandscopeError(f"Expected tokens to be a boolean mask, found {mask.dtype}.")
    batch, count, grid = call.samples(side), call.count(stream), call.grid(stream)
    if mask.shape == (batch, count):
        return mask
    if mask.numel() == count and (mask.ndim < 2 or mask.shape == (1, count) or mask.shape == grid):
        return mask.flatten()
    if mask.numel() == count and mask.ndim == 2 and grid is None:
        return mask.flatten()
    form = f" in {grid[0]} rows and {grid[1]} columns" if grid else ""
    raise HandscopeError(
        f"Expected a mask of {count} {stream} tokens{form}, or of shape ({batch}, {count}), found shape "
        f"{tuple(mask.shape)}: it was made for a token grid of another size, or for another batch."
    )


def index_of(tokens: ArrayLike | Tensor | None, call: Call, side: str, stream: str) -> Index | None:
    """What selects the chosen tokens of a stream (batch, count, width) of a call's `side`; None for all of them."""
    if tokens is None:
        return None
    mask, device = mask_of(tokens, call, side, stream), call.device
    if mask.ndim == 2:
        return tuple(index.to(device) for index in mask.nonzero(as_tuple=True))
    return slice(None), mask.nonzero()[:, 0].to(device)
