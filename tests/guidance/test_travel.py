"""Time travel: a step made again is what a loop written out makes of it, and the distribution stays what it was."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flux_calls import call
from guided import distance, normal_pipe, sample_normal, tilt, velocity
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.guidance import ProbeLoss, guide, steer
from handscope.guidance.travel import OwnNoise, noised_back
from handscope.models.model import Model, load
from torch import Tensor

STEPS, SCALE = 4, 2.0


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    return load(str(tiny_pipe_folder))


WANTED = torch.randn(16, 16, generator=torch.Generator().manual_seed(5))
PROBE = SimpleNamespace(coef_=np.random.default_rng(0).normal(size=32), intercept_=0.5)


def beginnings(model: Model) -> Tensor:
    return torch.stack([model.noise(seed, 32, 32) for seed in range(2)])


def guided_velocity(model: Model, kind: str, latents: Tensor, sigma: float) -> Tensor:
    """The velocity at some latents and what guidance adds to it, by differentiating the loss as it is defined."""
    of = latents.clone().requires_grad_()
    tokens: list[Tensor] = []
    handle = model.transformer.single_transformer_blocks[0].register_forward_hook(
        lambda module, args, output: tokens.append(output[1])
    )
    v = velocity(model, of, sigma, no_grad=False)
    handle.remove()
    if kind == "probe":
        losses = (tokens[0] @ torch.from_numpy(PROBE.coef_).float() + PROBE.intercept_).mean(1)
    else:
        losses = distance(WANTED)(of - sigma * (v.detach() if kind == "frozen" else v))
    (gradient,) = torch.autograd.grad(losses.sum(), of)
    return v.detach() + SCALE * min(sigma / (1 - sigma), 4.0) * gradient


def written_out(model: Model, kind: str, travel: int, guided: tuple[int, ...]) -> Tensor:
    """Every evaluation of a run in turn, each step made `travel` times before the next."""
    sigmas = model.pipe.scheduler.sigmas.tolist()
    latents, noise = beginnings(model), OwnNoise()
    noise.begin(latents)
    for index, (sigma, later) in enumerate(zip(sigmas, sigmas[1:])):
        step = STEPS - index
        for repeat in range(travel if step in guided else 1):
            if repeat:
                a = (1 - sigma) / (1 - later)
                b = math.sqrt(sigma**2 - a**2 * later**2)
                latents = a * latents + b * noise.draw(step, repeat, latents)
            drawn = guided_velocity(model, kind, latents, sigma) if step in guided else velocity(model, latents, sigma)
            latents = latents + (later - sigma) * drawn
    return latents


@pytest.mark.parametrize("kind", ["exact", "frozen", "probe"])
def test_a_step_made_again_is_what_a_loop_makes(model: Model, kind: str) -> None:
    loss: Any = ProbeLoss({"single.0": PROBE}) if kind == "probe" else distance(WANTED)
    form = "frozen" if kind == "frozen" else "exact"
    made = {}
    for travel in (1, 2, 3):
        with guide(model.pipe, loss, SCALE, steps=[3, 1], of=STEPS, form=form, travel=travel) as trace:
            made[travel] = call(model)
        torch.testing.assert_close(made[travel], written_out(model, kind, travel, (3, 1)), rtol=1e-4, atol=1e-4)
        assert [guided.step for guided in trace] == [3] * travel + [1] * travel
    assert not torch.allclose(made[1], made[2], atol=0.1) and not torch.allclose(made[2], made[3], atol=0.1)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("scale", "mean"), [(0.0, 0.0), (1.0, 1.5)])
def test_the_distribution_stays_what_it_was(scale: float, mean: float) -> None:
    # The marginals of the tilted normal are known at every sigma, and the way back leads from one to the other.
    once, thrice = (sample_normal(scale, tilt(1.5), travel) for travel in (1, 3))
    assert float(thrice.mean()) == pytest.approx(mean, abs=0.05)
    assert float(thrice.std()) == pytest.approx(1, abs=0.03)
    # All the noise was replaced: what comes out has nothing to do with what went in, nor one image with another.
    together = torch.cat([once.flatten(1)[:5], thrice.flatten(1)[:5]])
    assert float((torch.corrcoef(together) - torch.eye(10)).abs().max()) < 0.15


def test_the_way_back_keeps_the_pictures_share_and_the_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(2, 50_000, 2, generator=generator).sign() * 3
    early, fresh = (torch.randn(clean.shape, generator=generator) for _ in range(2))
    for later, sigma in ((0.3, 0.35), (0.75, 0.9), (0.0, 0.4)):
        back = noised_back((1 - later) * clean + later * early, later, sigma, fresh)
        rest = back - (1 - sigma) * clean
        assert float(rest.std()) == pytest.approx(sigma, rel=0.01)
        assert float((rest * clean).mean()) == pytest.approx(0, abs=0.02)


def test_noise_is_each_images_own_in_any_batch() -> None:
    latents = torch.randn(3, 200, 16, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    noise, alone = OwnNoise(), OwnNoise()
    noise.begin(latents)
    drawn = noise.draw(3, 1, latents)
    alone.begin(latents[1:2].to(torch.float64))
    assert torch.equal(alone.draw(3, 1, latents[1:2]), drawn[1:2])
    every = torch.cat([drawn, noise.draw(3, 2, latents), noise.draw(2, 1, latents), noise.draw(31, 1, latents)])
    assert float((torch.corrcoef(every.flatten(1)) - torch.eye(12)).abs().max()) < 0.1
    assert float(every.mean()) == pytest.approx(0, abs=0.02) and float(every.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(HandscopeError, match="began with 3 images and has 2 at step 2"):
        noise.draw(2, 1, latents[:2])


def test_a_run_depends_on_no_random_state_and_leaves_it(model: Model) -> None:
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with guide(model.pipe, distance(WANTED), SCALE, steps=[3], of=STEPS, form="frozen", travel=2):
            made.append(call(model))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(made[0], made[1])


def seen_tokens(model: Model, order: Callable[..., list[Any]]) -> tuple[list[Tensor], Tensor]:
    """The tokens after single.1 at each evaluation of step 3, and what a capture keeps of them."""
    found: list[Tensor] = []
    entered = order(
        guide(model.pipe, distance(WANTED), SCALE, steps=[3], of=STEPS, travel=2),
        steer(model.transformer, {"single.1": torch.eye(32)[0]}, 5.0, steps=[3], of=STEPS),
        capture(model.transformer, Plan(["single.1"], [3], of=STEPS)),
    )
    with entered[0] as one, entered[1] as two, entered[2] as three:
        handle = model.transformer.single_transformer_blocks[1].register_forward_hook(
            lambda module, args, output: found.append(output[1].detach().clone())
        )
        call(model)
        handle.remove()
    kept = next(value for value in (one, two, three) if hasattr(value, "calls"))
    return found, kept["single.1", 3]


def test_steering_and_captures_take_a_repeat_for_the_step_whatever_the_order(model: Model) -> None:
    inside, kept_inside = seen_tokens(model, lambda guiding, steering, captured: [guiding, steering, captured])
    outside, kept_outside = seen_tokens(model, lambda guiding, steering, captured: [steering, captured, guiding])
    assert len(inside) == STEPS + 1
    for one, other in zip(inside, outside):
        torch.testing.assert_close(one, other)
    lengths = [float(tokens[..., 0].mean()) for tokens in inside]
    assert min(lengths[1:3]) > 2 * max(lengths[0], *lengths[3:])
    assert torch.equal(kept_inside, inside[2]) and torch.equal(kept_outside, outside[2])


def test_reference_tokens_go_in_as_they_are_and_come_out_as_they_do() -> None:
    pipe = normal_pipe(STEPS)
    sigma = float(pipe.scheduler.sigmas[1])
    latents = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0))
    ids = torch.zeros(10, 3)
    ids[6:, 0] = 1
    given: list[Tensor] = []
    forward = pipe.transformer.forward

    def kept(**kwargs: Any) -> tuple[Tensor]:
        given.append(kwargs["hidden_states"].detach().clone())
        return forward(**kwargs)

    pipe.transformer.forward = kept
    out, same = [], {"img_ids": ids, "encoder_hidden_states": torch.zeros(2, 3, 4)}
    with torch.no_grad(), guide(pipe, tilt(1.0), 1.0, steps=[3], of=STEPS, travel=3):
        for now in pipe.scheduler.sigmas[:-1].tolist():
            out.append(pipe.transformer(hidden_states=latents, timestep=torch.full([2], now), **same)[0])
    assert len(given) == STEPS + 2
    assert all(torch.equal(one[:, 6:], latents[:, 6:]) for one in given)
    assert not torch.allclose(given[2][:, :6], latents[:, :6], atol=0.1)
    bare = forward(hidden_states=latents, timestep=torch.full([2], sigma))[0]
    assert torch.equal(out[1][:, 6:], bare[:, 6:]) and not torch.allclose(out[1][:, :6], bare[:, :6], atol=0.1)


def test_true_guidance_is_refused_at_its_first_step(model: Model) -> None:
    with (
        pytest.raises(HandscopeError, match="use travel=1"),
        guide(model.pipe, distance(WANTED), SCALE, steps=[3], of=STEPS, travel=2) as trace,
    ):
        call(model, negative_prompt="a hand", true_cfg_scale=2.0)
    assert trace == [] and torch.is_grad_enabled()
