"""The notebooks are pairs in step, hold small and clean outputs, and run from top to bottom, offline."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
from handscope.tutorial import tutorial_run
from made_once import made_once

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
KILOBYTES = 500
"""That one notebook may have; all of them together have less than 3 MB."""


def outputs(name: str) -> list[dict]:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


def test_every_notebook_is_one_of_a_pair():
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_says_the_same(name: str):
    source, kept = (jupytext.read(FOLDER / f"{name}.{form}") for form in ("py", "ipynb"))
    assert [(c.cell_type, c.source) for c in source.cells] == [(c.cell_type, c.source) for c in kept.cells]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_shows_is_small_and_of_no_machine(name: str):
    shown = outputs(name)
    assert shown and not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in shown)
    for output in shown:
        data = {form: text for form, text in output.get("data", {}).items() if not form.startswith("image/")}
        text = json.dumps([data, output.get("text", "")])
        assert not [word for word in ("/tmp", "/home", "/work", "/root", "Warning", "Traceback") if word in text], text
    assert (FOLDER / f"{name}.ipynb").stat().st_size < KILOBYTES * 1000


def test_all_notebooks_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ipynb")) < 3_000_000


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run that notebooks make where none is named: one a process, as notebooks write into it."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.delenv("HANDSCOPE_RUN", raising=False)
            tutorial_run()

    made = made_once(tmp_path_factory, "tutorial", make) / "tutorial"
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("runs") / "tutorial"))


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name: str, tutorial: Path, tmp_path: Path):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=500"]
    settings = {"HANDSCOPE_RUN": str(tutorial), "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, FOLDER / f"{name}.ipynb"], env=os.environ | settings, capture_output=True, text=True, cwd=FOLDER
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]
