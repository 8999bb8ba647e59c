"""Sites in captures, replays, stores and edits of the tiny FLUX: by hand, by nnsight, and what is refused."""

from typing import Any

import handscope as hs
import numpy as np
import pytest
import torch
from flux_calls import bare_inputs, call
from handscope.errors import HandscopeError
from handscope.extract.address import Block
from handscope.extract.generate import draw
from handscope.extract.replay import replay
from handscope.models.model import Model, load
from made_tiny import PROMPTS, STEPS
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SITES = [f"double.1:{site}" for site in ("attn", "attn.gated", "mlp", "mlp.gated", "q", "k", "v", "q.1")]
SITES += [f"single.2:{site}" for site in ("both", "both.gated", "q", "k", "v")]
MASK = np.arange(16).reshape(4, 4) % 3 == 0


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    """A model of this file's own, whose hooks may be counted."""
    return load(str(tiny_pipe_folder))


def seen_once(model: Model, blocks: list[str], **plan: Any) -> Any:
    with hs.capture(model.transformer, hs.Plan(blocks, [1], of=1, **plan)) as seen, torch.no_grad():
        model.transformer(**bare_inputs(model))
    return seen


def test_a_site_has_an_address() -> None:
    block = Block.parse("double.1:attn.gated")
    assert (str(block), block.whole, block.gated, block.head) == ("double.1:attn.gated", Block("double", 1), True, None)
    plan = hs.Plan(["double.1", "double.1:q.3"], [2], of=4)
    assert hs.Plan.from_json(plan.to_json()) == plan and plan.blocks[1].head == 3
    assert str(plan.cell("double.1:q.3/2")) == "double.1:q.3/2"
    for wrong in ("double.1:", "double.1:q.x", "double.1:attn.gated.2", ":attn", "double.1:Q"):
        with pytest.raises(HandscopeError, match="Expected a block"):
            Block.parse(wrong)


def test_a_double_block_written_out_has_the_values_of_its_sites(model: Model) -> None:
    """From the block's weights, with no hook on it: modulation, projections, norms, rotation, attention, MLP."""
    seen = {stream: seen_once(model, [f"double.1:{s}" for s in ("q", "k", "v", "attn", "attn.gated", "mlp.gated")],
                              stream=stream) for stream in ("text", "image")}  # fmt: skip
    given = {stream: seen_once(model, ["double.1"], at="input", stream=stream)["double.1", 1] for stream in seen}
    block, transformer, inputs = model.transformer.transformer_blocks[1], model.transformer, bare_inputs(model)
    with torch.no_grad():
        condition = transformer.time_text_embed(
            inputs["timestep"] * 1000, inputs["guidance"] * 1000, inputs["pooled_projections"]
        )
        attn, by_head, gates = block.attn, {}, {}
        for stream, norm in (("text", block.norm1_context), ("image", block.norm1)):
            shift, scale, gate, *mlp = norm.linear(torch.nn.functional.silu(condition)).chunk(6, 1)
            x = torch.nn.functional.layer_norm(given[stream], (32,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]
            text = stream == "text"
            layers = (
                (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj) if text else (attn.to_q, attn.to_k, attn.to_v)
            )
            norms = (attn.norm_added_q, attn.norm_added_k) if text else (attn.norm_q, attn.norm_k)
            q, k, v = (layer(x).unflatten(-1, (2, 16)) for layer in layers)
            by_head[stream], gates[stream] = (norms[0](q), norms[1](k), v), gate[:, None]
            for letter, expected in zip("qkv", by_head[stream]):
                assert torch.allclose(seen[stream][f"double.1:{letter}", 1], expected, atol=1e-5), letter
        q, k, v = (torch.cat(pair, 1) for pair in zip(by_head["text"], by_head["image"]))
        cos, sin = transformer.pos_embed(torch.cat([inputs["txt_ids"], inputs["img_ids"]]))

        def turned(x: Tensor) -> Tensor:
            even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
            return x * cos[:, None] + torch.stack([-odd, even], -1).flatten(-2) * sin[:, None]

        mixed = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (turned(q), turned(k), v)))
        mixed = mixed.transpose(1, 2).flatten(2)
    count = given["text"].shape[1]
    for stream, part, out in (("text", mixed[:, :count], attn.to_add_out), ("image", mixed[:, count:], attn.to_out[0])):
        with torch.no_grad():
            expected = out(part)
        assert torch.allclose(seen[stream]["double.1:attn", 1], expected, atol=1e-5), stream
        assert torch.allclose(seen[stream]["double.1:attn.gated", 1], gates[stream] * expected, atol=1e-5)


def test_nnsight_reads_the_same_bits(model: Model) -> None:
    nnsight = pytest.importorskip("nnsight")
    names = ["double.1:attn", "double.1:mlp", "double.1:q", "double.1:v", "single.2:both", "single.2:k"]
    seen = seen_once(model, names)
    traced, found = nnsight.NNsight(model.transformer), {}
    double, single = traced.transformer_blocks[1], traced.single_transformer_blocks[2]
    with torch.no_grad(), traced.trace(**bare_inputs(model)):
        # In the order in which they are computed.
        value = double.attn.to_v.output.save()
        query = double.attn.norm_q.output.save()
        attention = double.attn.output[0].save()
        mlp = double.ff.output.save()
        key = single.attn.norm_k.output.save()
        both = single.proj_out.output.save()
    found = {"double.1:attn": attention, "double.1:mlp": mlp, "double.1:q": query, "double.1:v": value,
             "single.2:both": both[:, 20:], "single.2:k": key[:, 20:]}  # fmt: skip
    for name, values in found.items():
        assert torch.equal(seen[name, 1].flatten(2), values.flatten(2)), name


