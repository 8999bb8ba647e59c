"""FLUX.2: dev, with embedded guidance, and klein, with classifier-free guidance in two calls or distilled to one.

Its single blocks have text and image in one tensor. Its noise is drawn after the latents are put together two by two,
and its VAE is given latents whose batch norm is undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..family import BlockList, Lengths, Times
from ..packing import packed
from ..sites import Gate, Site, by_head
from .flow import Flow, decoded, euler_times, falling, modes, needed, parted_by_ids

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Flux2(Flow):
    """Packed latents; reference pictures stand behind the image's tokens, and their ids begin with another number."""

    def guided(self, pipe: Any, guidance: float) -> bool:
        """In klein that is not distilled, above 1."""
        config = pipe.config
        distilled = pipe.transformer.config.guidance_embeds or config.get("is_distilled", False)
        return not distilled and guidance > self.unguided

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of text, image and reference tokens in a call."""
        text, latents, ids = needed(arguments, "encoder_hidden_states", "hidden_states", "img_ids", of=self.name)
        return {"text": text.shape[1], **parted_by_ids(ids, latents.shape[1])}

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int] | None:
        """Rows and columns, from the image's ids."""
        ids = arguments["img_ids"]
        rows, columns = (int(last) + 1 for last in (ids[0] if ids.ndim == 3 else ids)[: lengths["image"], 1:3].amax(0))
        return (rows, columns) if rows * columns == lengths["image"] else None

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """Three layers of the language model side by side (tokens, 3 * width)."""
        length = self.text_length(pipe)
        return {"text": pipe.encode_prompt(prompt=[prompt], device=device, max_sequence_length=length)[0][0]}

    def text_length(self, pipe: Any) -> int:
        """The pipelines' own, with padding."""
        return min(512, pipe.tokenizer.model_max_length)

    def side(
        self, model: Model, embeddings: Mapping[str, Any], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """Text, ids and, in dev, the strength of guidance."""
        import torch

        pipe, text = model.pipe, embeddings["text"]
        like = torch.empty(len(text), 1, *self.grid(pipe, height, width), device="meta")
        embedded = pipe.transformer.config.guidance_embeds
        strength = torch.full([1], guidance, device=model.device, dtype=torch.float32) if embedded else None
        return {
            "guidance": None if strength is None else strength.expand(len(text)),
            "encoder_hidden_states": text,
            "txt_ids": pipe._prepare_text_ids(text).to(model.device),
            "img_ids": pipe._prepare_latent_ids(like).to(model.device),
            "joint_attention_kwargs": None,
        }

    def time(self, transformer: Any, timestep: Tensor, latents: Any) -> dict[str, Tensor]:
        """0 to 1; cast first, as in the pipeline."""
        return {"timestep": timestep.expand(len(latents)).to(latents.dtype) / 1000}

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        """0 to 1000, after the cast to the latents' dtype."""
        return float((arguments["timestep"].to(arguments["hidden_states"].dtype) * 1000)[0])

    def generation(
        self,
        model: Model,
        prompts: Sequence[str],
        guidance: float,
        negative: Sequence[str] | None = None,
        scale: float = 1.0,
    ) -> dict[str, Any]:
        """Embedded guidance, or embeddings of both sides; a distilled klein has no guidance."""
        given = {"prompt_embeds": self.encoded(model, prompts)["text"]}
        if model.transformer.config.guidance_embeds:
            return given | {"guidance_scale": guidance}
        if not self.guided(model.pipe, guidance):
            return given | {"guidance_scale": 1.0}
        away = self.encoded(model, negative or self.away(prompts))["text"]
        return given | {"negative_prompt_embeds": away, "guidance_scale": guidance}

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """Flow matching with a shift by the numbers of tokens and of steps."""
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        rows, columns = self.grid(pipe, height, width)
        sigmas = None if pipe.scheduler.config.get("use_flow_sigmas") else falling(steps)
        return euler_times(self, pipe, steps, sigmas, compute_empirical_mu(rows * columns, steps))

    def to_pipeline(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Each token's numbers as channels: (batch, channels, rows, columns)."""
        return latents.transpose(1, 2).unflatten(2, self.grid(pipe, height, width))

    def noise(self, pipe: Any, seed: int, height: int, width: int) -> Tensor:
        """Drawn as `to_pipeline` gives it."""
        import torch

        shape = (1, pipe.transformer.config.in_channels, *self.grid(pipe, height, width))
        generator = torch.Generator("cpu").manual_seed(seed)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        return drawn[0].flatten(1).T.contiguous()

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """As the pipeline decodes: the batch norm undone, and each token's numbers in their places."""
        vae = pipe.vae
        latents = latents.to(pipe._execution_device, vae.dtype)
        mean = vae.bn.running_mean.to(latents.device, latents.dtype)
        spread = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt().to(latents.device, latents.dtype)
        return decoded(vae, self.unpack(pipe, latents * spread + mean, height, width))

    def encode_image(self, pipe: Any, images: Tensor) -> Tensor:
        """The mode of what the VAE says, each token's numbers together, through the batch norm."""
        bn, eps = pipe.vae.bn, pipe.vae.config.batch_norm_eps
        latents = packed(modes(pipe, images), self.patch)
        return (latents - bn.running_mean.float()) / (bn.running_var.float() + eps).sqrt()


_TEXT_IMAGE = ("text", "image", "reference")
_TEXT, _IMAGE = ("text",), ("image", "reference")
# Shift, scale and gate of the attention, then of the MLP.
_OF_IMAGE, _OF_TEXT = ("temb_mod_img", 2), ("temb_mod_txt", 3)
_DOUBLE = (
    Site("attn", _IMAGE, ("attn",), part=0, gate=Gate(argument=_OF_IMAGE, chunk=2, of=6)),
    Site("attn", _TEXT, ("attn",), part=1, gate=Gate(argument=_OF_TEXT, chunk=2, of=6)),
    Site("mlp", _IMAGE, ("ff",), gate=Gate(argument=_OF_IMAGE, chunk=5, of=6)),
    Site("mlp", _TEXT, ("ff_context",), gate=Gate(argument=_OF_TEXT, chunk=5, of=6)),
    *by_head(_IMAGE, "attn"),
    *by_head(_TEXT, "attn", added=True),
)
_QUERY, _KEY, _ = by_head(_TEXT_IMAGE, "attn")
# One projection makes queries, keys, values and the MLP's input, another puts out attention and MLP together.
_SINGLE = (
    Site("both", _TEXT_IMAGE, ("attn",), gate=Gate(argument=("temb_mod", 2), chunk=2, of=3)),
    _QUERY,
    _KEY,
    Site("v", _TEXT_IMAGE, ("attn.to_qkv_mlp_proj",), chunk=2, heads="attn"),
)

FAMILY = Flux2(
    name="FLUX.2",
    transformer="Flux2Transformer2DModel",
    pipelines={
        "Flux2Pipeline": "diffusers:Flux2Pipeline",
        "Flux2KleinPipeline": "diffusers:Flux2KleinPipeline",
        "Flux2KleinInpaintPipeline": "diffusers:Flux2KleinPipeline",
    },
    unread={
        "Flux2KleinKVPipeline": "it keeps keys and values of reference pictures from its first step and leaves their "
        "tokens out of the others; load the folder as a Flux2KleinPipeline"
    },
    refuses={"kv_cache_mode": "Keys and values of reference pictures are kept from step to step"},
    lists=(
        BlockList(
            "transformer_blocks",
            "transformer_blocks",
            {("encoder_hidden_states", 1): ("text",), ("hidden_states", 0): ("image", "reference")},
            (("text",), ("image", "reference")),
            sites=_DOUBLE,
            attends=_TEXT_IMAGE,
        ),
        BlockList(
            "single_transformer_blocks",
            "single_transformer_blocks",
            {("hidden_states", 0): _TEXT_IMAGE},
            (_TEXT_IMAGE,),
            also=((("text",), ("image", "reference")),),
            sites=_SINGLE,
            attends=_TEXT_IMAGE,
        ),
    ),
    width="inner_dim",
    encoders=("text_encoder",),
    negative="",
    output=("norm_out", "proj_out"),
)
