"""diffusers' other pipelines around the transformers of four more families: each call passes the self-test."""

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import handscope as hs
import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.family_check import check_call
from handscope.models.model import Model, load
from made_around import wan_picture
from made_families import save
from PIL import Image


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    made: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            save(name, folder)
            made[name] = load(str(folder))
        return made[name]

    return get


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8))


def network(model: Model, kind: str, **config: Any) -> Any:
    """A ControlNet of two blocks for the model's transformer, with no zeros that would switch it off."""
    made = getattr(diffusers, kind)
    known = inspect.signature(made.__init__).parameters
    torch.manual_seed(0)
    net = made(**{key: value for key, value in model.transformer.config.items() if key in known} | config)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval().requires_grad_(False)


HALF = {"image": picture(), "strength": 0.5}
MASKED = {"image": picture(), "mask_image": picture(1).convert("L"), "strength": 1.0}
GUIDED = {"negative_prompt": " ", "true_cfg_scale": 2.5}
CONTROLLED = {"control_image": picture(), "controlnet_conditioning_scale": 0.7}
PLACES = {"control_layers_places": [0, 1], "control_refiner_layers_places": [0], "control_in_dim": 4}
CASES: dict[str, tuple[str, int, dict[str, Any], tuple[str, dict[str, Any]] | None]] = {
    "StableDiffusion3Img2ImgPipeline": ("sd3", 1, HALF, None),
    "StableDiffusion3ControlNetPipeline": (
        "sd3", 2, CONTROLLED, ("SD3ControlNetModel", {"num_layers": 2, "extra_conditioning_channels": 0}),
    ),
    "QwenImageImg2ImgPipeline": ("qwen-image", 1, HALF | GUIDED, None),
    "QwenImageInpaintPipeline": ("qwen-image", 2, MASKED, None),
    "QwenImageControlNetPipeline": (
        "qwen-image", 2, CONTROLLED | GUIDED, ("QwenImageControlNetModel", {"num_layers": 2}),
    ),
    "ZImageImg2ImgPipeline": ("z-image", 1, HALF, None),
    "ZImageInpaintPipeline": ("z-image", 2, MASKED, None),
    "ZImageControlNetPipeline": ("z-image", 2, CONTROLLED, ("ZImageControlNetModel", PLACES)),
    "SanaControlNetPipeline": (
        "sana", 2, CONTROLLED | {"use_resolution_binning": False}, ("SanaControlNetModel", {"num_layers": 2}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_pipelines_of_other_families_pass_the_self_test(of: Callable[[str], Model], kind: str) -> None:
    name, steps, given, net = CASES[kind]
    model, made = of(name), getattr(diffusers, kind)
    parts = {key: part for key, part in model.pipe.components.items() if key in inspect.signature(made).parameters}
    if net is not None:
        parts["controlnet"] = network(model, net[0], **net[1])
    pipe = made(**parts)
    pipe.set_progress_bar_config(disable=True)
    usual = {"prompt": "an open hand", "height": 64, "width": 96, "num_inference_steps": 2, "output_type": "latent"}

    def call() -> Any:
        return pipe(**usual, **given, generator=torch.Generator().manual_seed(0))

    checked = check_call(pipe.transformer, call, steps, pipe.scheduler)
    assert checked.passed, str(checked)
    outcomes = {check.claim: check.outcome for check in checked.checks}
    assert outcomes["a changed latent lands on its token"] == outcomes["x0 is what the scheduler steps to"] == "passed"


@pytest.mark.parametrize("name", ["sd3", "qwen-image", "z-image", "sana", "flux2-klein"])
def test_a_lora_of_another_family_is_read(of: Callable[[str], Model], name: str) -> None:
    peft = pytest.importorskip("peft")
    model = of(name)
    transformer = type(model.transformer).from_config(model.transformer.config).eval()
    transformer.load_state_dict(model.transformer.state_dict())
    block = list(hs.blocks(transformer))[0]
    inputs = model.family.inputs(model, ["an open hand"], 2.5, 64, 96)
    x = model.noise(0, 64, 96)[None]

    def call() -> Any:
        return model.family.call(transformer, x, torch.tensor(500.0), inputs)

    def first() -> torch.Tensor:
        with torch.no_grad(), hs.capture(transformer, hs.Plan([block], [1], of=1)) as seen:
            call()
        return seen[block, 1]

    before = first()
    transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False), "style")
    transformer.requires_grad_(False)
    checked = check_call(transformer, call)
    assert checked.passed, str(checked)
    assert not torch.equal(before, first())  # and what it adds is in what is read


def test_a_call_that_draws_several_pictures_is_refused(of: Callable[[str], Model]) -> None:
    model = of("qwen-image")
    inputs = model.family.inputs(model, ["an open hand"], 1.0, 64, 96)
    (given,) = inputs["calls"].values()
    x = model.noise(0, 64, 96)[None]
    with (
        pytest.raises(HandscopeError, match="Qwen-Image-Layered draws several pictures in one call"),
        hs.capture(model.transformer, hs.Plan(None, [1], of=1)),
    ):
        model.transformer(
            hidden_states=x, timestep=torch.tensor([0.5]), **given, additional_t_cond=torch.zeros(1, dtype=torch.long)
        )


def test_pictures_that_qwen_image_edit_is_given_are_told_from_the_image(of: Callable[[str], Model]) -> None:
    """By a bare call, as its pipeline makes it: the reference's tokens stand behind the image's."""
    model = of("qwen-image")
    (given,) = model.family.inputs(model, ["an open hand"], 1.0, 32, 48)["calls"].values()
    image, reference = model.noise(0, 32, 48)[None], model.noise(1, 32, 32)[None]
    shapes = [[(1, *model.grid(32, 48)), (1, *model.grid(32, 32))]]

    def call(latents: torch.Tensor = image) -> Any:
        tokens = torch.cat([latents, reference], 1)
        return model.transformer(hidden_states=tokens, timestep=torch.tensor([0.5]), **{**given, "img_shapes": shapes})

    checked = check_call(model.transformer, call)
    assert checked.passed and "96 image tokens" in str(checked), str(checked)


def test_each_transformer_of_wan_2_2_is_read_in_its_part_of_the_steps() -> None:
    made = wan_picture()
    torch.manual_seed(1)
    low = type(made.transformer).from_config(made.transformer.config).eval().requires_grad_(False)
    parts = dict(made.pipe.components) | {"transformer_2": low}
    pipe = diffusers.WanPipeline(**parts, boundary_ratio=0.9)
    pipe.set_progress_bar_config(disable=True)
    text = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(0))
    given = {"prompt_embeds": text, "negative_prompt_embeds": 0 * text, "guidance_scale": 5.0, "num_frames": 1}

    def call() -> Any:
        size = {"height": 32, "width": 64, "num_inference_steps": 3, "output_type": "latent"}
        return pipe(**given, **size, generator=torch.Generator().manual_seed(0))

    timesteps = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    timesteps.set_timesteps(3)
    high = int((timesteps.timesteps >= 900).sum())
    assert 0 < high < 3
    for transformer, steps in ((pipe.transformer, high), (pipe.transformer_2, 3 - high)):
        checked = check_call(transformer, call, steps)
        assert checked.passed and f"{steps} steps" in str(checked), str(checked)
