"""Captured values against other ways to the same tensors, and hooks that leave nothing behind."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from diffusers.hooks._helpers import TransformerBlockRegistry
from flux_calls import PLAN, bare_inputs, by_hand, call, hooks
from handscope.errors import HandscopeError
from handscope.extract.address import SIDES, STREAMS, Plan
from handscope.extract.capture import capture
from handscope.models.model import Model, load
from handscope.models.registry import blocks
from torch import Tensor


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    """A model of this file's own, whose hooks may be counted."""
    return load(str(tiny_pipe_folder))


def every_call(model: Model, **kwargs: Any) -> list[Tensor]:
    """The image stream that leaves single.2 in each call of the transformer."""
    found: list[Tensor] = []
    handle = model.transformer.single_transformer_blocks[2].register_forward_hook(
        lambda module, args, output: found.append(output[1].clone())
    )
    try:
        call(model, **kwargs)
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("at", SIDES)
def test_one_call_equals_a_forward_written_by_hand(model: Model, stream: str, at: str) -> None:
    inputs = bare_inputs(model)
    with torch.no_grad(), capture(model.transformer, Plan(model.blocks, [1], 1, stream, at)) as seen:
        model.transformer(**inputs)
    expected = by_hand(model, inputs)
    for block in model.blocks:
        assert torch.equal(seen[block, 1], expected[block, at, stream]), block


def test_the_streams_are_where_diffusers_says(model: Model) -> None:
    for block in blocks(model.transformer).values():
        where = TransformerBlockRegistry.get(type(block))
        assert (where.return_encoder_hidden_states_index, where.return_hidden_states_index) == (0, 1)


def test_a_generation_is_not_changed_and_its_steps_are_told_apart(model: Model) -> None:
    bare = call(model)
    with capture(model.transformer, PLAN) as seen:
        assert torch.equal(call(model), bare)
    every = every_call(model)
    for step, index in ((4, 0), (2, 2), (1, 3)):
        assert torch.equal(seen["single.2", step], every[index])


def test_an_image_that_is_not_square(model: Model) -> None:
    mask = np.zeros((3, 6), bool)
    mask[2, 1] = True
    with capture(model.transformer, PLAN) as whole, capture(model.transformer, PLAN, mask) as one:
        call(model, height=24, width=48)
    assert whole["double.1", 1].shape == (2, 18, 32)
    assert torch.equal(one["double.1", 1], whole["double.1", 1][:, [13]])


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


def test_a_mask_over_text_tokens(model: Model) -> None:
    plan = Plan(["single.1"], [4], of=4, stream="text")
    with capture(model.transformer, plan) as seen:
        call(model)
    with capture(model.transformer, plan, tokens=np.arange(20) < 3) as first:
        call(model)
    assert seen["single.1", 4].shape == (2, 20, 32)
    assert torch.equal(first["single.1", 4], seen["single.1", 4][:, :3])
    image = np.ones(16, bool)
    with pytest.raises(HandscopeError, match="mask of 20 text tokens"), capture(model.transformer, plan, image):
        call(model)


@pytest.mark.parametrize("tokens", [None, np.eye(4, dtype=bool)])
@pytest.mark.parametrize("reduce", [None, lambda rows: rows[:, :2]])
@pytest.mark.parametrize("at", SIDES)
def test_the_selection_does_not_keep_the_whole_stream(model: Model, tokens: Any, reduce: Any, at: str) -> None:
    plan = Plan(PLAN.blocks, PLAN.steps, PLAN.of, at=at)
    with capture(model.transformer, plan, tokens, reduce) as seen:
        call(model)
    for cell in plan.cells:
        kept = seen[cell.block, cell.step]
        assert kept.untyped_storage().nbytes() == kept.numel() * 4


def test_rows_are_reduced_before_they_are_copied(model: Model) -> None:
    mask = np.eye(4, dtype=bool)
    with capture(model.transformer, PLAN, mask) as rows, capture(model.transformer, PLAN, mask, mean) as means:
        call(model)
    with capture(model.transformer, PLAN, reduce=mean) as all_means:
        call(model)
    with capture(model.transformer, PLAN) as every:
        call(model)
    for cell in PLAN.cells:
        assert torch.equal(means[cell.block, cell.step], mean(rows[cell.block, cell.step]))
        assert torch.equal(all_means[cell.block, cell.step], mean(every[cell.block, cell.step]))


def mean(rows: Tensor) -> Tensor:
    return rows.mean(dim=1)


