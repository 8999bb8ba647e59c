"""The renders as the transformer sees them: encoded once, and read back with their captions."""

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import HandscopeError
from ...files import atomic
from .. import model as parts
from ..captions import CAPTIONS
from ..render import mirror_caption
from .codec import encoder_hash, pixels, read_codec
from .course import Crew
from .folders import Folders
from .recipe import Recipe
from .shards import shard_paths


@torch.no_grad()
def latents(work: Folders, recipe: Recipe, crew: Crew) -> None:
    """Encode every render and its mirror once: packed posterior means, float16, NNNN.npy of shape (2n, tokens, 32).

    How they are moved and scaled goes into latents/scale.json: as the autoencoder says where it comes from another
    organism, else as the first shards measure.
    """
    vae = read_codec(work, recipe, "autoencoder", crew.device).to(memory_format=torch.channels_last)
    folder, made_by = work.latents, encoder_hash(vae)
    seal = folder / "scale.json"
    mark = folder / "encoder.txt"
    if crew.leads and (not mark.exists() or mark.read_text() != made_by):
        # Latents of another encoder, half-made ones too, must not be sealed with this one's name.
        for old in [seal, *folder.glob("*.npy")]:
            old.unlink(missing_ok=True)
        with atomic(mark) as temporary:
            temporary.write_text(made_by)
    crew.wait()
    for number, path in enumerate(shard_paths(work, recipe)):
        target = folder / path.name
        if number % crew.world == crew.rank and not target.exists():
            images = np.load(path)
            both = np.concatenate([images, images[..., ::-1]])
            packed = [
                parts.pack(vae.encode(pixels(both[at : at + 32], crew.device)).latent_dist.mode())
                for at in range(0, len(both), 32)
            ]
            with atomic(target) as temporary:
                np.save(temporary, torch.cat(packed).cpu().numpy().astype(np.float16))
    crew.wait()
    if crew.leads:
        if work.trains_codec:
            first = np.concatenate([np.load(folder / path.name) for path in shard_paths(work, recipe)[:8]])
            values = first.reshape(-1, first.shape[-1]).astype(np.float64)
            mean, spread = recipe.draws.measured(torch.from_numpy(values.mean(0)), torch.from_numpy(values.var(0)))
        else:
            mean, spread = recipe.draws.scale(vae)
        with atomic(seal) as temporary:
            temporary.write_text(json.dumps({"encoder": made_by, "mean": mean.tolist(), "spread": spread.tolist()}))
    crew.wait()


def read_latents(work: Folders, recipe: Recipe) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """All latents as stored, (n, tokens, 32) float16; the number of each one's caption, (n,); and the seal."""
    seal = work.latents / "scale.json"
    if not seal.exists():
        raise HandscopeError(
            f"Expected the encoded renders in {seal.parent}, but {seal.name} is not there: run the stage latents first."
        )
    number_of = {str(caption): number for number, caption in enumerate(CAPTIONS)}
    values, numbers = [], []
    for path in shard_paths(work, recipe):
        captions = json.loads(path.with_suffix(".json").read_text())
        numbers += [number_of[caption] for caption in captions + [mirror_caption(caption) for caption in captions]]
        values.append(torch.from_numpy(np.load(work.latents / path.name)))
    return torch.cat(values), torch.tensor(numbers), json.loads(seal.read_text())
