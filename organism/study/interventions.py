"""What changes a picture while it is made: kinds of steering and guidance, at any strength, by any lesson."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...guidance.guide import guide
from ...guidance.losses import LatentLoss, Loss, PictureLoss, ProbeLoss
from ...guidance.steer import ablate, probe_gate, random_directions, steer
from ...models.model import Model
from .lessons import Lesson, Lessons

DOSES = (0.05, 0.1, 0.2)
"""Strengths: the push over a token's length (steering), the correction over the velocity's length (guidance)."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What all arms share.

    Attributes
    ----------
    model : Model
    steps, guidance, height, width : of the baseline
    lessons : Lessons, fitted to labelled samples and held out by prompt
    window : steps in which an intervention works, the noisiest first
    spare : first of the seeds that triage may try beside the pair's own
    taught : what `lessons` were fitted with, as it is written beside the pictures
    """

    model: Model
    steps: int
    guidance: float
    height: int
    width: int
    lessons: Lessons
    window: tuple[int, ...]
    spare: int
    taught: Mapping[str, Any] = field(default_factory=dict)

    @property
    def generation(self) -> dict[str, Any]:
        """The settings of a plain generation."""
        return {"steps": self.steps, "guidance": self.guidance, "height": self.height, "width": self.width}


@dataclass(frozen=True, eq=False)
class Intervention:
    """A kind of intervention.

    Attributes
    ----------
    name : str
    group : str
        Interventions of one group are alternatives: the pilot takes the best of them.
    family : str, one of `handscope.evaluation.arms.FAMILIES`
    around : function from a lesson and a strength to what is held around a generation
    doses : tuple of float, the strengths that the pilot tries
    learns : bool
        Whether labels decide what it does, so that permuted labels are its control.
    calls : int, calls of the transformer beyond one a step
    """

    name: str
    group: str
    family: str
    around: Callable[[Lesson, float], AbstractContextManager[Any]]
    doses: tuple[float, ...] = DOSES
    learns: bool = True
    calls: int = 0


def interventions(setting: Setting) -> list[Intervention]:
    """Everything that might mend; the plainest of each group first."""
    return [*_steering(setting), *_guidance(setting)]


def random_steering(setting: Setting, seed: int) -> Intervention:
    """Steering along a random direction in the first block."""

    def around(lesson: Lesson, dose: float) -> AbstractContextManager[None]:
        return _steered(setting, random_directions(_first(setting, lesson.directions), seed), dose)

    return Intervention(f"random direction ({seed})", "random", "control", around, learns=False)


def contrast_guidance(setting: Setting) -> Intervention:
    """Guidance towards more contrast alone: what recolouring by itself does to the judged rate."""
    loss = PictureLoss(setting.model, lack_of_contrast, setting.height, setting.width)
    return Intervention(
        "contrast", "contrast", "control", _guided(setting, lambda lesson: loss, "frozen"), learns=False
    )


def _steering(setting: Setting) -> list[Intervention]:
    model, blocks = setting.model, setting.lessons.blocks
    several = f"steering in {len(blocks)} blocks"

    def without(lesson: Lesson, dose: float) -> AbstractContextManager[None]:
        directions, centres = _first(setting, lesson.directions), _first(setting, lesson.centres)
        return ablate(model.transformer, directions, setting.window, setting.steps, centres)

    made = [
        Intervention(
            "steering",
            "steering",
            "steering",
            lambda lesson, dose: _steered(setting, _first(setting, lesson.directions), dose),
        ),
        Intervention(
            "steering by token",
            "steering",
            "steering",
            lambda lesson, dose: _steered(setting, {blocks[0]: lesson.by_token}, dose),
        ),
        Intervention(
            "gated steering",
            "steering",
            "steering",
            lambda lesson, dose: _steered(
                setting, _first(setting, lesson.directions), dose, gate=probe_gate(lesson.gate)
            ),
        ),
        Intervention(several, "steering", "steering", lambda lesson, dose: _steered(setting, lesson.directions, dose)),
        Intervention("ablation", "ablation", "steering", without, doses=(1.0,)),
    ]
    return made if len(blocks) > 1 else [one for one in made if one.name != several]


def _guidance(setting: Setting) -> list[Intervention]:
    several = f"probes of {len(setting.lessons.blocks)} blocks"
    anatomy = PictureLoss(setting.model, anatomy_loss(), setting.height, setting.width)

    def one(lesson: Lesson) -> ProbeLoss:
        return ProbeLoss(_first(setting, lesson.probes))

    def picture(lesson: Lesson) -> Loss:
        return LatentLoss(lesson.picture)

    made = [
        Intervention("block probe", "block probe", "guidance", _guided(setting, one, "exact")),
        Intervention(
            several, "block probe", "guidance", _guided(setting, lambda lesson: ProbeLoss(lesson.probes), "exact")
        ),
        Intervention(
            "block probe with time travel",
            "block probe",
            "guidance",
            _guided(setting, one, "exact", travel=2),
            calls=len(setting.window),
        ),
        Intervention("picture probe", "picture probe", "guidance", _guided(setting, picture, "frozen")),
        Intervention("picture probe, exact", "picture probe", "guidance", _guided(setting, picture, "exact")),
        Intervention(
            "anatomy", "anatomy", "guidance", _guided(setting, lambda lesson: anatomy, "frozen"), learns=False
        ),
    ]
    return made if len(setting.lessons.blocks) > 1 else [one for one in made if one.name != several]


def _first(setting: Setting, of_blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Of what there is for each block, that of the first."""
    return {setting.lessons.blocks[0]: of_blocks[setting.lessons.blocks[0]]}


