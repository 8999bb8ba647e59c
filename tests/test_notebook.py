"""The notebooks run from top to bottom, offline: on a finished run, and on one that they make."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "first_look.ipynb"
WATCH = NOTEBOOK.with_name("watch_a_hand.ipynb")


def executed(notebook: Path, run: str, scratch: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=500", notebook]
    settings = {"HANDSCOPE_RUN": run, "HF_HUB_OFFLINE": "1", "TMPDIR": str(scratch)}
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, cwd=notebook.parent)


def test_first_look_runs_on_the_run_that_the_environment_names(tiny_model, extracted_run, run_copy):
    from handscope.analysis import analyze
    from handscope.probes import probe

    run = run_copy(extracted_run)
    analyze(run, permutations=50)
    probe(run, permutations=20)
    done = executed(NOTEBOOK, str(run.path), run.path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


@pytest.mark.timeout(600)
def test_first_look_makes_a_run_where_there_is_none(tmp_path):
    notebook = tmp_path / NOTEBOOK.name  # a copy, beside which no finished demo lies
    notebook.write_bytes(NOTEBOOK.read_bytes())
    done = executed(notebook, "", tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


@pytest.mark.timeout(600)
def test_a_hand_is_watched_with_probes_of_a_run_that_the_notebook_makes(tmp_path):
    notebook = tmp_path / WATCH.name
    notebook.write_bytes(WATCH.read_bytes())
    done = executed(notebook, "", tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]
