"""A study from its YAML file: what a key means, resuming after a kill, and doing nothing when all is done."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from handscope.errors import HandscopeError
from handscope.labeling.subject import load_subject, subject_of
from handscope.run.folder import Run
from handscope.stages import STAGES
from handscope.study import Study
from made_tiny import PROMPTS
from subjects import BIRD

SETTINGS = {
    "prompts": PROMPTS,
    "seeds": {"first": 0, "count": 6},
    "steps": 4,
    "blocks": ["double.1", "single.2"],
    "read_steps": [4, 1],
    "permutations": 19,
    "probe_permutations": 9,
    "folds": 3,
    "subject": "hand",
    "tokens": "hand",
}

# Imports once, what a load of the model imports among it, then runs the study in one child after another. Each child is
# killed the first time that some stage is half way, until one gets to the end. Automatic labels are for the organism,
# so here they are made by hand; PDFs, which take most of the time of a figure, are left out.
KILLER = """
import os, signal, sys
import sklearn.linear_model
from handscope.cli import main
from handscope.extract import extract, generate
from handscope.models import model as models
from handscope.labeling.database.labels import Labels
from handscope.analysis import stage as analysis_stage
from handscope.probes import stage as probes_stage
from handscope import cli, figures
from handscope.report import page as report
from handscope.organism.study import auto
from made_tiny import hand_made_labels

def label_auto(run, progress):
    missing = [label for label in hand_made_labels(run) if label.sample not in Labels(run.labels_path).current()]
    for done, label in enumerate(missing):
        progress("label", done, len(missing))
        Labels(run.labels_path).add([label])

auto.label_auto = label_auto
models.load(sys.argv[2])
figures.FORMATS.pop('pdf')
killed = set()
while True:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        def progress(stage, done, total):
            if stage not in killed and 2 * done >= total > 0:
                os.write(writes, stage.encode())
                os.kill(os.getpid(), signal.SIGKILL)
        from handscope.study import Study
        results = Study.from_yaml(sys.argv[1]).run(progress)
        print(*(f"{result.stage}={result.ran}" for result in results), flush=True)
        os._exit(0)
    os.close(writes)
    stage = os.read(reads, 100).decode()
    os.close(reads)
    _, status = os.waitpid(child, 0)
    if not stage:
        sys.exit(os.waitstatus_to_exitcode(status))
    assert os.WTERMSIG(status) == signal.SIGKILL
    killed.add(stage)
    print("killed in", stage, flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_pipe_folder: Path) -> Path:
    """A folder with study.yaml and, in `run`, the study that was killed in every stage and came to its end."""
    folder = tmp_path_factory.mktemp("study")
    settings = {"run": "run", "model": str(tiny_pipe_folder), **SETTINGS}
    (folder / "study.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent / "support"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", KILLER, "study.yaml", tiny_pipe_folder],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr
    (folder / "log").write_text(result.stdout)
    return folder


