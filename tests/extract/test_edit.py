"""Edits of the residual stream against hooks written by hand, and what they leave alone."""

from collections.abc import Callable
from typing import Any

import handscope as hs
import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from flux_calls import PLAN, bare_inputs, call, hooks
from handscope.errors import HandscopeError
from handscope.extract.address import SIDES, STREAMS, Cell, Plan
from handscope.models.model import Model, load
from torch import Tensor, nn


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    """A model of this file's own, whose hooks may be counted."""
    return load(str(tiny_pipe_folder))


def same(values: Tensor, cell: Cell) -> Tensor:
    return values


def doubled(values: Tensor, cell: Cell) -> Tensor:
    return 2 * values


def through(module: nn.Module, hook: Callable, model: Model, **kwargs: Any) -> Tensor:
    """Final latents with a hook written by hand on one block."""
    given = {"with_kwargs": True} if hook.__code__.co_argcount == 3 and "kwargs" in hook.__code__.co_varnames else {}
    set_hook = module.register_forward_pre_hook if given else module.register_forward_hook
    handle = set_hook(hook, **given)
    try:
        return call(model, **kwargs)
    finally:
        handle.remove()


@pytest.mark.parametrize("tokens", [None, np.eye(4, dtype=bool), torch.eye(2, 16, dtype=torch.bool)])
@pytest.mark.parametrize("at", SIDES)
def test_an_edit_that_changes_nothing_changes_no_bit(model: Model, at: str, tokens: Any) -> None:
    bare = call(model)
    plan = Plan(None, [4, 3, 2, 1], of=4, at=at, call="both")
    with hs.edit(model.transformer, plan, same, tokens):
        assert torch.equal(call(model), bare)
        assert torch.equal(call(model), bare)  # one run after the other


@pytest.mark.parametrize("stream", STREAMS)
def test_one_token_at_an_output_is_what_a_hook_by_hand_changes(model: Model, stream: str) -> None:
    place, calls = STREAMS.index(stream), []

    def by_hand(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        calls.append(None)
        if len(calls) != 3:  # step 2 of 4
            return output
        changed = [output[0].clone(), output[1].clone()]
        changed[1 - place][:, 6] = 2 * output[1 - place][:, 6]
        return tuple(changed)

    expected = through(model.transformer.single_transformer_blocks[0], by_hand, model)
    given: list[tuple[Cell, tuple[int, ...]]] = []

    def change(values: Tensor, cell: Cell) -> Tensor:
        given.append((cell, tuple(values.shape)))
        return 2 * values

    mask = np.arange(16 if stream == "image" else 20) == 6
    with hs.edit(model.transformer, Plan(["single.0"], [2], of=4, stream=stream), change, mask):
        made = call(model)
    assert torch.equal(made, expected) and not torch.equal(made, call(model))
    assert [(str(cell), shape) for cell, shape in given] == [("single.0/2", (2, 1, 32))]


def test_one_token_at_an_input_is_what_a_hook_by_hand_changes(model: Model) -> None:
    def by_hand(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        changed = kwargs["hidden_states"].clone()
        changed[:, 6] *= 2
        return args, kwargs | {"hidden_states": changed}

    expected = through(model.transformer.transformer_blocks[1], by_hand, model)
    with hs.edit(model.transformer, Plan(["double.1"], [4, 3, 2, 1], of=4, at="input"), doubled, np.arange(16) == 6):
        assert torch.equal(call(model), expected)


def test_an_edit_changes_its_tokens_and_nothing_else_at_its_cell(model: Model) -> None:
    """Of the first image two tokens and of the second one, all of which come in one list."""
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, [3, 5]] = mask[1, 0] = True
    plan = Plan(["double.1"], [3], of=4)
    seen = {}
    every = Plan(None, [4, 3], of=4)
    for name, change in (("before", same), ("after", lambda values, cell: values + torch.arange(3.0)[:, None])):
        with hs.edit(model.transformer, plan, change, mask), hs.capture(model.transformer, every) as kept:
            call(model)
        seen[name] = kept
    difference = seen["after"]["double.1", 3] - seen["before"]["double.1", 3]
    expected = torch.zeros(2, 16, 32)
    expected[0, 5], expected[1, 0] = 1, 2  # the first of the list had 0 added
    torch.testing.assert_close(difference, expected)
    for block, step in (("double.0", 3), ("double.1", 4), ("single.2", 4)):
        assert torch.equal(seen["after"][block, step], seen["before"][block, step])
    assert not torch.equal(seen["after"]["single.0", 3], seen["before"]["single.0", 3])


def test_a_capture_sees_an_edit_that_it_is_opened_in(model: Model) -> None:
    plan = Plan(["single.1"], [2], of=4)
    with (
        hs.capture(model.transformer, plan) as outside,
        hs.edit(model.transformer, plan, doubled),
        hs.capture(model.transformer, plan) as inside,
    ):
        call(model)
    assert torch.equal(inside["single.1", 2], 2 * outside["single.1", 2])


@pytest.mark.parametrize(("name", "calls"), [("cond", [0]), ("uncond", [1]), ("both", [0, 1])])
def test_conditional_and_unconditional_calls_are_edited_apart(model: Model, name: str, calls: list[int]) -> None:
    guidance = {"true_cfg_scale": 2.0, "negative_prompt": ["a left hand"] * 2}
    outputs: list[Tensor] = []
    for change in (same, doubled):
        with hs.edit(model.transformer, Plan(["single.2"], [4], of=4, call=name), change):
            handle = model.transformer.single_transformer_blocks[2].register_forward_hook(
                lambda module, args, output: outputs.append(output[1])
            )
            call(model, **guidance)
            handle.remove()
    for i in (0, 1):
        assert torch.equal(outputs[8 + i], (2 if i in calls else 1) * outputs[i])


def test_unconditional_calls_that_are_not_made_are_missed(model: Model) -> None:
    plan = Plan(["single.2"], [4], of=4, call="uncond")
    with pytest.raises(HandscopeError, match="had 0: .* negative prompt"), hs.edit(model.transformer, plan, doubled):
        call(model)
    with hs.edit(model.transformer, plan, doubled):
        pass  # no run, nothing missed


def test_the_tokens_of_a_reference_picture_are_left_alone(model: Model) -> None:
    pipe = FluxKontextPipeline(**model.pipe.components)
    pipe.set_progress_bar_config(disable=True)
    picture = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    kontext = {"pipe": pipe, "image": picture, "_auto_resize": False, "max_area": 32 * 32}
    outputs: list[Tensor] = []
    for change in (same, doubled):
        with hs.edit(model.transformer, Plan(["double.0"], [4], of=4), change):
            handle = model.transformer.transformer_blocks[0].register_forward_hook(
                lambda module, args, output: outputs.append(output[1])
            )
            call(model, **kontext)
            handle.remove()
    assert torch.equal(outputs[4][:, :16], 2 * outputs[0][:, :16])
    assert torch.equal(outputs[4][:, 16:], outputs[0][:, 16:]) and outputs[0].shape[1] == 28


def test_gradients_pass_through_an_edit(model: Model) -> None:
    """The gradient with respect to what is added, against a difference."""

    def end(shift: Tensor) -> Tensor:
        plan = Plan(["single.0"], [1], of=1)
        with hs.edit(model.transformer, plan, lambda values, cell: values + shift, np.arange(16) == 6):
            return model.transformer(**bare_inputs(model))[0].square().sum()

    shift, small = torch.zeros(32, requires_grad=True), torch.zeros(32)
    end(shift).backward()
    small[4] = 1e-2
    assert float(shift.grad[4]) == pytest.approx(float((end(small) - end(-small)).detach()) / 0.02, rel=0.05)


def test_what_is_returned_is_cast_to_the_streams_dtype(tiny_pipe_folder) -> None:
    model = load(str(tiny_pipe_folder), dtype="bfloat16")
    with hs.edit(model.transformer, Plan(["single.0"], [4], of=4), lambda values, cell: values.double()):
        changed = call(model)
    assert torch.equal(changed, call(model))


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", SIDES)
def test_hooks_are_removed_whatever_happens(model: Model, failure: type[BaseException], at: str) -> None:
    before, bare = hooks(model.transformer), call(model)

    def fail(values: Tensor, cell: Cell) -> Tensor:
        raise failure

    with pytest.raises(failure), hs.edit(model.transformer, Plan(PLAN.blocks, PLAN.steps, PLAN.of, at=at), fail):
        assert hooks(model.transformer) == before + 2 + len(PLAN.blocks)
        call(model)
    assert hooks(model.transformer) == before and "cache_context" not in vars(model.transformer)
    assert torch.equal(call(model), bare)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values, cell: None, r"shape \(2, 16, 32\) at single\.1, as it was given, found NoneType"),
        (lambda values, cell: values[:, :3], r"found shape \(2, 3, 32\)"),
        (lambda values, cell: values[0, 0], r"found shape \(32,\)"),
    ],
)
def test_a_change_of_another_shape_is_refused(model: Model, change: Any, words: str) -> None:
    with pytest.raises(HandscopeError, match=words), hs.edit(model.transformer, Plan(["single.1"], [4], of=4), change):
        call(model)


