"""Two threads at one transformer, as in a server: the second is refused, and neither's picture or record is mixed."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from flux_calls import PLAN, call, hooks
from handscope.errors import HandscopeError
from handscope.extract.capture import capture
from handscope.guidance import guide, steer
from handscope.models.calls import edits
from handscope.models.model import Model, load

DIRECTION = {"double.1": torch.randn(32, generator=torch.Generator().manual_seed(3))}


@pytest.fixture
def model(tiny_pipe_folder) -> Model:
    return load(str(tiny_pipe_folder))


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises in another thread."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


def own_pipe(model: Model) -> FluxPipeline:
    """A pipeline with a scheduler of its own around the same transformer."""
    pipe = FluxPipeline(**model.pipe.components | {"scheduler": copy.deepcopy(model.pipe.scheduler)})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def opened(model: Model, kind: str) -> Any:
    if kind == "capture":
        return capture(model.transformer, PLAN)
    if kind == "steer":
        return steer(model.transformer, DIRECTION, 0.5, [4, 2], 4)
    return guide(model.pipe, lambda clean: clean.square().mean((1, 2)), 0.1, [3, 2], 4)


@pytest.mark.parametrize("kind", ["capture", "steer", "guide"])
def test_a_second_thread_is_refused_and_changes_nothing(model: Model, kind: str) -> None:
    def alone() -> Any:
        with opened(model, kind) as found:
            latents = call(model)
        return (latents, found["double.1", 2]) if kind == "capture" else (latents,)

    def second() -> None:
        with opened(model, kind):
            call(model, pipe=own_pipe(model))

    def draws() -> None:
        call(model, pipe=own_pipe(model))

    expected, refusals = alone(), []

    def disturb(pipe: Any, index: int, timestep: Any, kwargs: dict) -> dict:
        """Between two steps, and in the middle of the block."""
        for work in (second, draws):
            with pytest.raises(HandscopeError, match="Another thread reads or changes the calls") as refused:
                elsewhere(work)
            refusals.append(str(refused.value))
        return kwargs

    with opened(model, kind) as seen:
        latents = call(model, callback_on_step_end=disturb)
    assert torch.equal(latents, expected[0]) and len(refusals) == 8
    if kind == "capture":
        assert torch.equal(seen["double.1", 2], expected[1])
    assert "wait until it has ended" in refusals[0] and "in the thread that draws" in refusals[1]
    assert hooks(model.transformer) == 0 and "cache_context" not in vars(model.transformer)
    assert edits(model.transformer) == [] and torch.is_grad_enabled()
    elsewhere(second)


def test_a_call_within_a_call_of_another_thread_is_not_taken_for_its_own(model: Model) -> None:
    """The other thread calls while a block of this one's call runs."""
    refused = []

    def disturb(*_: object) -> None:
        with pytest.raises(HandscopeError, match="Another thread") as found:
            elsewhere(lambda: call(model, pipe=own_pipe(model)))
        refused.append(found.value)

    bare = call(model)
    with steer(model.transformer, DIRECTION, 0.5, [4, 2], 4):
        expected = call(model)
        handle = model.transformer.transformer_blocks[0].register_forward_hook(disturb)
        found = call(model)
        handle.remove()
    assert torch.equal(found, expected) and not torch.allclose(found, bare, atol=1e-3) and len(refused) == 4


def test_a_thread_shows_its_own_exception(model: Model) -> None:
    def work() -> None:
        with capture(model.transformer, PLAN):
            raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        elsewhere(work)
    with pytest.raises(HandscopeError, match="Another thread"), capture(model.transformer, PLAN):
        elsewhere(work)
    assert "cache_context" not in vars(model.transformer)
