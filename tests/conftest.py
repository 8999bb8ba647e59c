"""A tiny random FLUX and small runs made with it, once for all processes of the tests; and which tests are costly."""

import os

# Before torch is imported: the tests are many small computations, which two threads only make wait for each other.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import made_circuit
import made_tiny
import pytest
from made_once import made_once

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

MARKS = {"browser": "browser", "server": "process", "address": "process"}
"""A test that asks for such a fixture gets such a mark."""


def pytest_xdist_auto_num_workers() -> int:
    """How many processes ``-n auto`` starts: one a core, since each computes with one thread; each needs 1.5 GB."""
    return min(len(os.sched_getaffinity(0)), 8)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures; put files with slow tests first, so that no process works alone at the end."""
    for item in items:
        for fixture in MARKS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS[fixture])
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_pipe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline's folder; to write, copy it."""
    return made_once(tmp_path_factory, "pipe", made_tiny.make_pipe)


@pytest.fixture(scope="session")
def tiny_model(tiny_pipe_folder: Path):
    """The tiny pipeline as a `Model`; a test must leave it as it was."""
    from handscope.models.model import load

    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="session")
def circuit_model(tiny_pipe_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """The tiny pipeline with a circuit made by hand, as a `Model`: see made_circuit.py."""
    from handscope.models.model import load

    def make(folder: Path) -> None:
        made_circuit.make_circuit(folder, tiny_pipe_folder)

    return load(str(made_once(tmp_path_factory, "circuit", make)))


@pytest.fixture(scope="session")
def finished_run(tiny_model, tmp_path_factory: pytest.TempPathFactory):
    """48 samples (8 prompts, 6 seeds, 4 steps) with trajectories and labels, and no activations yet. Read it; to write,
    use `run_copy`.
    """
    from handscope.run.folder import Run

    made = made_once(tmp_path_factory, "finished", lambda folder: made_tiny.make_finished(tiny_model, Run(folder)))
    return Run(shutil.copytree(made, tmp_path_factory.mktemp("runs") / "finished"))


@pytest.fixture(scope="session")
def extracted_run(tiny_model, finished_run, tmp_path_factory: pytest.TempPathFactory):
    """`finished_run` with the activations of three blocks at steps 4, 2 and 1 of 4."""
    from handscope.run.folder import Run

    def make(folder: Path) -> None:
        shutil.copytree(finished_run.path, folder, dirs_exist_ok=True)
        made_tiny.make_extracted(tiny_model, Run(folder))

    made = made_once(tmp_path_factory, "extracted", make)
    return Run(shutil.copytree(made, tmp_path_factory.mktemp("runs") / "extracted"))


@pytest.fixture(scope="session")
def studied_run(extracted_run, tmp_path_factory: pytest.TempPathFactory):
    """`extracted_run` with every table of the analysis and the probes, and no report yet."""
    from handscope.run.folder import Run

    def make(folder: Path) -> None:
        shutil.copytree(extracted_run.path, folder, dirs_exist_ok=True)
        made_tiny.make_studied(Run(folder))

    made = made_once(tmp_path_factory, "studied", make)
    return Run(shutil.copytree(made, tmp_path_factory.mktemp("runs") / "studied"))


@pytest.fixture
def run_copy(tmp_path: Path) -> Callable:
    """``run_copy(finished_run)``: a copy of a run that a test may change."""
    from handscope.run.folder import Run

    return lambda run: Run(shutil.copytree(run.path, tmp_path / "run"))
