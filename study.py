"""A whole study from one YAML file: every stage in turn, and only what is missing of it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import HandscopeError
from .extract.address import Plan
from .files import atomic
from .models.family import check_kinds
from .progress import Progress, quiet
from .report import summary
from .study_file import read_settings

if TYPE_CHECKING:
    from .models.model import Model
    from .run.folder import Run

HERE = Path(__file__).parent
LABELS = "labels.sqlite"
RECORD = "study.json"


@dataclass(frozen=True)
class StageResult:
    """What became of one stage: whether there was anything to do, and a sentence on what the run folder now holds."""

    stage: str
    ran: bool
    summary: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """The settings of a study, each a key of its YAML file (`folder` is the key ``run``).

    Attributes
    ----------
    folder : pathlib.Path
        The run folder.
    prompts : tuple of str
        In YAML a list, the path of a text file with one prompt a line, or ``study``: the captions handscope brings.
    seeds : tuple of int
        In YAML a list, or ``{first: 0, count: 12}``; every prompt is drawn with every seed.
    model, revision, device, dtype, offload, quantisation, base : str
        As in `handscope.load`.
    steps, guidance, height, width, batch_size
        As in `handscope.generate`.
    labels : str
        ``auto``: hand tokens and verdicts as `handscope label --auto` makes them, for the organism. ``existing``: those
        in the run folder's labels.sqlite, for example hand labels of another model's images.
    blocks : tuple of str
        Blocks to read; all of the model when empty.
    read_steps : tuple of int
        Steps to read, counted as steps that remain; all when empty.
    tokens : str
        Which tokens of a sample are kept: ``hand``, ``labelled`` or ``all``.
    stream, at : str
        As in `handscope.Plan`: ``image`` or ``text``, at the ``output`` or the ``input`` of each block.
    compression : str, optional
        ``lossless``, or none when left out.
    permutations, probe_permutations : int
        Label permutations behind each null, of the directions and distances and of the probes.
    folds, seed : int
        Folds of the cross-validation (grouped by prompt), and the seed of folds, permutations and bootstrap.
    """

    folder: Path
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    model: str = "organism"
    revision: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    offload: str | None = None
    quantisation: str | None = None
    base: str | None = None
    steps: int = 20
    guidance: float = 3.5
    height: int | None = None
    width: int | None = None
    batch_size: int = 16
    labels: str = "auto"
    blocks: tuple[str, ...] = ()
    read_steps: tuple[int, ...] = ()
    tokens: str = "hand"
    stream: str = "image"
    at: str = "output"
    compression: str | None = None
    permutations: int = 1000
    probe_permutations: int = 100
    folds: int = 5
    seed: int = 0

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Study":
        """Read a study.

        Paths of a prompt file or a model folder are relative to the YAML file, the run folder to the current directory.

        Raises
        ------
        HandscopeError
            The file is missing or not YAML in UTF-8, a key is unknown or missing, or a value does not fit its key.
        """
        path = Path(path)
        values = read_settings(path)
        study = cls(folder=values.pop("run"), **values)
        try:
            check_kinds(study.plan_for().blocks)
        except HandscopeError as error:
            raise HandscopeError(f"{path}, keys 'blocks' and 'read_steps': {error}") from None
        return study

    def plan_for(self, blocks: tuple[str, ...] | None = None) -> Plan:
        """The plan of the extraction; `blocks` are those of the model, taken when the study names none."""
        steps = self.read_steps or range(self.steps, 0, -1)
        return Plan(self.blocks or blocks, steps, of=self.steps, stream=self.stream, at=self.at)

    def run(self, progress: Progress = quiet) -> list[StageResult]:
        """Run every stage that is not complete, in order: generate, label, extract, analyze, probe, report.

        A stage is complete when the run folder's study.json says that it ended with these settings and its files are as
        they were then; nothing heavy is imported to find that out. A stage that is not complete does only what is
        missing of it, so the same call goes on where a killed one stopped.

        Raises
        ------
        HandscopeError
            A stage was given, or found in the run folder, something that does not fit.
        """
        return list(self.stages(progress))

    def stages(self, progress: Progress = quiet) -> Iterator[StageResult]:
        """`run`, one stage at a time."""
        work = _Work(self, progress)
        for stage in STAGES:
            settings = {"version": _version(), **stage.settings(self)}
            reads = _state(self.folder, stage.reads)
            now = {"settings": settings, "reads": reads, "writes": _state(self.folder, stage.writes)}
            record = _read_record(self.folder).get(stage.name, {})
            if now.items() <= record.items():
                yield StageResult(stage.name, False, record["summary"])
                continue
            stage.do(work)
            text = stage.describe(work.run)
            _write_record(self.folder, stage.name, now | {"writes": _state(self.folder, stage.writes), "summary": text})
            yield StageResult(stage.name, True, text)


@dataclass
class _Work:
    """What the stages of one call share: the run, and the model once a stage needs it."""

    study: Study
    progress: Progress

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
        plan = self.study.plan_for(tuple(self.model.blocks))
        plan.check(self.model.blocks)
        return plan


@dataclass(frozen=True)
class _Stage:
    """A stage of a study: which settings and files it depends on, which files it writes (globs in the run folder)."""

    name: str
    settings: Callable[[Study], dict[str, Any]]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    do: Callable[[_Work], None]
    describe: Callable[["Run"], str]


def _generate(work: _Work) -> None:
    from .extract.generate import generate

    study = work.study
    _ = work.plan  # a block that the model lacks is refused before the images are made, not after
    generate(
        work.model,
        work.run,
        study.prompts,
        study.seeds,
        steps=study.steps,
        guidance=study.guidance,
        height=study.height,
        width=study.width,
        batch_size=study.batch_size,
        progress=work.progress,
    )


def _label(work: _Work) -> None:
    if work.study.labels == "auto":
        from .organism.study.auto import label_auto

        label_auto(work.run, progress=work.progress)
    elif not work.run.labels_path.exists():
        raise HandscopeError(
            f"The study says labels: existing, and there is no {work.run.labels_path}: "
            "label the samples, or say labels: auto, and run the same command again."
        )


def _extract(work: _Work) -> None:
    from .extract.extract import extract

    study = work.study
    extract(
        work.model, work.run, work.plan, tokens=study.tokens, compression=study.compression, progress=work.progress
    )


def _analyze(work: _Work) -> None:
    from .analysis.stage import analyze

    study = work.study
    analyze(work.run, permutations=study.permutations, folds=study.folds, seed=study.seed, progress=work.progress)


def _probe(work: _Work) -> None:
    from .probes.stage import probe

    study = work.study
    probe(
        work.run,
        work.model,
        permutations=study.probe_permutations,
        folds=study.folds,
        seed=study.seed,
        progress=work.progress,
    )


def _report(work: _Work) -> None:
    from .report.page import report

    report(work.run, progress=work.progress)


def _model_settings(study: Study) -> dict[str, Any]:
    named = _pick(study, "model", "revision", "device", "dtype", "offload", "quantisation", "base")
    return {**named, "weights": [_weights(name) for name in (study.model, study.base) if name is not None]}


def _pick(study: Study, *names: str) -> dict[str, Any]:
    return {name: getattr(study, name) for name in names}


_SAMPLES = ("samples/metadata.jsonl", "samples/*.png", "trajectories/*.safetensors")
_ACTIVATIONS = ("activations/**/*.h5",)
_ANALYSIS = ("analysis/cells.csv", "analysis/cells.safetensors", "analysis/samples.csv", "analysis/cosines.csv",
             "analysis/contrasts.csv", "analysis/gaussianity.csv", "analysis/transfer.csv", "analysis/shared.csv")
_PROBE_TABLES = ("probes", "baselines", "added", "whole_picture", "conditional", "methods", "calibration",
                 "reliability", "probe_transfer", "block_flat")
_PROBES = (*(f"analysis/{name}.csv" for name in _PROBE_TABLES), "probes/*.safetensors")

STAGES = (
    _Stage(
        "generate",
        lambda study: {
            **_model_settings(study),
            **_pick(study, "steps", "guidance", "height", "width", "batch_size"),
            "prompts": hashlib.sha256("\n".join(study.prompts).encode()).hexdigest(),
            "seeds": list(study.seeds),
        },
        (),
        _SAMPLES,
        _generate,
        summary.generated,
    ),
    _Stage("label", lambda study: _pick(study, "labels"), _SAMPLES, (LABELS,), _label, summary.labelled),
    _Stage(
        "extract",
        lambda study: {
            **_model_settings(study),
            "tokens": study.tokens,
            "blocks": list(study.blocks),
            "read_steps": list(study.read_steps),
            **_pick(study, "stream", "at", "compression"),
        },
        (*_SAMPLES, LABELS),
        _ACTIVATIONS,
        _extract,
        summary.extracted,
    ),
    _Stage(
        "analyze",
        lambda study: _pick(study, "permutations", "folds", "seed"),
        (*_ACTIVATIONS, LABELS),
        _ANALYSIS,
        _analyze,
        summary.analyzed,
    ),
    _Stage(
        "probe",
        lambda study: {**_model_settings(study), **_pick(study, "probe_permutations", "folds", "seed")},
        (*_SAMPLES, *_ACTIVATIONS, LABELS),
        _PROBES,
        _probe,
        summary.probed,
    ),
    _Stage(
        "report",
        lambda study: {},
        (*_SAMPLES, LABELS, *_ANALYSIS, *_PROBES),
        ("report.html", "figures/*"),
        _report,
        summary.reported,
    ),
)


def _state(folder: Path, patterns: tuple[str, ...]) -> str:
    """A fingerprint of the files that fit the patterns: of names, sizes and times, quick for many gigabytes."""
    found: list[tuple[Any, ...]] = []
    for pattern in patterns:
        if pattern == LABELS:
            found.append((pattern, _label_state(folder / LABELS)))
            continue
        for path in sorted(folder.glob(pattern)):
            if not path.name.startswith("."):
                status = path.stat()
                found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _label_state(path: Path) -> str | None:
    """A hash of what the labels say. Readers touch a database's file, so its time says nothing."""
    if not path.exists():
        return None
    from .labeling.database.labels import Labels

    try:
        return Labels(path).fingerprint()
    except HandscopeError:  # a stage that needs them says what is wrong
        return None


def _weights(model: str) -> list[list[Any]]:
    """Sizes and times of a local model's weights; empty for a model of the hub, which its revision names."""
    path = HERE / "organism" / "pipe" if model == "organism" else Path(model)
    files = [path] if path.is_file() else sorted(path.glob("*/*.safetensors"))
    states = [(file, file.stat()) for file in files]
    return [[file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns] for file, status in states]


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a damaged record only means that every stage looks for itself what is missing
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(folder: Path, stage: str, entry: dict[str, Any]) -> None:
    with atomic(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(_read_record(folder) | {stage: entry}, indent=1), encoding="utf-8")


def _version() -> str:
    from . import __version__

    return __version__
