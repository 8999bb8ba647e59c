"""Models of other families for the benchmarks: of width 256, with random weights, in the tests' tiny pipelines."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import handscope as hs
import torch
from handscope.models.model import Model

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

_HEADS = {"num_attention_heads": 4, "attention_head_dim": 64}
_FLUX2 = {**_HEADS, "num_layers": 2, "num_single_layers": 5, "axes_dims_rope": [16, 16, 16, 16]}
_CROSS = {"num_cross_attention_heads": 4, "cross_attention_head_dim": 64, "cross_attention_dim": 256}
WIDER: dict[str, dict[str, Any]] = {
    "sd3": {**_HEADS, "num_layers": 6, "caption_projection_dim": 256},
    "flux2-klein": _FLUX2,
    "flux2-dev": _FLUX2,
    "qwen-image": {**_HEADS, "num_layers": 6, "axes_dims_rope": (16, 24, 24)},
    "z-image": {"n_layers": 6, "dim": 256, "n_heads": 4, "n_kv_heads": 4, "axes_dims": [16, 24, 24]},
    "sana": {**_HEADS, **_CROSS, "num_layers": 6},
}
"""What the transformer's config has instead of the tiny one's."""


def build_family(name: str, device: str, dtype: str | None = None) -> Model:
    """A model of a family; in each of them a token is 4 pixels a side."""
    from made_families import save

    with tempfile.TemporaryDirectory() as folder:
        save(name, Path(folder) / name)
        model = hs.load(str(Path(folder) / name), device, dtype)
    torch.manual_seed(0)
    transformer = type(model.transformer).from_config({**model.transformer.config, **WIDER[name]}).eval()
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    model.pipe.register_modules(transformer=transformer.to(model.device, model.dtype))
    return model


def evenly(model: Model, count: int = 6) -> list[str]:
    """Blocks with an image stream, evenly over the depth, the last one among them."""
    names = model.carrying("image")
    return [names[(i + 1) * len(names) // count - 1] for i in range(count)]
