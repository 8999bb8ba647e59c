"""A part of a picture painted anew by its depth, after Lu et al. 2023 (arXiv 2311.17957)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import HandscopeError
from ..models.model import Model
from .painting import pipeline

SMALLEST = 9
"""Tokens that a region must have: fewer cannot hold what depth says of it."""


@dataclass(frozen=True, eq=False)
class Region:
    """What is painted anew.

    Attributes
    ----------
    mask : bool array of shape (height, width)
    depth : float array of shape (height, width) in [0, 1], 1 nearest; 0 behind everything
    """

    mask: NDArray[np.bool_]
    depth: NDArray[np.float32]


Find = Callable[[NDArray[np.uint8], str], tuple[NDArray[np.bool_], NDArray[np.float32]]]
"""From a picture (height, width, 3) and its caption to a mask and a depth of shape (height, width)."""


def refusal(model: Model, region: Region | None) -> str:
    """Why a region cannot be painted anew, in a sentence; empty where it can."""
    if region is None or not region.mask.any():
        return "Nothing was found that could be painted anew."
    rows, columns = model.grid(*region.mask.shape)
    tokens = region.mask.sum() / (region.mask.size / (rows * columns))
    if tokens < SMALLEST:
        return (
            f"What was found is too small: it covers {tokens:.1f} tokens of the model, and {SMALLEST} are needed. "
            "Enlarge the picture, or cut out a part of it."
        )
    return ""


def steps_of(steps: int, strength: float) -> int:
    """Calls of the transformer that a repair of a strength takes.

    Raises
    ------
    HandscopeError
        The strength leaves none.
    """
    left = min(int(steps * strength), steps)
    if not 0 < strength <= 1 or left < 1:
        raise HandscopeError(
            f"Expected a strength above 0 and up to 1 that leaves at least one of {steps} steps, found {strength:g}."
        )
    return left


def own_noise(seed: int, name: str) -> int:
    """The seed of a picture's own noise, by its name: pictures that are repaired together share none."""
    return int(hashlib.sha256(f"{seed} {name}".encode()).hexdigest()[:8], 16)


@torch.no_grad()
def repair(
    model: Model,
    pictures: Sequence[NDArray[np.uint8]],
    prompts: Sequence[str],
    regions: Sequence[Region],
    seeds: Sequence[int],
    network: Any | None = None,
    strength: float = 1.0,
    control: float = 0.55,
    steps: int = 20,
    guidance: float = 3.5,
) -> NDArray[np.uint8]:
    """Paint regions of pictures of one size anew, through diffusers' pipelines for inpainting.

    Parameters
    ----------
    pictures : sequence of uint8 arrays of shape (height, width, 3)
    regions : sequence of Region
        None of which is refused, see `refusal`.
    seeds : sequence of int
        Of the noise of each.
    network : ControlNet, optional
        That is told depth; without one the region is painted by the prompt alone, from another noise of the seed, since
        encoding depth draws from it too. `control` 0 is the same noise without depth.
    strength : float
        Share of the noise levels that a region goes back to, 1 pure noise.
    control : float
        How strongly depth acts. Lu et al. found a change of phase at about 0.55: structure follows
        below, and above it texture suffers.

    Returns
    -------
    uint8 array of shape (n, height, width, 3): outside the masks the bits of the pictures.

    Raises
    ------
    HandscopeError
        A region is refused, the family has no such pipelines, or the strength leaves no step.
    """
    for region in regions:
        if said := refusal(model, region):
            raise HandscopeError(said)
    steps_of(steps, strength)
    pipe = pipeline(model, network)
    height, width = regions[0].mask.shape
    given = model.family.generation(model, prompts, guidance)
    given |= {} if network is None else {
        "control_image": [_grey(region.depth) for region in regions],
        "controlnet_conditioning_scale": control,
    }
    painted = pipe(
        **given,
        image=[Image.fromarray(picture) for picture in pictures],
        mask_image=[Image.fromarray(region.mask.astype(np.uint8) * 255) for region in regions],
        height=height,
        width=width,
        strength=strength,
        num_inference_steps=steps,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    made = (painted * 255).round().astype(np.uint8)
    masks = np.stack([region.mask for region in regions])[..., None]
    return np.where(masks, made, np.stack(pictures))


def _grey(depth: NDArray[np.float32]) -> Image.Image:
    """Depth as ControlNets take it: nearer is brighter, the same in all colours."""
    return Image.fromarray((np.clip(depth, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")
