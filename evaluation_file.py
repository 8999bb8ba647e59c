"""The YAML file of an evaluation: prompts, a scorer, and arms, each as a reader would say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import HandscopeError
from .labeling.subject import DEFAULT
from .models.embedded import ORGANISMS
from .run.prompts import own_seed
from .study_file import Folder, FromOne, Prompts, Seed, Seeds, SubjectName, Text, parse, refusal

if TYPE_CHECKING:
    from .evaluation.evaluate import Plan
    from .evaluation.recipe import Recipe, Variant

PATHS = ("model", "transformer", "base", "pictures", "path", "encoder", "run", "network")
"""Keys of an arm whose value is that of something beside the file, where there is something of its name."""


class Evaluation(BaseModel):
    """The settings of an evaluation, each a key of its YAML file.

    Attributes
    ----------
    folder : pathlib.Path
        Where pictures, tables and the page are written, from the current directory.
    prompts : tuple of str
        A list, the path of a text file with one prompt a line, or ``study``.
    seeds : tuple of int
        Every prompt is drawn with every seed, from noises of its own.
    run : str, optional
        A run folder whose prompts and noises are taken instead.
    scorer : str
        ``anatomy``, ``organism``, ``labels`` (a blind look that you label), a CSV of verdicts, or ``module:function``.
    calibration : str, optional
        Of the anatomy scorer: a file, or general, renders or organism.
    subject : str, optional
    metrics, features, reference : list of str, str, str
        Picture metrics by name, what distances are of, and the folder that they are to, as in ``handscope metrics``.
    baseline : str, optional
        The arm that the others are compared with; by default the first.
    defaults : dict
        Keys that every arm with a model has, unless it says otherwise.
    arms : list of dict
        See `handscope.evaluation.recipe.Recipe`.
    batch_size, seed, look : int
        Pictures in one call; seed of tests and of what is shown; pictures of each arm in a blind look.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Folder
    prompts: Prompts = None  # type: ignore[assignment]
    seeds: Seeds = None  # type: ignore[assignment]
    run: Text | None = None
    scorer: Text = "anatomy"
    calibration: Text | None = None
    subject: SubjectName | None = None
    metrics: Annotated[tuple[str, ...], Field(description="a list of metrics such as [kid]")] = ()
    features: Text = "landmark"
    reference: Text | None = None
    baseline: Text | None = None
    defaults: Annotated[dict[str, Any], Field(description="a mapping of keys that arms may have")] = {}
    arms: Annotated[list[dict[str, Any]], Field(min_length=1, description="a list of arms, each {name: …}")]
    batch_size: FromOne = 16
    seed: Seed = 0
    look: FromOne = 50


def read_evaluation(path: str | Path) -> Plan:
    """The plan that a file describes; nothing is loaded, and nothing is looked at but the file.

    Raises
    ------
    HandscopeError
        The file is missing or not YAML, a key is unknown or missing, or a value does not fit its key.
    """
    from .evaluation.arm_metrics import Measures
    from .evaluation.evaluate import Plan

    path = Path(path)
    given = parse(path)
    try:
        said = Evaluation.model_validate(given, context={"beside": path.parent})
    except ValidationError as error:
        raise HandscopeError(refusal(error, path, given, Evaluation.model_fields, "an evaluation")) from None
    arms, variants = _arms(said, path)
    scorer = _near(said.scorer, path) if said.scorer.endswith(".csv") else said.scorer
    return Plan(
        said.folder.absolute(),
        _pairs(said, path),
        arms,
        variants,
        said.baseline or next(iter(arms)),
        scorer,
        said.calibration,
        said.subject or DEFAULT,
        said.batch_size,
        said.seed,
        said.look,
        Measures(said.metrics, said.features, said.reference and _near(said.reference, path)),
    )


def _arms(said: Evaluation, path: Path) -> tuple[dict[str, Recipe], dict[str, Variant]]:
    from .evaluation.recipe import Recipe, variants

    arms: dict[str, Recipe] = {}
    places: dict[str, Variant] = {}
    for number, entry in enumerate(said.arms, 1):
        name = entry.get("name", f"number {number}")
        made = "pictures" in entry or isinstance(entry.get("repair"), str)
        whole = entry if made else {**said.defaults, **entry}
        try:
            found = list(variants(whole))
        except HandscopeError as error:
            raise HandscopeError(f"{path}, arm {name!r}: {error}") from None
        for variant in found:
            try:
                recipe = Recipe.model_validate(_beside(variant.given, path))
            except ValidationError as error:
                where = f"{path}, arm {name!r},"
                raise HandscopeError(refusal(error, where, variant.given, Recipe.model_fields, "an arm")) from None
            if recipe.name in arms:
                raise HandscopeError(f"{path} has two arms of the name {recipe.name!r}: give one another name.")
            arms[recipe.name], places[recipe.name] = recipe, variant
    return arms, places


def _beside(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What is said of an arm, with the paths of what lies beside the file."""
    return {
        key: _beside(value, path) if isinstance(value, Mapping)
        else _near(value, path) if key in PATHS and isinstance(value, str) else value
        for key, value in given.items()
    }  # fmt: skip


def _near(value: str, path: Path) -> str:
    near = path.parent / value
    return str(near.resolve()) if value and value not in ORGANISMS and near.exists() else value


def _pairs(said: Evaluation, path: Path) -> list[tuple[str, int]]:
    if said.run is not None:
        if said.prompts or said.seeds:
            raise HandscopeError(f"{path} takes the prompts and noises of a run: leave prompts and seeds out.")
        from .run.folder import Run

        folder = Path(_near(said.run, path))
        rows = Run(folder).metadata() if folder.is_dir() else {}
        if not rows:
            raise HandscopeError(f"{path}, key 'run': there are no samples in {folder}: check its path.")
        return [(row["prompt"], row["seed"]) for row in rows.values()]
    lacking = [key for key in ("prompts", "seeds") if not getattr(said, key)]
    if lacking:
        raise HandscopeError(f"{path} lacks the key {lacking[0]!r}: give prompts and seeds, or the run that has them.")
    return [(prompt, own_seed(prompt, seed)) for seed in dict.fromkeys(said.seeds) for prompt in
            dict.fromkeys(said.prompts)]  # fmt: skip
