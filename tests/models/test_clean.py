"""The predicted clean latents from every kind of prediction."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from handscope.errors import HandscopeError
from handscope.models.clean import KINDS, clean_between, decibels, predicted_clean, stepped, velocity_between


@pytest.mark.parametrize(("kind", "diffusers_name"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_variance_preserving_schedules_as_diffusers(kind: str, diffusers_name: str) -> None:
    scheduler = DDIMScheduler(prediction_type=diffusers_name, clip_sample=False)
    scheduler.set_timesteps(10)
    x, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    t = int(scheduler.timesteps[3])
    expected = scheduler.step(output, t, x).pred_original_sample
    noise = math.sqrt(1 - float(scheduler.alphas_cumprod[t]))
    torch.testing.assert_close(predicted_clean(x, output, kind, noise), expected, rtol=1e-4, atol=1e-4)


def test_flow_matching_as_diffusers_mixes_noise() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    clean, noise = torch.randn(2, 16, 4), torch.randn(2, 16, 4)
    t = scheduler.timesteps[4:5]
    noisy = scheduler.scale_noise(clean, t, noise)
    found = predicted_clean(noisy, noise - clean, "flow", float(scheduler.sigmas[4]))
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_read_back_from_where_it_led(kind: str) -> None:
    x, output = torch.randn(2, 16, 4, dtype=torch.float64), torch.randn(2, 16, 4, dtype=torch.float64)
    clean = predicted_clean(x, output, kind, 0.8)
    for later in (0.5, 0.0):
        less = stepped(x, output, kind, 0.8, later)
        torch.testing.assert_close(clean_between(x, less, kind, 0.8, later), clean)
    torch.testing.assert_close(less, clean)  # without noise, the step ends there
    if kind == "flow":
        torch.testing.assert_close(velocity_between(x, less, 0.8, 0.0), output)


@pytest.mark.parametrize("name", ["epsilon", "v_prediction"])
def test_a_step_is_ddims(name: str) -> None:
    scheduler = DDIMScheduler(prediction_type=name, clip_sample=False)
    scheduler.set_timesteps(10)
    x, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    noise = (1 - scheduler.alphas_cumprod[scheduler.timesteps]).sqrt()
    found = stepped(x, output, name[0] if name[0] == "v" else name, noise[3], noise[4])
    expected = scheduler.step(output, int(scheduler.timesteps[3]), x).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_clean_latents_of_flow_have_the_bits_of_their_definition() -> None:
    x, v, sigma = torch.randn(2, 16, 4), torch.randn(2, 16, 4), torch.rand(())
    assert torch.equal(predicted_clean(x, v, "flow", sigma), x - sigma * v)
    assert torch.equal(predicted_clean(x, v, "flow", float(sigma)), x - sigma * v)


def test_signal_to_noise() -> None:
    assert decibels(0.5) == 0
    assert decibels(1.0) == -math.inf and decibels(0.0) == math.inf
    # Stable Diffusion 2.1 at timestep 714: alphas_cumprod of the scaled linear schedule.
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    kept = float(scheduler.alphas_cumprod[714])
    assert decibels(math.sqrt(1 - kept), math.sqrt(kept)) == pytest.approx(-10.95, abs=0.05)


def test_what_cannot_be_known_is_refused() -> None:
    x = torch.zeros(1, 2, 3)
    with pytest.raises(HandscopeError, match="flow, epsilon, v"):
        predicted_clean(x, x, "score", 0.5)
    with pytest.raises(HandscopeError, match="pure noise"):
        predicted_clean(x, x, "epsilon", 1.0)
