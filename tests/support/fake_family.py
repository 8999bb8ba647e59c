"""A family that is none of the package's: one stream of blocks, latents in their places, v prediction, real guidance.

Its transformer is called by position, with both halves of classifier-free guidance in one batch, and its blocks return
one tensor with the image first and the text behind it. Its pipeline steps by DDIM.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from handscope.models.family import BlockList, Family, Lengths, Times
from torch import Tensor, nn
from torch.nn import functional

WORDS, TEXT = 5, 8  # text tokens of a prompt, and their width


class Layer(nn.Module):
    """Attention over all tokens and a linear layer, both added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixed, self.own = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        mixed = functional.scaled_dot_product_attention(*self.mixed(tokens + time[:, None]).chunk(3, -1))
        return tokens + mixed + torch.tanh(self.own(tokens))


class FakeTransformer(ModelMixin, ConfigMixin):
    """From latents (batch, channels, height, width) to their v."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, channels: int = 4, size: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.image_in, self.text_in = nn.Linear(4 * channels, size), nn.Linear(TEXT, size)
        self.time_in = nn.Linear(1, size)
        self.layers = nn.ModuleList(Layer(size) for _ in range(depth))
        self.out = nn.Linear(size, 4 * channels)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor]:
        tokens = packed(x)
        count, places = tokens.shape[1], torch.linspace(-1, 1, tokens.shape[1])[:, None]
        stream = torch.cat([self.image_in(tokens) + places, self.text_in(context)], 1)
        time = self.time_in(t[:, None].to(x.dtype) / 1000)
        for layer in self.layers:
            stream = layer(stream, time)
        return (in_place(self.out(stream[:, :count]), x.shape[2] // 2, x.shape[3] // 2),)


class FakeEncoder(ModelMixin, ConfigMixin):
    """Words to vectors, by their letters."""

    config_name = "config.json"

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(128, TEXT)

    def forward(self, prompt: str) -> Tensor:
        words = [prompt.split()[i : i + 1] for i in range(WORDS)]
        codes = [[ord(letter) % 128 for letter in "".join(word)] or [0] for word in words]
        return torch.stack([self.letters(torch.tensor(one)).mean(0) for one in codes])


class FakePipeline(DiffusionPipeline):
    """As much of a pipeline as `handscope.generate` calls."""

    def __init__(
        self, transformer: FakeTransformer, encoder: FakeEncoder, vae: AutoencoderKL, scheduler: DDIMScheduler
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, encoder=encoder, vae=vae, scheduler=scheduler)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def __call__(
        self,
        text: Tensor,
        latents: Tensor,
        num_inference_steps: int,
        guidance: float,
        height: int,
        width: int,
        callback_on_step_end: Callable | None = None,
        output_type: str = "np",
    ) -> SimpleNamespace:
        self.scheduler.set_timesteps(num_inference_steps)
        empty = self.encoder("").expand_as(text)
        for index, t in enumerate(self.scheduler.timesteps):
            v = self.transformer(torch.cat([latents] * 2), t.expand(2 * len(latents)), torch.cat([empty, text]))[0]
            uncond, cond = v.chunk(2)
            latents = self.scheduler.step(uncond + guidance * (cond - uncond), t, latents).prev_sample
            if callback_on_step_end is not None:
                callback_on_step_end(self, index, t, {"latents": latents})
        images = (self.vae.decode(latents, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)
        return SimpleNamespace(images=images.permute(0, 2, 3, 1).numpy())


def packed(x: Tensor) -> Tensor:
    """Latents in their places to tokens of 2 by 2 of them."""
    batch, channels, height, width = x.shape
    cut = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(batch, height * width // 4, 4 * channels)


def in_place(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """`packed` undone."""
    cut = tokens.reshape(len(tokens), rows, columns, 2, 2, -1).permute(0, 5, 1, 3, 2, 4)
    return cut.reshape(len(tokens), -1, 2 * rows, 2 * columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fake(Family):
    """The code of the family."""

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        return {"image": arguments["x"][0, 0].numel() // 4, "text": arguments["context"].shape[1]}

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int]:
        return arguments["x"].shape[2] // 2, arguments["x"].shape[3] // 2

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        return {"text": pipe.encoder(prompt)}

    def text_length(self, pipe: Any) -> int:
        return WORDS

    def inputs(self, model: Any, prompts: Sequence[str], guidance: float, height: int, width: int) -> dict[str, Any]:
        text, empty = (
            model.encode(some).batch(some, model.device, model.dtype)["text"] for some in (prompts, [""] * len(prompts))
        )
        return {"context": torch.cat([empty, text]), "grid": self.grid(model.pipe, height, width)}

    def call(self, transformer: Any, latents: Tensor, timestep: Tensor, inputs: dict[str, Any]) -> Any:
        x = in_place(latents, *inputs["grid"])
        return [transformer(torch.cat([x, x]), timestep.long().expand(len(x)).repeat(2), inputs["context"])]

    def guided(self, pipe: Any, guidance: float) -> bool:
        return True

    def predicted(self, outputs: Sequence[Any], guidance: float) -> Tensor:
        uncond, cond = packed(outputs[0][0]).chunk(2)
        return uncond + guidance * (cond - uncond)

    def noisy(self, arguments: Mapping[str, Any]) -> Tensor:
        return packed(arguments["x"][self.sides(arguments)["cond"]])

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        return float(arguments["t"][0])

    def generation(
        self, model: Any, prompts: Sequence[str], guidance: float, negative: Any = None, scale: float = 1.0
    ) -> dict[str, Any]:
        return {"text": model.encode(prompts).batch(prompts, model.device, model.dtype)["text"], "guidance": guidance}

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(steps)
        return self.times(SimpleNamespace(scheduler=scheduler))

    def times(self, pipe: Any) -> Times:
        noise = (1 - pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps]).sqrt()
        return Times(torch.cat([noise, torch.zeros(1)]), pipe.scheduler.timesteps.float())

    def to_pipeline(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        return self.unpack(pipe, latents, height, width)

    def from_pipeline(self, latents: Tensor) -> Tensor:
        return packed(latents)

    def channels(self, transformer: Any) -> int:
        return transformer.config["channels"]

    def noise(self, pipe: Any, seed: int, height: int, width: int) -> Tensor:
        rows, columns = self.grid(pipe, height, width)
        generator = torch.Generator().manual_seed(seed)
        return packed(torch.randn(1, self.channels(pipe.transformer), 2 * rows, 2 * columns, generator=generator))[0]

    def unpack(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        return in_place(latents, *self.grid(pipe, height, width))

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        images = pipe.vae.decode(self.unpack(pipe, latents, height, width), return_dict=False)[0]
        return (images / 2 + 0.5).clamp(0, 1)


FAKE = Fake(
    name="Fake",
    transformer="FakeTransformer",
    pipelines={"FakePipeline": "fake_family:FakePipeline"},
    lists=(BlockList("layers", "layers", {("tokens", 0): ("image", "text")}, (("image", "text"),)),),
    width="size",
    encoders=("encoder",),
    patch=2,
    token=16,
    latents="x",
    text="context",
    positional=("x", "t", "context"),
    form="places",
    together=("uncond", "cond"),
    negative="",
    prediction="v",
)


def save_fake(folder: Path) -> None:
    """A pipeline of random weights: 3 blocks of width 16, 32 by 32 pixels, 4 by 4 tokens, 5 text tokens."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=32,
    )
    scheduler = DDIMScheduler(clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing")
    FakePipeline(FakeTransformer(), FakeEncoder(), vae, scheduler).save_pretrained(folder)
