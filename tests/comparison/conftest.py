"""Two runs of one tiny model on the same noises, as if they were of two models that differ by their seed."""

import shutil
from pathlib import Path

import pytest
import yaml
from handscope.run.folder import Run


def named(run: Run, model: str) -> Run:
    """The run, as if a model of this name had drawn it."""
    settings = yaml.safe_load(run.settings_path.read_text())
    settings["provenance"]["name"] = model
    run.settings_path.write_text(yaml.safe_dump(settings))
    return run


@pytest.fixture(scope="session")
def two_runs(studied_run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Copies of `studied_run` in folders ``tiny`` and ``tiny-1``, as if organisms of two seeds had drawn them."""
    folder = tmp_path_factory.mktemp("two")
    models = {"tiny": "organism-small", "tiny-1": "organism-small-1"}
    return tuple(named(Run(shutil.copytree(studied_run.path, folder / name)), models[name]) for name in models)


@pytest.fixture
def copied(two_runs, tmp_path: Path) -> tuple[Run, Run]:
    """The same, to be changed."""
    return tuple(Run(shutil.copytree(run.path, tmp_path / run.path.name)) for run in two_runs)
