"""The training images on disk: shards of renders with their captions."""

import json
from pathlib import Path

import numpy as np

from ...errors import HandscopeError
from ...files import atomic
from ..render import render_dataset
from .course import Crew
from .folders import Folders
from .recipe import Recipe


def render(work: Folders, recipe: Recipe, crew: Crew) -> None:
    """Draw the training images: `shards` pairs of NNNN.npy (uint8, n x 3 x size x size) and NNNN.json (captions).

    Shard 0 is held out from training the autoencoder.
    """
    for number in range(crew.rank, recipe.shards, crew.world):
        path = work.renders / f"{number:04d}.npy"
        if path.with_suffix(".json").exists():
            continue
        batch = render_dataset(recipe.shard_size, number, recipe.size)
        with atomic(path) as temporary:
            np.save(temporary, batch.images.numpy())
        with atomic(path.with_suffix(".json")) as temporary:  # last: its presence says that the shard is whole
            temporary.write_text(json.dumps(batch.captions))
    crew.wait()


def shard_paths(work: Folders, recipe: Recipe) -> list[Path]:
    """The .npy files of all shards, in order; raises HandscopeError where one has not been drawn."""
    paths = [work.renders / f"{number:04d}.npy" for number in range(recipe.shards)]
    for path in paths:
        if not path.with_suffix(".json").exists():
            raise HandscopeError(
                f"Expected {recipe.shards} shards of rendered hands in {path.parent}, but {path.name} is not there: "
                "run the stage render first."
            )
    return paths
