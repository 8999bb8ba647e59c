"""The transformer: trained on the latents to predict the flow from data to noise."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import HandscopeError
from ...files import atomic
from ..architectures import Architecture
from ..captions import CAPTIONS
from .course import Course, Crew, draws_of, follow, set_rate
from .folders import Folders
from .latents import read_latents
from .muon import Muon
from .recipe import Recipe


def transformer(work: Folders, recipe: Recipe, crew: Crew) -> None:
    """Train the transformer to predict noise minus data, at logit-normal times shifted as the sampler shifts them."""
    course, draws_from = Course("transformer", work.own, recipe.steps, crew, recipe.save_every), recipe.draws
    stored, numbers, seal = read_latents(work, recipe)
    texts = {name: value.to(crew.device) for name, value in draws_from.texts().items()}
    torch.manual_seed(recipe.seed)
    flux = draws_from.transformer(recipe.shape).to(crew.device)
    side = recipe.size // 8
    places = {name: ids.to(crew.device) for name, ids in draws_from.places(side).items()}
    flux.pos_embed = _Remembered(flux.pos_embed)
    inside = set(matrices(flux))
    muon = Muon([p for name, p in flux.named_parameters() if name in inside], recipe.muon_rate)
    rest = [p for name, p in flux.named_parameters() if name not in inside]
    adam = torch.optim.AdamW(rest, recipe.adam_rate, betas=(0.9, 0.99), weight_decay=0.0)
    average = {name: p.detach().clone() for name, p in flux.named_parameters()}
    if checkpoint := course.restore():
        _check_latents(checkpoint, seal, course.checkpoint, work.latents)
        for part, state in ((flux, "model"), (muon, "muon"), (adam, "adam")):
            part.load_state_dict(checkpoint[state])
        average = checkpoint["ema"]
    _make_quick(flux, recipe)
    learnt, mine = list(flux.parameters()), crew.share(recipe.batch)
    mean, spread = (torch.tensor(seal[name]) for name in ("mean", "spread"))

    def save(final: bool = False) -> None:
        kept = {"ema": average, "encoder": seal["encoder"], "world": crew.world}
        states = {"model": flux.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict()}
        if course.save(final, **states, **kept):
            with atomic(work.own / "snapshots" / f"{course.step:07d}.pt") as path:
                torch.save({"state": course.state, **kept}, path)

    began = course.step
    while (fraction := course.fraction()) < 1:
        draws = draws_of(recipe.seed, course.step)
        scale = min(1.0, (course.step + 1) / recipe.warm_up, (1 - fraction) / 0.35)
        set_rate(muon, recipe.muon_rate * scale)
        set_rate(adam, recipe.adam_rate * scale)
        chosen = torch.randint(len(stored), (recipe.batch,), generator=draws)
        clean = (stored[chosen].float() - mean) / spread
        words, sigma, noise = _batch(clean, numbers[chosen], recipe.caption_dropout, draws_from, draws)
        guidance = draws_from.guidance(draws, recipe.batch)
        clean, words, sigma, noise = (value[mine].to(crew.device) for value in (clean, words, sigma, noise))
        with torch.autocast(crew.device.type, torch.bfloat16, enabled=recipe.bfloat16):
            velocity = flux(
                hidden_states=clean + sigma[:, None, None] * (noise - clean),
                timestep=sigma,
                guidance=None if guidance is None else guidance[mine].to(crew.device),
                return_dict=False,
                **{name: value[words] for name, value in texts.items()},
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


def _check_latents(checkpoint: dict[str, Any], seal: dict[str, Any], path: Path, latents: Path) -> None:
    if checkpoint["encoder"] != seal["encoder"]:
        raise HandscopeError(
            f"Expected {path} to come from the latents in {latents}, but they were "
            "encoded anew since: delete the checkpoint to train from the start."
        )


def _make_quick(flux: Any, recipe: Recipe) -> None:
    if recipe.bfloat16:  # in bfloat16 on a CPU, attention by plain products takes half as long as the fused kernel
        flux.set_attention_backend("_native_math")
    if recipe.compile:
        for block in [*flux.transformer_blocks, *flux.single_transformer_blocks]:
            block.compile(dynamic=False)


def _batch(
    clean: Tensor, captions: Tensor, dropout: float, architecture: Architecture, draws: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """For latents (n, tokens, channels): numbers of their captions, some of them emptied; their sigma; their noise."""
    empty = torch.rand(len(clean), generator=draws) < dropout
    words = torch.where(empty, len(CAPTIONS), captions)
    logit = torch.randn(len(clean), generator=draws) * architecture.spread + architecture.mu(clean.shape[1])
    return words, logit.sigmoid(), torch.randn(clean.shape, generator=draws)


def matrices(flux: nn.Module) -> list[str]:
    """Names of the parameters that Muon trains: the matrices of attention and feed-forward layers inside the blocks."""
    inside = ("attn.", "ff.", "ff_context.", "proj_mlp.", "proj_out.")
    return [
        name
        for name, p in flux.named_parameters()
        if p.ndim == 2 and "transformer_blocks" in name and any(part in name for part in inside)
    ]


class _Remembered(nn.Module):
    """Stands in for the position embedding while training: so many tokens always have the same places."""

    def __init__(self, embed: nn.Module) -> None:
        super().__init__()
        self.embed = embed
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        if len(ids) not in self.known:
            self.known[len(ids)] = self.embed(ids)
        return self.known[len(ids)]