def test_taken_cells_are_handed_over_and_forgotten(model: Model) -> None:
    with capture(model.transformer, PLAN) as seen:
        call(model)
    kept = seen["double.0", 4]
    cells = seen.take()
    assert tuple(cells) == PLAN.cells
    assert cells[PLAN.cells[0]] is kept
    assert seen.take() == {}
    with pytest.raises(HandscopeError, match="was taken"):
        seen["double.0", 4]


@pytest.mark.parametrize(("name", "first"), [("cond", 0), ("uncond", 1)])
def test_the_two_calls_of_true_guidance_are_told_apart(model: Model, name: str, first: int) -> None:
    guidance = {"true_cfg_scale": 2.0, "negative_prompt": ["a left hand"] * 2}
    every = every_call(model, **guidance)
    assert len(every) == 8 and not torch.equal(every[0], every[1])
    plan = Plan(["single.2"], [4, 2, 1], of=4, call=name)
    with capture(model.transformer, plan) as seen:
        call(model, **guidance)
    for step, index in ((4, 0), (2, 4), (1, 6)):
        assert torch.equal(seen["single.2", step], every[index + first])


def test_unconditional_calls_that_are_not_made_are_missed(model: Model) -> None:
    plan = Plan(["single.2"], [4], of=4, call="uncond")
    with pytest.raises(HandscopeError, match="had 0: .* negative prompt"), capture(model.transformer, plan):
        call(model)


@pytest.fixture
def kontext(model: Model) -> dict[str, Any]:
    """The parts of the model as the pipeline that edits a picture, and how to call it.

    It gives the transformer the picture's tokens behind the image's, and does not name its two calls.
    """
    pipe = FluxKontextPipeline(**model.pipe.components)
    pipe.set_progress_bar_config(disable=True)
    picture = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    return {"pipe": pipe, "image": picture, "_auto_resize": False, "max_area": 32 * 32}


def test_the_tokens_of_a_reference_picture_are_not_image_tokens(model: Model, kontext: dict[str, Any]) -> None:
    every = every_call(model, **kontext)
    assert every[0].shape[1] == 16 + 12
    mask = np.zeros((4, 4), bool)
    mask[3, 3] = True
    with capture(model.transformer, PLAN) as seen, capture(model.transformer, PLAN, mask) as last:
        call(model, **kontext)
    for step, index in ((4, 0), (2, 2), (1, 3)):
        assert torch.equal(seen["single.2", step], every[index][:, :16])
        assert torch.equal(last["single.2", step], every[index][:, 15:16])


@pytest.mark.parametrize(("name", "first"), [("cond", 0), ("uncond", 1)])
def test_calls_that_the_pipeline_does_not_name_are_told_apart(
    model: Model, kontext: dict[str, Any], name: str, first: int
) -> None:
    guidance = kontext | {"true_cfg_scale": 2.0, "negative_prompt": ["a left hand"] * 2}
    every = every_call(model, **guidance)
    assert len(every) == 8
    with capture(model.transformer, Plan(["single.2"], [4, 1], of=4, call=name)) as seen:
        call(model, **guidance)
    assert torch.equal(seen["single.2", 4], every[first][:, :16])
    assert torch.equal(seen["single.2", 1], every[6 + first][:, :16])


def test_a_controlnet_adds_between_an_output_and_the_next_input(model: Model) -> None:
    """What it adds after a block is missed at that block's output and met at the next one's input."""
    inputs, residual = bare_inputs(model), torch.full((2, 16, 32), 0.25)
    expected = by_hand(model, inputs, residual)
    seen = {}
    for at in SIDES:
        with torch.no_grad(), capture(model.transformer, Plan(model.blocks, [1], 1, at=at)) as seen[at]:
            model.transformer(**inputs, controlnet_block_samples=[residual] * 2)
        for block in model.blocks:
            assert torch.equal(seen[at][block, 1], expected[block, at, "image"])
    assert torch.equal(seen["input"]["double.1", 1], seen["output"]["double.0", 1] + residual)
    assert torch.equal(seen["input"]["single.0", 1], seen["output"]["double.1", 1] + residual)
    assert torch.equal(seen["input"]["single.1", 1], seen["output"]["single.0", 1])


@pytest.mark.parametrize("at", SIDES)
def test_gradient_checkpointing_changes_no_value(tiny_pipe_folder, at: str) -> None:
    model = load(str(tiny_pipe_folder))
    inputs = bare_inputs(model)
    plan = Plan(model.blocks, [2, 1], of=2, at=at)
    other = inputs | {"timestep": torch.full([2], 0.2)}
    with torch.no_grad(), capture(model.transformer, plan) as expected:
        model.transformer(**inputs)
        model.transformer(**other)
    model.transformer.enable_gradient_checkpointing()
    model.transformer.train()
    with capture(model.transformer, plan) as seen:
        first = model.transformer(**inputs)[0]
        model.transformer(**other)
        first.sum().backward()  # runs the first call's blocks again, which is no third call and not step 1
    assert any(parameter.grad is not None for parameter in model.transformer.parameters())
    for cell in plan.cells:
        assert torch.equal(seen[cell.block, cell.step], expected[cell.block, cell.step])
        assert not seen[cell.block, cell.step].requires_grad


