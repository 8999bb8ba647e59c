"""Change the residual stream while a pipeline runs: push tokens along a direction, or take a direction out of them.

A direction is one for all image tokens, of shape (width,), or token-wise, of shape (tokens, width): one for each image
token, in rows of the token grid.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import xxhash
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import HandscopeError
from ..extract.address import Block, Cell, Plan
from ..extract.hooks import edit
from ..models.registry import family_of

Gate = Callable[[Tensor], Tensor]
"""From tokens (..., width), float32, to how much of the push each gets, (...) in [0, 1]."""


@contextmanager
def steer(
    transformer: Any,
    directions: Mapping[str, ArrayLike],
    strength: float,
    steps: Sequence[int],
    of: int,
    tokens: ArrayLike | None = None,
    gate: Gate | None = None,
) -> Iterator[None]:
    """Push image tokens along a direction at the output of blocks: ``h + strength * |h| * u``.

    >>> with steer(pipe.transformer, {"single.3": direction}, 0.1, steps=range(18, 9, -1), of=20):    # doctest: +SKIP
    ...     pipe("an open hand", num_inference_steps=20, max_sequence_length=16, height=96, width=96)

    The push is a share of each token's own length. Direction and length are centred, that is, taken without their mean
    over channels: the LayerNorm before every layer of a DiT subtracts that mean, so that a push along it would be lost
    and would count towards the strength all the same. Unconditional calls are pushed like conditional ones.

    Parameters
    ----------
    transformer : torch.nn.Module
        A transformer of a family that handscope knows.
    directions : for each block, an array of shape (width,), or (tokens, width) for one direction a token
        Of any length; `difference_of_means` points from bad to good. Of token-wise directions, each is centred, and all
        are scaled alike, until the root mean square of their lengths is 1: a token with a longer one is pushed further.
    strength : float
        As a share of each token's length; negative pushes the other way. With token-wise directions, of the root mean
        square over all tokens of the grid.
    steps : sequence of int
        Steps that remain, as in a `Plan`.
    of : int
        Number of steps that the pipeline makes.
    tokens : bool array, optional
        Image tokens to push, as in `capture`: of shape (n_tokens,), (rows, columns) or (batch, n_tokens). All by
        default.
    gate : function, optional
        How much of the push each token gets, from the token itself: `probe_gate`.

    Raises
    ------
    HandscopeError
        A block, step or shape does not fit, or the transformer cannot be hooked; see `capture`.
    """
    if not float("-inf") < strength < float("inf"):
        raise HandscopeError(f"Expected strength to be a number, found {strength!r}.")
    units = {block: _unit(direction, block, centred=True) for block, direction in directions.items()}

    def push(block: Block, values: Tensor, unit: Tensor) -> Tensor:
        length = (values - values.mean(-1, keepdim=True)).norm(dim=-1, keepdim=True)
        return strength * length * unit

    with _pushing(transformer, units, push, steps, of, tokens, gate, f"steer by {strength:g}"):
        yield


@contextmanager
def ablate(
    transformer: Any,
    directions: Mapping[str, ArrayLike],
    steps: Sequence[int],
    of: int,
    centre: Mapping[str, ArrayLike] | None = None,
    tokens: ArrayLike | None = None,
    gate: Gate | None = None,
) -> Iterator[None]:
    """Take a direction out of image tokens at the output of blocks: ``h - ((h - centre) · u) u``.

    Parameters
    ----------
    centre : for each block, an array of shape (width,), optional
        Where along the direction the tokens are left: the mean of good instances' tokens, say. The origin by
        default.
    directions : for each block, an array of shape (width,)
        Token-wise ones are refused: their lengths, which say how far to push, would mean nothing here.
    transformer, steps, of, tokens, gate
        As in `steer`.
    """
    units = {block: _unit(_vector(direction, block), block, centred=False) for block, direction in directions.items()}
    centres = {block: float(_vector(point, block) @ units[block]) for block, point in (centre or {}).items()}

    def push(block: Block, values: Tensor, unit: Tensor) -> Tensor:
        return -((values @ unit) - centres.get(str(block), 0.0))[..., None] * unit

    with _pushing(transformer, units, push, steps, of, tokens, gate, f"ablate at {centres}"):
        yield


def probe_gate(probe: Any, threshold: float = 0.0) -> Gate:
    """Only the tokens that a linear probe calls bad, by log-odds above `threshold`, and each of them whole.

    Parameters
    ----------
    probe : LinearProbe
        With ``coef_`` of shape (width,) and ``intercept_``.
    """
    weights = torch.as_tensor(probe.coef_, dtype=torch.float32)

    def gate(tokens: Tensor) -> Tensor:
        return (tokens @ weights.to(tokens.device) + probe.intercept_ > threshold).float()

    return gate


def random_directions(directions: Mapping[str, ArrayLike], seed: int) -> dict[str, Tensor]:
    """Directions of the same blocks and shapes, drawn evenly from the sphere: the control of every steering.

    Token-wise ones keep each token's length, so that the same places are pushed as far.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for block, direction in directions.items():
        given = _finite(direction, block)
        drawn[block] = torch.nn.functional.normalize(given.new_empty(given.shape).normal_(generator=generator), dim=-1)
        if given.ndim == 2:
            drawn[block] *= _unit(given, block, centred=True).norm(dim=-1, keepdim=True)
    return drawn


