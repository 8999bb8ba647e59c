"""What training needs to know of an architecture: its parts, how a call is put together, and how latents are scaled."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from torch import Tensor

from . import klein
from . import model as flux1
from .captions import CAPTIONS


class Architecture(ABC):
    """A way to draw: the classes of its parts, and the arguments of its transformer's call."""

    spread = 1.0
    """Standard deviation of the logit of the times that are trained on."""

    @abstractmethod
    def autoencoder(self, channels: tuple[int, int, int], size: int) -> Any:
        """An untrained autoencoder."""

    @abstractmethod
    def shared_autoencoder(self, folder: Path) -> Any:
        """One with the weights of FLUX.1's autoencoder in a folder: its classes of layers are those of FLUX.2's."""

    @abstractmethod
    def transformer(self, shape: flux1.Shape) -> Any:
        """An untrained transformer."""

    @abstractmethod
    def texts(self) -> dict[str, Tensor]:
        """Embeddings of all captions, and last of the empty one, by the name that a call gives them."""

    @abstractmethod
    def places(self, side: int) -> dict[str, Tensor]:
        """Ids of `side` by `side` image tokens and of the text's."""

    @abstractmethod
    def guidance(self, draws: torch.Generator, n: int) -> Tensor | None:
        """Strengths of guidance to train on, (n,), or None."""

    @abstractmethod
    def mu(self, tokens: int) -> float:
        """How far the sampler's 20 steps are moved towards noise at so many image tokens."""

    @abstractmethod
    def measured(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and spread to use for packed latents that have these, (channels,), a channel."""

    @abstractmethod
    def seal(self, vae: Any, mean: Tensor, spread: Tensor) -> None:
        """Write shift and spread into the autoencoder, where the pipeline reads them."""

    @abstractmethod
    def scale(self, vae: Any) -> tuple[Tensor, Tensor] | None:
        """Shift and spread that the autoencoder holds, (channels,) or (1,); None where it has not been told yet."""

    @abstractmethod
    def assemble(self, vae: Any, flux: Any) -> Any:
        """The pipeline of trained parts."""


class Flux1(Architecture):
    """FLUX.1: one shift and one scale for all latents, guidance as a number that the transformer is given."""

    def autoencoder(self, channels: tuple[int, int, int], size: int) -> Any:
        """AutoencoderKL."""
        return flux1.autoencoder(channels, size)

    def shared_autoencoder(self, folder: Path) -> Any:
        """As it is."""
        return AutoencoderKL.from_pretrained(folder)

    def transformer(self, shape: flux1.Shape) -> Any:
        """FluxTransformer2DModel."""
        return flux1.transformer(shape)

    def texts(self) -> dict[str, Tensor]:
        """Of CLIP, pooled, and of T5."""
        clip, t5 = flux1.clip_tokenizer(), flux1.t5_tokenizer()
        pooled, sequence = flux1.embed(_captions(), clip, t5, *flux1.text_encoders(clip, t5))
        return {"pooled_projections": pooled, "encoder_hidden_states": sequence}

    def places(self, side: int) -> dict[str, Tensor]:
        """Three coordinates a token, row and column last."""
        image = torch.zeros(side * side, 3)
        image[:, 1] = torch.arange(side * side) // side
        image[:, 2] = torch.arange(side * side) % side
        return {"img_ids": image, "txt_ids": torch.zeros(flux1.TEXT_LENGTH, 3)}

    def guidance(self, draws: torch.Generator, n: int) -> Tensor | None:
        """Drawn from 1 to 5: it says nothing of the picture, so that any may be asked for."""
        return 1 + 4 * torch.rand(n, generator=draws)

    def mu(self, tokens: int) -> float:
        """Linear in the number of tokens."""
        sampler = flux1.scheduler().config
        return calculate_shift(
            tokens, sampler.base_image_seq_len, sampler.max_image_seq_len, sampler.base_shift, sampler.max_shift
        )

    def measured(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """One of each, over all channels."""
        variance = (variance + mean.square()).mean() - mean.mean().square()
        return mean.mean()[None], variance.sqrt()[None]

    def seal(self, vae: Any, mean: Tensor, spread: Tensor) -> None:
        """As shift and scaling factor."""
        vae.register_to_config(shift_factor=mean.item(), scaling_factor=1 / spread.item())

    def scale(self, vae: Any) -> tuple[Tensor, Tensor] | None:
        """From shift and scaling factor."""
        if vae.config.shift_factor is None:
            return None
        return torch.tensor([vae.config.shift_factor]), torch.tensor([1 / vae.config.scaling_factor])

    def assemble(self, vae: Any, flux: Any) -> Any:
        """FluxPipeline."""
        return flux1.assemble(vae, flux)


class Flux2(Architecture):
    """FLUX.2 klein, not distilled: latents through a batch norm, guidance by a second call with the empty caption."""

    # Its sampler's last steps are long, and a spread of 1 would hardly train them.
    spread = 1.5

    def autoencoder(self, channels: tuple[int, int, int], size: int) -> Any:
        """AutoencoderKLFlux2."""
        return klein.autoencoder(channels, size)

    def shared_autoencoder(self, folder: Path) -> Any:
        """Its weights; the batch norm is new."""
        given = AutoencoderKL.from_pretrained(folder)
        vae = klein.autoencoder(tuple(given.config.block_out_channels), given.config.sample_size)
        vae.load_state_dict(given.state_dict(), strict=False)
        return vae

    def transformer(self, shape: flux1.Shape) -> Any:
        """Flux2Transformer2DModel."""
        return klein.transformer(shape)

    def texts(self) -> dict[str, Tensor]:
        """Three layers of Qwen3 side by side."""
        tokens = klein.tokenizer()
        return {"encoder_hidden_states": klein.embed(_captions(), tokens, klein.text_encoder(tokens))}

    def places(self, side: int) -> dict[str, Tensor]:
        """Four coordinates a token: rows and columns of the image, numbers of the words."""
        pipeline = klein.Flux2KleinPipeline
        image = pipeline._prepare_latent_ids(torch.empty(1, 1, side, side))[0]
        return {"img_ids": image, "txt_ids": pipeline._prepare_text_ids(torch.empty(1, klein.TEXT_LENGTH, 1))[0]}

    def guidance(self, draws: torch.Generator, n: int) -> Tensor | None:
        """None."""
        return None

    def mu(self, tokens: int) -> float:
        """By the numbers of tokens and of steps."""
        return compute_empirical_mu(tokens, 20)

    def measured(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """As they are."""
        return mean, variance.sqrt()

    def seal(self, vae: Any, mean: Tensor, spread: Tensor) -> None:
        """As the batch norm's running statistics."""
        vae.bn.running_mean.copy_(mean)
        vae.bn.running_var.copy_(spread.square() - vae.config.batch_norm_eps)

    def scale(self, vae: Any) -> tuple[Tensor, Tensor] | None:
        """From the batch norm."""
        if not vae.bn.running_mean.any():
            return None
        return vae.bn.running_mean.cpu(), (vae.bn.running_var + vae.config.batch_norm_eps).sqrt().cpu()

    def assemble(self, vae: Any, flux: Any) -> Any:
        """Flux2KleinPipeline."""
        return klein.assemble(vae, flux)


def _captions() -> list[str]:
    return [str(caption) for caption in CAPTIONS] + [""]


ARCHITECTURES: dict[str, Architecture] = {"FLUX.1": Flux1(), "FLUX.2": Flux2()}
