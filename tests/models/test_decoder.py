"""Small decoders: what is planted is found, what is held out was not fitted to, and a tiny autoencoder's own scale."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from flux_calls import call
from handscope.errors import HandscopeError
from handscope.guidance import PictureLoss, guide
from handscope.models import decoder as module
from handscope.models.decoder import SmallDecoder, agreement, decoder_for, fit_decoder, squared_errors, tiny_decoder
from handscope.models.model import Model, load
from torch import Tensor

SIZE = 32  # 4 by 4 tokens of 2 by 2 latents of 4 by 4 pixels
CELL = 4


def in_places(latents: Tensor) -> np.ndarray:
    """Packed latents (batch, 16, 16) in their places, (batch, 4, 8, 8), one number at a time."""
    found = np.zeros((len(latents), 4, 8, 8))
    for b, row, column, channel, down, right in product(range(len(latents)), *map(range, (4, 4, 4, 2, 2))):
        value = latents[b, 4 * row + column, 4 * channel + 2 * down + right]
        found[b, channel, 2 * row + down, 2 * column + right] = value
    return found


def painted(latents: Tensor, weight: np.ndarray) -> Tensor:
    """Pictures whose pixels are a linear function of the 3 by 3 latents around their cell, one cell at a time."""
    places = np.pad(in_places(latents), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    pictures = np.zeros((len(latents), 3, SIZE, SIZE))
    for i, j in product(range(8), range(8)):
        pixels = 0.5 + places[:, :, i : i + 3, j : j + 3].reshape(len(latents), -1) @ weight
        pictures[:, :, CELL * i : CELL * (i + 1), CELL * j : CELL * (j + 1)] = pixels.reshape(-1, 3, CELL, CELL)
    return torch.from_numpy(pictures).clamp(0, 1).float()


def random_latents(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("crop", [24, 5])
def test_a_planted_decoder_is_found(tiny_model: Model, monkeypatch: pytest.MonkeyPatch, crop: int) -> None:
    monkeypatch.setattr(module, "CROP", crop)
    weight = np.random.default_rng(0).normal(size=(36, 48)) * 0.03
    stub: Any = SimpleNamespace(
        pipe=tiny_model.pipe,
        family=tiny_model.family,
        device=tiny_model.device,
        grid=tiny_model.grid,
        decode=lambda latents, height, width: painted(latents, weight),
    )
    small = fit_decoder(stub, random_latents(24), SIZE, SIZE, updates=250)
    unseen = random_latents(4, seed=1)
    truth = painted(unseen, weight)
    assert (small(unseen) - truth).square().mean() < 0.05 * truth.var()
    assert (small(100 * unseen).min(), small(100 * unseen).max()) == (0, 1)


def brightness(pictures: Tensor) -> Tensor:
    return pictures.mean((1, 2, 3))


def contrast(pictures: Tensor) -> Tensor:
    return pictures.mean(1).flatten(1).std(1)


@pytest.fixture(scope="module")
def fitted(tiny_model: Model) -> SmallDecoder:
    return fit_decoder(tiny_model, random_latents(64), SIZE, SIZE, updates=250)


def test_pictures_and_gradients_are_near_those_of_the_models_own_decoder(
    tiny_model: Model, fitted: SmallDecoder
) -> None:
    unseen = random_latents(8, seed=1)
    own = tiny_model.decode(unseen, SIZE, SIZE)
    errors = squared_errors(fitted, unseen)
    torch.testing.assert_close(errors, (fitted(unseen) - own).square().mean((1, 2, 3)))
    mean = tiny_model.decode(random_latents(64), SIZE, SIZE).mean(0)
    assert errors.sum() < 0.85 * (mean - own).square().mean((1, 2, 3)).sum()
    turned = replace(fitted, paint=lambda latents: 1 - fitted.paint(latents))
    found, other = (agreement(decoder, unseen, brightness) for decoder in (fitted, turned))
    assert (found > 0.1).all() and found.mean() > 0.3
    torch.testing.assert_close(found, -other)


def test_it_is_the_same_in_each_call_and_takes_nothing_from_other_random_numbers(tiny_model: Model) -> None:
    state, found = torch.get_rng_state(), []
    for latents in (random_latents(16), iter(random_latents(16).split(8))):
        found.append(fit_decoder(tiny_model, latents, SIZE, SIZE, updates=5)(random_latents(1)))
    assert torch.equal(found[0], found[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_are_those_of_finite_differences(fitted: SmallDecoder) -> None:
    latents = random_latents(2, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(contrast(fitted(latents)).sum(), latents)
    nudge = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        after, before = (contrast(fitted(latents + s * 1e-2 * nudge)).double().sum() for s in (1, -1))
    assert float((gradient * nudge).sum()) == pytest.approx(float(after - before) / 2e-2, rel=2e-2, abs=1e-5)


@pytest.mark.parametrize("form", ["exact", "frozen"])
def test_guidance_follows_a_picture_through_it(tiny_model: Model, fitted: SmallDecoder, form: str) -> None:
    loss, after = PictureLoss(tiny_model, brightness, SIZE, SIZE, fitted), {}
    for scale in (0.0, 0.5):
        with guide(tiny_model.pipe, loss, scale, steps=[3, 2, 1], of=4, form=form, relative=True):
            after[scale] = loss(call(tiny_model))
    assert (after[0.5] < after[0.0]).all()


def test_the_psnr_is_of_prompts_that_were_not_fitted_to(
    tiny_model: Model, finished_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Tensor] = []

    def spy(model: Model, latents: Any, height: int, width: int, **kwargs: Any) -> SmallDecoder:
        given.extend(latents)
        return fit_decoder(model, given, height, width, updates=5)

    monkeypatch.setattr(module, "fit_decoder", spy)
    small = decoder_for(tiny_model, finished_run, samples=24)
    table = finished_run.samples().groupby("prompt").head(3)
    clean = {
        row.sample: torch.stack([finished_run.trajectory(row.sample).x0(i) for i in range(4)])
        for row in table.itertuples()
    }
    seen = torch.cat(given)
    used = {sample for sample, steps in clean.items() if any(torch.equal(steps[0], some) for some in seen)}
    held = table[~table["sample"].isin(used)]
    assert len(seen) == 4 * len(used) and held["prompt"].nunique() == 2
    assert not set(held["prompt"]) & set(table[table["sample"].isin(used)]["prompt"])
    latents = torch.cat([clean[sample] for sample in held["sample"]])
    errors = (small(latents) - tiny_model.decode(latents, SIZE, SIZE)).square().mean((1, 2, 3)).view(-1, 4)
    assert small.psnr == pytest.approx(float(-10 * errors.mean().log10()), abs=1e-3)
    by_step = dict(zip((4, 3, 2, 1), (-10 * errors.mean(0).log10()).tolist()))
    assert small.psnr_by_step == pytest.approx(by_step, abs=1e-3)


def test_a_run_of_one_prompt_or_without_trajectories_is_refused(tiny_model: Model, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    first = run.samples()["prompt"].iloc[0]
    for row in run.samples().itertuples():
        if row.prompt != first:
            run.trajectory_path(row.sample).unlink()
    with pytest.raises(HandscopeError, match="at least two prompts"):
        decoder_for(tiny_model, run)


def test_what_cannot_be_fitted_is_refused(tiny_model: Model) -> None:
    with pytest.raises(HandscopeError, match="found none"):
        fit_decoder(tiny_model, [], SIZE, SIZE)
    with pytest.raises(HandscopeError, match="multiple of 8"):
        fit_decoder(tiny_model, random_latents(2), SIZE, 33)


def tiny_autoencoder(channels: int = 4) -> AutoencoderTiny:
    """Random weights, three levels as the tiny pipeline's own autoencoder, and a scale and shift that show."""
    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=channels,
        scaling_factor=0.7,
        shift_factor=0.2,
    ).eval()


