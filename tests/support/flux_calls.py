"""Calls of the tiny FLUX, shared by the tests of capture, replay and refusals."""

from typing import Any

import torch
from handscope.extract.address import Plan
from handscope.models.model import Model
from torch import Tensor, nn

PROMPTS = [
    "a left hand, palm view, five fingers raised, light skin, blue background",
    "a right hand, back view, five fingers raised, brown skin, green background",
]
PLAN = Plan(["double.0", "double.1", "single.0", "single.2"], [4, 2, 1], of=4)


def call(model: Model, steps: int = 4, pipe: Any = None, **kwargs: Any) -> Tensor:
    """Final latents of two samples, drawn by the model's pipeline or by another one of its parts."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    given = {"height": 32, "width": 32, "num_inference_steps": steps, "max_sequence_length": 20} | kwargs
    return (pipe or model.pipe)(prompt=PROMPTS, generator=generators, output_type="latent", **given).images


def hooks(transformer: nn.Module) -> int:
    """How many hooks of PyTorch are set."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in transformer.modules())


def bare_inputs(model: Model) -> dict[str, Any]:
    """What the pipeline gives the transformer in one call."""
    with torch.no_grad():
        inputs = model.family.inputs(model, PROMPTS, 3.5, 32, 32)["calls"]["cond"]
    latents = torch.stack([model.noise(seed, 32, 32) for seed in range(2)])
    return inputs | {"hidden_states": latents, "timestep": torch.full([2], 0.7)}


def by_hand(model: Model, inputs: dict[str, Any], residual: Tensor | None = None) -> dict[tuple[str, str, str], Tensor]:
    """Every stream of one call, by (block, side, stream), from a forward written out.

    `residual` is added to the image stream after each double block, as a ControlNet's is.
    """
    transformer, found = model.transformer, {}
    with torch.no_grad():
        image = transformer.x_embedder(inputs["hidden_states"])
        text = transformer.context_embedder(inputs["encoder_hidden_states"])
        guidance, pooled = inputs["guidance"] * 1000, inputs["pooled_projections"]
        condition = transformer.time_text_embed(inputs["timestep"] * 1000, guidance, pooled)
        rotary = transformer.pos_embed(torch.cat([inputs["txt_ids"], inputs["img_ids"]]))
        for name, block in model.family.blocks(transformer).items():
            found[name, "input", "text"], found[name, "input", "image"] = text, image
            text, image = block(
                hidden_states=image, encoder_hidden_states=text, temb=condition, image_rotary_emb=rotary
            )
            found[name, "output", "text"], found[name, "output", "image"] = text, image
            if residual is not None and name.startswith("double"):
                image = image + residual
    return found
