"""A tiny FLUX with a circuit made by hand: one block writes a mark at chosen tokens, another reads it.

What is known of it, and is to be found: a token is *flagged* where the first channel of its latents is above 4, which
noise does not reach. At the steps of `EARLY` (of `STEPS`),

- the MLP of `WRITER` (double.0) writes a mark at flagged tokens, into `MARK` of the stream;
- head 0 of `READER` (single.1) looks from every token at marked tokens alone, and writes what it finds there into
  `FOUND`, from where the model's output layer takes it: the second channel of the velocity.

At other steps the writer's gate is shut: exactly 0. All other blocks have random weights behind gates of exactly 0, so
that they compute much and change nothing. The flag itself stays in the latents, whose first channel has no velocity.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STEPS, EARLY = 4, (4, 3)
WRITER, READER = "double.0", "single.1"
MARK, FOUND = 6, 8
"""Channels of the stream; the next one has the same with its sign turned, so that a token's mean is 0."""
FLAGGED = (5, 6, 9)
"""Tokens, of 4 by 4, that `flagged_noise` flags."""
_LEVEL, _FLAG = 30.0, 8.0
_CLOSED_BELOW = 0.72  # share of the noisiest timestep; those of 4 steps are 1, .83, .61 and .35


def make_circuit(folder: Path, tiny_pipe_folder: Path) -> None:
    """Save the pipeline, made of the tiny one."""
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(tiny_pipe_folder)
    with torch.no_grad():
        _wire(pipe.transformer)
    pipe.save_pretrained(folder)


def flagged_noise(noise: Tensor, flagged: bool) -> Tensor:
    """Initial latents (…, 16 tokens, channels) whose tokens `FLAGGED` have the flag, or its opposite."""
    noise = noise.clone()
    noise[..., list(FLAGGED), 0] = _FLAG if flagged else -_FLAG
    return noise


SITES = [f"double.{i}:{site}" for i in (0, 1) for site in ("attn.gated", "mlp.gated")]
SITES += [f"single.{i}:both.gated" for i in (0, 1, 2)]
"""All that joins the stream."""


def circuit_pairs(model: Any) -> tuple[Any, Any, Any, Any]:
    """An `Interchange`, eight recipients without the flag, donors of other noises with it, and the flagged tokens."""
    import numpy as np
    from handscope.guidance.interchange import Interchange
    from made_tiny import PROMPTS

    interchange = Interchange(model, STEPS, 3.5, 32, 32)
    drawn = []
    for flagged in (False, True):
        noise = flagged_noise(interchange.sampling.noise(range(8 * flagged, 8 * flagged + 8)), flagged)
        drawn.append(interchange.drawn(PROMPTS, noise))
    masks = np.zeros((8, 16), bool)
    masks[:, list(FLAGGED)] = True
    return interchange, *drawn, masks


def _wire(model: Any) -> None:
    for part in (model.x_embedder, model.context_embedder, model.proj_out, model.norm_out.linear):
        _clear(part)
    for embedder in (model.x_embedder, model.context_embedder):
        # A level that all tokens have, so that a LayerNorm divides each by about the same.
        embedder.bias[0], embedder.bias[1] = _LEVEL, -_LEVEL
    model.x_embedder.weight[2, 0], model.x_embedder.weight[3, 0] = 1.0, -1.0
    model.proj_out.weight[1, FOUND] = 1.0
    for block in model.transformer_blocks:
        _clear(block.norm1.linear)
        _clear(block.norm1_context.linear)
    for block in model.single_transformer_blocks:
        _clear(block.norm.linear)
    _clock(model.time_text_embed)
    _write(model.transformer_blocks[0])
    _read(model.single_transformer_blocks[1])


def _clock(embedding: Any) -> None:
    """The condition's first channel: 0 at late steps, above it at early ones."""
    for part in (embedding.guidance_embedder.linear_2, embedding.text_embedder.linear_2):
        _clear(part)
    one, two = embedding.timestep_embedder.linear_1, embedding.timestep_embedder.linear_2
    for part in (one, two):
        _clear(part)
    slowest = 1000 * 10000 ** (-127 / 128)  # radians a timestep of 1
    one.weight[0, 255] = 5e4
    one.bias[0] = -5e4 * torch.sin(torch.tensor(slowest * _CLOSED_BELOW))
    two.weight[0, 0] = 0.01


def _write(block: Any) -> None:
    """Two units of the MLP whose difference is 0 below a flag of 4 and the same above 5."""
    width = block.norm1.linear.weight.shape[0] // 6
    block.norm1.linear.weight[5 * width + MARK : 5 * width + MARK + 2, 0] = 1.0  # the MLP's gate, by the clock
    into, out = block.ff.net[0].proj, block.ff.net[2]
    _clear(into)
    _clear(out)
    scale = (width / 2) ** 0.5 / _LEVEL  # a LayerNorm's of a token with the level alone
    for unit, threshold in enumerate((4.0, 5.0)):
        into.weight[unit, 2], into.bias[unit] = 10 / scale, -10 * threshold
        sign = 1 - 2 * unit
        out.weight[MARK, unit], out.weight[MARK + 1, unit] = 0.1 * sign, -0.1 * sign
    # The scale and shift of the MLP are 0: its input is the normed stream.


def _read(block: Any) -> None:
    """Keys that are one way at marked tokens and the other elsewhere, a query that is the same everywhere."""
    width = block.norm.linear.weight.shape[0] // 3
    block.norm.linear.bias[2 * width :] = 1.0
    attn = block.attn
    for part in (attn.to_q, attn.to_k, attn.to_v, block.proj_out):
        _clear(part)
    # The first four dimensions of a head are not turned by place.
    attn.to_q.bias[0] = 1.0
    attn.to_k.weight[0, MARK], attn.to_k.bias[0] = 20.0, -2.0
    attn.to_v.weight[0, MARK] = 1.0
    nn.init.ones_(attn.norm_q.weight)
    nn.init.ones_(attn.norm_k.weight)
    block.proj_out.weight[FOUND, 0], block.proj_out.weight[FOUND + 1, 0] = 40.0, -40.0


def _clear(part: nn.Linear) -> None:
    nn.init.zeros_(part.weight)
    nn.init.zeros_(part.bias)
