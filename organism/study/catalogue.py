"""The arms of the experiment on the organism: what might mend a hand, and what must not look as if it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...evaluation.arms import Arm, Drawn
from ...extract.generate import draw
from ...guidance.triage import triage
from ...models.sampling import Sampling
from ...run.prompts import LAST_SEED
from .knowledge import SHUFFLES
from .ways import Setting, Way, contrast, random_way, ways

Around = Callable[[str], AbstractContextManager[Any]]
"""From a prompt of the batch to what is held around its generation."""

RANDOM = 2  # random directions beside a steering


def plain_arms(setting: Setting) -> list[Arm]:
    """What needs no labels, the baseline first."""
    return [
        Arm("baseline", "plain", _plain(setting)),
        Arm("another seed", "control", _plain(setting, shift=500_000)),
        Arm("twice the steps", "plain", _plain(setting, steps=2 * setting.steps)),
        Arm("true guidance 2", "plain", _true_guidance(setting, 2.0)),
    ]


@dataclass(frozen=True, eq=False)
class Tried:
    """An arm of the pilot: a way at a strength, or a control beside the ways of its group."""

    arm: Arm
    way: str = ""
    group: str = ""
    dose: float = 0.0


def pilot_arms(setting: Setting) -> list[Tried]:
    """The baseline, every way at every strength, and permuted labels for the plainest way of each group."""
    made = [Tried(plain_arms(setting)[0])]
    groups: set[str] = set()
    for way in [*ways(setting), contrast(setting), random_way(setting, 0)]:
        for dose in way.doses:
            made.append(Tried(way_arm(setting, way, dose), way.name, way.group, dose))
            if way.learns and way.group not in groups:
                made.append(Tried(way_arm(setting, way, dose, 0), f"shuffled {way.name}", way.group, dose))
        groups.add(way.group)
    return made


def chosen_arms(setting: Setting, chosen: Mapping[str, tuple[str, float]]) -> list[Arm]:
    """For each group its chosen way and strength, with every control: permuted labels, random directions, contrast."""
    every = {way.name: way for way in ways(setting)}
    made: dict[str, Arm] = {}
    for name, dose in chosen.values():
        way = every[name]
        controls = [way_arm(setting, way, dose, k) for k in range(SHUFFLES if way.learns else 0)]
        if way.family == "steering" and way.group != "ablation":
            controls += [way_arm(setting, random_way(setting, seed), dose) for seed in range(RANDOM)]
        if way.family == "guidance":
            controls.append(way_arm(setting, contrast(setting), dose))
        own = replace(way_arm(setting, way, dose), controls=tuple(arm.name for arm in controls))
        made |= {arm.name: arm for arm in [own, *controls]}
    return list(made.values())


def way_arm(setting: Setting, way: Way, dose: float, k: int | None = None) -> Arm:
    """A way at a strength; with labels permuted within prompts where `k` is given."""
    known = setting.known

    def around(prompt: str) -> AbstractContextManager[Any]:
        return way.around(known.lesson(prompt, k), dose)

    name = way.name if len(way.doses) == 1 else f"{way.name} {dose:g}"
    name, family = (name, way.family) if k is None else (f"shuffled {name} ({k})", "control")
    settings = {**setting.taught, "blocks": list(known.blocks), "window": list(setting.window)}
    return Arm(name, family, _plain(setting, around=around, more=way.calls), known.fold_of, settings=settings)


def _plain(
    setting: Setting,
    steps: int | None = None,
    shift: int = 0,
    around: Around = lambda prompt: nullcontext(),
    more: int = 0,
) -> Callable[[Sequence[str], Sequence[int]], Drawn]:
    own = setting.generation | ({"steps": steps} if steps else {})

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
        pairs = [(prompt, _later(seed, shift)) for prompt, seed in zip(prompts, seeds)]
        with around(prompts[0]) as trace:
            made = draw(setting.model, pairs, **own, trajectories=False)
        shares = [share for step in trace or [] for share in step.share]
        calls = np.full(len(pairs), float(own["steps"] + more))
        return Drawn(made.images, calls, float(np.mean(shares)) if shares else float("nan"))

    return drawn


def _later(seed: int, by: int) -> int:
    return (seed + by) % (LAST_SEED + 1)


def _true_guidance(setting: Setting, scale: float) -> Callable[[Sequence[str], Sequence[int]], Drawn]:
    """Classifier-free guidance against the empty prompt, at two calls a step."""
    model = setting.model

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> Drawn:
        size = setting.height, setting.width
        noise = [model.noise(seed, *size) for seed in seeds]
        images = model.pipe(
            **model.family.generation(model, prompts, setting.guidance, [""] * len(prompts), scale),
            latents=model.family.to_pipeline(model.pipe, torch.stack(noise), *size),
            num_inference_steps=setting.steps,
            height=size[0],
            width=size[1],
            output_type="np",
        ).images
        return Drawn((images * 255).round().astype(np.uint8), np.full(len(prompts), 2.0 * setting.steps))

    return drawn


def triage_arms(setting: Setting) -> list[Arm]:
    """One arm a feature that triage may look at."""
    made = []
    for name, look in setting.known.looks.items():

        def drawn(prompts: Sequence[str], seeds: Sequence[int], look: Any = look) -> Drawn:
            sampling = Sampling(setting.model, **setting.generation)
            others = [setting.spare + 1000 * k for k in range(look.attempts - 1)]
            tried = [[seed, *(_later(seed, by) for by in others)] for seed in seeds]
            threshold = None if look.threshold is None else look.threshold[prompts[0]]
            chosen = triage(sampling, prompts, tried, look.selector, look.step, threshold, len(prompts))
            before = min(setting.steps, setting.steps - look.step + 1)
            calls = before * chosen.attempts + setting.steps - before
            return Drawn(chosen.images, calls.astype(float), seeds=chosen.seeds)

        settings = {**setting.taught, "attempts": look.attempts, "wanted": look.wanted}
        made.append(Arm(f"triage {name}", "triage", drawn, setting.known.fold_of, settings=settings))
    return made
