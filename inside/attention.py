"""Where heads look, read while the model runs: the attention of chosen tokens, summed over groups of tokens at once.

Queries, keys and values are seen as torch's own attention is given them, behind norm and rotation, so that no forward
is written again. Only the chosen rows of an attention map are computed, and only their sums over groups leave the
device: no map is ever kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import HandscopeError
from ..extract.address import Block, Plan
from ..extract.hooks import Call, Counter, following

See = Callable[["Look"], None]


@dataclass(frozen=True, eq=False)
class Look:
    """One attention of one block in one call.

    Attributes
    ----------
    block : str
    query, key, value, output : Tensors of shape (rows, heads, tokens, head_dim), as torch computes with them
    scale : float, of the products of queries and keys
    mask : Tensor or None, what is added to these, or bool, where they count
    order : tuple of str, streams of the sequence, one behind the other
    call : Call
    """

    block: str
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    scale: float
    mask: Tensor | None
    order: tuple[str, ...]
    call: Call

    def places(self, stream: str) -> slice:
        """Where a stream is in the sequence.

        Raises
        ------
        HandscopeError
            Rows of the batch have it at different places.
        """
        before = self.order[: self.order.index(stream)]
        start = sum(self.call.count(name) for name in before)
        return slice(start, start + self.call.count(stream))

    def shares(self, queries: Tensor) -> Tensor:
        """The attention of chosen queries: places (chosen,) of one row to (heads, chosen, tokens), float32."""
        row, tokens = queries.unbind(1)
        heads = self.key.shape[1]
        query = self.query[row, :, tokens]  # (chosen, heads, head_dim)
        shares = query.new_empty((heads, len(row), self.key.shape[2]), dtype=torch.float32)
        for one in row.unique().tolist():
            own = row == one
            products = torch.einsum("nhd,htd->hnt", query[own].float(), self.key[one].float()) * self.scale
            if self.mask is not None:
                mask = self.mask.expand(len(self.query), heads, *self.mask.shape[2:])[one]
                mask = mask if mask.shape[1] == 1 else mask[:, tokens[own]]
                products = products.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else products + mask
            shares[:, own] = products.softmax(-1)
        return shares


class _Seeing(TorchFunctionMode):
    """Calls of torch's attention, told to a function."""

    def __init__(self, seen: Callable[..., None]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            self.seen(output, *args, **(kwargs or {}))
        return output


def watching(seen: Callable[..., None]) -> TorchFunctionMode:
    """A context in which `seen` is given what torch's attention gave, and its arguments behind that."""
    return _Seeing(seen)


@contextmanager
def attending(transformer: nn.Module, counter: Counter, plan: Plan, see: See) -> Iterator[None]:
    """Call `see` with the attention over image and text of each block of a plan, at its steps.

    Parameters
    ----------
    counter : Counter
        Of `handscope.extract.hooks.following`, which is open.

    Raises
    ------
    HandscopeError
        The family does not say in which order its attention has the streams. In a call: a block ran and no attention
        of such a form was seen, since another backend than torch's own computes it.
    """
    family = counter.family
    modules = family.blocks(transformer)
    plan.check(list(modules))
    running: list[str] = []
    seen: set[str] = set()

    def attention(
        output: Tensor, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: Any,
        scale: float | None = None, **more: Any,
    ) -> None:  # fmt: skip
        call = counter.call
        if call is None or not running or call.step not in plan.steps:
            return
        order = family.list_of(Block.parse(running[-1]).kind).attends
        lengths = [call.lengths.get(name, 0) for name in order]
        if any(not isinstance(one, int) for one in lengths) or query.shape[2] != sum(map(int, lengths)):  # type: ignore[arg-type]
            return  # of the image alone, or of the text
        seen.add(running[-1])
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        see(Look(running[-1], query, key, value, output, factor, attn_mask, order, call))

    def begins(name: str, module: nn.Module, args: Any) -> None:
        running.append(name)

    def ends(name: str, module: nn.Module, args: Any, output: Any) -> None:
        running.pop()
        call = counter.call
        if call is not None and call.step in plan.steps and name not in seen:
            raise HandscopeError(
                f"{name} ran, and no attention over image and text was seen in it: another backend computes it, or "
                "prompts of one batch differ in length. Set torch's own (transformer.set_attention_backend('native')), "
                "and give prompts of one length."
            )

    with ExitStack() as hooks:
        for block in plan.blocks:
            if not family.list_of(block.kind).attends:
                raise HandscopeError(
                    f"The family {family.name} does not say in which order the attention of {block} has image and "
                    "text, so that what heads look at cannot be read there."
                )
            module = modules[str(block)]
            hooks.enter_context(module.register_forward_pre_hook(partial(begins, str(block))))
            hooks.enter_context(module.register_forward_hook(partial(ends, str(block))))
        hooks.enter_context(watching(attention))
        yield


@dataclass(frozen=True, eq=False)
class Groups:
    """What heads may look at, and who looks: for each row of a batch.

    Attributes
    ----------
    looking : bool Tensor of shape (rows, image tokens)
    text : mapping from the name of a group of text tokens to a bool Tensor of shape (rows, text tokens)
    """

    looking: Tensor
    text: Mapping[str, Tensor] = field(default_factory=dict)


GROUPS = ("subject", "rest")
"""Groups of image tokens: other tokens that look, and the rest of the picture. A token itself is in neither."""


def masses(look: Look, groups: Groups, side: str = "cond") -> dict[str, Tensor]:
    """How much attention the looking tokens of a picture give to each group, in the mean over them.

    Returns
    -------
    dict from the groups of `groups.text`, then `GROUPS` and ``self``, to Tensors of shape (rows, heads), float32: their
    sum is 1 where each text token is in one group. NaN in rows without a looking token
    """
    rows = look.call.numbers(side)
    image, text = look.places("image"), look.places("text") if "text" in look.order else slice(0, 0)
    looking = groups.looking.to(look.query.device)
    heads = look.key.shape[1]
    found = {name: torch.full((len(rows), heads), torch.nan) for name in (*groups.text, *GROUPS, "self")}
    for number, row in enumerate(rows):
        tokens = looking[number].nonzero()[:, 0]
        if not len(tokens):
            continue
        at = torch.stack([torch.full_like(tokens, row), tokens + image.start], 1)
        shares = look.shares(at)
        own = shares[:, torch.arange(len(tokens)), tokens + image.start].mean(1)
        of_image = shares[..., image].mean(1)
        subject = of_image[:, tokens].sum(1)
        found["self"][number] = own.cpu()
        found["subject"][number] = (subject - own).cpu()
        found["rest"][number] = (of_image.sum(1) - subject).cpu()
        of_text = shares[..., text].mean(1)
        for name, mask in groups.text.items():
            found[name][number] = (of_text * mask[number].to(of_text)).sum(1).cpu()
    return found


@contextmanager
def reading_attention(
    transformer: nn.Module, plan: Plan, groups: Groups, steps: Sequence[int] | None = None
) -> Iterator[dict[tuple[str, int], dict[str, Tensor]]]:
    """`masses` of each cell of a plan, while the model runs.

    >>> with reading_attention(pipe.transformer, plan, Groups(mask)) as seen:        # doctest: +SKIP
    ...     pipe("an open hand", num_inference_steps=20)
    >>> seen["double.1", 12]["subject"]                                 # doctest: +SKIP

    Parameters
    ----------
    steps : optional
        The step of each call; those of a whole run by default.
    """
    found: dict[tuple[str, int], dict[str, Tensor]] = {}
    with following(transformer, steps or range(plan.of, 0, -1), plan.call) as counter:

        def see(look: Look) -> None:
            if plan.call in look.call.rows:
                found[look.block, look.call.step] = masses(look, groups, plan.call)

        with attending(transformer, counter, plan, see):
            yield found
