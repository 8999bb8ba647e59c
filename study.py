"""A whole study from one YAML file: every stage in turn, and only what is missing of it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from .errors import HandscopeError
from .extract.address import Plan
from .models.embedded import folder_of
from .models.quantise import QUANTISATIONS
from .models.registry import check_kinds
from .progress import Progress, quiet
from .run.design import DESIGNS
from .run.part import Part
from .run.record import fresh, made_from, set_fresh
from .stages import ANALYZE, GENERATE, LABEL, LABELS, PROBE, STAGES, Stage
from .study_file import (
    Blocks,
    Folder,
    FromOne,
    FromTwo,
    Given,
    ModelName,
    Number,
    Pairs,
    Prompts,
    Seed,
    Seeds,
    Selection,
    Steps,
    SubjectName,
    Text,
    parse,
    prompts_of_pairs,
    refusal,
)

if TYPE_CHECKING:
    from .models.model import Model
    from .run.folder import Run

MODEL_SETTINGS = ("model", "revision", "device", "dtype", "offload", "quantisation", "base")
ON_REQUEST = tuple(stage.name for stage in STAGES if not stage.always and "own" in stage.designs)
OF_A_PATH = ("patch", "commit", "triage", "mend")
"""Stages that go along a sample's path from noise, which a given picture does not have."""


def _asked_for(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, list | tuple) or not all(name in ON_REQUEST for name in value):
        raise ValueError
    design = info.data.get("design") or "own"
    unfit = [stage.name for stage in STAGES if stage.name in value and design not in stage.designs]
    if unfit:
        raise HandscopeError(
            f"{unfit[0]} is for prompts with noises of their own, and the design is {design}: leave it out."
        )
    if info.data.get("pictures") is not None and (lost := [name for name in value if name in OF_A_PATH]):
        raise HandscopeError(
            f"{lost[0]} follows a sample's path from noise, and given pictures have none: leave {lost[0]} out."
        )
    return value


@dataclass(frozen=True)
class StageResult:
    """What became of one stage: whether there was anything to do, and a sentence on what the run folder now holds."""

    stage: str
    ran: bool
    summary: str


