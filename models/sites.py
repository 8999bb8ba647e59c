"""Places inside a block: what its attention, its MLP and the projections of its heads give, and the gates behind them.

A family lists its sites as data: a submodule of the block, the streams in what that gives, and where the block takes
the gate from that it multiplies the result with. Everything else about them follows from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..errors import HandscopeError

if TYPE_CHECKING:
    from torch import Tensor, nn

GATED = ".gated"
_opened: WeakSet[Any] = WeakSet()
"""Submodules whose gate an edit has opened, and whose values are multiplied with it meanwhile."""


@dataclass(frozen=True)
class Gate:
    """Where a block takes a gate from: what a submodule gives, or an argument of its own.

    Attributes
    ----------
    path : str
        The submodule; empty where it is an argument of the block.
    part : int, optional
        Which tensor, where the submodule gives several.
    argument : (str, int), optional
        Name and position of the argument.
    chunk, of : int
        Which of so many runs of channels in the tensor is the gate.
    tanh : bool
        Whether the block takes its hyperbolic tangent.
    table : str
        A parameter of the block whose row `chunk` is added to it; what is gated so can be read and not edited.
    """

    path: str = ""
    part: int | None = None
    argument: tuple[str, int] = ("", 0)
    chunk: int = 0
    of: int = 1
    tanh: bool = False
    table: str = ""

    def value(self, block: nn.Module, given: Tensor) -> Tensor:
        """What multiplies the site's values (batch, tokens, width), of shape (batch, 1, width)."""
        gate = given.reshape(len(given), 1, self.of, -1)[:, :, self.chunk]
        if self.table:
            gate = getattr(block, self.table)[self.chunk] + gate
        return gate.tanh() if self.tanh else gate

    def opened(self, given: Tensor) -> Tensor:
        """The same tensor with a gate that multiplies by exactly 1."""
        opened = given.clone()
        opened.view(len(given), self.of, -1)[:, self.chunk] = float("inf") if self.tanh else 1.0
        return opened


@dataclass(frozen=True)
class Site:
    """One place inside a block.

    Attributes
    ----------
    name : str
        ``attn``, ``mlp``, ``q``, ``k``, ``v``, or what else a family has.
    streams : tuple of str
        In the tensor, one behind the other.
    paths : tuple of str
        The submodule that gives it: the first of these that the block has.
    part : int, optional
        Which tensor, where the submodule gives several.
    chunk : int, optional
        Which run of as many channels as the stream is wide, where the tensor has more.
    form : str
        ``tokens``, (batch, tokens, channels) or (batch, tokens, heads, head_dim); ``heads``, (batch, heads, tokens,
        head_dim) or as before; ``places``, (batch, channels, rows, columns).
    heads : str
        The submodule whose attribute ``heads`` says how many there are; empty where values are not by head.
    gate : Gate, optional
        What the block multiplies the values with before they join the stream.
    """

    name: str
    streams: tuple[str, ...]
    paths: tuple[str, ...]
    part: int | None = None
    chunk: int | None = None
    form: str = "tokens"
    heads: str = ""
    gate: Gate | None = None

    def module(self, block: nn.Module) -> nn.Module | None:
        """The submodule of a block; None where the block has none."""
        return next((found for path in self.paths if (found := submodule(block, path)) is not None), None)

    def gate_in(self, block: nn.Module) -> Gate | None:
        """The gate, where this block has one."""
        return self.gate if self.gate and (not self.gate.path or submodule(block, self.gate.path)) else None

    def head_count(self, block: nn.Module) -> int:
        """How many heads there are, where values are by head."""
        attention: Any = submodule(block, self.heads)
        return int(attention.heads)

    def view(self, block: nn.Module, output: Any, width: int) -> Tensor:
        """The values in what the submodule gave: (batch, tokens, width), or (batch, tokens, heads, head_dim)."""
        values = output if self.part is None else output[self.part]
        if self.chunk is not None:
            values = values[..., self.chunk * width : (self.chunk + 1) * width]
        if self.form == "places":
            return values.flatten(2).transpose(1, 2)
        if self.heads and values.ndim == 3:
            return values.unflatten(-1, (self.head_count(block), -1))
        return values.transpose(1, 2) if self.form == "heads" else values

    def put(self, output: Any, values: Tensor, width: int) -> Any:
        """The submodule's output with such values in it."""
        whole = output if self.part is None else output[self.part]
        if self.form == "places":
            values = values.transpose(1, 2).unflatten(2, whole.shape[2:])
        elif self.form == "heads" and whole.ndim == 4:
            values = values.transpose(1, 2)
        elif whole.ndim == 3:
            values = values.flatten(2)
        if self.chunk is not None:
            new = whole.clone()
            new[..., self.chunk * width : (self.chunk + 1) * width] = values
        else:
            new = values.reshape(whole.shape)
        return new if self.part is None else (*output[: self.part], new, *output[self.part + 1 :])


def by_head(
    streams: tuple[str, ...], attention: str, added: bool = False, form: str = "tokens"
) -> tuple[Site, ...]:
    """Queries, keys and values of an attention of diffusers: behind the norm of queries and keys, before the rotation.

    Parameters
    ----------
    attention : str
        The submodule.
    added : bool
        Whether they are those of the text of a joint attention, which has projections of its own.
    """
    norm, linear = ("norm_added_{}", "add_{}_proj") if added else ("norm_{}", "to_{}")

    def paths(letter: str) -> tuple[str, ...]:
        names = (linear,) if letter == "v" else (norm, linear)
        return tuple(f"{attention}.{name.format(letter)}" for name in names)

    return tuple(Site(letter, streams, paths(letter), form=form, heads=attention) for letter in "qkv")


