"""What the system refuses is said as that, leads to nothing being replaced, and is no traceback, whichever library
passes it on."""

import errno
import fcntl
import io
import os
import resource
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from handscope.analysis.moments import Moments
from handscope.cli import main
from handscope.errors import HandscopeError, Unusable
from handscope.evaluation.commitment import _measured_before
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.store.check import check
from handscope.extract.store.consolidate import consolidate, is_consolidated
from handscope.extract.store.shard import DamagedError
from handscope.extract.store.shard import reading as reading_store
from handscope.extract.store.store import ActivationStore
from handscope.extract.survey.surveyed import reading as reading_survey
from handscope.files import append, atomic, system_number, write_csv
from handscope.labeling.database.labels import Labels
from handscope.probes.saved import load_probe
from handscope.report.results import Results
from handscope.run.folder import Run
from handscope.run.record import entry_of
from handscope.run.trajectory import Trajectory
from handscope.stages import LABEL
from made_stores import make_folder, make_shard
from safetensors.numpy import save_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks and modes of files are others there")
NOBODY = 65534


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of the superuser, which no mode of a file stops."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@contextmanager
def files_of(size: int) -> Iterator[None]:
    """Files may not grow beyond `size` bytes, as with ``ulimit -f`` and on a disk that becomes full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that `nobody` comes to and owns."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def given_to_nobody(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        if os.geteuid() == 0:
            os.chown(each, NOBODY, NOBODY)


def state(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As another process that h5py writes the file with holds it."""
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_shard_that_another_process_writes_is_not_damaged(tiny_model, extracted_run, run_copy):
    run = run_copy(extracted_run)
    path = sorted((run.activations_dir / "shards").glob("*.h5"))[3]
    before, plan = state(path), Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=4)
    with locked(path):
        with pytest.raises(Unusable, match=f"{path.name} is locked by another process"):
            extract(tiny_model, run, plan)
        [problem] = check(run.activations_dir / "shards")
        assert problem.path == path and "is locked" in problem.what and "remove" not in problem.what
    assert state(path) == before
    store = run.activations_dir / "store.h5"
    before = state(store)
    with locked(store), pytest.raises(Unusable, match=r"store\.h5 is locked"):
        is_consolidated(run.activations_dir)
    with locked(store), pytest.raises(Unusable, match=r"store\.h5 is locked"):
        extract(tiny_model, run, plan)
    assert state(store) == before
    path.write_bytes(path.read_bytes()[:2000])
    extract(tiny_model, run, plan)
    assert state(path) != before and not check(run.activations_dir)


def test_a_colleagues_shard_is_not_damaged(tiny_model, extracted_run, open_path):
    run = Run(shutil.copytree(extracted_run.path, open_path / "run"))
    given_to_nobody(run.path)
    path = sorted((run.activations_dir / "shards").glob("*.h5"))[3]
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
    path.chmod(0)
    before = state(path)
    with nobody(), pytest.raises(Unusable, match=f"{path.name} could not be read .Permission denied., and is unch"):
        extract(tiny_model, run, Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=4))
    with nobody():
        problems = check(run.activations_dir)
    assert state(path) == before and any("Permission denied" in problem.what for problem in problems)


READERS = {
    "trajectory": lambda path: Trajectory.load(path, {}),
    "probe": load_probe,
    "moments": Moments.load,
    "commitment": _measured_before,
    "labels": lambda path: Labels(path).current(),
    "store": lambda path: ActivationStore(path),
    "survey": lambda path: reading_survey(path).__enter__(),
    "record.json": lambda path: entry_of(path.parent, LABEL),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read_is_said_to_be_that(name, open_path):
    path = open_path / name
    path.write_bytes(b"whatever is in it")
    path.chmod(0)
    with nobody(), pytest.raises(Unusable, match="Permission denied|unable to open"):
        READERS[name](path)
    assert path.read_bytes() == b"whatever is in it"


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"record.json", "commitment"}))
def test_the_same_file_is_damaged_once_it_can_be_read(name, open_path):
    path = open_path / name
    path.write_bytes(b"whatever is in it")
    with pytest.raises(HandscopeError) as caught:
        READERS[name](path)
    assert name == "labels" or not isinstance(caught.value, Unusable)


def test_pictures_and_coordinates_that_may_not_be_read(studied_run, open_path):
    run = Run(shutil.copytree(studied_run.path, open_path / "run"))
    given_to_nobody(run.path)
    sample = next(iter(run.metadata()))
    run.image_path(sample).chmod(0)
    (run.analysis_dir / "cells.safetensors").chmod(0)
    with nobody():
        with pytest.raises(Unusable, match=r"png could not be read .Permission denied."):
            run.image(sample)
        with pytest.raises(Unusable, match=r"cells\.safetensors could not be read .Permission denied."):
            Results.read(run)


def test_labels_that_another_process_writes(tmp_path, monkeypatch):
    path = tmp_path / "labels.sqlite"
    labels = Labels(path)
    labels.add([])
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k | {"timeout": 0}))
    other = connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unusable, match="could not be used now .database is locked., and are unchanged"):
        labels.add([])
    other.close()


