"""Sana: blocks of image tokens alone, text in cross-attention; one token for each latent of a VAE of 32 pixels.

Published with a multistep scheduler, whose steps depend on those before: generation wants the Euler scheduler of flow
matching instead. Pictures are drawn at the size that is asked for, not at the nearest of the pipeline's bins.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..family import BlockList, Lengths, Times
from ..sites import Gate, Site, by_head
from .flow import Flow, cells, decoded, euler_times, needed

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Sana(Flow):
    """Latents in their places; classifier-free guidance in one batch, unconditional half first."""

    def stream_width(self, transformer: Any) -> int:
        """Heads times their width."""
        return int(transformer.config.num_attention_heads * transformer.config.attention_head_dim)

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Number of image tokens in a call."""
        (latents,) = needed(arguments, "hidden_states", of=self.name)
        rows, columns = cells(latents, self.patch)
        return {"image": rows * columns}

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int]:
        """Rows and columns, from the latents."""
        return cells(arguments["hidden_states"], self.patch)

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """The language model's last layer (tokens, width) and its mask (tokens,), by the pipeline's instruction.

        The prompt that is led away from goes without the instruction, as in the pipeline.
        """
        default = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default
        both = prompt == self.negative
        text, mask, away, hidden = pipe.encode_prompt(
            [prompt], both, negative_prompt=prompt, device=device, complex_human_instruction=default
        )
        return {"text": away[0], "mask": hidden[0]} if both else {"text": text[0], "mask": mask[0]}

    def text_length(self, pipe: Any) -> int:
        """The pipeline's own, with padding."""
        return 300

    def side(
        self, model: Model, embeddings: Mapping[str, Any], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """Text with its mask."""
        return {
            "encoder_hidden_states": embeddings["text"],
            "encoder_attention_mask": embeddings["mask"],
            "attention_kwargs": None,
        }

    def time(self, transformer: Any, timestep: Tensor, latents: Any) -> dict[str, Tensor]:
        """0 to 1000, times the model's own scale."""
        return {"timestep": timestep.expand(len(latents)) * transformer.config.timestep_scale}

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        """As it is given."""
        return float(arguments["timestep"][0])

    def generation(
        self,
        model: Model,
        prompts: Sequence[str],
        guidance: float,
        negative: Sequence[str] | None = None,
        scale: float = 1.0,
    ) -> dict[str, Any]:
        """Embeddings of both sides, with their masks."""
        text = self.encoded(model, prompts)
        given = {
            "prompt_embeds": text["text"],
            "prompt_attention_mask": text["mask"],
            "negative_prompt": None,
            "guidance_scale": guidance,
            "use_resolution_binning": False,
        }
        if not self.guided(model.pipe, guidance):
            return given
        away = self.encoded(model, negative or self.away(prompts))
        return given | {"negative_prompt_embeds": away["text"], "negative_prompt_attention_mask": away["mask"]}

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """Flow matching with the scheduler's own shift."""
        self.grid(pipe, height, width)
        return euler_times(self, pipe, steps)

    def size(self, pipe: Any) -> tuple[int, int]:
        """What the transformer's positions were made for."""
        side = pipe.transformer.config.sample_size * pipe.vae_scale_factor
        return side, side

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """As the pipeline decodes, from scaled latents."""
        vae = pipe.vae
        placed = self.unpack(pipe, latents.to(pipe._execution_device, vae.dtype), height, width)
        return decoded(vae, placed / vae.config.scaling_factor)


_IMAGE = ("image",)
_GATE = partial(Gate, argument=("timestep", 4), of=6, table="scale_shift_table")
_SITES = (
    Site("attn", _IMAGE, ("attn1",), gate=_GATE(chunk=2)),
    Site("cross", _IMAGE, ("attn2",)),
    Site("mlp", _IMAGE, ("ff",), form="places", gate=_GATE(chunk=5)),
    *by_head(_IMAGE, "attn1"),
)

FAMILY = Sana(
    name="Sana",
    transformer="SanaTransformer2DModel",
    pipelines={"SanaPipeline": "diffusers:SanaPipeline"},
    unread={
        "SanaSprintPipeline": "it steps with noise of its own, by a scheduler whose steps a trajectory is not read as",
    },
    lists=(
        BlockList("transformer_blocks", "transformer_blocks", {("hidden_states", 0): _IMAGE}, (_IMAGE,), sites=_SITES),
    ),
    width="inner_dim",
    encoders=("text_encoder",),
    patch=1,
    token=32,
    positional=("hidden_states",),
    form="places",
    together=("uncond", "cond"),
    negative="",
    keeps_float32=True,
    output=("norm_out", "proj_out"),
)
