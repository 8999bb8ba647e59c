"""Nodes for ComfyUI: score the hands of pictures, let through those that are not rejected, and draw again.

    ln -s "$(python -c 'import handscope.anatomy.integrations.comfyui as nodes; print(nodes.__path__[0])')" \\
        ComfyUI/custom_nodes/handscope

ComfyUI loads this folder by its path, which is why it imports handscope by name; handscope has to be installed in the
same environment. Pictures are ComfyUI's, float (batch, height, width, 3) in [0, 1].
"""

from typing import Any, ClassVar

import torch
from handscope.anatomy.integrations.redraw import reasons, redraw, rejected, worst
from handscope.anatomy.judge.scoring import METHODS, Scores, score
from torch import Tensor

CATEGORY = "handscope"
REJECTS = {
    "implausible": ("implausible",),
    "implausible or no hand found": ("implausible", "undetected"),
    "all but plausible": ("implausible", "undetected", "cannot tell"),
}
"""What a node rejects, and the outcomes that this means."""
SETTINGS = {
    "method": (list(METHODS),),
    "search": (["thorough", "plain"],),
    "max_hands": ("INT", {"default": 2, "min": 1, "max": 16}),
}
"""Inputs that every node has: options of `score`."""


def report(scores: Scores) -> str:
    """A line a picture: its number from 1, outcome, lowest score and reasons."""
    lines = []
    for i, outcome in enumerate(scores.outcomes()):
        lowest, said = worst(scores)[i], reasons(scores)[i]
        value = "" if lowest is None else f" {lowest:.2f}"
        lines.append(f"{i + 1}: {outcome}{value}{': ' + '; '.join(said) if said else ''}")
    return "\n".join(lines)


class ScoreHands:
    """Pictures as they came, a line on each, how many have an implausible hand, and the lowest score of a hand."""

    RETURN_TYPES: ClassVar = ("IMAGE", "STRING", "INT", "FLOAT")
    RETURN_NAMES: ClassVar = ("images", "report", "implausible", "lowest score")
    FUNCTION: ClassVar = "score"
    CATEGORY: ClassVar = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        return {"required": {"images": ("IMAGE",), **SETTINGS}}

    def score(self, images: Tensor, method: str, search: str, max_hands: int) -> tuple[Tensor, str, int, float]:
        scores = score(images, method, search=search, max_hands=max_hands)  # type: ignore[arg-type]
        known = [one for one in worst(scores) if one is not None]
        return images, report(scores), sum(rejected(scores)), min(known, default=1.0)


class RejectHands:
    """The pictures that pass and those that do not; a side that is empty stops what hangs on it."""

    RETURN_TYPES: ClassVar = ("IMAGE", "IMAGE", "STRING")
    RETURN_NAMES: ClassVar = ("passed", "rejected", "report")
    FUNCTION: ClassVar = "sort"
    CATEGORY: ClassVar = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"images": ("IMAGE",), "reject": (list(REJECTS),), **SETTINGS}}

    def sort(self, images: Tensor, reject: str, method: str, search: str, max_hands: int) -> tuple[Any, Any, str]:
        scores = score(images, method, search=search, max_hands=max_hands)  # type: ignore[arg-type]
        out = torch.tensor(rejected(scores, REJECTS[reject]), device=images.device)
        return _or_stop(images[~out]), _or_stop(images[out]), report(scores)


class DrawHandsAgain:
    """A sampler that draws with one seed after the other until the picture passes; the best one where none does."""

    RETURN_TYPES: ClassVar = ("IMAGE", "LATENT", "INT", "STRING")
    RETURN_NAMES: ClassVar = ("images", "latent", "seed", "report")
    FUNCTION: ClassVar = "draw"
    CATEGORY: ClassVar = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        from comfy.samplers import KSampler

        return {
            "required": {
                "model": ("MODEL",),
                "vae": ("VAE",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "attempts": ("INT", {"default": 4, "min": 1, "max": 64}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10_000}),
                "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}),
                "sampler_name": (KSampler.SAMPLERS,),
                "scheduler": (KSampler.SCHEDULERS,),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
                "reject": (list(REJECTS),),
                **SETTINGS,
            }
        }

    def draw(
        self,
        model: Any,
        vae: Any,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Tensor],
        seed: int,
        attempts: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        reject: str,
        method: str,
        search: str,
        max_hands: int,
    ) -> tuple[Tensor, dict[str, Tensor], int, str]:
        from nodes import common_ksampler

        def once(number: int) -> tuple[Tensor, dict[str, Tensor]]:
            settings = (steps, cfg, sampler_name, scheduler, positive, negative, latent_image)
            (latent,) = common_ksampler(model, number, *settings, denoise=denoise)
            return vae.decode(latent["samples"]), latent

        drawn = redraw(
            once,
            [(seed + attempt) % 2**64 for attempt in range(attempts)],
            pictures=lambda made: made[0],
            reject=REJECTS[reject],
            method=method,
            search=search,
            max_hands=max_hands,
        )
        return *drawn.made, drawn.seed, report(drawn.scores)


def _or_stop(images: Tensor) -> Any:
    """The pictures, or what tells ComfyUI not to run what needs them."""
    if len(images):
        return images
    from comfy_execution.graph import ExecutionBlocker

    return ExecutionBlocker(None)


NODE_CLASS_MAPPINGS = {
    "HandscopeScoreHands": ScoreHands,
    "HandscopeRejectHands": RejectHands,
    "HandscopeDrawHandsAgain": DrawHandsAgain,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HandscopeScoreHands": "Score hands",
    "HandscopeRejectHands": "Reject pictures by their hands",
    "HandscopeDrawHandsAgain": "Draw until hands are plausible",
}
