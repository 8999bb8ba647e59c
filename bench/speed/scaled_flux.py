"""Models for the benchmarks: the organism, a scaled FLUX, and the full FLUX.1 shape; the last two of random weights.

Text encoders and tokenizers are the organism's, whose cost is nil, with as many text tokens as the model has. The
scaled model decodes with the organism's autoencoder, the full one with FLUX.1's.
"""

from dataclasses import dataclass
from typing import Any

import handscope as hs
import torch
from handscope.models.model import Model

SOURCE_BLOCKS = ("double.12", "single.8", "single.12", "single.16", "single.24", "single.32")
SOURCE_STEPS = (20, 19, 18, 17, 15, 12, 8, 3)
FLUX = {"double": 19, "single": 38}


@dataclass(frozen=True)
class Shape:
    """A transformer, the image that it draws, in pixels, and its text tokens."""

    transformer: dict[str, Any]
    size: int
    text: int


SHAPES = {
    "scaled": Shape(
        {"num_layers": 4, "num_single_layers": 8, "attention_head_dim": 64, "num_attention_heads": 8, "in_channels": 32}
        | {"axes_dims_rope": (16, 24, 24)},
        size=256,
        text=64,
    ),
    "full": Shape({"in_channels": 64}, size=1024, text=512),
}


def build(name: str, device: str, dtype: str | None = None, seed: int = 0) -> tuple[Model, int]:
    """A model by name (``organism``, ``scaled``, ``full``), and the height and width to draw, in pixels."""
    model = hs.load("organism", device, dtype)
    if name == "organism":
        return model, model.height
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    shape, pipe = SHAPES[name], model.pipe
    text = {"joint_attention_dim": 64, "pooled_projection_dim": 64, "guidance_embeds": True}
    torch.manual_seed(seed)
    torch.set_default_dtype(model.dtype)
    try:
        with torch.device(model.device):
            pipe.register_modules(transformer=FluxTransformer2DModel(**shape.transformer, **text).eval())
            if name == "full":
                pipe.register_modules(vae=AutoencoderKL(**_flux_autoencoder()).eval())
                pipe.vae_scale_factor = 8
    finally:
        torch.set_default_dtype(torch.float32)
    pipe.tokenizer_2.model_max_length = shape.text
    return model, shape.size


def in_proportion(model: Model) -> list[str]:
    """The blocks of the source study at the same depth of a model with fewer: of FLUX.1 itself, just these."""
    counts = {kind: sum(name.startswith(kind) for name in model.blocks) for kind in FLUX}
    found = []
    for name in SOURCE_BLOCKS:
        kind, index = name.split(".")
        found.append(f"{kind}.{max(0, round((int(index) + 1) / FLUX[kind] * counts[kind]) - 1)}")
    return list(dict.fromkeys(found))


def _flux_autoencoder() -> dict[str, Any]:
    return {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": 16,
        "layers_per_block": 2,
        "sample_size": 1024,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
