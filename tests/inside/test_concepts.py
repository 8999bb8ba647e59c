"""Concept maps against the formula of ConceptAttention, head by head, from the weights of the blocks.

Its package, `concept-attention`, is not on PyPI; this is its formula, written out.
"""

import math

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.inside.concepts import concept_maps, mean_map
from handscope.models.sampling import Sampling
from torch.nn.functional import layer_norm

WORDS, PROMPT, STEPS = ["hand", "background", "skin"], "a left hand", 3


def slow_maps(model, inputs: list[dict], lengths: tuple[int, int]) -> list[torch.Tensor]:
    """Words beside each double block, whose arguments are given: scores before the softmax."""
    transformer = model.transformer
    words = torch.stack([model.encode(WORDS).embeddings(word)["text"][0] for word in WORDS])
    concepts = transformer.context_embedder(words)[None]
    maps = []
    for block, given in zip(transformer.transformer_blocks, inputs, strict=True):
        attn, text, count = block.attn, lengths[0], len(WORDS)
        image, temb = given["hidden_states"], given["temb"]
        normed, _, _, _, _ = block.norm1(image, emb=temb)
        of_words, gate, shift, scale, gate_mlp = block.norm1_context(concepts, emb=temb)
        of_text, *_ = block.norm1_context(given["encoder_hidden_states"], emb=temb)

        def heads(x: torch.Tensor, attn=attn) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1))

        def both(letter: str, rows: torch.Tensor, attn=attn, normed=normed) -> torch.Tensor:
            one, other = heads(getattr(attn, f"add_{letter}_proj")(rows)), heads(getattr(attn, f"to_{letter}")(normed))
            if letter != "v":
                one, other = getattr(attn, f"norm_added_{letter}")(one), getattr(attn, f"norm_{letter}")(other)
            return torch.cat([one, other], 1)

        def attended(rows: torch.Tensor, rotation, both=both) -> torch.Tensor:
            q, k = (apply_rotary_emb(both(letter, rows), rotation, sequence_dim=1) for letter in "qk")
            v, made = both("v", rows), []
            for head in range(q.shape[2]):
                shares = (q[:, :, head] @ k[:, :, head].transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
                made.append(shares @ v[:, :, head])
            return torch.cat(made, -1)

        rotation = given["image_rotary_emb"]
        own = tuple(torch.cat([part[:count], part[text:]]) for part in rotation)
        of_image = attended(of_text, rotation)[:, text:]
        of_concepts = attended(of_words, own)[:, :count]
        maps.append(torch.einsum("bcd,btd->bct", of_concepts, of_image))
        concepts = concepts + gate.unsqueeze(1) * attn.to_add_out(of_concepts)
        again = layer_norm(concepts, concepts.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]
        concepts = concepts + gate_mlp.unsqueeze(1) * block.ff_context(again)
    return maps


def test_maps_are_those_of_the_formula_and_the_model_draws_as_before(tiny_model):
    sampling = Sampling(tiny_model, STEPS)
    inputs: list[dict] = []
    handles = [
        block.register_forward_pre_hook(lambda module, args, kwargs: inputs.append(kwargs), with_kwargs=True)
        for block in tiny_model.transformer.transformer_blocks
    ]
    latents = sampling.noise([4])
    _, plain = sampling.step(latents, [PROMPT], 0)
    for handle in handles:
        handle.remove()
    plan = Plan(["double.0", "double.1"], [1], of=1)
    with concept_maps(tiny_model, WORDS, plan) as seen:
        _, output = sampling.step(latents, [PROMPT], 0)
    assert torch.equal(output, plain)
    with torch.no_grad():
        slow = slow_maps(tiny_model, inputs, (20, 16))
    for block, scores in zip(("double.0", "double.1"), slow):
        torch.testing.assert_close(seen[block, 1], scores.softmax(1), rtol=1e-4, atol=1e-5)
    assert mean_map(seen).shape == (1, 3, 16)
    torch.testing.assert_close(mean_map(seen).sum(1), torch.ones(1, 16))
    assert not tiny_model.transformer.transformer_blocks[0]._forward_hooks


def test_what_makes_no_map_is_refused(tiny_model):
    plan = Plan(["double.0"], [1], of=1)
    with pytest.raises(HandscopeError, match="two words or more"), concept_maps(tiny_model, ["hand"], plan):
        pass
    mixed = Plan(["double.0", "single.0"], [1], of=1)
    with pytest.raises(HandscopeError, match="blocks of one list"), concept_maps(tiny_model, WORDS, mixed):
        pass
