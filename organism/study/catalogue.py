"""The arms of the experiment on the organism: what might mend a hand, and what must not look as if it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...evaluation.arms import Arm, DrawnBatch
from ...extract.generate import draw
from ...guidance.triage import triage
from ...models.sampling import Sampling
from ...run.prompts import LAST_SEED
from .interventions import Intervention, Setting, contrast_guidance, interventions, random_steering
from .lessons import SHUFFLES

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
    """An arm of the pilot: an intervention at a strength, or a control beside those of its group."""

    arm: Arm
    way: str = ""
    group: str = ""
    dose: float = 0.0


def pilot_arms(setting: Setting) -> list[Tried]:
    """The baseline, every intervention at every strength, and permuted labels for the plainest of each group."""
    made = [Tried(plain_arms(setting)[0])]
    groups: set[str] = set()
    for kind in [*interventions(setting), contrast_guidance(setting), random_steering(setting, 0)]:
        for dose in kind.doses:
            made.append(Tried(arm_of(setting, kind, dose), kind.name, kind.group, dose))
            if kind.learns and kind.group not in groups:
                made.append(Tried(arm_of(setting, kind, dose, 0), f"shuffled {kind.name}", kind.group, dose))
        groups.add(kind.group)
    return made


def chosen_arms(setting: Setting, chosen: Mapping[str, tuple[str, float]]) -> list[Arm]:
    """For each group what was chosen, with every control: permuted labels, random directions, contrast."""
    every = {kind.name: kind for kind in interventions(setting)}
    made: dict[str, Arm] = {}
    for name, dose in chosen.values():
        intervention = every[name]
        controls = [arm_of(setting, intervention, dose, k) for k in range(SHUFFLES if intervention.learns else 0)]
        if intervention.family == "steering" and intervention.group != "ablation":
            controls += [arm_of(setting, random_steering(setting, seed), dose) for seed in range(RANDOM)]
        if intervention.family == "guidance":
            controls.append(arm_of(setting, contrast_guidance(setting), dose))
        arm = replace(arm_of(setting, intervention, dose), controls=tuple(control.name for control in controls))
        made |= {one.name: one for one in [arm, *controls]}
    return list(made.values())


def arm_of(setting: Setting, intervention: Intervention, dose: float, k: int | None = None) -> Arm:
    """An intervention at a strength; with labels permuted within prompts where `k` is given."""
    lessons = setting.lessons

    def around(prompt: str) -> AbstractContextManager[Any]:
        return intervention.around(lessons.lesson(prompt, k), dose)

    name = intervention.name if len(intervention.doses) == 1 else f"{intervention.name} {dose:g}"
    name, family = (name, intervention.family) if k is None else (f"shuffled {name} ({k})", "control")
    settings = {**setting.taught, "blocks": list(lessons.blocks), "window": list(setting.window)}
    draw_batch = _plain(setting, around=around, more=intervention.calls)
    return Arm(name, family, draw_batch, lessons.fold_of, settings=settings)


def _plain(
    setting: Setting,
    steps: int | None = None,
    shift: int = 0,
    around: Around = lambda prompt: nullcontext(),
    more: int = 0,
) -> Callable[[Sequence[str], Sequence[int]], DrawnBatch]:
    generation = setting.generation | ({"steps": steps} if steps else {})

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        pairs = [(prompt, _later(seed, shift)) for prompt, seed in zip(prompts, seeds)]
        with around(prompts[0]) as trace:
            made = draw(setting.model, pairs, **generation, trajectories=False)
        shares = [share for step in trace or [] for share in step.share]
        calls = np.full(len(pairs), float(generation["steps"] + more))
        return DrawnBatch(made.images, calls, float(np.mean(shares)) if shares else float("nan"))

    return drawn


def _later(seed: int, by: int) -> int:
    return (seed + by) % (LAST_SEED + 1)


def _true_guidance(setting: Setting, scale: float) -> Callable[[Sequence[str], Sequence[int]], DrawnBatch]:
    """Classifier-free guidance against the empty prompt, at two calls a step."""
    model = setting.model

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        made = draw(model, list(zip(prompts, seeds)), **setting.generation, trajectories=False, negative="",
                    true_cfg=scale)  # fmt: skip
        return DrawnBatch(made.images, np.full(len(prompts), 2.0 * setting.steps))

    return drawn


def triage_arms(setting: Setting) -> list[Arm]:
    """One arm a feature that triage may look at."""
    made = []
    for name, look in setting.lessons.looks.items():

        def drawn(prompts: Sequence[str], seeds: Sequence[int], look: Any = look) -> DrawnBatch:
            sampling = Sampling(setting.model, **setting.generation)
            others = [setting.spare + 1000 * k for k in range(look.attempts - 1)]
            tried = [[seed, *(_later(seed, by) for by in others)] for seed in seeds]
            threshold = None if look.threshold is None else look.threshold[prompts[0]]
            chosen = triage(sampling, prompts, tried, look.selector, look.step, threshold, len(prompts))
            before = min(setting.steps, setting.steps - look.step + 1)
            calls = before * chosen.attempts + setting.steps - before
            return DrawnBatch(chosen.images, calls.astype(float), seeds=chosen.seeds)

        settings = {**setting.taught, "attempts": look.attempts, "wanted": look.cost}
        made.append(Arm(f"triage {name}", "triage", drawn, setting.lessons.fold_of, settings=settings))
    return made
