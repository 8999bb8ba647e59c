"""Captured values against other ways to the same tensors, and hooks that leave nothing behind."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig, LayerSkipConfig, apply_layer_skip
from diffusers.hooks._helpers import TransformerBlockRegistry
from handscope.errors import HandscopeError
from handscope.extract.adapter import adapter_for
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.extract.models import Model, load
from torch import nn

PROMPTS = [
    "a left hand, palm view, five fingers raised, light skin, blue background",
    "a right hand, back view, five fingers raised, brown skin, green background",
]
PLAN = Plan(["double.0", "double.1", "single.0", "single.2"], [4, 2, 1], of=4)


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    """A model of this file's own: some tests compile it or set hooks of diffusers."""
    return load(str(tiny_pipe_folder))


def call(model: Model, steps: int = 4, **kwargs: Any) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    return model.pipe(
        PROMPTS,
        height=32,
        width=32,
        num_inference_steps=steps,
        max_sequence_length=20,
        generator=generators,
        output_type="latent",
        **kwargs,
    ).images


def hooks(transformer: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in transformer.modules())


def bare_inputs(model: Model) -> dict[str, Any]:
    with torch.no_grad():
        inputs = model.adapter.inputs(model, PROMPTS, 3.5, 32, 32)
    latents = torch.stack([model.adapter.noise(model.pipe, seed, 32, 32) for seed in range(2)])
    return inputs | {"hidden_states": latents, "timestep": torch.full([2], 0.7)}


def test_one_call_equals_a_forward_written_by_hand(model: Model) -> None:
    transformer, inputs = model.transformer, bare_inputs(model)
    blocks = model.blocks
    with torch.no_grad(), capture(transformer, Plan(blocks, [1], of=1)) as seen:
        transformer(**inputs)
    with torch.no_grad():
        image, text = (
            transformer.x_embedder(inputs["hidden_states"]),
            transformer.context_embedder(inputs["encoder_hidden_states"]),
        )
        condition = transformer.time_text_embed(
            inputs["timestep"] * 1000, inputs["guidance"] * 1000, inputs["pooled_projections"]
        )
        rotary = transformer.pos_embed(torch.cat([inputs["txt_ids"], inputs["img_ids"]]))
        for name, block in zip(
            blocks, [*transformer.transformer_blocks, *transformer.single_transformer_blocks], strict=True
        ):
            text, image = block(
                hidden_states=image, encoder_hidden_states=text, temb=condition, image_rotary_emb=rotary
            )
            assert torch.equal(seen[name, 1], image), name


def test_one_call_equals_nnsight(model: Model) -> None:
    from nnsight import NNsight

    inputs = bare_inputs(model)
    plan = Plan(["double.1", "single.2"], [1], of=1)
    with torch.no_grad(), capture(model.transformer, plan) as seen:
        model.transformer(**inputs)
    wrapped = NNsight(model.transformer)
    with torch.no_grad(), wrapped.trace(**inputs):
        double = wrapped.transformer_blocks[1].output[1].save()
        single = wrapped.single_transformer_blocks[2].output[1].save()
    assert torch.equal(seen["double.1", 1], double)
    assert torch.equal(seen["single.2", 1], single)


def test_the_image_stream_is_where_diffusers_says(model: Model) -> None:
    for block in adapter_for(model.transformer).blocks(model.transformer).values():
        assert TransformerBlockRegistry.get(type(block)).return_hidden_states_index == 1


def test_a_generation_is_not_changed_and_its_steps_are_told_apart(model: Model) -> None:
    bare = call(model)
    with capture(model.transformer, PLAN) as seen:
        assert torch.equal(call(model), bare)
    every: list[torch.Tensor] = []
    handle = model.transformer.single_transformer_blocks[0].register_forward_hook(
        lambda module, args, output: every.append(output[1].clone())
    )
    call(model)
    handle.remove()
    for step, index in ((4, 0), (2, 2), (1, 3)):
        assert torch.equal(seen["single.0", step], every[index])


def test_masks_select_rows_of_the_whole_stream(model: Model) -> None:
    shared = np.zeros((4, 4), bool)
    shared[1:3, 2] = True
    own = torch.zeros(2, 16, dtype=torch.bool)
    own[0, 5], own[1, [0, 9, 15]] = True, True
    seen = {}
    for name, mask in (("all", None), ("shared", shared), ("own", own), ("none", torch.zeros(2, 16, dtype=torch.bool))):
        with capture(model.transformer, PLAN, tokens=mask) as seen[name]:
            call(model)
    for cell in PLAN.cells:
        whole = seen["all"][cell.block, cell.step]
        assert whole.shape == (2, 16, 32)
        assert torch.equal(seen["shared"][cell.block, cell.step], whole[:, [6, 10]])
        assert torch.equal(
            seen["own"][cell.block, cell.step], torch.stack([whole[0, 5], whole[1, 0], whole[1, 9], whole[1, 15]])
        )
        assert seen["none"][cell.block, cell.step].shape == (0, 32)