@contextmanager
def _pushing(
    transformer: Any,
    units: Mapping[str, Tensor],
    push: Callable[[Block, Tensor, Tensor], Tensor],
    steps: Sequence[int],
    of: int,
    tokens: ArrayLike | None,
    gate: Gate | None,
    doing: str,
) -> Iterator[None]:
    width = family_of(transformer).stream_width(transformer)
    wrong = [f"{block} ({unit.shape[-1]})" for block, unit in units.items() if unit.shape[-1] != width]
    if wrong:
        raise HandscopeError(f"The residual stream is {width} wide; found directions of other widths: {wrong}.")
    mask = None if tokens is None else torch.as_tensor(tokens)

    def change(values: Tensor, cell: Cell) -> Tensor:
        wide = values.float()
        pushed = push(cell.block, wide, _of_tokens(units[str(cell.block)], mask, wide, cell.block))
        if gate is not None:
            pushed = pushed * gate(wide)[..., None]
        return wide + pushed

    plan = Plan(list(units), steps, of, call="both")
    gated = "" if gate is None else f", gate {getattr(gate, '__qualname__', type(gate).__name__)}"
    along = _hash(*units.values(), *(() if mask is None else (mask,)))
    with edit(transformer, plan, change, mask, f"{doing}, {plan.to_json()}, directions and tokens {along}{gated}"):
        yield


def _hash(*tensors: Tensor) -> str:
    said = xxhash.xxh3_64()
    for tensor in tensors:
        said.update(f"{tuple(tensor.shape)}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return said.hexdigest()


def _of_tokens(unit: Tensor, mask: Tensor | None, values: Tensor, block: Block) -> Tensor:
    """A block's direction for the chosen tokens, on their device: one for all, or that of each."""
    if unit.ndim == 1:
        return unit.to(values.device)
    count = values.shape[1] if mask is None else mask.shape[1] if values.ndim == 2 else mask.numel()
    if len(unit) != count:
        raise HandscopeError(
            f"Expected one direction for each of {count} image tokens, found {len(unit)} at {block}: they were made "
            "for a token grid of another size."
        )
    if mask is not None:
        unit = unit.expand(len(mask), *unit.shape)[mask] if values.ndim == 2 else unit[mask.flatten()]
    return unit.to(values.device)


def _finite(direction: ArrayLike, block: str) -> Tensor:
    numbers = torch.as_tensor(direction).detach().float().cpu()
    if numbers.ndim not in (1, 2) or not bool(numbers.isfinite().all()):
        raise HandscopeError(
            f"Expected the direction of {block} to be finite numbers of shape (width,) or (tokens, width), found shape "
            f"{tuple(numbers.shape)}."
        )
    return numbers


def _vector(direction: ArrayLike, block: str) -> Tensor:
    vector = _finite(direction, block)
    if vector.ndim != 1:
        raise HandscopeError(
            f"Expected numbers of shape (width,) to ablate at {block}, found shape {tuple(vector.shape)}: token-wise "
            "directions can be steered along, and not ablated."
        )
    return vector


def _unit(direction: ArrayLike, block: str, centred: bool) -> Tensor:
    """Of length 1; token-wise, of lengths whose root mean square is 1."""
    numbers = _finite(direction, block)
    if centred:
        numbers = numbers - numbers.mean(-1, keepdim=True)
    length = numbers.norm() / numbers[..., 0].numel() ** 0.5
    if float(length) < 1e-12:
        raise HandscopeError(
            f"The direction of {block} has no length{' once its mean over channels is taken off' if centred else ''}: "
            "there is nothing to steer along."
        )
    return numbers / length
