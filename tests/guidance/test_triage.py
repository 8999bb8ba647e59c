"""Triage takes what the selector likes, from the same samples that a plain generation draws, at the cost it states."""

from types import SimpleNamespace

import numpy as np
import pytest
from flux_calls import call
from handscope.errors import HandscopeError
from handscope.extract.generate import draw
from handscope.guidance.triage import Look, cost, stop_callback, threshold_for, triage
from handscope.models.model import Model, load
from handscope.models.sampling import Sampling
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

PROMPTS = ["a left hand, palm view, five fingers raised", "a right hand, back view, five fingers raised", "a left hand"]
STEPS = 4


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    return load(str(tiny_pipe_folder))


class Mean:
    """The mean of the predicted clean latents."""

    blocks: tuple[str, ...] = ()

    def __call__(self, look: Look) -> Tensor:
        return look.clean.mean((1, 2))


class OfBlock:
    blocks = ("double.1", "single.0")

    def __call__(self, look: Look) -> Tensor:
        assert set(look.activations) == set(self.blocks)
        return look.activations["double.1"].mean((1, 2)) + look.activations["single.0"].mean((1, 2))


def every_score(model: Model, seeds: list[int], step: int) -> np.ndarray:
    """Scores by `Mean` of plain generations, (prompts, seeds)."""
    rows = []
    for prompt in PROMPTS:
        drawn = draw(model, [(prompt, seed) for seed in seeds], STEPS, 3.5, 32, 32)
        clean = [path.x0(STEPS - step) if step else path.latents[-1] for path in drawn.trajectories]
        rows.append([float(latents.mean()) for latents in clean])
    return np.array(rows)


@pytest.mark.parametrize("step", [3, 1, 0])
def test_the_best_of_all_seeds_is_found_and_finished_as_a_plain_generation(model: Model, step: int) -> None:
    seeds = [5, 6, 7, 8]
    chosen = triage(Sampling(model, STEPS), PROMPTS, [seeds] * 3, Mean(), step, None, batch_size=2)
    scores = every_score(model, seeds, step)
    assert chosen.seeds.tolist() == [seeds[i] for i in scores.argmin(1)]
    np.testing.assert_allclose(chosen.scores, scores.min(1), atol=1e-4)
    for prompt, seed, image in zip(PROMPTS, chosen.seeds, chosen.images):
        plain = draw(model, [(prompt, int(seed))], STEPS, 3.5, 32, 32).images[0]
        assert np.abs(plain.astype(int) - image).max() <= 1  # batches of another size round otherwise
    assert chosen.attempts.tolist() == [4] * 3 and chosen.accepted.all()
    assert chosen.calls == pytest.approx(STEPS * cost(0.0, 4, step, STEPS))


def test_the_first_seed_below_the_threshold_is_taken_and_later_ones_are_never_begun(model: Model) -> None:
    seeds = [5, 6, 7, 8]
    scores = every_score(model, seeds, 3)
    threshold = float(np.quantile(scores, 0.3))
    chosen = triage(Sampling(model, STEPS), PROMPTS, [seeds] * 3, Mean(), 3, threshold)
    for i, row in enumerate(scores):
        below = np.flatnonzero(row < threshold)
        expected = below[0] if len(below) else row.argmin()
        assert chosen.seeds[i] == seeds[expected]
        assert chosen.accepted[i] == bool(len(below))
        assert chosen.attempts[i] == (below[0] + 1 if len(below) else 4)
    assert chosen.calls == pytest.approx((2 * chosen.attempts.sum() + 2 * 3) / 3)


def test_a_selector_sees_the_blocks_it_names(model: Model) -> None:
    from handscope.extract.address import Plan
    from handscope.extract.capture import capture

    chosen = triage(Sampling(model, STEPS), PROMPTS[:1], [[9]], OfBlock(), 2, None)
    with capture(model.transformer, Plan(list(OfBlock.blocks), [2], STEPS)) as seen:
        draw(model, [(PROMPTS[0], 9)], STEPS, 3.5, 32, 32)
    expected = sum(float(seen[block, 2].mean()) for block in OfBlock.blocks)
    assert chosen.scores[0] == pytest.approx(expected, rel=1e-5)


def test_a_pipeline_is_interrupted_where_it_looks_bad(model: Model) -> None:
    calls: list[int] = []
    handle = model.transformer.register_forward_hook(lambda module, args, output: calls.append(1))
    try:
        for threshold, expected in ((1e9, STEPS), (-1e9, 2)):
            calls.clear()
            call(model, callback_on_step_end=stop_callback(Mean(), 3, threshold))
            assert len(calls) == expected
            assert model.pipe.interrupt == (expected == 2)
    finally:
        handle.remove()
    with pytest.raises(HandscopeError, match="reads blocks"):
        stop_callback(OfBlock(), 3, 0.0)


@given(st.floats(0.02, 1), st.integers(1, 8), st.integers(0, 20))
def test_cost_is_that_of_a_simulation(share: float, attempts: int, step: int) -> None:
    random = np.random.default_rng(0)
    passed = random.random((20_000, attempts)) < share
    begun = np.where(passed.any(1), passed.argmax(1) + 1, attempts)
    before = min(20, 20 - step + 1)
    expected = (before * begun + 20 - before) / 20
    error = 5 * expected.std() / np.sqrt(len(expected)) + 1e-3
    assert cost(share, attempts, step, 20) == pytest.approx(expected.mean(), abs=error)


@given(st.floats(1, 5), st.integers(0, 1000))
def test_a_threshold_costs_what_was_wanted_and_no_stricter_one_would(wanted: float, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=57)
    threshold = threshold_for(scores, wanted, 4, 12, 20)
    share = float((scores < threshold).mean())
    assert cost(share, 4, 12, 20) <= wanted + 1e-9
    if share > 1 / 57:
        assert cost(share - 1 / 57, 4, 12, 20) > wanted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [[1], [2]]}, "3 prompts and 2 lists"),
        ({"seeds": [[1], [], [2]]}, "at least one seed"),
        ({"step": 4}, "between 0 and 3"),
        ({"selector": SimpleNamespace(blocks=("single.9",))}, "single.9"),
        ({"selector": type("Bad", (Mean,), {"__call__": lambda self, look: look.clean.mean(1)})()}, "finite scores"),
        ({"selector": type("Bad", (Mean,), {"__call__": lambda self, look: look.clean[:, 0, 0] / 0})()}, "finite"),
    ],
)
def test_what_does_not_fit_is_refused(model: Model, change: dict, words: str) -> None:
    given = {"seeds": [[1]] * 3, "selector": Mean(), "step": 2, "threshold": None} | change
    with pytest.raises(HandscopeError, match=words):
        triage(Sampling(model, STEPS), PROMPTS, **given)
    with pytest.raises(HandscopeError, match="1 or more"):
        threshold_for(np.zeros(3), 0.5, 4, 12, 20)
    with pytest.raises(HandscopeError, match="finite"):
        threshold_for(np.array([np.nan]), 2, 4, 12, 20)
