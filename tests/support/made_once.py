"""What is costly to make is made by one of the processes that run the tests, and found by the others."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` has filled, once in this run of the tests. Read it only: other processes read it too."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's folder lies in that of the whole run
    folder, done = base / "made" / name, base / "made" / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(base / "made" / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # left by a process that failed or was stopped while making it
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
