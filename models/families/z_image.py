"""Z-Image, turbo and base: one stream with the image first, latents and texts in lists, time and sign turned round.

Image and text are each filled up to a multiple of 32 tokens by learned ones. Guidance is classifier-free in one batch,
conditional half first: c + g (c - n), so that any g above 0 is guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..family import BlockList, Lengths, Times
from ..sites import Gate, Site, by_head
from .flow import Flow, cells, decoded, euler_times, falling, needed, shift_by_size

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Model

MULTIPLE = 32
"""Image and text are filled up to a multiple of so many tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ZImage(Flow):
    """Lists of latents (channels, 1, rows, columns) and of texts (tokens, width), one a row."""

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of image tokens, of those that fill them up, and of text tokens in a call, filled up.

        Where texts differ, those of the longest: behind a shorter one there are tokens that nothing attends to.
        """
        latents, texts = needed(arguments, "x", "cap_feats", of=self.name)
        rows, columns = cells(latents[0], self.patch)
        image = rows * columns
        return {"image": image, "pad": -image % MULTIPLE, "text": max(_filled_up(len(text)) for text in texts)}

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int]:
        """Rows and columns, from the latents."""
        return cells(arguments["x"][0], self.patch)

    def combined(self, cond: Tensor, uncond: Tensor, guidance: float) -> Tensor:
        """From the conditional side onwards."""
        return cond + guidance * (cond - uncond)

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """The language model's last layer but one, without padding (tokens, width)."""
        return {"text": pipe.encode_prompt([prompt], device=device, do_classifier_free_guidance=False)[0][0]}

    def text_length(self, pipe: Any) -> int:
        """The longest that a prompt may be."""
        return 512

    def text_tokens(self, embeddings: Mapping[str, Tensor]) -> int:
        """Filled up."""
        return _filled_up(len(embeddings["text"]))

    def side(
        self, model: Model, embeddings: Mapping[str, Any], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """The texts."""
        return {"cap_feats": list(embeddings["text"]), "joint_attention_kwargs": None}

    def time(self, transformer: Any, timestep: Tensor, latents: Any) -> dict[str, Tensor]:
        """From 0 in pure noise to 1."""
        return {"t": (1000 - timestep.expand(len(latents))) / 1000}

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        """0 to 1000, turned round again."""
        return 1000 * (1 - float(arguments["t"][0]))

    def generation(
        self,
        model: Model,
        prompts: Sequence[str],
        guidance: float,
        negative: Sequence[str] | None = None,
        scale: float = 1.0,
    ) -> dict[str, Any]:
        """Lists of embeddings of both sides."""
        given = {"prompt_embeds": list(self.encoded(model, prompts)["text"]), "guidance_scale": guidance}
        if not self.guided(model.pipe, guidance):
            return given
        away = self.encoded(model, negative or self.away(prompts))["text"]
        return given | {"negative_prompt_embeds": list(away)}

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """Flow matching; shifted by the number of tokens where the scheduler's shift is dynamic."""
        rows, columns = self.grid(pipe, height, width)
        return euler_times(self, pipe, steps, falling(steps), shift_by_size(pipe, rows * columns))

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """As the pipeline decodes, from scaled and shifted latents."""
        vae = pipe.vae
        placed = self.unpack(pipe, latents.to(pipe._execution_device, vae.dtype), height, width)
        return decoded(vae, placed / vae.config.scaling_factor + vae.config.shift_factor)


def _filled_up(count: int) -> int:
    return count + -count % MULTIPLE


def _list(name: str, streams: tuple[str, ...]) -> BlockList:
    gate = "adaLN_modulation"  # scale and gate of the attention, then of the MLP; context refiners have none
    sites = (
        Site("attn", streams, ("attention_norm2",), gate=Gate(gate, chunk=1, of=4, tanh=True)),
        Site("mlp", streams, ("ffn_norm2",), gate=Gate(gate, chunk=3, of=4, tanh=True)),
        *by_head(streams, "attention"),
    )
    attends = streams if {"image", "text"} <= {*streams} else ()
    return BlockList(name, name, {("x", 0): streams}, (streams,), sites=sites, attends=attends)


FAMILY = ZImage(
    name="Z-Image",
    transformer="ZImageTransformer2DModel",
    pipelines=dict.fromkeys(
        ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"), "diffusers:ZImagePipeline"
    ),
    unread={"ZImageOmniPipeline": "it orders text and pictures otherwise, several of them in one sequence"},
    refuses={"image_noise_mask": "Several pictures stand in one sequence, as in the omni mode"},
    lists=(
        _list("noise_refiner", ("image", "pad")),
        _list("context_refiner", ("text",)),
        _list("layers", ("image", "pad", "text")),
    ),
    width="dim",
    encoders=("text_encoder",),
    latents="x",
    text="cap_feats",
    positional=("x", "t", "cap_feats"),
    form="list",
    together=("cond", "uncond"),
    negated=True,
    unguided=0.0,
    varying_text=True,
    negative="",
    keeps_float32=True,
    output=("all_final_layer.2-1",),
    channels_last=True,
)
