"""The arms of the experiment on the organism: what might mend a hand, and what must not look as if it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..extract.generate import draw
from ..extract.models import Model
from ..extract.sampling import Sampling
from ..guidance.guide import guide
from ..guidance.losses import Loss, PictureLoss, ProbeLoss
from ..guidance.steer import ablate, random_directions, steer
from ..guidance.triage import triage
from .arms import Arm, Drawn
from .knowledge import SHUFFLES, Knowledge


@dataclass(frozen=True, eq=False)
class Setting:
    """What all arms share.

    Attributes
    ----------
    model : Model
    steps, guidance, height, width : of the baseline
    known : Knowledge, fitted to labelled samples and held out by prompt
    window : steps in which an intervention works, the noisiest first
    spare : first of the seeds that triage may try beside the pair's own
    """

    model: Model
    steps: int
    guidance: float
    height: int
    width: int
    known: Knowledge
    window: tuple[int, ...]
    spare: int

    @property
    def generation(self) -> dict[str, Any]:
        """The settings of a plain generation."""
        return {"steps": self.steps, "guidance": self.guidance, "height": self.height, "width": self.width}


Around = Callable[[str], AbstractContextManager[Any]]
"""From a prompt of the batch to what is held around its generation."""


def arms(setting: Setting) -> list[Arm]:
    """Every arm, the baseline first."""
    return [
        Arm("baseline", "plain", _plain(setting)),
        Arm("another seed", "control", _plain(setting, shift=500_000)),
        Arm("twice the steps", "plain", _plain(setting, steps=2 * setting.steps)),
        Arm("true guidance 2", "plain", _true_guidance(setting, 2.0)),
        *_triage_arms(setting),
        *_steering_arms(setting),
        *_guidance_arms(setting),
    ]


def _plain(
    setting: Setting, steps: int | None = None, shift: int = 0, around: Around = lambda prompt: nullcontext()
) -> Callable[[Sequence[str], Sequence[int]], Drawn]:
    own = setting.generation | ({"steps": steps} if steps else {})

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
        pairs = [(prompt, seed + shift) for prompt, seed in zip(prompts, seeds)]
        with around(prompts[0]) as trace:
            made = draw(setting.model, pairs, **own, trajectories=False)
        shares = [share for step in trace or [] for share in step.share]
        calls = np.full(len(pairs), float(own["steps"]))
        return Drawn(made.images, calls, float(np.mean(shares)) if shares else float("nan"))

    return drawn


def _true_guidance(setting: Setting, scale: float) -> Callable[[Sequence[str], Sequence[int]], Drawn]:
    """Classifier-free guidance against the empty prompt, at two calls a step."""
    model = setting.model

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
        text, pooled, _ = model.encode([*prompts, ""]).batch(prompts, model.device, model.dtype)
        empty, empty_pooled, _ = model.encode([""]).batch([""] * len(prompts), model.device, model.dtype)
        noise = [model.adapter.noise(model.pipe, seed, setting.height, setting.width) for seed in seeds]
        images = model.pipe(
            prompt_embeds=text,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=empty,
            negative_pooled_prompt_embeds=empty_pooled,
            true_cfg_scale=scale,
            latents=torch.stack(noise),
            num_inference_steps=setting.steps,
            guidance_scale=setting.guidance,
            height=setting.height,
            width=setting.width,
            max_sequence_length=model.max_sequence_length,
            output_type="np",
        ).images
        return Drawn((images * 255).round().astype(np.uint8), np.full(len(prompts), 2.0 * setting.steps))

    return drawn


def _triage_arms(setting: Setting) -> list[Arm]:
    made = []
    for name, look in setting.known.looks.items():

        def drawn(prompts: Sequence[str], seeds: Sequence[int], look: Any = look) -> Drawn:
            sampling = Sampling(setting.model, **setting.generation)
            tried = [[seed, *(setting.spare + 1000 * k + seed for k in range(look.attempts - 1))] for seed in seeds]
            threshold = None if look.threshold is None else look.threshold[prompts[0]]
            chosen = triage(sampling, prompts, tried, look.selector, look.step, threshold, len(prompts))
            before = min(setting.steps, setting.steps - look.step + 1)
            calls = before * chosen.attempts + setting.steps - before
            return Drawn(chosen.images, calls.astype(float), seeds=chosen.seeds)

        made.append(Arm(f"triage {name}", "triage", drawn, setting.known.fold_of))
    return made


def _steering_arms(setting: Setting) -> list[Arm]:
    known, model = setting.known, setting.model

    def along(directions: Callable[[str], Mapping[str, Any]], strength: float) -> Around:
        return lambda prompt: steer(model.transformer, directions(prompt), strength, setting.window, setting.steps)

    made = [
        Arm(
            f"steering {strength:g}",
            "steering",
            _plain(setting, around=along(known.directions, strength)),
            known.fold_of,
            tuple(f"random direction {strength:g} ({k})" for k in range(2)) + _shuffled("steering", strength),
        )
        for strength in (0.05, 0.1, 0.2)
    ]

    def without(prompt: str) -> AbstractContextManager[None]:
        centres = known.centres(prompt)
        return ablate(model.transformer, known.directions(prompt), setting.window, setting.steps, centres)

    made.append(Arm("ablation", "steering", _plain(setting, around=without), known.fold_of))
    for strength in (0.05, 0.1, 0.2):
        for k in range(2):

            def at_random(prompt: str, k: int = k) -> Mapping[str, Tensor]:
                return random_directions(known.directions(prompt), k)

            name = f"random direction {strength:g} ({k})"
            made.append(Arm(name, "control", _plain(setting, around=along(at_random, strength)), known.fold_of))
        for k in range(SHUFFLES):

            def shuffled(prompt: str, k: int = k) -> Mapping[str, Any]:
                return known.shuffled_directions(prompt, k)

            name = f"shuffled steering {strength:g} ({k})"
            made.append(Arm(name, "control", _plain(setting, around=along(shuffled, strength)), known.fold_of))
    return made


def _guidance_arms(setting: Setting) -> list[Arm]:
    known = setting.known

    def guided(loss: Callable[[str], Loss | ProbeLoss], scale: float, form: str) -> Any:
        def around(prompt: str) -> AbstractContextManager[Any]:
            return guide(
                setting.model.pipe, loss(prompt), scale, setting.window, setting.steps, form=form, relative=True
            )

        return _plain(setting, around=around)

    contrast = PictureLoss(setting.model, _lack_of_contrast, setting.height, setting.width)
    anatomy = PictureLoss(setting.model, anatomy_loss(), setting.height, setting.width)
    made = []
    for scale in (0.05, 0.1, 0.2):
        ways: dict[str, tuple[Callable[[str, int | None], Loss | ProbeLoss], str]] = {
            "block probe": (known.block_loss, "exact"),
            "picture probe": (known.picture_loss, "frozen"),
        }
        for name, (loss, form) in ways.items():

            def own(prompt: str, loss: Any = loss) -> Any:
                return loss(prompt, None)

            controls = _shuffled(name, scale)
            draw_own = guided(own, scale, form)
            beaten = (*controls, f"contrast {scale:g}")
            made.append(Arm(f"{name} {scale:g}", "guidance", draw_own, known.fold_of, beaten))
            for k, control in enumerate(controls):

                def shuffled(prompt: str, loss: Any = loss, k: int = k) -> Any:
                    return loss(prompt, k)

                made.append(Arm(control, "control", guided(shuffled, scale, form), known.fold_of))
        made.append(Arm(f"contrast {scale:g}", "control", guided(lambda prompt: contrast, scale, "frozen")))
        by_anatomy = guided(lambda prompt: anatomy, scale, "frozen")
        made.append(Arm(f"anatomy {scale:g}", "guidance", by_anatomy, controls=(f"contrast {scale:g}",)))
    return made


def anatomy_loss(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """HandAnat's soft loss of pictures that show one hand each, over both networks and random views."""
    from ..anatomy.count import load_count
    from ..anatomy.networks import load_landmarks
    from ..anatomy.soft import robust_loss

    networks, head = [load_landmarks("full"), load_landmarks("lite")], load_count()
    generator = torch.Generator().manual_seed(seed)

    def loss(pictures: Tensor) -> Tensor:
        size = float(pictures.shape[-1])
        region = pictures.new_tensor([[size / 2, size / 2, size, 0.0]]).expand(len(pictures), 4)
        return robust_loss(pictures, region, networks, generator, count=lambda crops: head(crops).relation, views=1)

    return loss


def _lack_of_contrast(pictures: Tensor) -> Tensor:
    """Minus the standard deviation of luminance: what a guidance that only recolours would lower."""
    luminance = (pictures * pictures.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(1)
    return -luminance.flatten(1).std(1)


def _shuffled(name: str, strength: float) -> tuple[str, ...]:
    return tuple(f"shuffled {name} {strength:g} ({k})" for k in range(SHUFFLES))
