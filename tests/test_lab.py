"""`handscope lab` copies notebooks, leaves edited ones alone, and starts JupyterLab for this machine alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from handscope import cli
from handscope.commands import lab


@pytest.fixture()
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have taken the place of this process."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: commands.append(command))
    monkeypatch.setenv("HANDSCOPE_RUN", "of the shell")
    return commands


def test_an_edited_notebook_stays_and_a_missing_one_is_copied(tmp_path: Path) -> None:
    shipped = sorted(path.name for path in lab.NOTEBOOKS.glob("*.ipynb"))
    (tmp_path / shipped[0]).write_text("edited")
    assert lab.copy_notebooks(tmp_path) == (len(shipped) - 1, 1)
    assert (tmp_path / shipped[0]).read_text() == "edited"
    assert (tmp_path / shipped[1]).read_bytes() == (lab.NOTEBOOKS / shipped[1]).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == shipped


def test_a_run_is_named_to_the_notebooks(started: list[list[str]], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    assert cli.main(["lab", "run", "--no-open", "--port", "0"]) == 0
    (command,) = started
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert {"--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"} < set(command)
    assert f"--ServerApp.root_dir={tmp_path / 'run' / 'notebooks'}" in command
    assert os.environ["HANDSCOPE_RUN"] == str(tmp_path / "run")


def test_without_a_run_what_the_shell_names_holds(started: list[list[str]], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lab"]) == 0
    assert f"--ServerApp.root_dir={tmp_path / lab.FOLDER}" in started[0] and "--no-browser" not in started[0]
    assert os.environ["HANDSCOPE_RUN"] == "of the shell"


def test_what_is_missing_is_said(started: list[list[str]], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lab", "nowhere"]) == 2
    assert "no run folder nowhere" in capsys.readouterr().err
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    assert cli.main(["lab"]) == 2
    assert "pip install 'handscope[notebook]'" in capsys.readouterr().err
    assert not started and not list(tmp_path.iterdir())


@pytest.mark.process
@pytest.mark.slow
def test_the_server_shows_the_notebooks_to_who_has_its_token(tmp_path: Path) -> None:
    import httpx

    pytest.importorskip("jupyterlab")
    run, runtime = tmp_path / "run", tmp_path / "runtime"
    run.mkdir()
    own = {"JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_DATA_DIR": str(tmp_path)}
    server = subprocess.Popen(
        [sys.executable, "-m", "handscope", "lab", str(run), "--no-open", "--port", "0"],
        env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said = runtime / f"jpserver-{server.pid}.json"
        until = time.monotonic() + 200
        while not (said.exists() and said.read_text()) and server.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        found = json.loads(said.read_text())
        assert found["url"].startswith("http://127.0.0.1:") and found["token"]
        where = f"{found['url']}api/contents"
        assert httpx.get(where, timeout=60).status_code == 403
        listed = httpx.get(where, params={"token": found["token"]}, timeout=60).json()["content"]
        assert {one["name"] for one in listed} == {path.name for path in lab.NOTEBOOKS.glob("*.ipynb")}
    finally:
        server.terminate()
        server.wait(60)