def site_of(sites: Sequence[Site], block: nn.Module, address: str, stream: str, lacking: Sequence[str] = ()) -> Site:
    """The site of an address such as ``double.1:attn.gated``, of a stream.

    Parameters
    ----------
    sites : sequence of Site
        Those of the block's list.
    lacking : sequence of str
        Streams that this block has no output of.

    Raises
    ------
    HandscopeError
        The block has no such site, or the site not that stream, no gate or no such head.
    """
    where, _, site = address.partition(":")
    name, _, rest = site.partition(".")
    # Queries, keys and values of a stream are there where nothing of it goes out.
    going = [one for one in sites if one.heads or not set(one.streams) & {*lacking}]
    there = [one for one in going if one.module(block) is not None]
    named = [one for one in there if one.name == name]
    if not named:
        has = ", ".join(_names(there, block)) or "none that is known"
        raise HandscopeError(f"{where} has no site {name!r} of its own; it has {has}. Name one of these.")
    found = next((one for one in named if stream in one.streams), None)
    if found is None:
        has = ", ".join(stream for one in named for stream in one.streams)
        raise HandscopeError(f"{where}:{name} has no {stream} stream; it has {has}.")
    if f".{rest}" == GATED:
        if found.gate_in(block) is None:
            raise HandscopeError(f"{where}:{name} has no gate behind it: name it without {GATED}.")
    elif rest and not found.heads:
        raise HandscopeError(f"{address}: only values by head, such as {where}:q, have a head {rest}.")
    elif rest and int(rest) >= (heads := found.head_count(block)):
        raise HandscopeError(f"{where} has heads 0 to {heads - 1}, found {address}: name one of these.")
    return found


@contextmanager
def inside(
    block: nn.Module,
    site: Site,
    gated: bool,
    width: int,
    active: Callable[[], bool],
    reach: Callable[[Tensor, tuple[str, ...]], Tensor | None],
    edits: bool,
) -> Iterator[None]:
    """Call `reach` with the values of a site (batch, tokens, …) and the streams in them, where `active` says so.

    What it returns takes their place. Where a gated site is edited, the block is given an open gate, and the values are
    multiplied here instead, so that an edit that changes nothing changes no bit.

    Parameters
    ----------
    width : int
        Of the residual stream.
    edits : bool
        Whether `reach` may return anything: None alone leaves the block as it is.

    Raises
    ------
    HandscopeError
        The block is compiled or its projections fused, or the gate can be read only.
    """
    import torch

    module, gate = site.module(block), site.gate_in(block) if gated else None
    assert module is not None
    if getattr(block, "_compiled_call_impl", None):
        raise HandscopeError(f"A block that is compiled runs nothing of {site.name} that can be read: load it anew.")
    fused = [one for one in block.modules() if getattr(one, "fused_projections", False)]
    if site.heads and fused:
        raise HandscopeError(f"The projections of a block are fused, so nothing gives {site.name} alone: unfuse them.")
    if gate and gate.table and edits:
        raise HandscopeError(
            f"The gate of {site.name} is added up inside the block, so that what stands behind it can be read and not "
            f"edited: edit {site.name} before its gate."
        )
    if not gated and module in _opened:
        raise HandscopeError(
            f"An edit of {site.name}{GATED} is open, and what stands at {site.name} is behind its gate meanwhile: open "
            f"this one first, or read {site.name}{GATED}."
        )
    kept: dict[str, Tensor] = {}

    def gives(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if gate is None or not active():
            return None
        given = output if gate.part is None else output[gate.part]
        kept["gate"] = gate.value(block, given)
        if not edits:
            return None
        opened = gate.opened(given)
        return opened if gate.part is None else (*output[: gate.part], opened, *output[gate.part + 1 :])

    def takes(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if gate is None or not active():
            return None
        name, place = gate.argument
        given = kwargs[name] if name in kwargs else args[place]
        kept["gate"] = gate.value(block, given)
        if not edits:
            return None
        opened = gate.opened(given)
        if name in kwargs:
            return args, kwargs | {name: opened}
        return (*args[:place], opened, *args[place + 1 :]), kwargs

    def reached(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not active():
            return None
        values = site.view(block, output, width)
        if gate is not None:
            factor = kept.pop("gate")
            if len(factor) not in (1, len(values)):
                raise HandscopeError(f"A gate of {len(factor)} rows for a batch of {len(values)} cannot be read.")
            values = factor * values
        changed = reach(values, site.streams)
        if changed is None:
            return site.put(output, values, width) if gate is not None and edits else None
        return site.put(output, changed, width)

    untraced = torch.compiler.disable
    with ExitStack() as hooks:
        if gate is not None and gate.path:
            found = submodule(block, gate.path)
            assert found is not None
            hooks.enter_context(found.register_forward_hook(untraced(gives)))
        elif gate is not None:
            hooks.enter_context(block.register_forward_pre_hook(untraced(takes), with_kwargs=True))
        hooks.enter_context(module.register_forward_hook(untraced(reached)))
        if gate is not None and edits and module not in _opened:
            _opened.add(module)
            hooks.callback(_opened.discard, module)
        yield


def submodule(block: nn.Module, path: str) -> nn.Module | None:
    """A submodule by a path of dots; None where the block has none."""
    found: Any = block
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _names(sites: Sequence[Site], block: nn.Module) -> list[str]:
    gated = {site.name: f"{site.name}{GATED}" for site in sites if site.gate_in(block)}
    return [name for one in dict.fromkeys(site.name for site in sites) for name in (one, gated.get(one)) if name]