class Study(BaseModel):
    """The settings of a study, each a key of its YAML file (`folder` is the key ``run``).

    Attributes
    ----------
    folder : pathlib.Path
        The run folder.
    pictures : Pictures, optional
        Pictures that the model did not draw, in place of `prompts` and `seeds`: in YAML a folder, or the options of
        ``handscope import`` with it, ``{folder: pictures, fit: crop, good: [whole], bad: [broken]}``.
    prompts : tuple of str
        In YAML a list, the path of a text file with one prompt a line, or ``study``: the captions handscope brings.
    seeds : tuple of int
        In YAML a list, or ``{first: 0, count: 12}``; every prompt is drawn with every seed.
    design : str, optional
        ``own``, ``paired`` or ``crossed``: which noises prompts share, as in `handscope.generate`, and with it which
        stages analyse the run. Left out, prompts have noises of their own, or are paired where `pairs` are listed.
    pairs : tuple of pairs of str
        The pairs of a paired study; where they are listed, `prompts` may be left out.
    model, revision, device, dtype, offload, quantisation, base : str
        As in `handscope.load`.
    steps, guidance, height, width, batch_size
        As in `handscope.generate`.
    subject : str, optional
        What is labelled: a subject that handscope brings, or the path of its YAML file. See docs/labeling.md.
    labels : str
        ``existing`` with given pictures, else ``auto``. ``auto``: masks and verdicts as `handscope label --auto` makes
        them, for the organism. ``existing``: those in the run folder's labels.sqlite, for example those painted on
        another model's images, or that came with given pictures.
    blocks : tuple of str
        Blocks to read; all of the model when empty.
    read_steps : tuple of int
        Steps to read, counted as steps that remain; all when empty.
    tokens : str
        Which tokens of a sample are kept: ``subject`` (or its noun), ``labelled`` or ``all``.
    stream, at : str
        As in `handscope.Plan`: ``image`` or ``text``, at the ``output`` or the ``input`` of each block.
    compression : str, optional
        ``lossless``, or none when left out.
    permutations, probe_permutations : int
        Label permutations behind each null, of the directions and distances and of the probes.
    folds, seed : int
        Folds of the cross-validation (grouped by prompt), and the seed of folds, permutations and bootstrap.
    primary : str, optional
        One cell such as ``single.3/14``, named beforehand: the report tests it first, and without a correction.
    also : tuple of str
        Stages that are run only when they are asked for: any of survey, values, classes, patch, lens, heads, features,
        commit, triage, mend and anatomy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    folder: Folder = Field(alias="run")
    pictures: Given = None
    prompts: Prompts = None  # type: ignore[assignment]
    seeds: Seeds = None  # type: ignore[assignment]
    design: Literal[DESIGNS] | None = None  # type: ignore[valid-type]
    pairs: Pairs = ()
    model: ModelName = "organism"
    revision: Text | None = None
    device: Text = "cpu"
    dtype: Literal["float32", "bfloat16"] | None = None
    offload: Literal["model", "sequential"] | None = None
    quantisation: Literal[QUANTISATIONS] | None = None  # type: ignore[valid-type]
    base: ModelName | None = None
    steps: FromOne = 20
    guidance: Number = 3.5
    height: FromOne | None = None
    width: FromOne | None = None
    batch_size: FromOne = 16
    subject: SubjectName | None = None
    labels: Literal["auto", "existing"] = "auto"
    blocks: Blocks = ()
    read_steps: Steps = ()
    tokens: Selection = "subject"
    stream: Literal["image", "text"] = "image"
    at: Literal["output", "input"] = "output"
    compression: Literal["lossless"] | None = None
    permutations: FromOne = 1000
    probe_permutations: FromOne = 1000
    folds: FromTwo = 5
    seed: Seed = 0
    primary: Text | None = None
    also: Annotated[
        tuple[str, ...], BeforeValidator(_asked_for), Field(description=f"a list of any of {', '.join(ON_REQUEST)}")
    ] = ()

    @model_validator(mode="before")
    @classmethod
    def _said(cls, given: Any) -> Any:
        """What one key says for others."""
        labelled = {"labels": "existing"} if isinstance(given, dict) and given.get("pictures") is not None else {}
        return labelled | prompts_of_pairs(given)

    @classmethod
    def from_yaml(cls, path: str | Path, changed: Mapping[str, Any] | None = None) -> "Study":
        """Read a study, with some of its keys `changed`.

        Paths of prompts, a subject or a model are relative to the YAML file, the run folder to the current directory.

        Raises
        ------
        HandscopeError
            The file is missing or not YAML in UTF-8, a key is unknown or missing, or a value does not fit its key.
        """
        path = Path(path)
        given = parse(path) | dict(changed or {})
        try:
            study = cls.model_validate(given, context={"beside": path.parent}, by_alias=True, by_name=False)
        except ValidationError as error:
            raise HandscopeError(refusal(error, path, given, cls.model_fields)) from None
        try:
            check_kinds(study.plan_for().blocks)
        except HandscopeError as error:
            raise HandscopeError(f"{path}, keys 'blocks' and 'read_steps': {error}") from None
        if study.primary is not None:
            try:
                study.plan_for().cell(study.primary)
            except HandscopeError as error:
                raise HandscopeError(f"{path}, key 'primary': {error}") from None
        return study

    def plan_for(self, blocks: tuple[str, ...] | None = None) -> Plan:
        """The plan of the extraction; `blocks` are those of the model, taken when the study names none."""
        steps = self.read_steps or range(self.steps, 0, -1)
        return Plan(self.blocks or blocks, steps, of=self.steps, stream=self.stream, at=self.at)

    @property
    def chosen(self) -> tuple[Stage, ...]:
        """The stages of this study, in order."""
        design = self.design or "own"
        chosen = [
            stage
            for stage in STAGES
            if design in stage.designs
            and (stage.always or stage.name in self.also or (design != "own" and stage.designs == (design,)))
        ]
        # Pairs have their two prompts for classes: where all tokens are read, nothing has to be labelled.
        unlabelled = design == "paired" and self.tokens == "all"
        return tuple(stage for stage in chosen if not (unlabelled and stage is LABEL))

    def settings_of(self, stage: Stage) -> dict[str, Any]:
        """The arguments of a stage that decide its result, with the values that this study gives them."""
        settings = dict(stage.defaults) | {name: getattr(self, key) for name, key in stage.settings.items()}
        if stage is GENERATE and self.pictures is not None:
            drawn = ("prompts", "seeds", "design", "pairs")
            kept = {name: value for name, value in settings.items() if name not in drawn}
            return kept | self.pictures.model_dump()
        if stage.name == "triage":  # a look at a step that the generation does not have
            settings["steps"] = [step for step in settings["steps"] if step < self.steps]
        return settings

    def left(self) -> list[tuple[Stage, bool]]:
        """The stages of this study, and whether each has something to do; nothing is done."""
        return [(stage, self._entry(stage) is None) for stage in self.chosen]

    def check_size(self) -> None:
        """Refuse, before anything is drawn, a study that its own statistics would refuse after all was labelled."""
        if self.pictures is not None:
            return
        prompts, samples = len(set(self.prompts)), len(set(self.prompts)) * len(set(self.seeds))
        if ANALYZE not in self.chosen and PROBE not in self.chosen:
            return
        from .labeling.table import FEWEST

        if prompts < self.folds:
            raise HandscopeError(
                f"The study has {prompts} prompt{'s' if prompts > 1 else ''}, and {self.folds} folds each hold out "
                f"prompts that the others have: give at least {self.folds} prompts, or fewer folds."
            )
        if samples < 2 * FEWEST:
            raise HandscopeError(
                f"The study has {samples} samples, and its statistics need at least {FEWEST} good and {FEWEST} bad "
                "ones: give more seeds or prompts."
            )

    def _noted(self, stage: Stage) -> dict[str, Any]:
        noted = noted_settings(self.settings_of(stage), self if stage is GENERATE else None)
        if stage is GENERATE and self.pictures is not None:
            noted["pictures"] = _files(Path(self.pictures.folder), "**/*")
        return noted

    def _entry(self, stage: Stage) -> dict[str, Any] | None:
        """What the record says of a stage that is complete."""
        return fresh(self.folder, stage, made_from(self.folder, stage, self._noted(stage)))

    def run(self, progress: Progress = quiet) -> list[StageResult]:
        """Run every stage that is not complete, in the order of `handscope.stages.STAGES`.

        A stage is complete when the run folder's record.json says that it ended with these settings and its files are
        as they were then; nothing heavy is imported to find that out. A stage that is not complete does only what is
        missing of it, so the same call goes on where a killed one stopped.

        Raises
        ------
        HandscopeError
            A stage was given, or found in the run folder, something that does not fit.
        """
        return list(self.stages(progress))

    def part(self, name: str, shard: Part, progress: Progress = quiet) -> None:
        """Do one machine's part of a stage that can be divided, and enter nothing in the record.

        Raises
        ------
        HandscopeError
            The study has no such stage, it cannot be divided, or as in `run`.
        """
        stage = next((stage for stage in self.chosen if stage.name == name and stage.divided), None)
        if stage is None:
            there = ", ".join(stage.name for stage in self.chosen if stage.divided)
            raise HandscopeError(f"Expected a stage that machines can divide, one of {there}, found {name!r}.")
        if stage is GENERATE:
            self.check_size()
        _Work(self, progress, shard).do(stage, self.settings_of(stage))

    def stages(self, progress: Progress = quiet, until: str | None = None) -> Iterator[StageResult]:
        """`run`, one stage at a time, and no further than the stage `until`."""
        if self._entry(GENERATE) is None:
            self.check_size()
        work = _Work(self, progress)
        if self.subject is not None:
            from .labeling.subject import load_subject, set_subject

            set_subject(work.run, load_subject(self.subject))
        for stage in self.chosen:
            entry = self._entry(stage)
            if entry is not None:
                yield StageResult(stage.name, False, entry.get("summary") or stage.describe(work.run))
            else:
                do = partial(work.do, stage, self.settings_of(stage))
                yield StageResult(stage.name, True, perform(stage, self.folder, self._noted(stage), do))
            if stage.name == until:
                return


def perform(stage: Stage, folder: Path, noted: dict[str, Any], do: Callable[[], object]) -> str:
    """Do a stage, enter it in the record of the run folder, and return the sentence on what the folder now holds."""
    from .run.folder import Run

    now = made_from(folder, stage, noted)
    do()
    summary = stage.describe(Run(folder))
    set_fresh(folder, stage, now, summary)
    return summary


def noted_settings(settings: dict[str, Any], named: Any = None) -> dict[str, Any]:
    """The settings of a stage as the record keeps them.

    Parameters
    ----------
    named : has the settings of the model as attributes, where the stage is the one that begins the run with it
    """
    noted = dict(settings)
    if "prompts" in noted:
        noted["prompts"] = hashlib.sha256(json.dumps(list(noted["prompts"])).encode()).hexdigest()
    if named is not None:
        noted |= {name: getattr(named, name) for name in MODEL_SETTINGS}
        noted["weights"] = [_weights(name) for name in (named.model, named.base) if name is not None]
    return noted


@dataclass
class _Work:
    """What the stages of one study share: the run, and the model once a stage needs it."""

    study: Study
    progress: Progress
    shard: Part | None = None

    @cached_property
    def run(self) -> "Run":
        from .run.folder import Run

        return Run(self.study.folder)

    @cached_property
    def model(self) -> "Model":
        from .models.model import load

        study = self.study
        return load(
            study.model,
            study.device,
            study.dtype,
            study.revision,
            offload=study.offload,
            quantisation=study.quantisation,
            base=study.base,
        )

    @cached_property
    def plan(self) -> Plan:
        plan = self.study.plan_for()
        return plan.on(self.model.blocks, self.model.carrying(plan.stream))

    def do(self, stage: Stage, settings: dict[str, Any]) -> None:
        """Call the function of a stage, with what it needs beside its settings."""
        special = {"generate": self._generate, "label": self._label, "extract": self._extract, "survey": self._survey}
        if stage.name in special:
            special[stage.name](stage, settings)
            return
        given = (self.model, self.run) if stage.model else (self.run,)
        stage.do()(*given, **settings, progress=self.progress)

    def _generate(self, stage: Stage, settings: dict[str, Any]) -> None:
        _ = self.plan  # a block that the model lacks is refused before the images are made, not after
        if self.study.pictures is not None:
            from .labeling.exchange.pictures import import_pictures

            import_pictures(self.model, self.run, **settings, progress=self.progress)
            return
        stage.do()(self.model, self.run, **settings, shard=self.shard, progress=self.progress)

    def _label(self, stage: Stage, settings: dict[str, Any]) -> None:
        if settings["labels"] == "auto":
            stage.do()(self.run, progress=self.progress)
        elif not self.run.labels_path.exists():
            raise HandscopeError(
                f"The study says labels: existing, and there is no {self.run.path / LABELS}: handscope label "
                f"{self.run.path} opens a page to paint them on, handscope labels import takes those that you have; "
                "then run the same command again."
            )

    def _extract(self, stage: Stage, settings: dict[str, Any]) -> None:
        kept = {name: settings[name] for name in ("tokens", "compression")}
        stage.do()(self.model, self.run, self.plan, **kept, shard=self.shard, progress=self.progress)

    def _survey(self, stage: Stage, settings: dict[str, Any]) -> None:
        from .extract.survey.survey import survey

        survey(self.model, self.run, shard=self.shard, progress=self.progress)
        if self.shard is not None:  # maps are of all parts
            return
        stage.do()(self.run, **settings, progress=self.progress)


def _weights(model: str) -> list[list[Any]]:
    """Sizes and times of a local model's weights; empty for a model of the hub, which its revision names."""
    return _files(folder_of(model), "*/*.safetensors")


def _files(path: Path, pattern: str) -> list[list[Any]]:
    """Sizes and times of a file, or of those of a folder that fit."""
    files = [path] if path.is_file() else sorted(file for file in path.glob(pattern) if file.is_file())
    states = [(file, file.stat()) for file in files]
    return [[file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns] for file, status in states]
