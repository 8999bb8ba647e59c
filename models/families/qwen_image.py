"""Qwen-Image: joint blocks, classifier-free guidance in two calls, what they give held to the conditional one's length.

A prompt has as many text tokens as it has words for; in a batch of several the shorter ones are filled up and masked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..family import BlockList, Lengths, Times
from ..packing import packed
from ..sites import Gate, Site, by_head
from .flow import Flow, decoded, euler_times, falling, modes, needed, shift_by_size

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class QwenImage(Flow):
    """Packed latents; the pictures that Qwen-Image-Edit is given stand behind the image's tokens."""

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of text, image and reference tokens in a call."""
        text, latents, _ = needed(arguments, "encoder_hidden_states", "hidden_states", "img_shapes", of=self.name)
        rows, columns = self.call_grid(arguments, {})
        image = rows * columns
        return {"text": text.shape[1], "image": image, "reference": latents.shape[1] - image}

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int]:
        """Rows and columns of the first picture; a row of the batch names one shape or a list of them."""
        first = arguments["img_shapes"][0]
        frames, rows, columns = first[0] if isinstance(first, list) else first
        return frames * rows, columns

    def combined(self, cond: Tensor, uncond: Tensor, guidance: float) -> Tensor:
        """Each token of what guidance gives, at the length that the conditional side has there."""
        import torch

        both = uncond + guidance * (cond - uncond)
        return both * (torch.norm(cond, dim=-1, keepdim=True) / torch.norm(both, dim=-1, keepdim=True))

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """The language model's last layer behind the words that every prompt begins with (tokens, width)."""
        return {"text": pipe.encode_prompt(prompt=[prompt], device=device, max_sequence_length=512)[0][0]}

    def text_length(self, pipe: Any) -> int:
        """The longest that a prompt may be."""
        return 512

    def side(
        self, model: Model, embeddings: Mapping[str, Any], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """Text with its mask, and the picture's shape."""
        text, mask = _filled_up(embeddings["text"])
        return {
            "guidance": None,
            "encoder_hidden_states_mask": None if bool(mask.all()) else mask,
            "encoder_hidden_states": text,
            "img_shapes": [[(1, *self.grid(model.pipe, height, width))]] * len(text),
            "attention_kwargs": {},
        }

    def time(self, transformer: Any, timestep: Tensor, latents: Any) -> dict[str, Tensor]:
        """0 to 1; cast first, as in the pipeline."""
        return {"timestep": timestep.expand(len(latents)).to(latents.dtype) / 1000}

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        """0 to 1000, after the cast to the latents' dtype."""
        return float(arguments["timestep"].to(arguments["hidden_states"].dtype)[0]) * 1000

    def generation(
        self,
        model: Model,
        prompts: Sequence[str],
        guidance: float,
        negative: Sequence[str] | None = None,
        scale: float = 1.0,
    ) -> dict[str, Any]:
        """Embeddings of both sides, with their masks."""
        text, mask = _filled_up(self.encoded(model, prompts)["text"])
        given = {"prompt_embeds": text, "prompt_embeds_mask": mask}
        if not self.guided(model.pipe, guidance):
            return given | {"true_cfg_scale": 1.0}
        away, hidden = _filled_up(self.encoded(model, negative or self.away(prompts))["text"])
        both = {"negative_prompt_embeds": away, "negative_prompt_embeds_mask": hidden, "true_cfg_scale": guidance}
        return given | both

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """Flow matching, shifted by the number of tokens."""
        rows, columns = self.grid(pipe, height, width)
        return euler_times(self, pipe, steps, falling(steps), shift_by_size(pipe, rows * columns))

    def size(self, pipe: Any) -> tuple[int, int]:
        """The pipeline's default: its VAE does not say."""
        side = pipe.default_sample_size * pipe.vae_scale_factor
        return side, side

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """As the pipeline decodes: the latents' means and spreads undone, one frame of a video's decoder."""
        import torch

        vae = pipe.vae
        placed = self.unpack(pipe, latents.to(pipe._execution_device, vae.dtype), height, width)[:, :, None]
        mean, inverse = (
            values.view(1, -1, 1, 1, 1).to(placed.device, placed.dtype)
            for values in (torch.tensor(vae.config.latents_mean), 1.0 / torch.tensor(vae.config.latents_std))
        )
        return decoded(vae, placed / inverse + mean)[:, :, 0]

    def encode_image(self, pipe: Any, images: Tensor) -> Tensor:
        """One frame of a video's encoder, in the latents' means and spreads."""
        import torch

        config, latents = pipe.vae.config, modes(pipe, images[:, :, None])[:, :, 0]
        mean, spread = (
            torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (config.latents_mean, config.latents_std)
        )
        return packed((latents - mean) / spread, self.patch)


def _filled_up(texts: Any) -> tuple[Tensor, Tensor]:
    """Texts (n, tokens, width), shorter ones filled up with zeros, and their masks (n, tokens), 1 for a token."""
    import torch

    longest = max(map(len, texts))
    text = torch.stack([torch.cat([one, one.new_zeros(longest - len(one), one.shape[1])]) for one in texts])
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in texts], device=text.device)
    return text, mask


_TEXT, _IMAGE = ("text",), ("image", "reference")
_SITES = (
    Site("attn", _IMAGE, ("attn",), part=0, gate=Gate("img_mod", chunk=2, of=6)),
    Site("attn", _TEXT, ("attn",), part=1, gate=Gate("txt_mod", chunk=2, of=6)),
    Site("mlp", _IMAGE, ("img_mlp",), gate=Gate("img_mod", chunk=5, of=6)),
    Site("mlp", _TEXT, ("txt_mlp",), gate=Gate("txt_mod", chunk=5, of=6)),
    *by_head(_IMAGE, "attn"),
    *by_head(_TEXT, "attn", added=True),
)

FAMILY = QwenImage(
    name="Qwen-Image",
    transformer="QwenImageTransformer2DModel",
    pipelines=dict.fromkeys(
        ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"), "diffusers:QwenImagePipeline"
    ),
    unread={
        "QwenImageEditPipeline": "its prompts are encoded with the picture that it edits; capture around a call of it",
        "QwenImageEditPlusPipeline": "its prompts are encoded with the pictures that it edits; capture around a call "
        "of it",
        "QwenImageLayeredPipeline": "it draws several pictures in one call",
    },
    refuses={"additional_t_cond": "Qwen-Image-Layered draws several pictures in one call"},
    lists=(
        BlockList(
            "transformer_blocks",
            "transformer_blocks",
            {("encoder_hidden_states", 1): ("text",), ("hidden_states", 0): ("image", "reference")},
            (("text",), ("image", "reference")),
            sites=_SITES,
            attends=("text", "image", "reference"),
        ),
    ),
    width="inner_dim",
    controlnets=("diffusers:QwenImageControlNetPipeline", "diffusers:QwenImageControlNetModel"),
    encoders=("text_encoder",),
    varying_text=True,
    negative="",
    output=("norm_out", "proj_out"),
)
