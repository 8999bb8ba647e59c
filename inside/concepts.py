"""Concept maps: which tokens of a picture stand for which word, in the space of what attention puts out.

ConceptAttention (Helbling et al. 2025, https://arxiv.org/abs/2502.04320): words that need not be in the prompt go
through the blocks beside it. They attend to the picture and to each other, and nothing attends to them. What attention
gives them, times what it gives a token of the picture, says how far the token stands for the word; a softmax over the
words makes maps of it.

The paper's code modulates words by a pooled embedding of their own; here they share the prompt's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import HandscopeError
from ..extract.address import Plan
from ..extract.hooks import following
from .attention import watching

if TYPE_CHECKING:
    from ..models.model import Model


@contextmanager
def concept_maps(model: Model, concepts: Sequence[str], plan: Plan) -> Iterator[dict[tuple[str, int], Tensor]]:
    """Maps of words at the blocks and steps of a plan, while the model runs.

    >>> plan = Plan(["double.0", "double.1"], [8], of=20)
    >>> with concept_maps(model, ["sky", "ground"], plan) as seen:           # doctest: +SKIP
    ...     model.pipe("an open hand", num_inference_steps=20)
    >>> mean_map(seen).shape                                            # doctest: +SKIP
    torch.Size([1, 2, 144])

    Parameters
    ----------
    concepts : one word each, of whose embedding the first token is taken
    plan : Plan
        All blocks of a list up to the deepest that is named run the words, so they cost as much again.

    Yields
    ------
    dict from (block, step) to float32 (batch, concepts, image tokens), which sum to 1 over concepts

    Raises
    ------
    HandscopeError
        There are fewer than two words, more than the text has tokens, or the family has no such blocks.
    """
    if len(concepts) < 2:
        raise HandscopeError(f"Expected two words or more, since maps say which of them a token is, found {concepts}.")
    transformer, family = model.transformer, model.family
    encoded = model.encode(concepts)
    tokens = torch.stack([encoded.embeddings(word)["text"][0] for word in concepts]).to(model.device, model.dtype)
    start = family.words_stream(transformer, tokens[None])
    modules = family.blocks(transformer)
    plan.check(list(modules))
    kind = plan.blocks[0].kind
    deepest = max(block.index for block in plan.blocks)
    if any(block.kind != kind for block in plan.blocks) or not {"text", "image"} <= set(family.list_of(kind).attends):
        raise HandscopeError("Expected blocks of one list whose attention is over image and text: name one list alone.")
    found: dict[tuple[str, int], Tensor] = {}
    outputs: list[Tensor] = []
    state: dict[str, Any] = {"words": start, "aside": False}

    with ExitStack() as hooks:
        counter = hooks.enter_context(following(transformer, range(plan.of, 0, -1), plan.call))

        def begins(number: int, module: Any, args: Any) -> None:
            if number == 0 and not state["aside"]:
                state["words"] = start
            outputs.clear()

        def ends(number: int, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            call = counter.call
            if state["aside"] or call is None or call.step not in plan.steps:
                return
            seen = outputs[-1] if outputs else None
            words = state["words"].expand(call.samples(plan.call), -1, -1)
            state["aside"] = True
            try:
                state["words"] = module(*args, **family.with_words(kwargs, words, call.lengths))[0]
            finally:
                state["aside"] = False
            block = f"{kind}.{number}"
            if block not in map(str, plan.blocks):
                return
            if seen is None or not outputs:
                raise HandscopeError(f"No attention was seen in {block}: another backend than torch's own computes it.")
            image = seen[:, call.count("text") : call.count("text") + call.count("image")]
            scores = outputs[-1][:, : words.shape[1]].float() @ image.float().transpose(1, 2)
            found[block, call.step] = scores.softmax(1).cpu()

        for number in range(deepest + 1):
            module = modules[f"{kind}.{number}"]
            hooks.enter_context(module.register_forward_pre_hook(partial(begins, number)))
            hooks.enter_context(module.register_forward_hook(partial(ends, number), with_kwargs=True))
        hooks.enter_context(watching(lambda output, *given, **more: outputs.append(output.transpose(1, 2).flatten(2))))
        with torch.no_grad():
            yield found


def mean_map(maps: dict[tuple[str, int], Tensor]) -> Tensor:
    """The mean over blocks and steps: (batch, concepts, image tokens)."""
    return torch.stack(list(maps.values())).mean(0)
