"""An evaluation: arms of any kind drawn on the same prompts, scored by one scorer, and compared with one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..errors import HandscopeError
from ..files import atomic, write_csv
from ..labeling.subject import DEFAULT, Subject, load_subject, set_subject
from ..mitigations.painting import check_paints
from ..models.checkpoints import find
from ..models.model import Model
from ..models.registry import family_in
from ..progress import Progress, quiet
from ..run.folder import Run, sample_id
from ..run.part import Part, PartsLeftError, check_part
from .arm_metrics import Measures, arm_metrics
from .arms import Arm, arm_run, begin_arm, draw_arm
from .blind import KEY, blind
from .contrasts import contrasts
from .costs import costs
from .fitting import check_weights
from .given import Given, given_pictures, one_of_each, state_of
from .opening import Models, best_by, first_line, given_arm, imported, opened, repaired_arm
from .painted import painted_arm
from .rates import measured, rates
from .recipe import Mend, Paint, Recipe, Variant
from .scored import SCORERS, Scored, score_arms

Pairs = Sequence[tuple[str, int]]
Ways = Callable[[Recipe, Sequence[str], Progress], tuple[Model, Arm]]
"""From a recipe of mend's and the prompts of an evaluation to its model and arm."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is evaluated.

    Attributes
    ----------
    folder : Path
        One run folder an arm, tables and the page.
    pairs : sequence of (prompt, seed)
    arms : dict of Recipe by name
    variants : dict of Variant by name, where each stands in a sweep
    baseline : str, what the others are compared with
    scorer, calibration : as in `handscope.evaluation.scored.score_arms`
    subject : str
    batch_size, seed : int
    look : int, pictures of each arm in a blind look, where labels are the scorer
    measures : Measures, picture metrics
    """

    folder: Path
    pairs: Pairs
    arms: Mapping[str, Recipe]
    variants: Mapping[str, Variant]
    baseline: str
    scorer: str = "anatomy"
    calibration: str | None = None
    subject: str = DEFAULT
    batch_size: int = 16
    seed: int = 0
    look: int = 50
    measures: Measures = field(default_factory=Measures)

    @property
    def prompts(self) -> list[str]:
        """Each once, in order."""
        return list(dict.fromkeys(prompt for prompt, _ in self.pairs))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an evaluation found.

    Attributes
    ----------
    scored : Scored
    rates, contrasts, metrics, costs : DataFrame
        See `handscope.evaluation.rates.rates`, `handscope.evaluation.contrasts.contrasts`,
        `handscope.evaluation.arm_metrics.arm_metrics` and `handscope.evaluation.costs.costs`.
    failed : dict of str, what went wrong by the arm's name
    """

    scored: Scored
    rates: pd.DataFrame
    contrasts: pd.DataFrame
    metrics: pd.DataFrame
    costs: pd.DataFrame
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Checked:
    """What the check of a plan found: the given pictures of arms, by name."""

    given: Mapping[str, list[Given]]


def check(plan: Plan) -> Checked:
    """Look at everything that can be looked at before a picture is drawn.

    Raises
    ------
    HandscopeError
        The message is one sentence that names the arm.
    """
    given: dict[str, list[Given]] = {}
    subject = load_subject(plan.subject)
    if not plan.pairs:
        raise HandscopeError("There are no prompts to evaluate: give prompts and seeds, or the run that has them.")
    if plan.baseline not in plan.arms:
        raise HandscopeError(f"There is no arm {plan.baseline!r} to be the baseline; there are {', '.join(plan.arms)}.")
    _check_scorer(plan, subject)
    plan.measures.found()
    folders: dict[str, str] = {}
    for name, recipe in plan.arms.items():
        other = folders.setdefault(arm_run_name(name), name)
        if other != name:
            raise HandscopeError(f"The arms {other!r} and {name!r} would have one folder: give one another name.")
        with _of_arm(name):
            recipe.check()
            for control in recipe.controls:
                if control not in plan.arms:
                    raise HandscopeError(f"it has to beat {control!r}, and there is no such arm.")
            if recipe.pictures is not None:
                given[name] = given_pictures(Path(recipe.pictures), plan.prompts)
            elif recipe.repair is not None and recipe.of is not None:
                if isinstance(recipe.repair, Paint):
                    _check_painted(recipe)
                else:
                    imported(recipe.repair)
                if recipe.of not in plan.arms or recipe.of == name:
                    raise HandscopeError(f"it repairs {recipe.of!r}, and there is no such arm.")
                if plan.arms[recipe.of].repair is not None:
                    raise HandscopeError(f"it repairs {recipe.of!r}, which is a repair itself: repair what that does.")
            elif recipe.mend is not None:
                _check_run(recipe.mend)
            else:
                address = recipe.address
                check_weights(recipe, find(str(address["name"]), address["revision"], address["base"]))
                for part in (recipe.controlnet, recipe.ip_adapter):
                    if part is not None:
                        one_of_each(Path(part.pictures), plan.prompts)
                if recipe.best_of is not None:
                    best_by(recipe.best_of.by)
    return Checked(given)


