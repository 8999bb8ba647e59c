"""Calls of FLUX.1 and FLUX.2 that give more than a text: each passes the self-test, or is refused in a sentence."""

from collections.abc import Callable
from typing import Any

import handscope as hs
import numpy as np
import pytest
import torch
from diffusers import (
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from diffusers.models.attention_processor import FluxIPAdapterJointAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from handscope.extract.family_check import check_call
from handscope.models.condition import conditions
from handscope.models.model import Model, load
from handscope.models.registry import family_of
from made_families import save
from made_tiny import PROMPTS
from PIL import Image

LANDS = "a changed latent lands on its token"


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8))


def call_of(pipe: Any, **given: Any) -> Callable[[], Any]:
    """A call of 32 by 48 pixels in two steps, the same each time."""
    pipe.set_progress_bar_config(disable=True)
    usual = {"height": 32, "width": 48, "num_inference_steps": 2, "output_type": "latent", "max_sequence_length": 20}
    return lambda: pipe(prompt=PROMPTS[0], **{**usual, **given}, generator=torch.Generator().manual_seed(0))


def parts(model: Model) -> dict[str, Any]:
    left = ("image_encoder", "feature_extractor")
    return {name: part for name, part in model.pipe.components.items() if name not in left}


def img2img(model: Model) -> tuple[Any, Any, int]:
    pipe = FluxImg2ImgPipeline(**parts(model))
    return pipe, call_of(pipe, image=picture(), strength=0.5), 1  # of two steps, the last


def inpaint(model: Model) -> tuple[Any, Any, int]:
    pipe = FluxInpaintPipeline(**parts(model))
    return pipe, call_of(pipe, image=picture(), mask_image=picture(1).convert("L"), strength=1.0), 2


def fill(model: Model) -> tuple[Any, Any, int]:
    """Latents, those of the masked picture and the mask are channels of one token."""
    torch.manual_seed(0)
    wider = dict(model.transformer.config) | {"in_channels": 96, "out_channels": 16}
    transformer = FluxTransformer2DModel.from_config(wider).eval().requires_grad_(False)
    pipe = FluxFillPipeline(**parts(model) | {"transformer": transformer})
    return pipe, call_of(pipe, image=picture(), mask_image=picture(1).convert("L")), 2


def controlnet(model: Model) -> tuple[Any, Any, int]:
    torch.manual_seed(0)
    net = FluxControlNetModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=[4, 6, 6],
    )
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    pipe = FluxControlNetPipeline(**parts(model), controlnet=net.eval().requires_grad_(False))
    return pipe, call_of(pipe, control_image=picture(), controlnet_conditioning_scale=0.7), 2


def kontext(model: Model) -> tuple[Any, Any, int]:
    pipe = FluxKontextPipeline(**parts(model))
    return pipe, call_of(pipe, image=picture(), _auto_resize=False, max_area=32 * 48), 2


@pytest.mark.parametrize("variant", [img2img, inpaint, fill, controlnet, kontext])
def test_pipelines_of_flux_pass_the_self_test(variant: Callable[[Model], Any], tiny_model: Model) -> None:
    pipe, call, steps = variant(tiny_model)
    checked = check_call(pipe.transformer, call, steps, pipe.scheduler)
    assert checked.passed, str(checked)
    assert {check.claim: check for check in checked.checks}[LANDS].outcome == "passed"


def test_reference_pictures_of_flux2_are_told_from_the_image(tmp_path: Any) -> None:
    save("flux2-klein-distilled", tmp_path / "pipe")
    model = load(str(tmp_path / "pipe"))
    given = {"height": 32, "width": 48, "num_inference_steps": 2, "output_type": "latent"}
    reference = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))

    def call() -> Any:
        generator = torch.Generator().manual_seed(0)
        return model.pipe(prompt="an open hand", image=[reference], **given, generator=generator)

    checked = check_call(model.transformer, call, 2, model.pipe.scheduler)
    assert checked.passed, str(checked)
    assert "96 image tokens" in str(checked)  # of 8 by 12, and more of the reference
    seen: list[int] = []
    handle = model.transformer.register_forward_pre_hook(
        lambda *hooked: seen.append(hooked[2]["hidden_states"].shape[1]), with_kwargs=True
    )
    call()
    handle.remove()
    assert min(seen) > 96


def test_an_ip_adapter_adds_inside_of_blocks(tiny_model: Model) -> None:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel.from_config(tiny_model.transformer.config).eval()
    for block in transformer.transformer_blocks:
        block.attn.processor = FluxIPAdapterJointAttnProcessor2_0(32, 32, num_tokens=(4,), scale=1.0)
    transformer.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(16, 32, 4)])
    transformer.requires_grad_(False)
    inputs = tiny_model.family.inputs(tiny_model, PROMPTS[:1], 3.5, 32, 48)
    (given,) = inputs["calls"].values()
    x = tiny_model.noise(0, 32, 48)[None]

    def call(strength: float = 1.0) -> Any:
        embeds = strength * torch.ones(1, 1, 16)
        more = {"joint_attention_kwargs": {"ip_adapter_image_embeds": [embeds]}}
        return transformer(hidden_states=x, timestep=torch.tensor([0.5]), **{**given, **more})

    checked = check_call(transformer, call)
    assert checked.passed, str(checked)
    outputs = []
    for strength in (1.0, 2.0):
        with torch.no_grad(), hs.capture(transformer, hs.Plan(["double.0"], [1], of=1)) as found:
            call(strength)
        outputs.append(found["double.0", 1])
    assert not torch.equal(*outputs)  # and what it adds is in what is read


def test_a_lora_is_read_and_on_record(tiny_model: Model) -> None:
    peft = pytest.importorskip("peft")
    transformer = FluxTransformer2DModel.from_config(tiny_model.transformer.config).eval()
    transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False), "style")
    transformer.requires_grad_(False)
    inputs = tiny_model.family.inputs(tiny_model, PROMPTS[:1], 3.5, 32, 48)
    x = tiny_model.noise(0, 32, 48)[None]
    checked = check_call(transformer, lambda: tiny_model.family.call(transformer, x, torch.tensor(500.0), inputs))
    assert checked.passed, str(checked)
    assert conditions(transformer)["adapters"].startswith("style ") and family_of(transformer).name == "FLUX.1"