def state(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@pytest.mark.process
@pytest.mark.slow
def test_killed_in_every_stage_it_ends_like_one_that_was_not(
    folder: Path, tiny_model, finished_run, tmp_path: Path
) -> None:
    from handscope.analysis import analyze
    from handscope.extract.address import Plan
    from handscope.extract.extract import extract
    from handscope.extract.store.store import ActivationStore
    from handscope.probes import probe
    from handscope.run.folder import Run

    log = (folder / "log").read_text().splitlines()
    stages = {line.removeprefix("killed in ") for line in log if line.startswith("killed in ")}
    assert {"generate", "label", "extract", "analyze", "probe sure", "report"} <= stages
    assert log[-1].startswith("generate=False label=False extract=False") and log[-1].endswith("report=True")

    killed = Run(folder / "run")
    assert (killed.path / "report.html").exists()
    samples, expected = killed.samples(), finished_run.samples()
    assert samples.equals(expected)
    for sample in samples["sample"]:
        assert killed.image_path(sample).read_bytes() == finished_run.image_path(sample).read_bytes()

    shutil.copytree(finished_run.path, tmp_path / "whole")
    whole = Run(tmp_path / "whole")
    store = extract(tiny_model, whole, Plan(SETTINGS["blocks"], SETTINGS["read_steps"], of=4))
    resumed = ActivationStore(killed.activations_dir)
    for cell in store.cells:
        np.testing.assert_array_equal(resumed.read(cell.block, cell.step)[0], store.read(cell.block, cell.step)[0])
    analyze(whole, permutations=19, folds=3)
    probe(whole, permutations=9, folds=3)
    for name in ("cells.csv", "samples.csv", "cosines.csv", "probes.csv", "baselines.csv", "added.csv"):
        assert (killed.analysis_dir / name).read_bytes() == (whole.analysis_dir / name).read_bytes(), name


@pytest.mark.process
@pytest.mark.slow
def test_second_run_does_nothing_and_says_so(folder: Path) -> None:
    before = state(folder / "run")
    code = (
        "import sys; from handscope.cli import main; status = main(['study', 'study.yaml'])\n"
        "heavy = ('torch', 'diffusers', 'pandas', 'h5py', 'scipy', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules]); sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    *lines, imported = result.stdout.splitlines()
    assert "Nothing to do: every stage of run is complete." in lines
    assert lines[-1] == f"The report is {(folder / 'run' / 'report.html').resolve()}"
    always = [stage.name for stage in STAGES if stage.always]
    assert [line.split()[:2] for line in lines[: len(always)]] == [[name, "complete:"] for name in always]
    assert imported == "[]"
    assert state(folder / "run") == before


def ran(study: Study) -> list[str]:
    return [result.stage for result in study.stages() if result.ran]


@pytest.mark.process
@pytest.mark.slow
def test_only_what_is_missing_is_done(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from handscope.labeling.database.labels import Labels

    shutil.copytree(folder / "run", tmp_path / "run", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("handscope.organism.study.auto.label_auto", lambda run, progress: None)
    # Figures are left as they are: which stages run is asked, and drawing takes most of the time.
    monkeypatch.setattr("handscope.figures.save", lambda drawn, folder, name: folder / f"{name}.png")
    study = Study.from_yaml(folder / "study.yaml")
    assert ran(study) == []

    csv = tmp_path / "run" / "analysis" / "cells.csv"
    before = csv.read_bytes()
    csv.unlink()
    assert ran(study)[0] == "analyze"
    assert csv.read_bytes() == before
    assert ran(study) == []

    (image := sorted((tmp_path / "run" / "samples").glob("*.png"))[5]).unlink()
    assert ran(study)[0] == "generate"
    assert image.read_bytes() == (folder / "run" / "samples" / image.name).read_bytes()
    assert ran(study) == []

    labels = Labels(tmp_path / "run" / "labels.sqlite")
    labels.add([seen := next(iter(labels.current().values()))])  # a person looks again, and says the same
    assert ran(study) == []
    place = np.argwhere(seen.instances > 0)[0]
    masks = {"labels": seen.labels.copy(), "instances": seen.instances.copy()}
    masks["labels"][tuple(place)], masks["instances"][tuple(place)] = 1, 0
    labels.add([replace(seen, **masks)])  # one token less: what reads labels is made again
    assert {"extract", "analyze", "probe", "report"} <= set(ran(study))
    assert ran(study) == []

    (tmp_path / "run" / "record.json").write_text("{ torn")
    assert ran(study) == [stage.name for stage in STAGES if stage.always]
    assert ran(study) == []


def test_a_run_of_0_3_is_shown_as_it_is_and_made_again_alike(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handscope.report.page import _resolution
    from handscope.report.results import Results

    shutil.copytree(folder / "run", tmp_path / "run", copy_function=shutil.copy2)
    run = Run(tmp_path / "run")
    (run.path / "record.json").unlink()
    for path, told in (
        (run.path / "study.json", {"analyze": {"settings": {"version": "0.3.0"}, "summary": "of then"}}),
        (run.analysis_dir / "analyze.json", {"fingerprint": "0" * 64, "permutations": 19}),
        (run.probes_dir / "probe.json", {"fingerprint": "0" * 64, "permutations": 9}),
        (run.figures_dir / "report.json", {"fingerprint": "0" * 64}),
    ):
        path.write_text(json.dumps(told))
    before = {path.name: path.read_bytes() for path in run.analysis_dir.glob("*.csv")}
    permutations = {line["name"]: line["permutations"] for line in _resolution(run, Results.read(run))}
    assert permutations == {"directions and distances": 19, "probes": 9, "baselines": 9}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("handscope.organism.study.auto.label_auto", lambda run, progress: None)
    study = Study.from_yaml(folder / "study.yaml")
    assert ran(study) == [stage.name for stage in STAGES if stage.always]
    assert {path.name: path.read_bytes() for path in run.analysis_dir.glob("*.csv")} == before
    assert ran(study) == []


def test_existing_labels_are_asked_for(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    settings = {"run": str(tmp_path / "run"), "model": str(tiny_pipe_folder), "labels": "existing", **SETTINGS}
    path.write_text(yaml.safe_dump(settings | {"prompts": PROMPTS[:3], "seeds": [0, 1, 2, 3]}), encoding="utf-8")
    stages = Study.from_yaml(path).stages()
    assert next(stages).stage == "generate"
    with pytest.raises(HandscopeError, match=r"labels: existing.*labels\.sqlite"):
        next(stages)


def test_yaml_keys(tmp_path: Path) -> None:
    (tmp_path / "pipe").mkdir()
    (tmp_path / "captions.txt").write_text("# two\na hand\n\nanother hand\n", encoding="utf-8")
    path = tmp_path / "study.yaml"
    path.write_text(
        "run: runs/x\nmodel: pipe\nprompts: captions.txt\nseeds: {first: 3, count: 2}\nguidance: 3\n"
        "read_steps: [20, 1]\noffload: model\nquantisation: torchao-int8\nbase: pipe\n"
        "stream: text\nat: input\ncompression: lossless\n",
        encoding="utf-8",
    )
    study = Study.from_yaml(path)
    assert study.folder == Path("runs/x")
    assert study.model == str((tmp_path / "pipe").resolve())
    assert study.prompts == ("a hand", "another hand")
    assert study.seeds == (3, 4)
    assert study.guidance == 3.0 and isinstance(study.guidance, float)
    assert study.steps == 20 and study.labels == "auto"
    assert study.plan_for(("double.0", "single.0")).steps == (20, 1)
    plan = study.plan_for(("double.0", "single.0"))
    assert len(plan.cells) == 4 and (plan.stream, plan.at) == ("text", "input")
    assert (study.offload, study.quantisation, study.compression) == ("model", "torchao-int8", "lossless")
    assert study.base == study.model


def test_a_study_names_what_is_labelled(tmp_path: Path, tiny_pipe_folder: Path) -> None:
    path = tmp_path / "study.yaml"
    text = f"run: {tmp_path / 'run'}\nmodel: {tiny_pipe_folder}\nprompts: [a bird, a crow]\nseeds: 0-4\nfolds: 2\n"
    path.write_text(f"{text}steps: 2\nheight: 32\nwidth: 32\nsubject: bird.yaml\n")
    with pytest.raises(HandscopeError, match=r"key 'subject': There is no subject 'bird\.yaml'"):
        Study.from_yaml(path)
    shutil.copy(BIRD, tmp_path / "bird.yaml")
    stages = Study.from_yaml(path).stages()
    assert next(stages).stage == "generate" and subject_of(Run(tmp_path / "run")) == load_subject(BIRD)
    with pytest.raises(HandscopeError, match="subject bird .* names no judge"):
        next(stages)


def test_the_demo_is_a_study() -> None:
    study = Study.from_yaml(Path(__file__).parents[1] / "datasets" / "demo.yaml")
    assert study.model == "organism" and study.folder == Path("runs/demo")
    assert len(set(study.prompts)) * len(set(study.seeds)) >= 300