def test_captures_can_be_nested(model: Model) -> None:
    with capture(model.transformer, PLAN) as outer, capture(model.transformer, PLAN) as inner:
        call(model, true_cfg_scale=2.0, negative_prompt=["a left hand"] * 2)
    assert torch.equal(outer["single.2", 1], inner["single.2", 1])
    assert "cache_context" not in vars(model.transformer)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", SIDES)
def test_hooks_are_removed_whatever_happens(model: Model, failure: type[BaseException], at: str) -> None:
    before = hooks(model.transformer)

    def interrupt(*_: Any) -> None:
        raise failure

    with pytest.raises(failure), capture(model.transformer, Plan(PLAN.blocks, PLAN.steps, PLAN.of, at=at)):
        assert hooks(model.transformer) == before + 2 + len(PLAN.blocks)
        call(model, callback_on_step_end=interrupt)
    assert hooks(model.transformer) == before
    assert "cache_context" not in vars(model.transformer)


def test_hooks_are_removed_when_a_generator_that_captures_is_left(model: Model) -> None:
    before = hooks(model.transformer)

    def capturing() -> Iterator[None]:
        with capture(model.transformer, PLAN):
            while True:
                yield

    generator = capturing()
    next(generator)
    assert hooks(model.transformer) > before
    generator.close()
    assert hooks(model.transformer) == before


def test_hooks_are_removed_when_reducing_fails(model: Model) -> None:
    before = hooks(model.transformer)
    with pytest.raises(IndexError), capture(model.transformer, PLAN, reduce=lambda rows: rows[5]):
        call(model)
    assert hooks(model.transformer) == before


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


@pytest.mark.parametrize("at", SIDES)
def test_streams_in_another_order_are_refused(model: Model, at: str) -> None:
    block = model.transformer.single_transformer_blocks[0]
    swapped = ("hidden_states", "encoder_hidden_states")
    handle = (
        block.register_forward_hook(lambda module, args, output: (output[1], output[0]))
        if at == "output"
        else block.register_forward_pre_hook(
            lambda module, args, kwargs: (args, kwargs | {a: kwargs[b] for a, b in zip(swapped, swapped[::-1])}),
            with_kwargs=True,
        )
    )
    try:
        with (
            pytest.raises(HandscopeError, match=r"Expected single\.0 to (return|be given) \(text, image\)"),
            capture(model.transformer, Plan(PLAN.blocks, PLAN.steps, PLAN.of, at=at)),
        ):
            call(model)
    finally:
        handle.remove()


def test_streams_of_equal_length_are_refused(model: Model) -> None:
    with pytest.raises(HandscopeError, match="both have 16 tokens"), capture(model.transformer, PLAN):
        call(model, max_sequence_length=16)


def test_a_call_of_another_form_in_mid_run_is_refused(model: Model) -> None:
    inputs = bare_inputs(model)
    fewer = {name: value[:1] if torch.is_tensor(value) and len(value) == 2 else value for name, value in inputs.items()}
    with (
        torch.no_grad(),
        pytest.raises(HandscopeError, match=r"\(2, 16, 20\), and now found \(1, 16, 20\)"),
        capture(model.transformer, Plan(["double.0"], [2, 1], of=2)),
    ):
        model.transformer(**inputs)
        model.transformer(**fewer)


def test_a_call_without_names_is_refused(model: Model) -> None:
    inputs = bare_inputs(model)
    latents, text = inputs.pop("hidden_states"), inputs.pop("encoder_hidden_states")
    plan = Plan(["double.0"], [1], of=1)
    with pytest.raises(HandscopeError, match="as its pipelines do"), capture(model.transformer, plan):
        model.transformer(latents, text, **inputs)


def test_what_was_captured_in_inference_mode_can_be_trained_on(tiny_model: Model) -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    for tokens in (None, mask):
        with torch.inference_mode(), capture(tiny_model.transformer, PLAN, tokens) as seen:
            call(tiny_model)
        rows = seen["single.2", 1]
        weights = torch.zeros(rows.shape[-1], requires_grad=True)
        (rows @ weights).sum().backward()
        assert weights.grad is not None