def test_a_tiny_autoencoder_decodes_as_in_the_pipeline(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    model = load(str(tiny_pipe_folder))
    tiny_autoencoder().save_pretrained(tmp_path / "tiny")
    loaded = tiny_decoder(model, tmp_path / "tiny", SIZE, SIZE)
    given = tiny_decoder(model, tiny_autoencoder(), SIZE, SIZE)
    latents = call(model)
    assert loaded(latents).requires_grad is False
    torch.testing.assert_close(loaded(latents), given(latents).detach())
    assert squared_errors(loaded, latents).shape == (2,) and (squared_errors(loaded, latents) > 0).all()
    model.pipe.register_modules(vae=tiny_autoencoder())
    drawn = call(model, pipe=lambda **given: model.pipe(**given | {"output_type": "pt"}))
    torch.testing.assert_close(loaded(latents), drawn)
    assert torch.autograd.functional.jacobian(lambda x: loaded(x).mean(), latents).abs().sum() > 0


def test_another_autoencoder_is_refused(tiny_model: Model, tiny_pipe_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HandscopeError, match="found AutoencoderKL"):
        tiny_decoder(tiny_model, tiny_model.pipe.vae, SIZE, SIZE)
    with pytest.raises(HandscopeError, match="4 latent channels"):
        tiny_decoder(tiny_model, tiny_autoencoder(16), SIZE, SIZE)
    with pytest.raises(HandscopeError, match="could not be loaded"):
        tiny_decoder(tiny_model, str(tmp_path / "nowhere"), SIZE, SIZE)
    tiny_autoencoder().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(HandscopeError, match="safetensors"):
        tiny_decoder(tiny_model, tmp_path / "pickled", SIZE, SIZE)
    with pytest.raises(HandscopeError, match="tensors are missing"):
        tiny_decoder(tiny_model, tiny_pipe_folder / "vae", SIZE, SIZE)
