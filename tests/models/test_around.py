"""Families that are read around a call of one's own: each passes the self-test on a tiny model of random weights."""

from dataclasses import replace
from typing import Any

import handscope as hs
import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.family_check import check_call
from handscope.guidance import steer
from handscope.models import registry
from handscope.models.calls import named
from handscope.models.registry import family_of
from made_around import MAKERS, Made, make

NOT_TRIED = {
    # What cannot be tried, beside replays, which need a family that handscope loads.
    "lumina2": {"text and image are not swapped"},
    "pixart": {"text and image are not swapped", "x0 is what the scheduler steps to"},
    "dit": {"text and image are not swapped"},
    "wan_picture": {"text and image are not swapped"},
    "wan_video": {"text and image are not swapped"},
    "hidream": {"x0 is what the scheduler steps to"},
    "hidream_oblong": {"x0 is what the scheduler steps to"},
    "flux3": {"x0 is what the scheduler steps to"},
    "flux3_reference": {"x0 is what the scheduler steps to"},
}
TOKENS = {"wan_video": (6, 4), "hidream": (8, 8), "hidream_oblong": (4, 6), "flux3": (2, 3), "flux3_reference": (2, 3)}
TOKENS |= {"wan_picture": (2, 4), "dit": (8, 8), "lumina2": (2, 3), "lumina2_even": (2, 3)}


@pytest.fixture(params=list(MAKERS))
def name(request: pytest.FixtureRequest) -> str:
    """A tiny model."""
    return request.param


@pytest.fixture
def one(name: str, monkeypatch: pytest.MonkeyPatch) -> Made:
    """It, and its call."""
    made = make(name)
    if name.startswith("hidream"):  # whose longest sequence is of the published models
        own = replace(family_of(made.transformer), longest=256)
        monkeypatch.setitem(registry._families, own.name, own)
    return made


def test_it_passes_the_self_test(name: str, one: Made) -> None:
    checked = check_call(one.transformer, one.call, one.steps, one.scheduler)
    assert checked.passed, str(checked)
    missing = {check.claim for check in checked.checks if check.outcome == "not applicable"}
    assert missing == NOT_TRIED.get(name, set()) | {"a replay has the bits of the whole run"}, str(checked)


def test_masks_are_of_its_grid_and_steering_changes_what_comes_out(name: str, one: Made) -> None:
    grid = TOKENS.get(name, (8, 12))
    own = family_of(one.transformer)
    assert not own.pipelines
    blocks = own.carrying(one.transformer, "image")
    mask = np.zeros(grid, bool)
    mask[1, -1] = True
    plan = hs.Plan(blocks, range(one.steps, 0, -1), of=one.steps)
    with torch.no_grad(), hs.capture(one.transformer, plan) as whole:
        before = one.call()
    with torch.no_grad(), hs.capture(one.transformer, plan, tokens=mask) as some:
        one.call()
    width = own.stream_width(one.transformer)
    for cell in plan.cells:
        assert whole[cell.block, cell.step].shape[1:] == (grid[0] * grid[1], width)
        expected = whole[cell.block, cell.step][:, mask.ravel()]
        assert torch.equal(some[cell.block, cell.step], expected)
    with torch.no_grad(), steer(one.transformer, {blocks[-1]: torch.arange(width) - 2.0}, 0.5, [1], one.steps):
        after = one.call()
    assert not np.array_equal(drawn(before), drawn(after))


def drawn(output: Any) -> np.ndarray:
    """What a pipeline or a transformer gave, as numbers."""
    if isinstance(output, torch.Tensor | np.ndarray | list):
        return np.asarray(output)
    given = next((getattr(output, part) for part in ("images", "frames") if hasattr(output, part)), None)
    return np.asarray(output[0] if given is None else given)


def test_it_is_not_generated_with(one: Made) -> None:
    own = family_of(one.transformer)
    with pytest.raises(HandscopeError, match=f"reads the blocks of {own.name} around a pipeline call of your own"):
        own.encode(None, "a hand", "cpu")


def test_each_side_of_guidance_is_read(name: str, one: Made) -> None:
    if name.startswith(("hidream", "flux3")):
        pytest.skip("a bare call of one side")
    block = family_of(one.transformer).carrying(one.transformer, "image")[-1]
    sides = {}
    for call in ("cond", "uncond"):
        with torch.no_grad(), hs.capture(one.transformer, hs.Plan([block], [2], of=2, call=call)) as seen:
            one.call()
        sides[call] = seen[block, 2]
    assert sides["cond"].shape == sides["uncond"].shape and not torch.equal(sides["cond"], sides["uncond"])
    given = []
    own = family_of(one.transformer)
    with named(one.transformer, own) as names:

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments = own.arguments(args, kwargs)
            rows = names.rows(arguments)
            given.extend(arguments[own.text][rows["cond"]] for _ in rows if "cond" in rows)

        handle = one.transformer.register_forward_pre_hook(before, with_kwargs=True)
        one.call()
        handle.remove()
    assert len(given) in (2, 4) and one.text is not None
    assert all(torch.equal(text, one.text) for text in given)


def test_texts_of_other_lengths_have_their_images_at_other_places() -> None:
    """Lumina 2: the image of a row is what it is alone, wherever its text ends."""
    made = make("lumina2")
    transformer, x = made.transformer, torch.randn(2, 4, 8, 12)
    text, mask = torch.randn(2, 7, 8), torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0

    def read(rows: slice, length: int) -> torch.Tensor:
        with torch.no_grad(), hs.capture(transformer, hs.Plan(["layers.1"], [1], of=1)) as seen:
            transformer(
                hidden_states=x[rows],
                timestep=torch.full((len(x[rows]),), 0.5),
                encoder_hidden_states=text[rows, :length],
                encoder_attention_mask=mask[rows, :length],
            )
        return seen["layers.1", 1]

    together = read(slice(0, 2), 7)
    torch.testing.assert_close(together[1:], read(slice(1, 2), 4), rtol=1e-4, atol=1e-5)
