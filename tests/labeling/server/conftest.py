"""A labelling server in this process, and an annotator before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from handscope.run.folder import Run
from made_runs import Annotator, annotating, make_run, serving


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Six pictures."""
    return make_run(tmp_path / "pictures")


@pytest.fixture
def address(run: Run) -> Iterator[str]:
    """A server of them."""
    with serving(run) as address:
        yield address


@pytest.fixture
def ann(address: str) -> Iterator[Annotator]:
    """Its annotator."""
    with annotating(address, "Ann É.") as annotator:
        yield annotator
