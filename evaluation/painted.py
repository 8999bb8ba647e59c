"""An arm that paints a part of another arm's pictures anew, by its depth or by the prompt alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import sha256
from ..mitigations.finding import finder
from ..mitigations.painting import check_paints, load_network, network_folder
from ..mitigations.repair import Region, own_noise, refusal, repair, steps_of
from ..models.model import Model
from ..run.folder import Run, sample_id
from .arms import Arm, DrawnBatch
from .opening import Models, noise_of, settings_of
from .recipe import Paint, Recipe


def painted_arm(recipe: Recipe, models: Models, source: Run, together: int) -> tuple[Model, Arm]:
    """The model, and an arm whose pictures are those of a run with what is found in them painted anew.

    A picture that cannot be painted anew stays as it was. A ControlNet's call counts by its share of the transformer's
    weights.

    Parameters
    ----------
    together : pictures of a call of the pipeline; a short batch is filled up, so that bits do not depend on it

    Raises
    ------
    HandscopeError
        The model has no pipeline that paints, or there is no such network.
    """
    assert isinstance(recipe.repair, Paint)
    said, model = recipe.repair, models.at(recipe.address)
    check_paints(model.family)
    folder = None if said.network is None else network_folder(said.network)
    network = None if folder is None else load_network(model, folder)
    find = finder(said.find)
    rows, family = source.metadata(), source.settings.get("provenance", {}).get("family", "")
    beside = 0 if network is None else network.num_parameters() / model.transformer.num_parameters()
    cost = steps_of(recipe.steps, said.strength) * (1 + beside)

    def alike(prompt: str) -> int:
        return model.text_tokens([prompt])[prompt]

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        names = [sample_id(prompt, seed) for prompt, seed in zip(prompts, seeds)]
        images = [source.image(name) for name in names]
        regions = [Region(*find(image, prompt)) for image, prompt in zip(images, prompts)]
        able = [i for i, region in enumerate(regions) if not refusal(model, region)]
        calls = np.array([float(rows[name].get("calls") or 0) for name in names])
        if able:
            some = able + able[-1:] * (together - len(able))
            made = repair(
                model,
                [images[i] for i in some],
                [prompts[i] for i in some],
                [regions[i] for i in some],
                [own_noise(said.seed, names[i]) for i in some],
                network,
                said.strength,
                said.control,
                recipe.steps,
                recipe.guidance,
            )
            for i, picture in zip(able, made):
                images[i] = picture
            calls[able] += cost
        return DrawnBatch(images, calls, noises=[noise_of(rows[name], family) for name in names])

    settings = {**settings_of(recipe, model), "of": source.settings.get("drawn_with", {})}
    if folder is not None:
        settings["network_sha256"] = _weights_of(folder)
    return model, Arm(recipe.name, recipe.family, drawn, alike, recipe.controls, settings)


def _weights_of(folder: Path) -> str:
    """A hash of all weights in a folder."""
    return sha256("".join(sha256(path) for path in sorted(folder.glob("*.safetensors"))).encode())
