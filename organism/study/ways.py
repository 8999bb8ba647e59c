"""The arms of the experiment on mending as arms of any evaluation: by name, taught by a labelled run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ...errors import HandscopeError
from ...evaluation.arms import Arm
from ...evaluation.recipe import Recipe
from ...models.model import Model, load
from ...progress import Progress, quiet
from ...run.folder import Run
from .catalogue import arm_of, plain_arms, triage_arms
from .interventions import Setting, contrast_guidance, interventions, random_steering
from .lessons import SHUFFLES
from .mend import setting_of


def mend_arm(recipe: Recipe, prompts: Sequence[str], progress: Progress = quiet) -> tuple[Model, Arm]:
    """The model and the arm that a recipe's ``mend: {way, run, strength}`` names.

    `way` is the name of an intervention (``steering``, ``block probe``, ``anatomy`` …), of a control (``random
    direction (0)``, ``contrast``, ``shuffled steering (0)``), or of an arm that takes no strength (``triage x0_flat``,
    ``twice the steps``).

    Raises
    ------
    HandscopeError
        There is no such way, it lacks a strength or takes none, or a prompt is not among those that the run teaches
        something of; or as in `learn`.
    """
    assert recipe.mend is not None
    said = recipe.mend
    setting = _setting(Path(said.run).absolute(), Run(said.run).labels_path.stat().st_mtime_ns, progress)
    unknown = [prompt for prompt in prompts if prompt not in setting.lessons.fold]
    if unknown:
        raise HandscopeError(
            f"{said.run} has no sure labels of {len(unknown)} prompts, {unknown[0]!r} among them, and what it teaches "
            "is held out by prompt: evaluate on its prompts."
        )
    whole = {arm.name: arm for arm in (*plain_arms(setting), *triage_arms(setting))}
    kinds = {kind.name: kind for kind in (*interventions(setting), contrast_guidance(setting),
                                          random_steering(setting, 0), random_steering(setting, 1))}  # fmt: skip
    shuffled = {f"shuffled {name} ({k})": (name, k) for name, kind in kinds.items() for k in range(SHUFFLES)
                if kind.learns}  # fmt: skip
    name, k = shuffled.get(said.way, (said.way, None))
    if (name in kinds) != (said.strength is not None) and said.way in (*whole, *kinds, *shuffled):
        raise HandscopeError(f"{said.way!r} {'needs a' if name in kinds else 'takes no'} strength, such as 0.1.")
    if name in kinds and said.strength is not None:
        arm = arm_of(setting, kinds[name], said.strength, k)
    elif name in whole:
        arm = whole[name]
    else:
        there = ", ".join([*kinds, *whole])
        raise HandscopeError(f"There is no way {said.way!r} to mend; there are {there}, and 'shuffled NAME (0)'.")
    settings = {**arm.settings, "way": said.way, "strength": said.strength, "model": setting.model.weight_hash,
                **setting.generation}  # fmt: skip
    return setting.model, replace(arm, name=recipe.name, controls=recipe.controls, settings=settings)


@lru_cache(maxsize=1)
def _setting(path: Path, _labelled: int, progress: Progress) -> Setting:
    """What a run teaches: once for all arms that it teaches."""
    run = Run(path)
    begun = run.settings.get("provenance", {})
    if begun.get("name") is None:
        raise HandscopeError(f"{run.settings_path} does not say which model made the run.")
    dtype = run.settings.get("model", {}).get("dtype")
    model = load(begun["name"], begun.get("device", "cpu"), dtype, begun.get("revision"), base=begun.get("base"))
    return setting_of(model, run, progress=progress)