def _steered(setting: Setting, directions: Mapping[str, Any], dose: float, **more: Any) -> AbstractContextManager[None]:
    return steer(setting.model.transformer, directions, dose, setting.window, setting.steps, **more)


def _guided(
    setting: Setting, loss: Callable[[Lesson], Loss | ProbeLoss], form: str, **more: Any
) -> Callable[[Lesson, float], AbstractContextManager[Any]]:
    def around(lesson: Lesson, dose: float) -> AbstractContextManager[Any]:
        pipe, window, steps = setting.model.pipe, setting.window, setting.steps
        return guide(pipe, loss(lesson), dose, window, steps, form=form, relative=True, **more)

    return around


def anatomy_loss(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """HandAnat's soft loss of pictures that show one hand each, blind to contrast and brightness.

    It is a mean over both landmark networks and random views, of pictures whose luminance has one mean and one
    standard deviation: a hand that is merely painted stronger is no better.
    """
    from ...anatomy.measure.count import load_count
    from ...anatomy.measure.soft import robust_loss
    from ...anatomy.read.networks import load_landmarks

    networks, head = [load_landmarks("full"), load_landmarks("lite")], load_count()
    generator = torch.Generator().manual_seed(seed)

    def loss(pictures: Tensor) -> Tensor:
        size = float(pictures.shape[-1])
        region = pictures.new_tensor([[size / 2, size / 2, size, 0.0]]).expand(len(pictures), 4)
        even = _evened(pictures)
        return robust_loss(even, region, networks, generator, count=lambda crops: head(crops).relation, views=1)

    return loss


def lack_of_contrast(pictures: Tensor) -> Tensor:
    """Minus the standard deviation of luminance, (batch,)."""
    return -_luminance(pictures).flatten(1).std(1)


def _evened(pictures: Tensor, mean: float = 0.5, deviation: float = 0.2) -> Tensor:
    luminance = _luminance(pictures).flatten(1)
    centre, spread = luminance.mean(1)[:, None, None, None], luminance.std(1)[:, None, None, None]
    return (mean + (pictures - centre) * deviation / spread.clamp_min(0.02)).clamp(0, 1)


def _luminance(pictures: Tensor) -> Tensor:
    return (pictures * pictures.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(1)