def test_hdf5s_own_way_of_saying_it():
    said = "Can't synchronously read data (file read failed: filename = 'a.h5', errno = 5, error message = 'I/O')"
    assert system_number(OSError(said)) == errno.EIO
    assert system_number(RuntimeError("Error while serializing: No space left (os error 28)")) == errno.ENOSPC
    assert system_number(OSError("truncated file: eof = 3000, sblock->base_addr = 0, stored_eof = 10048")) is None


def test_what_a_damaged_file_sends_a_library_to_is_damage(tmp_path, monkeypatch):
    make_shard(tmp_path, "s00", 0)

    def lost(*arguments, **more):
        raise OSError(errno.EINVAL, "Can't read data (file read failed: errno = 22, error message = 'Invalid')")

    monkeypatch.setattr(h5py, "File", lost)
    with pytest.raises(DamagedError), reading_store(tmp_path / "shards" / "s00.h5"):
        pass


# Where nothing more can be written


WRITERS = {
    "shard": lambda folder: make_shard(folder, "s00", 0, tokens=2000),
    "safetensors": lambda folder: Moments(np.ones(99), np.ones((99, 99)), np.ones((99, 99))).save(folder / "a"),
    "table": lambda folder: write_csv(folder / "a.csv", __import__("pandas").DataFrame({"a": np.random.rand(9999)})),
    "lines": lambda folder: append(folder / "lines", b"x" * 99999),
}


@pytest.mark.process
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_grow(name, tmp_path):
    with files_of(4096), pytest.raises(Unusable, match=r"ulimit -f.*could not be written"):
        WRITERS[name](tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lines"]
    assert not left and (name != "lines" or (tmp_path / "lines").stat().st_size == 0)


@pytest.mark.process
@pytest.mark.parametrize("size", [1000, 4096, 9000])
def test_generate_and_extract_end_in_a_sentence_and_go_on(size, tiny_model, finished_run, run_copy, tmp_path):
    from handscope.extract.generate import generate

    run = run_copy(finished_run)
    for path in run.path.glob("labels.sqlite*"):
        path.unlink()
    plan = Plan(["double.1", "single.0"], [4, 2], of=4)
    with files_of(size), pytest.raises(Unusable, match=r"h5 could not be written"):
        extract(tiny_model, run, plan, tokens="all")
    assert not [path for path in run.activations_dir.rglob("*") if path.is_file()]
    new = Run(tmp_path / "new")
    with files_of(size), pytest.raises(Unusable, match="could not be written"):
        generate(tiny_model, new, ["a hand"], [0, 1], steps=16)
    assert not list(new.path.rglob(".*tmp*")) and not new.metadata()


def test_a_folder_that_may_not_be_written_to(open_path, capsys):
    make_folder(open_path / "activations", range(3))
    for folder in (open_path / "activations", open_path / "activations" / "shards"):
        folder.chmod(0o555)
    with nobody(), pytest.raises(Unusable, match=r"store\.h5 could not be written .Permission denied."):
        consolidate(open_path / "activations")
    with nobody():
        assert main(["store", "consolidate", str(open_path / "activations")]) == 2
    assert "could not be written (Permission denied)" in capsys.readouterr().err


def test_an_error_that_is_the_programs_own_is_not_explained_away(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "a"):
        _ = 1 / 0
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a"):
        open(tmp_path / "elsewhere" / "b").close()
    assert not list(tmp_path.iterdir())


def test_who_reads_what_is_printed_may_have_seen_enough(tmp_path, monkeypatch):
    make_folder(tmp_path, range(3))
    for words in (["store", "info", str(tmp_path)], ["--help"]):
        ends = os.pipe()
        os.close(ends[0])
        with monkeypatch.context() as patch, open(ends[1], "w") as pipe:
            patch.setattr(sys, "stdout", pipe)
            assert main(words) == 141


def test_a_terminal_that_lacks_a_letter(tmp_path, monkeypatch):
    make_folder(tmp_path / "hånd →", range(2))
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="ascii"))
    assert main(["store", "check", str(tmp_path / "hånd →")]) == 0
    assert b"h\\xe5nd \\u2192" in held.getvalue()


@pytest.mark.parametrize("verb", ["analyze", "probe"])
def test_a_seed_that_is_none(verb, extracted_run, capsys):
    for seed in ("4294967296", "-1", "1_0"):
        with pytest.raises(SystemExit, match="2"):
            main([verb, str(extracted_run.path), f"--seed={seed}"])
        assert seed in capsys.readouterr().err
    from handscope.analysis.statistics.folds import grouped_folds

    with pytest.raises(HandscopeError, match="every seed"):
        grouped_folds([1, 2, 3, 4, 5], 5, seed=2**32)


def test_half_a_pipeline_of_safetensors_is_not_asked_for_where_there_is_none(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "a")
    with pytest.raises(HandscopeError, match="is damaged"):
        Trajectory.load(tmp_path / "a", {})
    with pytest.raises(HandscopeError, match="is missing"):
        Trajectory.load(tmp_path / "b", {})
