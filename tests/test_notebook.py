"""The notebooks run from top to bottom, offline: on a finished run, and on one that they make."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "first_look.ipynb"
WATCH = NOTEBOOK.with_name("watch_a_hand.ipynb")


def smaller(notebook: Path, folder: Path, *changes: tuple[str, str]) -> Path:
    """A copy of a notebook, beside which no finished demo lies, that makes a smaller run."""
    text = notebook.read_text(encoding="utf-8")
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    copy = folder / notebook.name
    copy.write_text(text, encoding="utf-8")
    return copy


def executed(notebook: Path, run: str, scratch: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=500", notebook]
    settings = {"HANDSCOPE_RUN": run, "HF_HUB_OFFLINE": "1", "TMPDIR": str(scratch)}
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, cwd=notebook.parent)


def test_first_look_runs_on_the_run_that_the_environment_names(studied_run, run_copy):
    run = run_copy(studied_run)
    done = executed(NOTEBOOK, str(run.path), run.path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


@pytest.mark.timeout(600)
def test_first_look_makes_a_run_where_there_is_none(tmp_path):
    fewer = ("analyze(run, permutations=200", "analyze(run, permutations=19")
    notebook = smaller(NOTEBOOK, tmp_path, ("range(8)", "range(3)"), fewer)
    done = executed(notebook, "", tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


@pytest.mark.timeout(600)
def test_a_hand_is_watched_with_probes_of_a_run_that_the_notebook_makes(tmp_path):
    notebook = smaller(WATCH, tmp_path, ("range(6)", "range(3)"))
    done = executed(notebook, "", tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


@pytest.mark.timeout(600)
def test_blocks_are_looked_into_without_a_run(tmp_path):
    done = executed(NOTEBOOK.with_name("look_inside.ipynb"), "", tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


@pytest.mark.timeout(600)
def test_activations_are_swapped_without_a_run(tmp_path):
    done = executed(NOTEBOOK.with_name("swap_a_hand.ipynb"), "", tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]
