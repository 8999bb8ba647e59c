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

    How an organism moves and scales them goes into its scale.json, from the first shards where its autoencoder does
    not say.
    """
    vae = read_codec(work, recipe, "autoencoder", crew.device).to(memory_format=torch.channels_last)
    folder, made_by = work.latents, encoder_hash(vae)
    mark = folder / "encoder.txt"
    if crew.leads and (not mark.exists() or mark.read_text() != made_by):
        # Latents of another encoder, half-made ones too, must not be sealed with this one's name.
        for old in folder.glob("*.npy"):
            old.unlink()
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
        scale = recipe.draws.scale(vae)
        if scale is None:
            first = np.concatenate([np.load(folder / path.name) for path in shard_paths(work, recipe)[:8]])
            values = first.reshape(-1, first.shape[-1]).astype(np.float64)
            scale = recipe.draws.measured(torch.from_numpy(values.mean(0)), torch.from_numpy(values.var(0)))
        mean, spread = scale
        with atomic(work.own / "scale.json") as temporary:
            temporary.write_text(json.dumps({"encoder": made_by, "mean": mean.tolist(), "spread": spread.tolist()}))
    crew.wait()


def read_latents(work: Folders, recipe: Recipe) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """All latents as stored, (n, tokens, 32) float16; the number of each one's caption, (n,); and the seal."""
    path, mark = work.own / "scale.json", work.latents / "encoder.txt"
    seal = json.loads(path.read_text()) if path.exists() else {}
    if not seal or seal["encoder"] != mark.read_text():
        raise HandscopeError(
            f"Expected the renders in {work.latents} as the encoder of {path} encoded them, but that is not there: run "
            "the stage latents first."
        )
    number_of = {str(caption): number for number, caption in enumerate(CAPTIONS)}
    values, numbers = [], []
    for path in shard_paths(work, recipe):
        captions = json.loads(path.with_suffix(".json").read_text())
        numbers += [number_of[caption] for caption in captions + [mirror_caption(caption) for caption in captions]]
        values.append(torch.from_numpy(np.load(work.latents / path.name)))
    return torch.cat(values), torch.tensor(numbers), seal