@pytest.mark.parametrize(("of", "words"), [(3, "once more"), (5, "called 4 times")])
def test_a_run_of_another_length_is_refused(model: Model, of: int, words: str) -> None:
    with pytest.raises(HandscopeError, match=words), hs.edit(model.transformer, Plan(["single.1"], [1], of=of), same):
        call(model)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((16, 12), bool), r"in 12 rows and 16 columns, .* found shape \(16, 12\)"),
        (np.ones((24, 8), bool), r"found shape \(24, 8\)"),
        (np.ones((12, 16, 1), bool), r"found shape \(12, 16, 1\)"),
        (np.ones((2, 12, 16), bool), r"found shape \(2, 12, 16\)"),
        (np.ones(192), "boolean"),
    ],
)
def test_a_mask_of_another_form_is_refused_in_capture_and_edit_alike(model: Model, mask: Any, words: str) -> None:
    plan = Plan(["single.1"], [2], of=2)
    for opened in (
        hs.capture(model.transformer, plan, mask),
        hs.edit(model.transformer, plan, same, mask),
    ):
        with pytest.raises(HandscopeError, match=words), opened:
            call(model, steps=2, height=96, width=128)


@pytest.mark.parametrize("form", [(12, 16), (192,), (1, 192), (2, 192)])
def test_masks_of_every_form_name_the_same_tokens(model: Model, form: tuple[int, ...]) -> None:
    grid = np.zeros((12, 16), bool)
    grid[3, 7] = True
    mask = np.tile(grid.reshape(-1), 2 if form[0] == 2 else 1).reshape(form)
    with hs.capture(model.transformer, Plan(["single.1"], [2], of=2), mask) as one:
        call(model, steps=2, height=96, width=128)
    with hs.capture(model.transformer, Plan(["single.1"], [2], of=2)) as every:
        call(model, steps=2, height=96, width=128)
    assert torch.equal(one["single.1", 2].reshape(2, 32), every["single.1", 2][:, 3 * 16 + 7])


def test_a_capture_of_both_calls_is_refused(model: Model) -> None:
    plan = Plan(["single.1"], [2], of=2, call="both")
    with pytest.raises(HandscopeError, match="cond or uncond"), hs.capture(model.transformer, plan):
        pass