def evaluate(
    plan: Plan,
    ways: Ways | None = None,
    shard: Part | None = None,
    progress: Progress = quiet,
) -> Outcome:
    """Draw what is missing, score it, compare, and write ``scores.csv``, ``pictures.csv``, ``rates.csv``,
    ``contrasts.csv``, ``costs.csv`` and, where they are asked for, ``metrics.csv``.

    An arm that fails does not stop the others: it is named in the outcome, and tried again by the next call. All can be
    killed at any moment, and go on.

    Parameters
    ----------
    ways : makes the arms of mend, which needs an organism's labelled run
    shard : (i, n), counted from 1: this machine's part of the pictures of each arm

    Raises
    ------
    PartsLeftError
        This part is drawn, and pictures of other parts are not there yet; or the blind look is to be labelled.
    HandscopeError
        As in `check`; or every arm failed.
    """
    check_part(shard)
    checked = check(plan)
    runs, samples, failed = _draw(plan, checked, ways, shard, progress)
    if not runs:
        raise HandscopeError("Every arm failed: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    if left := sum(len(set(samples[name]) - run.metadata().keys()) for name, run in runs.items()):
        raise PartsLeftError(
            f"This part of {plan.folder} is drawn, and {left} pictures are left for others: once these are there, run "
            "the same command again, or without --shard."
        )
    for name, run in runs.items():
        run.put_together(samples[name])
    if plan.scorer == "labels" and not (plan.folder / "blind" / KEY).exists():
        look = blind(plan.folder, list(runs), plan.look, plan.seed, samples)
        raise PartsLeftError(f"All arms are drawn. Label the blind look (handscope label {look.path}), then run this.")
    subject = load_subject(plan.subject)
    scored = score_arms(plan.scorer, runs, samples, subject, plan.folder, plan.calibration, progress)
    metrics = arm_metrics(scored.pictures, plan.measures, progress)
    outcome = compare(plan, scored, metrics, failed)
    write(plan, outcome)
    return outcome


def compare(
    plan: Plan, scored: Scored, metrics: pd.DataFrame | None = None, failed: Mapping[str, str] | None = None
) -> Outcome:
    """The statistics of scored pictures."""
    tables = measured(scored)
    controls = {name: recipe.controls for name, recipe in plan.arms.items()}
    untested = [name for name, recipe in plan.arms.items() if recipe.control]
    there = set(scored.pictures["arm"])
    apart = (
        contrasts(scored, tables, plan.baseline, controls, untested, plan.seed) if plan.baseline in there
        else pd.DataFrame()
    )  # fmt: skip
    metrics = pd.DataFrame() if metrics is None else metrics
    found = rates(scored, tables)
    return Outcome(scored, found, apart, metrics, costs(scored.pictures, found), dict(failed or {}))


def write(plan: Plan, outcome: Outcome) -> None:
    """Write the tables of an evaluation, and what was evaluated."""
    write_csv(plan.folder / "scores.csv", outcome.scored.instances)
    pictures = outcome.scored.pictures
    base = str(plan.folder)
    write_csv(plan.folder / "pictures.csv", pictures.assign(path=[path.removeprefix(base).lstrip("/\\")
                                                                 for path in pictures["path"]]))  # fmt: skip
    write_csv(plan.folder / "rates.csv", outcome.rates)
    write_csv(plan.folder / "contrasts.csv", outcome.contrasts)
    write_csv(plan.folder / "costs.csv", outcome.costs)
    if len(outcome.metrics):
        write_csv(plan.folder / "metrics.csv", outcome.metrics)
    arms = {
        name: {"family": recipe.family, "group": plan.variants[name].group, "doses": dict(plan.variants[name].doses),
               "control": recipe.control, "said": plan.variants[name].given}
        for name, recipe in plan.arms.items()
    }  # fmt: skip
    said = {"baseline": plan.baseline, "scorer": plan.scorer, "subject": plan.subject, "prompts": len(plan.prompts),
            "pairs": len(plan.pairs), "seed": plan.seed, "arms": arms, "failed": dict(outcome.failed)}  # fmt: skip
    with atomic(plan.folder / "evaluation.json") as temporary:
        temporary.write_text(json.dumps(said, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def arm_run_name(name: str) -> str:
    """An arm's folder, on disks that do not tell capitals apart."""
    return name.replace(" ", "_").lower()


def _draw(
    plan: Plan, checked: Checked, ways: Ways | None, shard: Part | None, progress: Progress
) -> tuple[dict[str, Run], dict[str, list[str]], dict[str, str]]:
    """Draw every arm; the run folder and the samples of those that did, and why the others did not."""
    models, drawn, failed = Models(), dict[str, Run](), dict[str, str]()
    subject = load_subject(plan.subject)
    # Arms of one model follow each other, so that it is loaded once; repairs come when there is what they repair.
    order = sorted(plan.arms, key=lambda name: (plan.arms[name].repair is not None, _place(plan, name)))
    pairs: dict[str, Pairs] = {}
    for name in order:
        recipe = plan.arms[name]
        pairs[name] = plan.pairs
        if name in checked.given:
            pairs[name] = [(one.prompt, one.number) for one in checked.given[name]]
        elif recipe.of is not None:
            pairs[name] = pairs[recipe.of]
        run = arm_run(plan.folder, name)
        try:
            if recipe.of is not None and recipe.of not in drawn:
                raise HandscopeError(f"it repairs {recipe.of!r}, which failed.")
            set_subject(run, subject)
            with _ready(plan, recipe, checked, models, ways, drawn, progress) as (model, arm):
                begin_arm(arm, run, {"steps": recipe.steps, "guidance": recipe.guidance} if recipe.drawn else {})
                draw_arm(model, arm, run, pairs[name], plan.batch_size, shard, progress)
            drawn[name] = run
        except PartsLeftError:
            raise
        except Exception as error:  # of whatever draws or repairs: the other arms go on
            failed[name] = first_line(error)
            models.forget()
    models.forget()
    kept = {name: drawn[name] for name in plan.arms if name in drawn}
    return kept, {name: [sample_id(*pair) for pair in pairs[name]] for name in kept}, failed


@contextmanager
def _ready(
    plan: Plan,
    recipe: Recipe,
    checked: Checked,
    models: Models,
    ways: Ways | None,
    drawn: Mapping[str, Run],
    progress: Progress,
) -> Iterator[tuple[Model | None, Arm]]:
    """An arm that can be drawn now, and its model where it has one."""
    if recipe.pictures is not None:
        pictures = checked.given[recipe.name]
        yield None, given_arm(recipe, pictures, state_of(pictures))
    elif recipe.of is not None and isinstance(recipe.repair, Paint):
        yield painted_arm(recipe, models, drawn[recipe.of], min(plan.batch_size, len(plan.pairs)))
    elif recipe.of is not None:
        yield None, repaired_arm(recipe, drawn[recipe.of])
    elif recipe.mend is not None:
        if ways is None:
            raise HandscopeError("nobody here makes the arms of mend: use the command handscope evaluate.")
        models.forget()
        yield ways(recipe, plan.prompts, progress)
    else:
        with opened(recipe, models, min(plan.batch_size, len(plan.pairs)), plan.prompts) as ready:
            yield ready


def _place(plan: Plan, name: str) -> int:
    """Where the first arm with the same model stands."""
    address = plan.arms[name].address
    return next(i for i, recipe in enumerate(plan.arms.values()) if recipe.address == address)


@contextmanager
def _of_arm(name: str) -> Iterator[None]:
    try:
        yield
    except HandscopeError as error:
        raise HandscopeError(f"Arm {name!r}: {error}") from error


def _check_scorer(plan: Plan, subject: Subject) -> None:
    if plan.scorer in SCORERS:
        if plan.scorer != "labels" and subject.judge != "organism":
            raise HandscopeError(
                f"The scorer {plan.scorer} knows another subject than {subject.name}: give labels, a CSV of verdicts, "
                "or module:function."
            )
    elif plan.scorer.endswith(".csv"):
        if not Path(plan.scorer).is_file():
            raise HandscopeError(f"There are no verdicts {plan.scorer}: check the path of the scorer.")
    elif ":" in plan.scorer:
        imported(plan.scorer)
    else:
        raise HandscopeError(
            f"There is no scorer {plan.scorer!r}: expected {', '.join(SCORERS)}, a CSV of verdicts, or module:function."
        )


def _check_painted(recipe: Recipe) -> None:
    address = recipe.address
    checkpoint = find(str(address["name"]), address["revision"], address["base"])
    check_paints(family_in(checkpoint.folder))
    check_weights(recipe, checkpoint)


def _check_run(mend: Mend) -> None:
    run = Path(mend.run)
    if not (run / "run.yaml").is_file() or not (run / "labels.sqlite").is_file():
        raise HandscopeError(f"it learns from the run {run}, which is no labelled run: check its path, or label it.")
