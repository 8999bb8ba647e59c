"""The notebook runs from top to bottom, offline, on a run that is finished."""

import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "first_look.ipynb"


def test_first_look_runs_on_the_run_that_the_environment_names(tiny_model, extracted_run, run_copy):
    from handscope.analysis import analyze
    from handscope.probes import probe

    run = run_copy(extracted_run)
    analyze(run, permutations=50)
    probe(run, tiny_model, permutations=20)
    settings = {"HANDSCOPE_RUN": str(run.path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=120", NOTEBOOK]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]
