"""The record of a run: what makes a stage stale, and what does not."""

import json
import os
import shutil
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from handscope.labeling.database.labels import Annotation, Labels
from handscope.run.record import entry_of, fresh, made_from, set_fresh
from handscope.stages import LABELS, SUBJECT, Stage

STAGE = Stage(
    name="weigh", help="", command="", function="", summary="", version=3,
    reads=("samples/*.png", "analysis/*.csv", SUBJECT, LABELS), files=("out/*",),
)  # fmt: skip
SETTINGS = {"permutations": 9, "blocks": ("double.1",)}
GRID = np.array([[0, 0], [1, 1]], np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder in which `STAGE` has ended."""
    for name in ("samples/a.png", "analysis/cells.csv", "out/b.csv", "out/c.png"):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a,b\n1,2\n")
    label(tmp_path / "run")
    now = made_from(tmp_path / "run", STAGE, SETTINGS)
    set_fresh(tmp_path / "run", STAGE, now, "It is weighed.")
    return tmp_path / "run"


def label(folder: Path, **changes) -> None:
    annotation = Annotation("a", "0" * 64, 1 + 2 * GRID, GRID, "bad", ("count",), "ada", "hand")
    Labels(folder / LABELS).add([replace(annotation, **changes)])


def is_fresh(folder: Path, stage: Stage = STAGE, settings: dict = SETTINGS) -> bool:
    return fresh(folder, stage, made_from(folder, stage, settings)) is not None


def test_a_stage_that_ended_is_fresh_and_keeps_its_summary(folder):
    assert is_fresh(folder)
    assert fresh(folder, STAGE, made_from(folder, STAGE, SETTINGS))["summary"] == "It is weighed."
    assert entry_of(folder, STAGE)["settings"] == {"permutations": 9, "blocks": ["double.1"]}


CHANGES = {
    "another image": lambda run: (run / "samples" / "a.png").write_text("other pixels"),
    "one image more": lambda run: (run / "samples" / "b.png").touch(),
    "another table": lambda run: (run / "analysis" / "cells.csv").write_text("a,b\n1,3\n"),
    "an output changed": lambda run: (run / "out" / "b.csv").write_text("a,b\n1,3\n"),
    "an output gone": lambda run: (run / "out" / "c.png").unlink(),
    "a verdict": lambda run: label(run, verdict="bad?"),
    "a kind of fault": lambda run: label(run, kinds=("fused",)),
    "a mask": lambda run: label(run, labels=np.array([[1, 1], [1, 3]], np.uint8), instances=GRID * [[1], [1]] * [0, 1]),
    "a reviewer": lambda run: label(run, verdict="good", author="eve", source="review"),
    "no labels": lambda run: [file.unlink() for file in run.glob(f"{LABELS}*")],
    "a subject": lambda run: (run / "run.yaml").write_text("subject: {name: bird}"),
    "a torn record": lambda run: (run / "record.json").write_text('{"stages": {"weigh'),
    "a record of nothing": lambda run: (run / "record.json").write_text("[]"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_makes_a_stage_stale(change, folder):
    CHANGES[change](folder)
    assert not is_fresh(folder)


def test_other_settings_and_versions_make_it_stale(folder):
    assert not is_fresh(folder, settings=SETTINGS | {"permutations": 10})
    assert not is_fresh(folder, replace(STAGE, version=4))
    assert not is_fresh(folder, replace(STAGE, sources=("files.py",)))
    assert is_fresh(folder)


def test_what_leaves_it_fresh(folder):
    Labels(folder / LABELS).table()  # readers may touch the database's files
    os.utime(folder / LABELS)
    os.utime(folder / "analysis" / "cells.csv")  # tables count by what is in them
    label(folder)  # said again
    (folder / "samples" / ".a.tmp.png").touch()
    (folder / "run.yaml").write_text("labels: {sources: {judge: 3}}")
    assert is_fresh(folder)


def test_a_copy_with_its_times_is_fresh(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert is_fresh(tmp_path / "copy")


def test_labels_are_not_read_while_their_files_are_as_they_were(folder, monkeypatch):
    monkeypatch.setattr(Labels, "fingerprint", lambda self: pytest.fail("read again"))
    assert is_fresh(folder)


def test_what_changes_while_a_stage_works_is_not_what_it_was_made_from(folder):
    now = made_from(folder, STAGE, SETTINGS)
    label(folder, verdict="bad?")
    set_fresh(folder, STAGE, now)
    assert not is_fresh(folder)


def _enter(folder: Path, number: int) -> None:
    for turn in range(10):
        stage = replace(STAGE, name=f"{number}-{turn}")
        set_fresh(folder, stage, made_from(folder, stage, {}))


def test_processes_that_end_stages_at_once_lose_none(folder):
    context = get_context("fork")
    processes = [context.Process(target=_enter, args=(folder, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    stages = json.loads((folder / "record.json").read_text())["stages"]
    assert set(stages) == {"weigh", *(f"{number}-{turn}" for number in range(4) for turn in range(10))}
    assert not [path.name for path in folder.glob(".*.tmp*")]
