"""FLUX.1: dev, schnell, Krea, Kontext (as text to image), and finetunes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..family import BlockList, Lengths, Times
from ..sites import Gate, Site, by_head
from .flow import Flow, decoded, euler_times, falling, needed, parted_by_ids, shift_by_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..model import Model

# A block is called by keyword, and under gradient checkpointing by position.
_TAKES = {("encoder_hidden_states", 1): ("text",), ("hidden_states", 0): ("image", "reference")}
_GIVES = (("text",), ("image", "reference"))
_TEXT, _IMAGE = _GIVES
_DOUBLE = (
    Site("attn", _IMAGE, ("attn",), part=0, gate=Gate("norm1", 1)),
    Site("attn", _TEXT, ("attn",), part=1, gate=Gate("norm1_context", 1)),
    Site("mlp", _IMAGE, ("ff",), gate=Gate("norm1", 4)),
    Site("mlp", _TEXT, ("ff_context",), gate=Gate("norm1_context", 4)),
    *by_head(_IMAGE, "attn"),
    *by_head(_TEXT, "attn", added=True),
)
_BOTH = _ORDER = (*_TEXT, *_IMAGE)
# One projection puts out what attention and MLP give together.
_SINGLE = (Site("both", _BOTH, ("proj_out",), gate=Gate("norm", 1)), *by_head(_BOTH, "attn"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Flux(Flow):
    """FLUX.1: double blocks, then single blocks; both return (text, image), image tokens in rows of the token grid."""

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of text, image and reference tokens in a call.

        Reference tokens are those of the picture that FLUX.1 Kontext edits: they follow the image tokens, and their ids
        begin with another number than 0.

        Raises
        ------
        HandscopeError
            The call is not a FLUX pipeline's, or text and picture have equally many tokens, so that the streams could
            not be told apart by their form.
        """
        text, latents, ids = needed(arguments, "encoder_hidden_states", "hidden_states", "img_ids", of="FLUX")
        return {"text": text.shape[1], **parted_by_ids(ids, latents.shape[1])}

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int] | None:
        """Rows and columns, from the image's ids."""
        rows, columns = (int(last) + 1 for last in _ids(arguments)[: lengths["image"], 1:].amax(0))
        return (rows, columns) if rows * columns == lengths["image"] else None

    def rowwise(self, block: nn.Module) -> dict[str, list[nn.Module]]:
        """The output projections and feed-forward layers; a single block takes both streams in one sequence."""
        parts: Any = block
        if hasattr(block, "proj_mlp"):
            return {"both": [parts.proj_mlp, parts.proj_out]}
        image = [parts.attn.to_out[0], parts.ff.net[0].proj, parts.ff.net[2]]
        return {"image": image, "text": [parts.attn.to_add_out, parts.ff_context.net[0].proj, parts.ff_context.net[2]]}

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """The second encoder's output (tokens, width) and the first one's pooled output (width,)."""
        text, pooled, _ = pipe.encode_prompt(
            prompt=[prompt], prompt_2=None, device=device, max_sequence_length=self.text_length(pipe)
        )
        return {"text": text[0], "pooled": pooled[0]}

    def text_length(self, pipe: Any) -> int:
        """What the model was trained with: 512, in FLUX.1-schnell (without guidance embedding) 256.

        The pipeline's own default of 512 changes a small model's images entirely.
        """
        longest = 512 if pipe.transformer.config.guidance_embeds else 256
        return min(longest, pipe.tokenizer_2.model_max_length)

    def words_stream(self, transformer: Any, embeddings: Tensor) -> Tensor:
        """Through the transformer's own projection of text."""
        stream: Tensor = transformer.context_embedder(embeddings)
        return stream

    def with_words(self, kwargs: Mapping[str, Any], stream: Tensor, lengths: Lengths) -> dict[str, Any]:
        """A double block's: all places in a text are one, so that its rotation is that of any text token."""
        import torch

        text = lengths["text"]
        rotation = tuple(
            torch.cat([part[:1].expand(stream.shape[1], -1), part[text:]]) for part in kwargs["image_rotary_emb"]
        )
        return {**kwargs, "encoder_hidden_states": stream, "image_rotary_emb": rotation}

    def text_spans(self, pipe: Any, prompt: str) -> list[tuple[int, int]] | None:
        """As the second tokenizer cuts it; None where that does not tell places."""
        if not pipe.tokenizer_2.is_fast:
            return None
        longest = self.text_length(pipe)
        settings = {"padding": "max_length", "max_length": longest, "truncation": True, "return_offsets_mapping": True}
        return [tuple(span) for span in pipe.tokenizer_2(prompt, **settings)["offset_mapping"]]

    def side(
        self, model: Model, embeddings: Mapping[str, Any], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """What `FluxPipeline.__call__` gives in every step."""
        import torch

        pipe, device, text = model.pipe, model.device, embeddings["text"]
        rows, columns = self.grid(pipe, height, width)
        strength = (
            torch.full([1], guidance, device=device, dtype=torch.float32).expand(len(text))
            if model.transformer.config.guidance_embeds
            else None
        )
        return {
            "encoder_hidden_states": text,
            "pooled_projections": embeddings["pooled"],
            # Zeros: places in the text play no part.
            "txt_ids": torch.zeros(text.shape[1], 3, device=device, dtype=model.dtype),
            "guidance": strength,
            "img_ids": pipe._prepare_latent_image_ids(len(text), rows, columns, device, model.dtype),
            "joint_attention_kwargs": {},
        }

    def time(self, transformer: Any, timestep: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """0 to 1."""
        # Cast first and divided second, as the pipeline does, which rounds in bfloat16.
        return {"timestep": timestep.expand(latents.shape[0]).to(latents.dtype) / 1000}

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
        """Embedded guidance; with negative prompts true classifier-free guidance as well."""
        encoded = self.encoded(model, prompts)
        given = {
            "prompt_embeds": encoded["text"],
            "pooled_prompt_embeds": encoded["pooled"],
            "guidance_scale": guidance,
            "max_sequence_length": self.text_length(model.pipe),
        }
        if negative is None:
            return given
        away = self.encoded(model, negative)
        return given | {
            "negative_prompt_embeds": away["text"],
            "negative_pooled_prompt_embeds": away["pooled"],
            "true_cfg_scale": scale,
        }

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """Flow matching, shifted by the number of tokens, in Euler steps.

        Raises
        ------
        HandscopeError
            As in `euler_times`.
        """
        rows, columns = self.grid(pipe, height, width)
        return euler_times(self, pipe, steps, falling(steps), shift_by_size(pipe, rows * columns))

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """As the pipeline decodes, from scaled and shifted latents."""
        vae = pipe.vae
        unpacked = self.unpack(pipe, latents.to(pipe._execution_device, vae.dtype), height, width)
        return decoded(vae, unpacked / vae.config.scaling_factor + vae.config.shift_factor)


def _ids(arguments: Mapping[str, Any]) -> Tensor:
    ids = arguments["img_ids"]
    return ids[0] if ids.ndim == 3 else ids


FAMILY = Flux(
    name="FLUX.1",
    transformer="FluxTransformer2DModel",
    pipelines=dict.fromkeys(
        ("FluxPipeline", "FluxKontextPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"), "diffusers:FluxPipeline"
    ),
    lists=(
        BlockList("double", "transformer_blocks", _TAKES, _GIVES, sites=_DOUBLE, attends=_ORDER),
        BlockList("single", "single_transformer_blocks", _TAKES, _GIVES, sites=_SINGLE, attends=_ORDER),
    ),
    width="inner_dim",
    controlnets=("diffusers:FluxControlNetPipeline", "diffusers:FluxControlNetModel"),
    encoders=("text_encoder", "text_encoder_2"),
    patch=2,
    token=16,
    output=("norm_out", "proj_out"),
    painting={
        "plain": "diffusers:FluxInpaintPipeline",
        "depth": "diffusers:FluxControlNetInpaintPipeline",
        "network": "diffusers:FluxControlNetModel",
    },
)
