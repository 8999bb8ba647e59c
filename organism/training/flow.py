"""The transformer: trained on the latents to predict the flow from data to noise."""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor, nn

from ...errors import HandscopeError
from ...files import atomic
from .. import model as parts
from ..captions import CAPTIONS
from .course import Course, Crew, draws_of, follow, set_rate
from .latents import read_latents
from .muon import Muon
from .recipe import Recipe


def transformer(work: Path, recipe: Recipe, crew: Crew) -> None:
    """Train the transformer to predict noise minus data, at logit-normal times shifted as the sampler shifts them."""
    course = Course("transformer", work, recipe.minutes, recipe.steps, crew, recipe.save_every)
    stored, numbers, seal = read_latents(work, recipe)
    pooled, sequence = _texts(crew.device)
    torch.manual_seed(recipe.seed)
    flux = parts.transformer(parts.Shape(recipe.heads, recipe.double, recipe.single)).to(crew.device)
    places = _fix_positions(flux, recipe.size // 8, crew.device)
    inside = set(matrices(flux))
    muon = Muon([p for name, p in flux.named_parameters() if name in inside], recipe.muon_rate)
    rest = [p for name, p in flux.named_parameters() if name not in inside]
    adam = torch.optim.AdamW(rest, recipe.adam_rate, betas=(0.9, 0.99), weight_decay=0.0)
    average = {name: p.detach().clone() for name, p in flux.named_parameters()}
    if checkpoint := course.restore():
        _check_latents(checkpoint, seal, course.checkpoint)
        for part, state in ((flux, "model"), (muon, "muon"), (adam, "adam")):
            part.load_state_dict(checkpoint[state])
        average = checkpoint["ema"]
    _make_quick(flux, recipe)
    learnt, shift = list(flux.parameters()), _shift(recipe.size // 8)

    def save(final: bool = False) -> None:
        kept = {"ema": average, "encoder": seal["encoder"], "world": crew.world}
        states = {"model": flux.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict()}
        if course.save(final, **states, **kept):
            with atomic(work / "snapshots" / f"{course.step:07d}.pt") as path:
                torch.save({"state": course.state, **kept}, path)

    began = course.step
    while (fraction := course.fraction()) < 1:
        draws = draws_of(recipe.seed, course.step, crew.rank)
        scale = min(1.0, (course.step + 1) / recipe.warm_up, (1 - fraction) / 0.35)
        set_rate(muon, recipe.muon_rate * scale)
        set_rate(adam, recipe.adam_rate * scale)
        chosen = torch.randint(len(stored), (recipe.batch,), generator=draws)
        clean = (stored[chosen].float() - seal["shift_factor"]) * seal["scaling_factor"]
        batch = _batch(clean, numbers[chosen], recipe.caption_dropout, shift, draws)
        clean, words, sigma, noise, guidance = (value.to(crew.device) for value in batch)
        with torch.autocast(crew.device.type, torch.bfloat16, enabled=recipe.bfloat16):
            velocity = flux(
                hidden_states=clean + sigma[:, None, None] * (noise - clean),
                encoder_hidden_states=sequence[words],
                pooled_projections=pooled[words],
                timestep=sigma,
                guidance=guidance,
                return_dict=False,
                **places,
            )[0]
        loss = (velocity.float() - (noise - clean)).square().mean()
        flux.zero_grad(set_to_none=False)
        loss.backward()
        crew.average_gradients(learnt)
        nn.utils.clip_grad_norm_(rest, 1.0)
        adam.step()
        muon.step()
        follow(average, flux.named_parameters(), course.step, recipe.average)
        course.advance(loss.detach(), recipe.batch)
        save()
    if course.step > began:
        save(final=True)
    crew.wait()


def _check_latents(checkpoint: dict[str, Any], seal: dict[str, Any], path: Path) -> None:
    if checkpoint["encoder"] != seal["encoder"]:
        raise HandscopeError(
            f"Expected {path} to come from the latents in {path.parent / 'latents'}, but they were "
            "encoded anew since: delete the checkpoint to train from the start."
        )


def _texts(device: torch.device) -> tuple[Tensor, Tensor]:
    """Pooled and sequence embeddings of all captions, and last of the empty one."""
    clip, t5 = parts.clip_tokenizer(), parts.t5_tokenizer()
    captions = [str(caption) for caption in CAPTIONS] + [""]
    pooled, sequence = parts.embed(captions, clip, t5, *parts.text_encoders(clip, t5))
    return pooled.to(device), sequence.to(device)


def _fix_positions(flux: FluxTransformer2DModel, side: int, device: torch.device) -> dict[str, Tensor]:
    """The places of `side` by `side` image tokens and of the text's, whose angles are computed once for all steps."""
    image = torch.zeros(side * side, 3, device=device)
    image[:, 1] = torch.arange(side * side) // side
    image[:, 2] = torch.arange(side * side) % side
    text = torch.zeros(parts.TEXT_LENGTH, 3, device=device)
    flux.pos_embed = _Fixed(flux.pos_embed(torch.cat([text, image])))
    return {"img_ids": image, "txt_ids": text}


def _make_quick(flux: FluxTransformer2DModel, recipe: Recipe) -> None:
    if recipe.bfloat16:  # in bfloat16 on a CPU, attention by plain products takes half as long as the fused kernel
        flux.set_attention_backend("_native_math")
    if recipe.compile:
        for block in [*flux.transformer_blocks, *flux.single_transformer_blocks]:
            block.compile(dynamic=False)


def _shift(side: int) -> float:
    """How far the sampler moves the times of a picture of `side` by `side` tokens towards noise."""
    sampler = parts.scheduler().config
    mu = calculate_shift(
        side * side, sampler.base_image_seq_len, sampler.max_image_seq_len, sampler.base_shift, sampler.max_shift
    )
    return math.exp(mu)


def _batch(
    clean: Tensor, captions: Tensor, dropout: float, shift: float, draws: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Latents, their captions (some of them emptied), and for each its sigma, noise and guidance."""
    n = len(clean)
    empty = torch.rand(n, generator=draws) < dropout
    words = torch.where(empty, len(CAPTIONS), captions)
    uniform = torch.sigmoid(torch.randn(n, generator=draws))
    sigma = shift * uniform / (1 + (shift - 1) * uniform)
    noise = torch.randn(clean.shape, generator=draws)
    return clean, words, sigma, noise, 1 + 4 * torch.rand(n, generator=draws)


def matrices(flux: FluxTransformer2DModel) -> list[str]:
    """Names of the parameters that Muon trains: the matrices of attention and feed-forward layers inside the blocks."""
    inside = ("attn.", "ff.", "ff_context.", "proj_mlp.", "proj_out.")
    return [
        name
        for name, p in flux.named_parameters()
        if p.ndim == 2 and "transformer_blocks" in name and any(part in name for part in inside)
    ]


class _Fixed(nn.Module):
    """Stands in for the position embedding while training: the positions never change, so neither do their angles."""

    def __init__(self, value: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.value = value

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.value
