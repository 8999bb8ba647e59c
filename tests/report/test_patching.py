"""The stage on the tiny run, from pairs to tables, figures and a sentence, with a judge that is handed in."""

import numpy as np
import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.evaluation.patching import Looked
from handscope.report.patching import patch_and_draw, summary
from handscope.stages import PATCH


def look(name, pictures, prompts) -> Looked:
    """Every other picture is bad."""
    assert name == "organism"
    return Looked(np.arange(len(pictures)) % 2.0, {"outline": pictures.mean(-1) > 127})


@pytest.fixture
def run(studied_run, run_copy, monkeypatch):
    """A run that says it is the organism's."""
    run = run_copy(studied_run)
    run.write_settings({"provenance": {**run.settings["provenance"], "name": "organism"}})
    monkeypatch.setattr("handscope.report.patching.organism_look", look)
    monkeypatch.setattr("handscope.report.patching.foreground", lambda picture, *grid: np.ones(grid, bool))
    return run


def test_the_stage_makes_its_tables_and_figures(run, tiny_model):
    given = {"pairs": 8, "controls": 4, "batch_size": 4}
    patch_and_draw(tiny_model, run, **given, shard=(1, 2))
    assert "others to come" in summary(run) and not (run.analysis_dir / "patch.csv").exists()
    patch_and_draw(tiny_model, run, **given)
    for table in PATCH.tables:
        columns = pd.read_csv(run.path / table.path).columns
        assert len(columns) and all(table.group(column) for column in columns), table.name
    cells = pd.read_csv(run.analysis_dir / "patch.csv").query("arm == 'donor' and direction == 'both'")
    assert len(cells) == 9 and (cells["n"] == 8).all() and (cells["beyond_elsewhere_n"] == 4).all()
    assert (run.figures_dir / "patch.png").exists() and (run.figures_dir / "patch_strips.png").exists()
    assert "class" in summary(run)
    patch_and_draw(tiny_model, run, pairs=4, controls=0, kind="prompt", blocks=["double.1:attn.gated"], steps=[2])
    assert (run.path / "patch" / "prompt" / "patch.csv").exists()


def test_a_run_of_another_model_is_refused(studied_run, tiny_model):
    with pytest.raises(HandscopeError, match="knows the organisms' pictures only"):
        patch_and_draw(tiny_model, studied_run)
