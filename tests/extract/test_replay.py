"""Replay against the run that it replays, and against nnsight: the same bits, of the same blocks, and no more work."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from flux_calls import PROMPTS, hooks
from handscope.errors import HandscopeError
from handscope.extract.address import SIDES, STREAMS, Cell, Plan
from handscope.extract.capture import capture
from handscope.extract.deepest import only_rows
from handscope.extract.generate import draw
from handscope.extract.replay import batch_difference, replay
from handscope.models.model import Model, load
from handscope.run.trajectory import Trajectory
from nnsight import NNsight
from torch import Tensor, nn
from torch.nn import functional

STEPS = 4
BLOCKS, READ = ["double.0", "double.1", "single.1"], [4, 2, 1]
PLAN = Plan(BLOCKS, READ, of=STEPS)
GENERATION = {"guidance": 3.5, "height": 32, "width": 24}
MASK = np.arange(12).reshape(4, 3) % 5 == 0


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest, tiny_pipe_folder) -> Model:
    """The tiny FLUX of random weights, in both dtypes."""
    return load(str(tiny_pipe_folder), dtype=request.param)


@pytest.fixture(scope="module")
def trajectories(model: Model) -> list[Trajectory]:
    """Of both prompts, drawn together."""
    return drawn(model, [0, 1])


def pairs(numbers: list[int]) -> list[tuple[str, int]]:
    return [(PROMPTS[number], number) for number in numbers]


def drawn(model: Model, numbers: list[int]) -> list[Trajectory]:
    made = draw(model, pairs(numbers), steps=STEPS, **GENERATION).trajectories
    assert made is not None
    return made


def by_nnsight(model: Model, numbers: list[int]) -> dict[tuple[str, int, str, str], Tensor]:
    """Every stream of the wanted blocks and steps, by (block, step, side, stream), traced over the whole run."""

    class Run(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = model.transformer

        def forward(self, which: list[int]) -> Tensor:
            return torch.from_numpy(draw(model, pairs(which), STEPS, **GENERATION, trajectories=False).images)

    traced = NNsight(Run())
    double, single = traced.transformer.transformer_blocks, traced.transformer.single_transformer_blocks
    blocks = [("double.0", double[0]), ("double.1", double[1]), ("single.1", single[1])]
    with traced.trace(numbers) as tracer:
        found = dict().save()  # noqa: C408 - nnsight keeps this object
        for index in tracer.iter[:STEPS]:
            if STEPS - index in READ:
                for name, block in blocks:
                    given = block.inputs[1]
                    found[name, STEPS - index, "input", "text"] = given["encoder_hidden_states"].clone()
                    found[name, STEPS - index, "input", "image"] = given["hidden_states"].clone()
                    found[name, STEPS - index, "output", "text"] = block.output[0].clone()
                    found[name, STEPS - index, "output", "image"] = block.output[1].clone()
    return found


@pytest.mark.parametrize("numbers", [[0], [0, 1]], ids=["one sample", "two samples"])
def test_capture_replay_and_nnsight_agree_to_the_bit(model: Model, numbers: list[int]) -> None:
    paths, prompts = drawn(model, numbers), [PROMPTS[number] for number in numbers]
    # nnsight gets a model of its own, since it stays on every module that it has wrapped.
    traced = by_nnsight(load(model.name, dtype=model.dtype), numbers)
    for at in SIDES:
        for stream in STREAMS:
            plan = Plan(BLOCKS, READ, STEPS, stream, at)
            with capture(model.transformer, plan) as seen:
                draw(model, pairs(numbers), STEPS, **GENERATION, trajectories=False)
            again = replay(model, plan, prompts, paths, **GENERATION)
            for cell in plan.cells:
                rows = seen[cell.block, cell.step]
                assert rows.shape == (len(numbers), {"image": 12, "text": 20}[stream], 32) and rows.dtype == model.dtype
                assert torch.equal(again[cell.block, cell.step], rows)
                assert torch.equal(traced[str(cell.block), cell.step, at, stream], rows)


def test_steps_in_any_order_and_tokens_of_each_sample(model: Model, trajectories: list[Trajectory]) -> None:
    whole = replay(model, PLAN, PROMPTS, trajectories, **GENERATION)
    own = np.zeros((2, 12), bool)
    own[0, 3], own[1, [0, 11]] = True, True
    plan = Plan(["single.1", "double.0"], [1, 4], of=STEPS)
    some = replay(model, plan, PROMPTS, trajectories, **GENERATION, tokens=own)
    sums = replay(model, plan, PROMPTS, trajectories, **GENERATION, tokens=own, reduce=lambda rows: rows.sum(dim=0))
    for cell in plan.cells:
        rows = whole[cell.block, cell.step]
        expected = torch.stack([rows[0, 3], rows[1, 0], rows[1, 11]])
        assert torch.equal(some[cell.block, cell.step], expected)
        assert torch.equal(sums[cell.block, cell.step], expected.sum(dim=0))


@pytest.mark.parametrize(("at", "blocks_run"), [("output", 4), ("input", 3)])
def test_nothing_runs_after_the_deepest_block_that_is_read(
    model: Model, trajectories: list[Trajectory], at: str, blocks_run: int
) -> None:
    ran: list[str] = []
    handles = [
        block.register_forward_hook(lambda module, args, output, name=name: ran.append(name))
        for name, block in model.family.blocks(model.transformer).items()
    ]
    before = hooks(model.transformer)
    try:
        replay(model, Plan(BLOCKS, [2], STEPS, at=at), PROMPTS, trajectories, **GENERATION)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == ["double.0", "double.1", "single.0", "single.1"][:blocks_run]
    assert hooks(model.transformer) == before - len(handles)


@pytest.mark.parametrize("block", ["double.1", "single.1"])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("own", [False, True], ids=["shared tokens", "tokens of each sample"])
def test_the_deepest_block_computes_what_is_read_with_the_same_bits(
    model: Model, trajectories: list[Trajectory], block: str, stream: str, count: int, own: bool
) -> None:
    tokens = {"image": 12, "text": 20}[stream]
    mask = np.zeros((2, tokens) if own else tokens, bool)
    mask[..., [11, 3, 7, 0, 8][:count]] = True
    if own:
        mask[1] = np.roll(mask[1], 1)
    plan = Plan(["double.0", block], READ, STEPS, stream)
    whole = replay(model, plan, PROMPTS, trajectories, **GENERATION)
    some = replay(model, plan, PROMPTS, trajectories, **GENERATION, tokens=mask)
    assert all("forward" not in vars(module) for module in model.transformer.modules())
    kept = torch.from_numpy(mask)
    for cell in plan.cells:
        rows = whole[cell.block, cell.step]
        assert torch.equal(some[cell.block, cell.step], rows[kept] if own else rows[:, kept])


@pytest.mark.parametrize("index", [(slice(None), torch.tensor([1, 3])), (torch.tensor([0, 1]), torch.tensor([2, 4]))])
def test_rows_that_nobody_reads_are_left_out_after_the_first_forward(index: tuple[Any, ...]) -> None:
    layer = nn.Linear(4, 3)
    whole_numbers = torch.arange(12.0).reshape(3, 4)  # whose products are exact in whatever order
    layer.weight.data, layer.bias.data = whole_numbers, torch.ones(3)
    x = torch.arange(40.0).reshape(2, 5, 4)
    expected = layer(x)
    with only_rows([(layer, index)]):
        first, second = layer(x), layer(x + 1)
    assert torch.equal(first, expected)
    left_out = torch.ones(2, 5, dtype=torch.bool)
    left_out[index] = False
    assert torch.equal(second[index], layer(x + 1)[index])
    assert (second[left_out] == 0).all() and left_out.sum() in (6, 8)


def test_rows_that_would_round_otherwise_are_computed_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, linear = nn.Linear(4, 3), torch.randn(2, 5, 4), functional.linear

    def rounding_by_rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear(x, weight, bias) * (1 + x.shape[1] * 1e-6)

    expected = linear(x, layer.weight, layer.bias)
    monkeypatch.setattr("handscope.extract.deepest.functional.linear", rounding_by_rows)
    with only_rows([(layer, (slice(None), torch.tensor([1, 3])))]):
        found = [layer(x) for _ in range(3)]
    assert all(torch.equal(one, expected * (1 + 5e-6)) for one in found)


def test_layers_that_are_more_than_a_product_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    hooked, offloaded = nn.Linear(4, 3), nn.Linear(4, 3)
    hooked.register_forward_hook(lambda module, args, output: None)
    offloaded.forward = offloaded.forward
    layers = [Own(4, 3), hooked, offloaded, nn.Identity(), nn.Linear(4, 3)]
    before = [dict(vars(layer)) for layer in layers]
    with only_rows([(layer, (slice(None), slice(0))) for layer in layers]):
        assert [vars(layer) == was for layer, was in zip(layers, before)] == [True, True, True, True, False]
    assert [vars(layer) == was for layer, was in zip(layers, before)] == [True] * 5


def test_unconditional_calls_are_not_replayed(model: Model, trajectories: list[Trajectory]) -> None:
    with pytest.raises(HandscopeError, match="does not hold the negative prompt"):
        replay(model, Plan(BLOCKS, READ, STEPS, call="uncond"), PROMPTS, trajectories, **GENERATION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 32, "width": 32}, r"another generation: expected latents of shape \(5, 16, 16\) .* \(5, 12, 16\)"),
        ({"plan": Plan(BLOCKS, [1], of=5)}, r"shape \(6, 12, 16\) .* for 5 steps of 32 by 24 pixels"),
        ({"prompts": PROMPTS[:1]}, "found 1 prompts and 2 trajectories"),
    ],
)
def test_a_trajectory_of_another_generation_is_refused(
    model: Model, trajectories: list[Trajectory], change: dict[str, Any], message: str
) -> None:
    given = {"plan": PLAN, "prompts": PROMPTS, **GENERATION} | change
    with pytest.raises(HandscopeError, match=message):
        replay(model, trajectories=trajectories, **given)


@pytest.mark.parametrize("name", ["sigmas", "timesteps"])
def test_a_trajectory_of_another_schedule_is_refused(
    model: Model, trajectories: list[Trajectory], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = getattr(trajectories[1], name).clone()
    changed[2] *= 1.001
    with pytest.raises(HandscopeError, match=f"Trajectory 2 of 2 .* at index 2 .* expects {name}"):
        replay(model, PLAN, PROMPTS, [trajectories[0], replace(trajectories[1], **{name: changed})], **GENERATION)
    other = FlowMatchEulerDiscreteScheduler.from_config(model.pipe.scheduler.config, max_shift=3.0, base_shift=1.0)
    monkeypatch.setattr(model.pipe, "scheduler", other)
    with pytest.raises(HandscopeError, match="Trajectory 1 of 2 .* another schedule: at index 1"):
        replay(model, PLAN, PROMPTS, trajectories, **GENERATION)


def test_a_trajectory_of_another_dtype_is_refused(model: Model, trajectories: list[Trajectory]) -> None:
    other = torch.float64
    paths = [replace(path, latents=path.latents.to(other)) for path in trajectories]
    with pytest.raises(HandscopeError, match=r"is in torch\.float64, and the model in torch\."):
        replay(model, PLAN, PROMPTS, paths, **GENERATION)


@pytest.mark.parametrize("own", [False, True], ids=["shared tokens", "tokens of each sample"])
def test_what_another_batch_size_does_is_measured(model: Model, own: bool) -> None:
    paths = drawn(model, [0, 1]) + drawn(model, [1])
    prompts = [*PROMPTS, PROMPTS[1]]
    mask = np.stack([np.roll(MASK.ravel(), i) for i in range(3)]) if own else MASK
    found = batch_difference(model, PLAN, prompts, paths, **GENERATION, tokens=mask, size=2)
    assert found.sizes == (2, 3)

    def rows(numbers: list[int], cell: Cell) -> Tensor:
        tokens = mask[numbers] if own else mask
        one = Plan([cell.block], [cell.step], of=STEPS)
        given = [prompts[i] for i in numbers], [paths[i] for i in numbers]
        seen = replay(model, one, *given, **GENERATION, tokens=tokens)
        return seen[cell.block, cell.step].double().flatten()

    largest, relative = {}, {}
    for cell in PLAN.cells:
        together, apart = rows([0, 1, 2], cell), torch.cat([rows([0, 1], cell), rows([2], cell)])
        largest[cell] = float((together - apart).abs().max())
        relative[cell] = largest[cell] / float((together**2).mean() ** 0.5)
    assert found.absolute == max(largest.values())
    assert found.relative == pytest.approx(max(relative.values()), rel=1e-12)
    assert relative[found.cell] == max(relative.values())
    assert found.relative < (1e-5 if model.dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("size", [0, 2, 3])
def test_a_batch_size_that_is_none_is_refused(model: Model, trajectories: list[Trajectory], size: int) -> None:
    with pytest.raises(HandscopeError, match=f"less than 2, the samples given, found {size}"):
        batch_difference(model, PLAN, PROMPTS, trajectories, **GENERATION, size=size)
