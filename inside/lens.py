"""What a model would draw if it stopped at a block: its own output layer on the stream of each block.

The logit lens of nostalgebraist (2020) for a diffusion transformer: what the modules behind the last block make of an
earlier block's stream is a velocity, and with it a predicted clean picture. `handscope.inside.translate` has the affine
translators of the tuned lens (Belrose et al. 2023, https://arxiv.org/abs/2303.08112).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import HandscopeError
from ..extract.address import Block, Plan
from ..extract.hooks import Call, following, visiting
from ..models.sampling import Sampling

if TYPE_CHECKING:
    from ..models.family import Family

Translate = Callable[[Tensor], Tensor]
"""From a block's image stream (rows, tokens, width) to what stands for the last block's."""

OFF = 0.02
"""How far the output layer of the last block may be from what the model said, over what it said: rounding of bf16."""


class BlockLens:
    """The streams of every block at one step, and what the model's output layer makes of them.

    >>> lens = BlockLens(Sampling(model, steps=20))                     # doctest: +SKIP
    >>> said = lens.read(latents, prompts, index=8)                     # doctest: +SKIP
    >>> lens.sampling.images(said.clean("double.1"))                    # doctest: +SKIP

    Parameters
    ----------
    sampling : Sampling
        Of the model, with the settings of the generation.
    blocks : sequence of str, optional
        All that give the image's stream by default. The last one of the model is read in any case.

    Raises
    ------
    HandscopeError
        The model's family does not say what its output layer is, or the model lacks a block.
    """

    def __init__(self, sampling: Sampling, blocks: Sequence[str] | None = None) -> None:
        model = sampling.model
        self.sampling, self.layer = sampling, model.family.output_layer(model.transformer)
        carrying = model.carrying("image")
        self.last = carrying[-1]
        wanted = carrying if blocks is None else list(blocks)
        Plan(wanted, [1], of=1).check(carrying)
        self.blocks = [name for name in carrying if name in wanted]

    @torch.no_grad()
    def read(self, latents: Tensor, prompts: Sequence[str], index: int) -> Said:
        """One step of the model, as in the generation.

        Parameters
        ----------
        latents : Tensor of shape (batch, tokens, channels)
        prompts : one a sample
        index : int, of the step, counted from 0

        Raises
        ------
        HandscopeError
            The output layer does not make of the last block's stream what the model said.
        """
        sampling, family = self.sampling, self.sampling.model.family
        transformer = sampling.model.transformer
        blocks = list(dict.fromkeys([*self.blocks, self.last]))
        plan = Plan(blocks, [sampling.steps - index], of=sampling.steps, call="both")
        calls: list[_Kept] = []
        with ExitStack() as hooks:
            counter = hooks.enter_context(
                following(transformer, plan.steps, began=lambda call: calls.append(_Kept(call)))
            )

            def visit(call: Call, side: str, block: Block, stream: Tensor) -> None:
                calls[-1].streams.setdefault(str(block), {})[side] = stream.detach()

            hooks.enter_context(visiting(transformer, counter, plan, visit))
            hooks.enter_context(_arguments_of(self.layer[0], lambda given: calls[-1].given.append(given)))
            latents = latents.to(sampling.model.device)
            _, output = sampling.step(latents, prompts, index)
        said = Said(self, family, latents, index, output, calls)
        off = float((said.velocity(self.last) - output).abs().max() / output.abs().max().clamp(min=1e-12))
        if not off <= OFF:
            raise HandscopeError(
                f"The output layer of {family.name} makes of {self.last}'s stream something else than the model says "
                f"(off by {off:.2g} of it): something acts between the two, a hook or another version of diffusers."
            )
        return said


@dataclass(frozen=True, eq=False)
class Said:
    """What the blocks say at one step.

    Attributes
    ----------
    latents, output : Tensors of shape (batch, tokens, channels)
        What went into the step, and what the model predicted.
    """

    lens: BlockLens = field(repr=False)
    family: Family = field(repr=False)
    latents: Tensor
    index: int
    output: Tensor
    calls: list[_Kept] = field(repr=False)

    def streams(self, block: str) -> list[Tensor]:
        """The image's stream after a block in each call of the step, (rows, tokens, width): views, not to be changed.

        A call of both sides of classifier-free guidance has the rows of both.
        """
        return [call.stream(block) for call in self.calls]

    @torch.no_grad()
    def velocity(self, block: str, translate: Translate | None = None) -> Tensor:
        """What the output layer makes of a block's stream, in the form of `output`; guidance is applied.

        Parameters
        ----------
        translate : function, optional
            Called with each call's stream first.
        """
        rows = []
        for call in self.calls:
            stream = call.stream(block)
            if translate is not None:
                stream = translate(stream).to(stream.dtype)
            args, kwargs = call.given[0]
            said = self.lens.layer[0](stream, *args, **kwargs)
            for module in self.lens.layer[1:]:
                said = module(said)
            rows.append(self.family.output_rows(said))
        return self.family.sided(rows, self.lens.sampling.guidance)

    def clean(self, block: str, translate: Translate | None = None) -> Tensor:
        """The clean latents that a block predicts, (batch, tokens, channels), float32."""
        return self.lens.sampling.clean(self.latents, self.velocity(block, translate), self.index)


@dataclass(frozen=True, eq=False)
class _Kept:
    """What is kept of one call: streams by block and side, and what else the output layer was given."""

    call: Call
    streams: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def stream(self, block: str) -> Tensor:
        """All rows of a call in their order."""
        sides = self.streams[block]
        if len(sides) == 1:
            return next(iter(sides.values()))
        return torch.cat([sides[side] for side in sorted(sides, key=lambda side: self.call.rows[side].start or 0)])


@contextmanager
def _arguments_of(
    module: nn.Module, take: Callable[[tuple[tuple[Any, ...], dict[str, Any]]], None]
) -> Iterator[None]:
    """Tell what a module is given beside its first argument."""

    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        take((args[1:], kwargs))

    handle = module.register_forward_pre_hook(called, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
