"""The site is built without a warning: every link and anchor leads somewhere, every page has its place."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert built.returncode == 0, built.stderr
    return place


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r'<(script|img|iframe)[^>]+src="?(https?:)?//|<link[^>]+stylesheet[^>]+href="?(https?:)?//')
    for page in site.rglob("*.html"):
        assert not fetched.search(page.read_text(encoding="utf-8")), page


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pages_that_are_made_are_there(site: Path) -> None:
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert all(name in python for name in ("ActivationStore", "LogisticProbe", "bhattacharyya", "PictureLoss"))
    assert "handscope store check" in (site / "reference" / "options.html").read_text(encoding="utf-8")
    assert "Read a block of any pipeline" in (site / "index.html").read_text(encoding="utf-8")


def test_the_map_of_the_house_is_current() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_map.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run python docs/make_map.py"
