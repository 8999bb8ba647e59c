"""The autoencoder: trained on the renders, measured, and read back."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import HandscopeError
from ...files import sha256
from ...models.embedded import FOLDER
from ..model import LATENT_CHANNELS
from .course import Course, Crew, draws_of, follow, set_rate
from .folders import Folders
from .recipe import Recipe
from .shards import shard_paths


def autoencoder(work: Folders, recipe: Recipe, crew: Crew, decoder_only: bool = False) -> None:
    """Train the autoencoder, or go on with its decoder while the encoder, and so every latent, stays as it is.

    Half of the latents get noise of up to a fifth of their spread, because the transformer's latents will not be
    perfect.
    """
    name, steps, rate = (
        ("decoder", recipe.decoder_steps, recipe.decoder_rate)
        if decoder_only
        else ("autoencoder", recipe.codec_steps, recipe.codec_rate)
    )
    course, mine = Course(name, work.own, steps, crew, min(60.0, recipe.save_every)), crew.share(recipe.codec_batch)
    torch.manual_seed(recipe.seed)
    if decoder_only:
        vae = read_codec(work, recipe, "autoencoder", crew.device).train()
        vae.encoder.requires_grad_(False)
    else:
        vae = recipe.draws.autoencoder(recipe.codec_channels, recipe.size).to(crew.device)
    vae = vae.to(memory_format=torch.channels_last)
    learnt = [p for p in vae.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learnt, rate, betas=(0.9, 0.99), weight_decay=1e-3)
    average = {key: value.detach().clone() for key, value in vae.named_parameters()}
    if checkpoint := course.restore():
        vae.load_state_dict(checkpoint["model"])
        optimiser.load_state_dict(checkpoint["optimiser"])
        average = checkpoint["ema"]
    shards = [np.load(path, mmap_mode="r") for path in shard_paths(work, recipe)]
    held, train = shards[0][:128], shards[1:]
    judge = recipe.draws.autoencoder(recipe.codec_channels, recipe.size).to(crew.device)

    def save(final: bool = False) -> None:
        if course.save(final, model=vae.state_dict(), optimiser=optimiser.state_dict(), ema=average, world=crew.world):
            judge.load_state_dict(average, strict=False)
            course.write(psnr=round(psnr(judge, held, crew.device), 2))

    began = course.step
    while (fraction := course.fraction()) < 1:
        draws = draws_of(recipe.seed, course.step)
        scale = min(1.0, (course.step + 1) / recipe.warm_up)
        if fraction > 0.4:
            scale *= 0.02 + 0.49 * (1 + math.cos(math.pi * (fraction - 0.4) / 0.6))
        set_rate(optimiser, rate * scale)
        shard = train[int(torch.randint(len(train), (1,), generator=draws))]
        rows = torch.randint(len(shard), (recipe.codec_batch,), generator=draws).sort().values.numpy()
        images = pixels(shard[rows], crew.device)
        if torch.rand(1, generator=draws) < 0.5:
            images = images.flip(-1)
        loss = _loss(vae, images, draws, decoder_only, mine)
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        crew.average_gradients(learnt)
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        follow(average, vae.named_parameters(), course.step, recipe.average)
        course.advance(loss.detach(), recipe.codec_batch)
        save()
    if course.step > began:
        save(final=True)
    crew.wait()


def _loss(vae: Any, images: Tensor, draws: torch.Generator, decoder_only: bool, mine: slice) -> Tensor:
    """How far the pictures of `mine` come back from other than they went in, some of their latents with noise.

    Random numbers are drawn for the whole batch, `images`, so that the number of processes changes nothing.
    """
    n, size = len(images), images.shape[-1] // 4
    spread, extra = (
        torch.randn(n, LATENT_CHANNELS, size, size, generator=draws)[mine].to(images.device) for _ in range(2)
    )
    strength = 0.2 * torch.rand(n, 1, 1, 1, generator=draws) * (torch.rand(n, 1, 1, 1, generator=draws) < 0.5)
    images, noise = images[mine], strength[mine].to(images.device) * extra
    with torch.set_grad_enabled(not decoder_only):
        posterior = vae.encode(images).latent_dist
        latents = posterior.mean if decoder_only else posterior.mean + posterior.std * spread
    loss = _difference(vae.decode(latents + noise * latents.detach().std()).sample, images)
    if decoder_only:
        return loss
    return loss + 5e-4 * 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()


@torch.no_grad()
def psnr(vae: Any, images: np.ndarray, device: torch.device | None = None) -> float:
    """Mean over images of the peak signal-to-noise ratio of their reconstruction, in dB.

    Parameters
    ----------
    images : array of shape (n, 3, size, size), uint8
    """
    device = device or torch.device("cpu")
    ratios = []
    for at in range(0, len(images), 32):
        given = pixels(images[at : at + 32], device)
        decoded = vae.decode(vae.encode(given).latent_dist.mode()).sample.clamp(-1, 1)
        ratios.append(-10 * ((decoded - given) / 2).square().mean((1, 2, 3)).log10())
    return torch.cat(ratios).mean().item()


def read_codec(work: Folders, recipe: Recipe, name: str, device: torch.device) -> Any:
    """The autoencoder with the averaged weights of NAME.pt, or the one that all organisms but the first share.

    Raises
    ------
    HandscopeError
        It has not been trained.
    """
    if not work.trains_codec:
        return recipe.draws.shared_autoencoder(FOLDER / "vae").to(device).eval()
    path = work.own / f"{name}.pt"
    if not path.exists():
        raise HandscopeError(
            f"Expected a trained autoencoder at {path}, which is not there: run the stage autoencoder first."
        )
    vae = recipe.draws.autoencoder(recipe.codec_channels, recipe.size)
    vae.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["ema"], strict=False)
    return vae.to(device).eval()


def encoder_hash(vae: Any) -> str:
    """sha256 of the encoder's weights: latents of another encoder are of no use to a transformer."""
    return sha256(b"".join(value.detach().cpu().numpy().tobytes() for value in vae.encoder.state_dict().values()))


def pixels(images: np.ndarray, device: torch.device) -> Tensor:
    """Images of 0..255, shape (n, 3, size, size), as floats of -1..1 on the device, channels last."""
    return (torch.from_numpy(np.array(images)).to(device).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )


def _difference(decoded: Tensor, images: Tensor) -> Tensor:
    """L1 + half of the gradients' L1 + twice the squared error."""
    error = decoded - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges + 2 * error.square().mean()