def test_the_selection_does_not_keep_the_whole_stream(model: Model) -> None:
    with capture(model.transformer, PLAN, tokens=np.eye(4, dtype=bool)) as seen:
        call(model)
    kept = seen["single.0", 2]
    assert kept.untyped_storage().nbytes() == kept.numel() * 4


def test_the_unconditional_calls_of_true_guidance_are_not_steps(model: Model) -> None:
    conditional: list[torch.Tensor] = []
    handle = model.transformer.single_transformer_blocks[2].register_forward_hook(
        lambda module, args, output: conditional.append(output[1].clone())
    )
    try:
        with capture(model.transformer, PLAN) as seen:
            call(model, true_cfg_scale=2.0, negative_prompt=["a left hand"] * 2)
    finally:
        handle.remove()
    assert len(conditional) == 8
    for step, index in ((4, 0), (2, 4), (1, 6)):
        assert torch.equal(seen["single.2", step], conditional[index])


def test_captures_can_be_nested(model: Model) -> None:
    with capture(model.transformer, PLAN) as outer, capture(model.transformer, PLAN) as inner:
        call(model, true_cfg_scale=2.0, negative_prompt=["a left hand"] * 2)
    assert torch.equal(outer["single.2", 1], inner["single.2", 1])
    assert "cache_context" not in vars(model.transformer)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_removed_whatever_happens(model: Model, failure: type[BaseException]) -> None:
    before = hooks(model.transformer)

    def interrupt(*_: Any) -> None:
        raise failure

    with pytest.raises(failure), capture(model.transformer, PLAN):
        assert hooks(model.transformer) == before + 2 + len(PLAN.blocks)
        call(model, callback_on_step_end=interrupt)
    assert hooks(model.transformer) == before
    assert "cache_context" not in vars(model.transformer)


@pytest.mark.parametrize(("steps", "message"), [(3, "called 3 times"), (5, "called once more")])
def test_a_run_of_another_length_is_refused(model: Model, steps: int, message: str) -> None:
    before = hooks(model.transformer)
    with pytest.raises(HandscopeError, match=message), capture(model.transformer, PLAN):
        call(model, steps=steps)
    assert hooks(model.transformer) == before


def test_a_cell_outside_the_plan_is_not_guessed(model: Model) -> None:
    with capture(model.transformer, PLAN) as seen:
        with pytest.raises(HandscopeError, match="not reached"):
            seen["double.0", 4]
        call(model)
    with pytest.raises(HandscopeError, match="not in the plan"):
        seen["double.0", 3]


@pytest.mark.parametrize("mask", [np.ones((3, 4), bool), np.ones((3, 16), bool), np.ones(16)])
def test_a_mask_of_another_grid_or_kind_is_refused(model: Model, mask: np.ndarray) -> None:
    with pytest.raises(HandscopeError, match="mask"), capture(model.transformer, PLAN, tokens=mask):
        call(model)


def test_streams_in_another_order_are_refused(model: Model) -> None:
    block = model.transformer.single_transformer_blocks[0]
    handle = block.register_forward_hook(lambda module, args, output: (output[1], output[0]))
    try:
        with (
            pytest.raises(HandscopeError, match=r"Expected single\.0 to return \(text, image\)"),
            capture(model.transformer, PLAN),
        ):
            call(model)
    finally:
        handle.remove()


def test_streams_of_equal_length_are_refused(model: Model) -> None:
    with pytest.raises(HandscopeError, match="both have 16 tokens"), capture(model.transformer, PLAN):
        model.pipe(PROMPTS, height=32, width=32, num_inference_steps=4, max_sequence_length=16)


def test_an_enabled_cache_is_refused_by_name(model: Model) -> None:
    model.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    try:
        with pytest.raises(HandscopeError, match="FirstBlockCacheConfig"), capture(model.transformer, PLAN):
            pass
    finally:
        model.transformer.disable_cache()


def test_a_compiled_transformer_is_refused(tiny_pipe_folder) -> None:
    transformer = load(str(tiny_pipe_folder)).transformer
    with pytest.raises(HandscopeError, match="compiled"), capture(torch.compile(transformer), PLAN):
        pass
    transformer.compile()
    with pytest.raises(HandscopeError, match="compiled"), capture(transformer, PLAN):
        pass


def test_a_layer_skip_is_refused(tiny_pipe_folder) -> None:
    transformer = load(str(tiny_pipe_folder)).transformer
    apply_layer_skip(transformer, LayerSkipConfig(indices=[1], fqn="single_transformer_blocks"))
    with pytest.raises(HandscopeError, match=r"layer skip is set on single\.1"), capture(transformer, PLAN):
        pass


def test_a_transformer_without_an_adapter_is_refused() -> None:
    from diffusers import SD3Transformer2DModel

    other = SD3Transformer2DModel(
        sample_size=8,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
    )
    with pytest.raises(HandscopeError, match="SD3Transformer2DModel"), capture(other, PLAN):
        pass
