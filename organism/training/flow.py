"""The transformer: trained on the latents to predict the flow from data to noise."""

import math
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor, nn

from ...errors import HandscopeError
from ...files import atomic
from .. import model as parts
from ..captions import CAPTIONS
from .course import Course, Crew, draws_of, follow
from .latents import read_latents
from .muon import Muon
from .recipe import Recipe


def transformer(work: Path, recipe: Recipe, crew: Crew) -> None:
    """Train the transformer to predict noise minus data, at logit-normal times shifted as the sampler shifts them."""
    course = Course("transformer", work, recipe.minutes, recipe.steps, crew, recipe.save_every)
    device = crew.device
    stored, numbers, seal = read_latents(work, recipe)
    clip, t5 = parts.clip_tokenizer(), parts.t5_tokenizer()
    pooled, sequence = (
        value.to(device)
        for value in parts.embed(
            [str(caption) for caption in CAPTIONS] + [""], clip, t5, *parts.text_encoders(clip, t5)
        )
    )
    torch.manual_seed(recipe.seed)
    flux = parts.transformer(parts.Shape(recipe.heads, recipe.double, recipe.single)).to(device)
    side = recipe.size // 8
    image_ids = torch.zeros(side * side, 3, device=device)
    image_ids[:, 1] = torch.arange(side * side) // side
    image_ids[:, 2] = torch.arange(side * side) % side
    text_ids = torch.zeros(parts.TEXT_LENGTH, 3, device=device)
    flux.pos_embed = _Fixed(flux.pos_embed(torch.cat([text_ids, image_ids])))
    inside = set(matrices(flux))
    muon = Muon([p for name, p in flux.named_parameters() if name in inside], recipe.muon_rate)
    rest = [p for name, p in flux.named_parameters() if name not in inside]
    adam = torch.optim.AdamW(rest, recipe.adam_rate, betas=(0.9, 0.99), weight_decay=0.0)
    learnt = list(flux.parameters())
    average = {name: p.detach().clone() for name, p in flux.named_parameters()}
    if found := course.restore():
        if found["encoder"] != seal["encoder"]:
            raise HandscopeError(
                f"Expected {course.checkpoint} to come from the latents in {work / 'latents'}, but they were "
                "encoded anew since: delete the checkpoint to train from the start."
            )
        flux.load_state_dict(found["model"])
        muon.load_state_dict(found["muon"])
        adam.load_state_dict(found["adam"])
        average = found["ema"]
    if recipe.bfloat16:  # in bfloat16 on a CPU, attention by plain products takes half as long as the fused kernel
        flux.set_attention_backend("_native_math")
    if recipe.compile:
        for block in [*flux.transformer_blocks, *flux.single_transformer_blocks]:
            block.compile(dynamic=False)
    sampler = parts.scheduler().config
    mu = calculate_shift(
        side * side, sampler.base_image_seq_len, sampler.max_image_seq_len, sampler.base_shift, sampler.max_shift
    )

    def save(final: bool = False) -> None:
        if course.save(
            final,
            model=flux.state_dict(),
            muon=muon.state_dict(),
            adam=adam.state_dict(),
            ema=average,
            encoder=seal["encoder"],
            world=crew.world,
        ):
            with atomic(work / "snapshots" / f"{course.step:07d}.pt") as path:
                torch.save(
                    {"state": course.state, "ema": average, "encoder": seal["encoder"], "world": crew.world}, path
                )

    began = course.step
    while (fraction := course.fraction()) < 1:
        draws = draws_of(recipe.seed, course.step, crew.rank)
        scale = min(1.0, (course.step + 1) / recipe.warm_up, (1 - fraction) / 0.35)
        for optimiser, rate in ((muon, recipe.muon_rate), (adam, recipe.adam_rate)):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
        chosen = torch.randint(len(stored), (recipe.batch,), generator=draws)
        clean = (stored[chosen].float() - seal["shift_factor"]) * seal["scaling_factor"]
        empty = torch.rand(recipe.batch, generator=draws) < recipe.caption_dropout
        words = torch.where(empty, len(CAPTIONS), numbers[chosen])
        uniform = torch.sigmoid(torch.randn(recipe.batch, generator=draws))
        sigma = math.exp(mu) * uniform / (1 + (math.exp(mu) - 1) * uniform)
        noise = torch.randn(clean.shape, generator=draws)
        guidance = 1 + 4 * torch.rand(recipe.batch, generator=draws)
        clean, words, sigma, noise, guidance = (value.to(device) for value in (clean, words, sigma, noise, guidance))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            velocity = flux(
                hidden_states=clean + sigma[:, None, None] * (noise - clean),
                encoder_hidden_states=sequence[words],
                pooled_projections=pooled[words],
                timestep=sigma,
                img_ids=image_ids,
                txt_ids=text_ids,
                guidance=guidance,
                return_dict=False,
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
