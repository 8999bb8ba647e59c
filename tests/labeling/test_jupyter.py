"""The notebook's painter in a real JupyterLab: shown twice, reloaded, and without its kernel."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from handscope.labeling.database.labels import Labels
from handscope.run.folder import Run
from labeling_browser import PATIENCE, cells, chromium
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.process]
TOKEN = "a-token-of-the-tests"
BEGIN = """import os
import handscope as hs
from handscope.labeling.widget import label_widget
open("pid", "w").write(str(os.getpid()))
widget = label_widget(hs.Run({path!r}), "ada")
widget"""


def notebook(*sources: str) -> str:
    made = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for i, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def run(finished_run, run_copy) -> Run:
    made = run_copy(finished_run)
    for path in made.path.glob("labels.sqlite*"):
        path.unlink()
    return made


@pytest.fixture
def lab(tmp_path: Path, run: Run) -> Iterator[str]:
    """The address of a notebook in a JupyterLab that nothing else of this machine knows."""
    (tmp_path / "paint.ipynb").write_text(notebook(BEGIN.format(path=str(run.path)), "widget"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={tmp_path}", "--ServerApp.port_retries=0"]
    with open(tmp_path / "lab.log", "w") as log:
        process = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log, cwd=tmp_path)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=2)
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "lab.log").read_text()[-2000:]
                    time.sleep(0.2)
            yield f"{address}/lab/tree/paint.ipynb?token={TOKEN}"
        finally:
            process.terminate()
            process.wait(30)


def views(page: Page) -> Locator:
    return page.locator(".handscope-painter")


def execute(page: Page, cell: int) -> None:
    """Run a cell; asked again where JupyterLab had no connection to its kernel yet, and asked in its turn for one."""
    cells_of = page.locator(".jp-Notebook .jp-CodeCell")
    accept = page.locator("dialog.jp-Dialog .jp-mod-accept").first
    page.add_locator_handler(accept, lambda: accept.click())
    expect(cells_of).to_have_count(2)
    for _ in range(20):
        cells_of.nth(cell).locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(1500)
        if cells_of.nth(cell).locator(".jp-InputPrompt").inner_text() != "[ ]:":
            break
    page.remove_locator_handler(accept)


def paint(page: Page, view: int, row: int, column: int) -> None:
    """One token, as bad."""
    root = views(page).nth(view)
    root.get_by_role("button", name="rectangle").click()
    root.get_by_role("button", name="3 bad hand").click()
    canvas = root.locator("canvas")
    canvas.scroll_into_view_if_needed()
    side = canvas.bounding_box()["width"] / 4
    canvas.click(position={"x": (column + 0.5) * side, "y": (row + 0.5) * side})


def said(page: Page, view: int, text: str) -> None:
    expect(views(page).nth(view).locator(".status")).to_contain_text(text)


def painted(run: Run) -> set[tuple[int, int]]:
    states = Labels(run.labels_path).states("ada")
    newest = Labels(run.labels_path).newest(states[0].sample, "ada") if states else None
    return set() if newest is None else cells(newest.labels == 3)


def test_nothing_is_lost_in_a_notebook(lab: str, run: Run, tmp_path: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1300})
        page.set_default_timeout(2 * PATIENCE)
        page.goto(lab)
        execute(page, 0)
        expect(views(page).first.locator(".caption")).to_contain_text("1 of", timeout=2 * PATIENCE)
        paint(page, 0, 0, 0)
        said(page, 0, "Saved")
        assert painted(run) == {(0, 0)}
        execute(page, 1)
        expect(views(page).nth(1).locator(".caption")).to_contain_text("1 of")
        paint(page, 1, 1, 1)
        said(page, 1, "Saved")
        assert painted(run) == {(0, 0), (1, 1)}, "the second cell began with what the first had stored"
        paint(page, 0, 2, 2)
        said(page, 0, "Saved")
        assert painted(run) == {(0, 0), (1, 1), (2, 2)}, "and the first followed the second"
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)
        paint(page, 0, 3, 3)
        said(page, 0, "Offline: 1 kept here")
        assert painted(run) == {(0, 0), (1, 1), (2, 2)}
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)
        said(page, 0, "Saved")
        assert painted(run) == {(0, 0), (1, 1), (2, 2), (3, 3)}
        browser.close()