@pytest.mark.parametrize("stream", ["image", "text"])
@pytest.mark.parametrize("blocks", [SITES, SITES[:8], ["double.1:attn", "double.1"], ["single.2:q"]])
def test_a_replay_reads_what_the_capture_of_a_generation_saw(model: Model, blocks: list[str], stream: str) -> None:
    """Also where the deepest block is left early, with sites inside it or none."""
    plan = hs.Plan(blocks, [4, 2, 1], of=STEPS, stream=stream)
    mask = MASK if stream == "image" else None
    with hs.capture(model.transformer, plan, mask) as whole:
        made = draw(model, [(prompt, 5) for prompt in PROMPTS[:2]], STEPS, 3.5, 32, 32).trajectories
    assert made is not None
    again = replay(model, plan, PROMPTS[:2], made, 3.5, 32, 32, mask)
    for cell in plan.cells:
        assert torch.equal(again[cell.block, cell.step], whole[cell.block, cell.step]), cell
        tail = {None: (2, 16), 0: (16,), 1: (16,)}[cell.block.head] if cell.block.site[:1] in [*"qkv"] else (32,)
        assert whole[cell.block, cell.step].shape == (2, 6 if stream == "image" else 20, *tail)


def test_a_store_of_sites_holds_what_a_replay_reads(model: Model, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    plan = hs.Plan(["double.1:q", "double.1:mlp.gated", "double.1"], [2], of=STEPS)
    store = hs.extract(model, run, plan)
    assert store is not None
    sample = run.metadata()[store.samples[0]]
    for block in plan.blocks:
        rows, tokens = store.read(block, 2)
        of = (tokens["sample"] == store.samples[0]).to_numpy()
        mask = np.zeros((4, 4), bool)
        mask[tokens["row"][of], tokens["col"][of]] = True
        given = [sample["prompt"]], [run.trajectory(store.samples[0])]
        seen = replay(model, hs.Plan([block], [2], of=STEPS), *given, 3.5, 32, 32, mask)[block, 2][0]
        assert np.allclose(rows[of], seen.flatten(1).numpy(), rtol=0.01, atol=1e-3)  # bfloat16, and another batch size


def test_an_edit_of_one_head_at_one_token_is_what_a_hook_by_hand_changes(model: Model) -> None:
    attention, calls = model.transformer.transformer_blocks[1].attn, []

    def by_hand(module: Any, args: Any, output: Tensor) -> Tensor:
        calls.append(None)
        changed = output.clone()
        if len(calls) == 3:
            changed[:, 6, 1] *= 3
        return changed

    handle = attention.norm_k.register_forward_hook(by_hand)
    expected = call(model)
    handle.remove()
    shapes = []

    def change(values: Tensor, cell: Any) -> Tensor:
        shapes.append(values.shape)
        return 3 * values

    with hs.edit(model.transformer, hs.Plan(["double.1:k.1"], [2], of=4), change, np.arange(16) == 6):
        assert torch.equal(call(model), expected)
    assert shapes == [(2, 1, 16)] and not torch.equal(call(model), expected)


def test_a_capture_inside_an_edit_of_a_gated_site_sees_what_it_left(model: Model) -> None:
    plan = hs.Plan(["double.1:attn.gated"], [3], of=4)
    with hs.edit(model.transformer, plan, lambda values, cell: 0 * values + 5):
        with hs.capture(model.transformer, plan) as seen:
            made = call(model)
        assert torch.equal(made, call(model))
        refused = pytest.raises(HandscopeError, match="behind its gate meanwhile")
        with refused, hs.capture(model.transformer, hs.Plan(["double.1:attn"], [3], of=4)):
            pass
    assert bool((seen["double.1:attn.gated", 3] == 5).all())
    with hs.capture(model.transformer, hs.Plan(["double.1:attn"], [3], of=4)) as seen:
        call(model)
    assert not bool((seen["double.1:attn", 3] == 5).any())


@pytest.mark.parametrize(
    ("block", "stream", "message"),
    [
        ("single.2:attn", "image", r"single.2 has no site 'attn' of its own; it has both, both.gated, q, k, v. Name"),
        ("double.1:nose", "image", "it has attn, attn.gated, mlp, mlp.gated, q, k, v"),
        ("double.1:q.2", "image", "has heads 0 to 1"),
        ("double.1:mlp.1", "image", "only values by head"),
        ("double.1:q.gated", "image", "has no gate"),
        ("double.7:attn", "image", "no block double.7"),
    ],
)
def test_what_a_block_does_not_have_is_refused_by_name(model: Model, block: str, stream: str, message: str) -> None:
    plan = hs.Plan([block], [1], of=1, stream=stream)
    with pytest.raises(HandscopeError, match=message), hs.capture(model.transformer, plan):
        pass


def test_what_cannot_be_read_is_refused(model: Model, finished_run) -> None:
    with pytest.raises(HandscopeError, match="has no input"):
        hs.Plan(["double.1:attn"], [1], of=1, at="input")
    with pytest.raises(HandscopeError, match=r"one width, and the plan names double.1 \(32\), double.1:q.0 \(16\)"):
        hs.extract(model, finished_run, hs.Plan(["double.1", "double.1:q.0"], [2], of=STEPS))
    model.transformer.fuse_qkv_projections()
    try:
        refused = pytest.raises(HandscopeError, match="fused")
        with refused, hs.capture(model.transformer, hs.Plan(["single.0:v"], [1], of=1)):
            pass
    finally:
        model.transformer.unfuse_qkv_projections()
