"""Addresses: what is a block, a step, a plan, and what is refused."""

import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.address import CALLS, SIDES, STREAMS, Block, Plan
from hypothesis import given
from hypothesis import strategies as st

blocks = st.builds(Block, st.sampled_from(["double", "single", "layers", "txt_mode"]), st.integers(0, 99))


@given(blocks)
def test_a_block_is_read_back_from_its_text(block: Block) -> None:
    assert Block.parse(str(block)) == block


@given(st.lists(blocks, min_size=1, unique=True), st.integers(1, 50), st.data())
def test_a_plan_survives_json_and_counts_down(names: list[Block], of: int, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(1, of), min_size=1, unique=True))
    plan = Plan(names, steps, of, *(data.draw(st.sampled_from(choice)) for choice in (STREAMS, SIDES, CALLS)))
    assert Plan.from_json(plan.to_json()) == plan
    assert [plan.index(step) for step in range(of, 0, -1)] == list(range(of))


def test_what_is_read_by_default_goes_without_saying() -> None:
    # Stores of the first version have this text, and are compared with it.
    assert Plan(["double.1"], [3], of=4).to_json() == '{"blocks": ["double.1"], "steps": [3], "of": 4}'
    assert '"at": "input"' in Plan(["double.1"], [3], of=4, at="input").to_json()


def test_cells_run_over_blocks_outside_and_steps_inside() -> None:
    cells = Plan(["single.3", "double.1"], [20, 3], of=20).cells
    assert [str(cell) for cell in cells] == ["single.3/20", "single.3/3", "double.1/20", "double.1/3"]


@pytest.mark.parametrize(
    "name", ["double", "Double.1", ".1", "2.1", "mode.image.1", "double.-1", "double.01", "double.1 ", "single.x", 3]
)
def test_a_misspelt_block_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(HandscopeError, match=r"double\.12 or single\.8"):
        Plan([name], [1], of=1)


@pytest.mark.parametrize("step", [0, 21, -1, 2.0, True])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(HandscopeError, match=r"from 20 .* down to 1"):
        Plan(["double.1"], [step], of=20)


@pytest.mark.parametrize(
    ("names", "steps", "of"),
    [
        ([], [1], 1),
        (["double.1"], [], 1),
        (["double.1"] * 2, [1], 1),
        (["double.1"], [1, 1], 1),
        (["double.1"], [1], 0),
        ("double.1", [1], 1),
    ],
)
def test_a_plan_of_nothing_or_of_repetitions_is_refused(names: list[str], steps: list[int], of: int) -> None:
    with pytest.raises(HandscopeError):
        Plan(names, steps, of)


@pytest.mark.parametrize("choice", [{"stream": "picture"}, {"at": "middle"}, {"call": "all"}, {"stream": None}])
def test_an_unknown_stream_side_or_call_is_refused_with_the_known(choice: dict[str, str]) -> None:
    with pytest.raises(HandscopeError, match=r"to be (image or text|output or input|cond or uncond or both), found"):
        Plan(["double.1"], [1], of=1, **choice)


def test_a_plan_without_blocks_is_of_all_that_the_model_has() -> None:
    plan = Plan(None, [2, 1], of=2, stream="text", at="input")
    assert plan.blocks == () and Plan.from_json(plan.to_json()) == plan
    assert plan.on(["layers.0", "layers.1"]) == Plan(["layers.0", "layers.1"], [2, 1], 2, "text", "input")
    named = Plan(["layers.1"], [1], of=2)
    assert named.on(["layers.0", "layers.1"]) == named
    with pytest.raises(HandscopeError, match="no block layers.1; it has layers.0 to layers.0"):
        named.on(["layers.0"])
    with pytest.raises(HandscopeError, match="names no block yet"):
        plan.check(["layers.0"])
    with pytest.raises(HandscopeError, match=r"Step 3 is outside"):
        Plan(None, [3], of=2)


def test_a_block_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(
        HandscopeError, match=r"no block single\.7; it has double\.0 to double\.1 and single\.0 to single\.3"
    ):
        Plan(["double.1", "single.7"], [1], of=1).check(
            ["double.0", "double.1", "single.0", "single.1", "single.2", "single.3"]
        )


def test_whole_numbers_of_other_libraries_are_taken_and_kept_as_pythons_own() -> None:
    plan = Plan(["single.3"], [4, 3, 2, 1], 4)
    for steps, of in ((np.arange(4, 0, -1), np.int64(4)), (torch.arange(4, 0, -1), torch.tensor(4))):
        found = Plan(["single.3"], steps, of)
        assert found == plan and found.to_json() == plan.to_json()
        assert all(type(number) is int for number in (*found.steps, found.of))
    for bad in (True, 1.0, np.float64(1), np.bool_(True), "1"):
        with pytest.raises(HandscopeError, match="is outside this run"):
            Plan(["single.3"], [bad], 4)
