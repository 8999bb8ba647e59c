"""Stable Diffusion 3 and 3.5: joint blocks throughout, classifier-free guidance in one batch, unconditional half first.

In 3.5 medium the first blocks have a second attention over the image alone, inside the block: its output is the
residual stream as in the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..family import BlockList, Lengths, Times
from ..sites import Gate, Site, by_head
from .flow import Flow, cells, decoded, euler_times, needed, shift_by_size

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusion3(Flow):
    """Latents in their places; the last block gives no text."""

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of text and image tokens in a call."""
        latents, text = needed(arguments, "hidden_states", "encoder_hidden_states", of=self.name)
        rows, columns = cells(latents, self.patch)
        return {"text": text.shape[1], "image": rows * columns}

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int]:
        """Rows and columns, from the latents."""
        return cells(arguments["hidden_states"], self.patch)

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """What both CLIPs and T5 make, one behind the other (tokens, width), and the CLIPs' pooled outputs (width,)."""
        text, _, pooled, _ = pipe.encode_prompt(
            prompt=[prompt],
            prompt_2=None,
            prompt_3=None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_length(pipe) - pipe.tokenizer_max_length,
        )
        return {"text": text[0], "pooled": pooled[0]}

    def text_length(self, pipe: Any) -> int:
        """77 of CLIP and 256 of T5, as the pipeline has it."""
        longest = 256 if pipe.tokenizer_3 is None else min(256, pipe.tokenizer_3.model_max_length)
        return int(pipe.tokenizer_max_length) + longest

    def side(
        self, model: Model, embeddings: Mapping[str, Any], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """Text and its pooled form."""
        return {
            "encoder_hidden_states": embeddings["text"],
            "pooled_projections": embeddings["pooled"],
            "joint_attention_kwargs": None,
        }

    def time(self, transformer: Any, timestep: Tensor, latents: Any) -> dict[str, Tensor]:
        """0 to 1000."""
        return {"timestep": timestep.expand(len(latents))}

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
        """Embeddings of both sides."""
        text = self.encoded(model, prompts)
        given = {"prompt_embeds": text["text"], "pooled_prompt_embeds": text["pooled"], "guidance_scale": guidance}
        if not self.guided(model.pipe, guidance):
            return given
        away = self.encoded(model, negative or self.away(prompts))
        return given | {"negative_prompt_embeds": away["text"], "negative_pooled_prompt_embeds": away["pooled"]}

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """Flow matching with the scheduler's shift, by the size of the picture where it is dynamic."""
        rows, columns = self.grid(pipe, height, width)
        shift = shift_by_size(pipe, rows * columns, 1.16) if pipe.scheduler.config.get("use_dynamic_shifting") else None
        return euler_times(self, pipe, steps, mu=shift)

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """As the pipeline decodes, from scaled and shifted latents."""
        vae = pipe.vae
        placed = self.unpack(pipe, latents.to(pipe._execution_device, vae.dtype), height, width)
        return decoded(vae, placed / vae.config.scaling_factor + vae.config.shift_factor)


_TEXT, _IMAGE = ("text",), ("image",)
_SITES = (
    Site("attn", _IMAGE, ("attn",), part=0, gate=Gate("norm1", 1)),
    Site("attn", _TEXT, ("attn",), part=1, gate=Gate("norm1_context", 1)),
    Site("second", _IMAGE, ("attn2",), gate=Gate("norm1", 6)),
    Site("mlp", _IMAGE, ("ff",), gate=Gate("norm1", 4)),
    Site("mlp", _TEXT, ("ff_context",), gate=Gate("norm1_context", 4)),
    *by_head(_IMAGE, "attn", form="heads"),
    *by_head(_TEXT, "attn", added=True, form="heads"),
)

FAMILY = StableDiffusion3(
    name="SD3",
    transformer="SD3Transformer2DModel",
    pipelines=dict.fromkeys(
        ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        "diffusers:StableDiffusion3Pipeline",
    ),
    lists=(
        BlockList(
            "transformer_blocks",
            "transformer_blocks",
            {("encoder_hidden_states", 1): ("text",), ("hidden_states", 0): ("image",)},
            (("text",), ("image",)),
            lacking=("text",),
            sites=_SITES,
            attends=("image", "text"),
        ),
    ),
    refuses={"skip_layers": "Skip-layer guidance makes a further call that leaves out blocks"},
    width="inner_dim",
    controlnets=("diffusers:StableDiffusion3ControlNetPipeline", "diffusers:SD3ControlNetModel"),
    encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    form="places",
    together=("uncond", "cond"),
    negative="",
    output=("norm_out", "proj_out"),
    channels_last=True,
)
