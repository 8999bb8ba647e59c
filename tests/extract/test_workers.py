"""Stages that draw and read, by several processes: the same files as one makes, and lines that no two write."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest
from handscope import parallel
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.extract.survey.survey import survey
from handscope.models.model import Model
from handscope.run.folder import Run
from made_state import state
from made_tiny import PROMPTS, SEEDS, STEPS

SETTINGS = {"prompts": PROMPTS, "seeds": SEEDS, "steps": STEPS}


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], int]]:
    """How many processes have called the transformer."""
    from handscope.models.families import flux

    folder, call = tmp_path / "pids", flux.Flux.arguments
    folder.mkdir()

    def noted(*given):
        (folder / str(os.getpid())).touch()
        return call(*given)

    monkeypatch.setattr(flux.Flux, "arguments", noted)
    yield lambda: len(list(folder.iterdir()))


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 3])
def test_files_are_the_same_at_any_number_of_workers(
    workers: int, tiny_model: Model, finished_run: Run, extracted_run: Run, run_copy: Callable, tmp_path: Path, pids
) -> None:
    plan = Plan.from_json(str(_attr(extracted_run, "plan")))
    with parallel.workers(workers):
        made = Run(tmp_path / "made")
        samples = generate(tiny_model, made, **SETTINGS)
        run = run_copy(finished_run)
        extract(tiny_model, run, plan)
        survey(tiny_model, run)
    for name in ("samples", "trajectories"):
        assert state(made.path / name) == state(finished_run.path / name)
    assert list(samples["sample"]) == list(finished_run.samples()["sample"])
    for name in ("activations", "analysis"):
        assert state(run.path / name) == state(extracted_run.path / name)
    assert len(list((run.path / "survey").glob("*.h5"))) == 48
    assert (pids() == 1) == (workers == 1)


def _attr(run: Run, name: str) -> str:
    with h5py.File(next((run.activations_dir / "shards").glob("*.h5"))) as file:
        return file.attrs[name]


def test_parts_of_a_generation_are_one(tiny_model: Model, finished_run: Run, tmp_path: Path) -> None:
    run, seen = Run(tmp_path), []
    for i in (3, 1):
        seen.append(len(generate(tiny_model, run, **SETTINGS, shard=(i, 3))))
        assert len(Run(tmp_path).metadata()) == sum(seen) and not run.metadata_path.exists()
    assert len(list(run.parts_dir.iterdir())) == 2 and all(0 < n < 48 for n in seen)
    generate(tiny_model, run, **SETTINGS, shard=(2, 3))
    assert state(run.samples_dir) == state(finished_run.samples_dir) and not list(run.parts_dir.iterdir())
    assert state(run.trajectories_dir) == state(finished_run.trajectories_dir)


def test_writers_that_are_not_alone_have_files_of_their_own(finished_run: Run, tmp_path: Path) -> None:
    rows = list(finished_run.metadata().values())
    first, second = Run(tmp_path), Run(tmp_path)
    with first.writing_samples(among_others=True), second.writing_samples(among_others=True):
        first.append_metadata(rows[:1])
        second.append_metadata(rows[1:3])
        assert {path.read_bytes().count(b"\n") for path in first.parts_dir.iterdir()} == {1, 2}
        with pytest.raises(HandscopeError, match="Another process is generating"), Run(tmp_path).writing_samples():
            pass
        assert len(first.metadata()) == len(Run(tmp_path).metadata()) == 3
        first.put_together()  # of living writers, nothing leaves
        assert len(list(first.parts_dir.iterdir())) == 2
        second.append_metadata(rows[3:4])
    assert list(Run(tmp_path).metadata()) != [] and len(first.metadata()) == 4
    first.put_together([row["sample"] for row in rows])
    lines = first.metadata_path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows[:4] and not list(first.parts_dir.iterdir())


def test_lines_of_a_killed_writer_are_kept(finished_run: Run, tmp_path: Path) -> None:
    rows = list(finished_run.metadata().values())
    run = Run(tmp_path)
    run.parts_dir.mkdir(parents=True)
    whole = "".join(json.dumps(row) + "\n" for row in rows[:2])
    (run.parts_dir / "0a.jsonl").write_text(whole + json.dumps(rows[2])[:50])
    assert list(run.metadata()) == [row["sample"] for row in rows[:2]]
    with run.writing_samples():
        run.append_metadata(rows[2:3])
    assert run.metadata_path.read_text() == whole + json.dumps(rows[2], ensure_ascii=False) + "\n"
    assert not list(run.parts_dir.iterdir())


def test_where_there_are_no_locks_lines_go_to_a_file_of_ones_own(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handscope.run import folder as module

    rows = list(finished_run.metadata().values())
    monkeypatch.setattr(module, "fcntl", None)
    one, other = Run(tmp_path), Run(tmp_path)
    with one.writing_samples():
        one.append_metadata(rows[:1])
        with other.writing_samples():
            other.append_metadata(rows[1:2])
        assert len(one.metadata()) == 2
        one.append_metadata(rows[2:3])
    assert sorted(json.loads(line)["sample"] for line in one.metadata_path.read_text().splitlines()) == sorted(
        row["sample"] for row in rows[:3]
    )


def test_files_have_the_mode_that_the_umask_asks_for(tiny_model: Model, finished_run: Run, run_copy: Callable) -> None:
    before = os.umask(0o027)
    try:
        run = run_copy(finished_run)
        left = [path for path in run.path.rglob("*") if path.is_file()]
        generate(tiny_model, run, PROMPTS[:1], [41], steps=STEPS)
        extract(tiny_model, run, Plan(["double.1"], [2], of=STEPS))
        survey(tiny_model, run)
        new = [path for path in run.path.rglob("*") if path.is_file() and path not in left]
    finally:
        os.umask(before)
    assert len(new) >= 100 and {oct(path.stat().st_mode & 0o777) for path in new} == {"0o640"}
