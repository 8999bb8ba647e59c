"""Guidance: the sign and size of the correction, against finite differences and a distribution that is known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxControlPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline, FluxTransformer2DModel
from flux_calls import call, hooks
from guided import distance, sample_normal, tilt, velocity
from handscope.errors import HandscopeError
from handscope.guidance import PictureLoss, ProbeLoss, guidance_callback, guide, steer
from handscope.guidance.correction import Strength
from handscope.models.model import Model, load
from torch import Tensor

STEPS = 4


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="module")
def wanted() -> Tensor:
    return torch.randn(16, 16, generator=torch.Generator().manual_seed(5))


def outputs(model: Model, **kwargs: Any) -> list[tuple[Tensor, Tensor]]:
    """What went into the transformer and came out of it, in each call of a run."""
    found: list[tuple[Tensor, Tensor]] = []
    handle = model.transformer.register_forward_hook(
        lambda module, args, kwargs, output: found.append((kwargs["hidden_states"].detach(), output[0].detach())),
        with_kwargs=True,
    )
    try:
        call(model, **kwargs)
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize("form", ["exact", "frozen"])
def test_the_correction_is_the_gradient_by_finite_differences(model: Model, wanted: Tensor, form: str) -> None:
    loss = distance(wanted)
    bare = outputs(model)[1]
    with guide(model.pipe, loss, 2.0, steps=[3], of=STEPS, form=form) as trace:
        guided = outputs(model)[1]
    assert torch.equal(guided[0], bare[0])
    sigma = float(model.pipe.scheduler.sigmas[1])
    change = (guided[1] - bare[1]).double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        nudge = torch.randn(bare[0].shape, generator=generator)
        nudge /= nudge.norm()
        slopes = []
        for sign in (1, -1):
            moved = bare[0] + sign * 1e-2 * nudge
            v = velocity(model, moved, sigma) if form == "exact" else bare[1]
            slopes.append(loss(moved - sigma * v).double().sum())
        slope = (slopes[0] - slopes[1]) / 2e-2
        factor = 2.0 * min(sigma / (1 - sigma), 4.0)
        assert float((change * nudge).sum()) == pytest.approx(float(factor * slope), rel=2e-2, abs=1e-5)
    assert [guided.step for guided in trace] == [3]
    assert trace[0].share[0] == pytest.approx(float(change[0].norm() / bare[1][0].norm()), rel=1e-4)


@pytest.mark.parametrize("form", ["exact", "frozen"])
def test_guidance_lowers_its_loss_and_the_other_sign_raises_it(model: Model, wanted: Tensor, form: str) -> None:
    loss, after = distance(wanted), {}
    for scale in (-0.3, 0.0, 0.3):
        with guide(model.pipe, loss, scale, steps=[3, 2, 1], of=STEPS, form=form, relative=True):
            after[scale] = loss(call(model))
    assert (after[0.3] < after[0.0]).all() and (after[0.0] < after[-0.3]).all()


def test_guidance_reaches_the_mean_of_a_tilted_normal_and_the_wrong_sign_does_not() -> None:
    # exp(a x) times the density of N(0, 1) is that of N(a, 1). For this loss the tilt of x_t is exact as well: the mean
    # of x0 given x_t is linear in it, and the variance does not depend on it.
    tilted = sample_normal(1.0, tilt(1.5))
    assert float(tilted.mean()) == pytest.approx(1.5, abs=0.05)
    assert float(tilted.std()) == pytest.approx(1, abs=0.05)
    assert float(sample_normal(0.0, tilt(1.5)).mean()) == pytest.approx(0, abs=0.05)
    assert float(sample_normal(-1.0, tilt(1.5)).mean()) == pytest.approx(-1.5, abs=0.05)


def test_the_callback_does_what_the_frozen_form_does(model: Model, wanted: Tensor) -> None:
    loss = distance(wanted)
    bare = call(model)
    with guide(model.pipe, loss, 3.0, steps=[3, 1], of=STEPS, form="frozen"):
        hooked = call(model)
    assert not torch.allclose(hooked, bare, atol=1e-2)
    guided = call(model, callback_on_step_end=guidance_callback(loss, 3.0, steps=[3, 1]))
    torch.testing.assert_close(guided, hooked, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("followed", ["clean", "probes"])
def test_recomputed_blocks_give_the_same_and_leave_the_model_as_it_was(
    model: Model, wanted: Tensor, followed: str
) -> None:
    probes = ProbeLoss({"double.1": probe(0), "single.0": probe(1)})
    loss = distance(wanted) if followed == "clean" else probes
    direction = {"single.0": torch.randn(32, generator=torch.Generator().manual_seed(1))}
    found = []
    for checkpoint in (False, True):
        with (
            steer(model.transformer, direction, 0.2, steps=[3], of=STEPS),
            guide(model.pipe, loss, 1.0, steps=[3, 2], of=STEPS, checkpoint=checkpoint),
        ):
            found.append(call(model))
    torch.testing.assert_close(found[0], found[1])
    assert not model.transformer.is_gradient_checkpointing
    assert all(weight.requires_grad for weight in model.transformer.parameters())


def probe(seed: int) -> Any:
    weights = np.random.default_rng(seed).normal(size=32)
    return SimpleNamespace(coef_=weights, intercept_=0.5)


def test_a_probe_is_followed_through_the_blocks_before_it_and_no_further(model: Model) -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    loss = ProbeLoss({"double.1": probe(0), "single.0": probe(1)}, mask)
    bare = outputs(model)[1]
    later: list[bool] = []
    handle = model.transformer.single_transformer_blocks[1].register_forward_hook(
        lambda module, args, output: later.append(output[1].requires_grad)
    )
    with guide(model.pipe, loss, 1.0, steps=[3], of=STEPS) as trace:
        guided = outputs(model)[1]
    handle.remove()
    assert not any(later)
    torch.testing.assert_close(guided[0], bare[0])
    sigma = float(model.pipe.scheduler.sigmas[1])

    def by_hand(latents: Tensor) -> Tensor:
        kept: list[Tensor] = []
        handles = [
            block.register_forward_hook(lambda module, args, output: kept.append(output[1]))
            for block in (model.transformer.transformer_blocks[1], model.transformer.single_transformer_blocks[0])
        ]
        velocity(model, latents, sigma)
        for handle in handles:
            handle.remove()
        some = torch.from_numpy(mask.flatten())
        scores = [
            (tokens[:, some].double() @ torch.from_numpy(p.coef_) + 0.5).mean(1)
            for tokens, p in zip(kept, loss.probes.values())
        ]
        return (scores[0] + scores[1]) / 2

    assert trace[0].loss == pytest.approx(by_hand(bare[0]).tolist(), rel=1e-4)
    nudge = torch.randn(bare[0].shape, generator=torch.Generator().manual_seed(0))
    nudge /= nudge.norm()
    slope = (by_hand(bare[0] + 1e-2 * nudge).sum() - by_hand(bare[0] - 1e-2 * nudge).sum()) / 2e-2
    factor = min(sigma / (1 - sigma), 4.0)
    assert float(((guided[1] - bare[1]) * nudge).sum()) == pytest.approx(float(factor * slope), rel=2e-2, abs=1e-5)


def test_both_calls_of_true_cfg_get_the_same_correction(model: Model, wanted: Tensor) -> None:
    cfg = {"negative_prompt": "a hand", "true_cfg_scale": 2.0}
    bare = outputs(model, **cfg)
    with guide(model.pipe, distance(wanted), 1.0, steps=[3], of=STEPS) as trace:
        guided = outputs(model, **cfg)
    assert len(guided) == 2 * STEPS and len(trace) == 1
    torch.testing.assert_close(guided[2][1] - bare[2][1], guided[3][1] - bare[3][1], rtol=1e-3, atol=1e-5)


def test_a_picture_loss_reaches_through_the_decoder(model: Model) -> None:
    def darkness(pictures: Tensor) -> Tensor:
        assert pictures.shape[1:] in {(3, 32, 32), (3, 4, 4)}
        return pictures.mean((1, 2, 3))

    def small(latents: Tensor) -> Tensor:
        return latents[..., :3].reshape(-1, 4, 4, 3).permute(0, 3, 1, 2)

    for decoder in (None, small):
        loss, after = PictureLoss(model, darkness, 32, 32, decoder), {}
        for scale in (0.0, 0.5):
            with guide(model.pipe, loss, scale, steps=[3, 2, 1], of=STEPS, form="frozen", relative=True):
                after[scale] = loss(call(model)).detach()
        assert (after[0.5] < after[0.0]).all()


def test_an_error_inside_leaves_no_hook_and_no_gradients_behind(model: Model) -> None:
    def broken(clean: Tensor) -> Tensor:
        raise RuntimeError("of the user")

    before = hooks(model.transformer)
    with pytest.raises(RuntimeError, match="of the user"), guide(model.pipe, broken, 1.0, steps=[3], of=STEPS):
        call(model)
    assert torch.is_grad_enabled()
    assert hooks(model.transformer) == before
    assert all(weight.requires_grad for weight in model.transformer.parameters())


@pytest.mark.parametrize("form", ["exact", "frozen"])
@pytest.mark.parametrize("on", [True, False])
def test_an_interrupt_leaves_gradients_as_they_were(model: Model, form: str, on: bool) -> None:
    def interrupted(clean: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with torch.set_grad_enabled(on):
        with pytest.raises(KeyboardInterrupt), guide(model.pipe, interrupted, 1.0, steps=[3], of=STEPS, form=form):
            model.pipe.scheduler.set_timesteps(STEPS, mu=0.5)
            for sigma in (1.0, 0.8):
                velocity(model, torch.zeros(2, 16, 16), sigma, no_grad=False)
        assert torch.is_grad_enabled() == on


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"form": "fast"}, "exact, frozen"),
        ({"travel": 0}, "1 or more, found 0"),
        ({"travel": 1.5}, "1 or more, found 1.5"),
        ({"steps": [4]}, "pure noise"),
        ({"steps": [0, 3]}, "between 1 and 3"),
        ({"loss": lambda clean: clean.mean()}, "one number an image"),
        ({"loss": lambda clean: clean.sum((1, 2)) / 0}, "finite"),
        ({"loss": lambda clean: torch.zeros(2)}, "does not depend"),
        ({"loss": ProbeLoss({"single.9": probe(0)})}, "single.9"),
        ({"loss": ProbeLoss({"single.1": probe(0)}), "form": "frozen"}, "exact form"),
    ],
)
def test_what_does_not_fit_is_refused(model: Model, wanted: Tensor, change: dict, words: str) -> None:
    given = {"loss": distance(wanted), "scale": 1.0, "steps": [3], "of": STEPS} | change
    with pytest.raises(HandscopeError, match=words), guide(model.pipe, **given):
        call(model)
    with pytest.raises(HandscopeError, match="at least one block"):
        ProbeLoss({})


def test_the_factor_is_limited_where_it_diverges() -> None:
    gradient, velocity = torch.ones(2, 3, 4), torch.full((2, 3, 4), 3.0)
    assert torch.equal(Strength(2.0).correction(gradient, velocity, 0.5), 2 * gradient)
    assert torch.equal(Strength(2.0, limit=4.0).correction(gradient, velocity, 0.99), 8 * gradient)
    assert torch.equal(Strength(2.0, limit=4.0).correction(gradient, velocity, 1.0), 8 * gradient)
    relative = Strength(0.1, relative=True).correction(gradient * 1e-6, velocity, 0.5)
    torch.testing.assert_close(relative, torch.full((2, 3, 4), 0.3))


class Calls:
    """What the transformer is given and says in each call: the clean latents that it predicts."""

    def __init__(self, transformer: Any) -> None:
        self.clean: list[Tensor] = []
        self.sigmas: list[float] = []
        self._handle = transformer.register_forward_hook(self._returned, with_kwargs=True)

    def _returned(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        sigma, noisy = float(kwargs["timestep"][0]), kwargs["hidden_states"].detach()
        self.sigmas.append(sigma)
        self.clean.append(noisy - sigma * output[0].detach())

    def close(self) -> None:
        self._handle.remove()


def other_pipe(model: Model, kind: Any, **parts: Any) -> Any:
    pipe = kind(**model.pipe.components | parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
KNOWN = torch.cat([torch.ones(1, 1, 16, 32), torch.zeros(1, 1, 16, 32)], 2)
"""What is drawn anew: the upper half."""


@pytest.mark.parametrize("way", ["callback", "frozen", "exact"])
@pytest.mark.parametrize(
    ("kind", "given", "of"),
    [
        (FluxImg2ImgPipeline, {"image": PICTURE, "strength": 0.5}, 4),
        (FluxInpaintPipeline, {"image": PICTURE, "mask_image": KNOWN, "strength": 1.0}, 8),
        (FluxInpaintPipeline, {"image": PICTURE, "mask_image": KNOWN, "strength": 0.75}, 6),
    ],
)
def test_image_to_image_and_inpainting_show_the_picture_that_was_predicted(
    model: Model, wanted: Tensor, kind: Any, given: dict, of: int, way: str
) -> None:
    """Wherever the schedule is entered, and whatever the pipeline puts over the latents afterwards."""
    pipe, seen = other_pipe(model, kind), []

    def loss(clean: Tensor) -> Tensor:
        seen.append(clean.detach())
        return distance(wanted)(clean)

    calls = Calls(model.transformer)
    try:
        steps = range(of - 1, 0, -1)
        if way == "callback":
            call(model, 8, pipe, callback_on_step_end=guidance_callback(loss, 0.0, steps), **given)
        else:
            with guide(pipe, loss, 0.0, steps, of, form=way):
                call(model, 8, pipe, **given)
    finally:
        calls.close()
    assert len(calls.clean) == of and len(seen) == of - 1
    for shown, predicted in zip(seen, calls.clean[1:]):
        torch.testing.assert_close(shown, predicted, rtol=1e-5, atol=1e-5)
    assert "step" not in vars(pipe.scheduler)


def test_the_callback_does_what_the_frozen_form_does_in_image_to_image_and_leaves_what_is_known(
    model: Model, wanted: Tensor
) -> None:
    loss, given = distance(wanted), {"image": PICTURE, "strength": 0.5}
    pipe = other_pipe(model, FluxImg2ImgPipeline)
    with guide(pipe, loss, 3.0, steps=[3, 1], of=4, form="frozen"):
        hooked = call(model, 8, pipe, **given)
    callback = guidance_callback(loss, 3.0, steps=[3, 1])
    torch.testing.assert_close(
        call(model, 8, pipe, callback_on_step_end=callback, **given), hooked, rtol=1e-4, atol=1e-5
    )

    pipe, given = other_pipe(model, FluxInpaintPipeline), given | {"mask_image": KNOWN, "strength": 1.0}
    bare = call(model, 8, pipe, **given)
    guided = call(model, 8, pipe, callback_on_step_end=guidance_callback(loss, 3.0, steps=[3, 1]), **given)
    assert torch.equal(guided[:, 8:], bare[:, 8:]) and not torch.allclose(guided[:, :8], bare[:, :8], atol=1e-2)


@pytest.mark.parametrize("of", [3, 8, 9])
def test_image_to_image_with_another_number_of_steps_is_refused(model: Model, wanted: Tensor, of: int) -> None:
    pipe = other_pipe(model, FluxImg2ImgPipeline)
    with (
        pytest.raises(HandscopeError, match="number of inference steps|times the strength"),
        guide(pipe, distance(wanted), 0.1, [2], of),
    ):
        call(model, 8, pipe, image=PICTURE, strength=0.5)


@pytest.mark.parametrize("form", ["exact", "frozen"])
def test_a_transformer_that_is_given_a_picture_too_is_refused_by_guide(model: Model, wanted: Tensor, form: str) -> None:
    """A Control pipeline; its latents reach the callback alone, which guides them."""
    wide = FluxTransformer2DModel.from_config(dict(model.transformer.config) | {"in_channels": 32, "out_channels": 16})
    parts = {
        name: part for name, part in model.pipe.components.items() if name not in ("image_encoder", "feature_extractor")
    }
    pipe = FluxControlPipeline(**parts | {"transformer": wide})
    pipe.set_progress_bar_config(disable=True)
    given = {"control_image": PICTURE}
    with (
        pytest.raises(HandscopeError, match="is given 32 channels and predicts 16, .*use guidance_callback"),
        guide(pipe, distance(wanted), 0.1, [3], STEPS, form=form),
    ):
        call(model, STEPS, pipe, **given)
    bare = call(model, STEPS, pipe, **given)
    guided = call(model, STEPS, pipe, callback_on_step_end=guidance_callback(distance(wanted), 3.0, [3]), **given)
    assert not torch.allclose(bare, guided, atol=1e-2)


@pytest.mark.parametrize("form", ["exact", "frozen"])
def test_inference_mode_is_named_where_gradients_are_wanted(model: Model, wanted: Tensor, form: str) -> None:
    with (
        pytest.raises(HandscopeError, match=r"torch\.inference_mode .*use torch\.no_grad"),
        torch.inference_mode(),
        guide(model.pipe, distance(wanted), 0.1, [3], STEPS, form=form),
    ):
        call(model)
    with pytest.raises(HandscopeError, match=r"torch\.inference_mode"), torch.inference_mode():
        call(model, callback_on_step_end=guidance_callback(distance(wanted), 0.1, [3]))
    with guide(model.pipe, distance(wanted), 0.1, [3], STEPS, form=form) as trace:
        call(model)
    assert len(trace) == 1
