"""The stages that look inside, on a small run: their tables, what is kept when they are killed, and their pages."""

import numpy as np
import pandas as pd
import pytest
from handscope.inside import features_stage, heads_stage, lens_stage
from handscope.inside.sparse import SparseCoder
from handscope.report import inside
from handscope.run.folder import Run
from handscope.stages import FEATURES, HEADS, LENS


def redness(pictures: np.ndarray, prompts: list[str]) -> np.ndarray:
    """What decided the labels of the small run, of the whole picture."""
    assert len(pictures) == len(prompts) and pictures.dtype == np.uint8
    return pictures[..., 0].mean((1, 2)).astype(float)


@pytest.fixture(scope="module")
def looked(tiny_model, extracted_run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with all three."""
    import shutil

    run = Run(shutil.copytree(extracted_run.path, tmp_path_factory.mktemp("inside") / "run"))
    patch = pytest.MonkeyPatch()
    patch.setattr(inside, "judge_of", lambda run: redness)
    inside.lens_and_draw(tiny_model, run, samples=30, permutations=49, folds=4)
    inside.heads_and_draw(tiny_model, run, steps=[4, 2], samples=30, permutations=9, folds=4)
    small = {"wide": 2, "k": 4, "passes": 3, "samples": 6}
    inside.features_and_draw(tiny_model, run, "single.0", [4, 2], permutations=9, **small)
    patch.undo()
    return run


@pytest.mark.slow
def test_the_lens_of_the_last_block_is_the_model(looked: Run):
    table = pd.read_csv(looked.analysis_dir / "lens.csv")
    assert len(table) == 2 * 3 * 3 and set(table.columns) <= columns(LENS.tables[0], table)
    last = table[table["block"] == "single.2"]
    np.testing.assert_allclose(last["explained"], 1, atol=1e-5)
    fitted = table[table["kind"] == "fitted"].set_index(["block", "step"])["explained"]
    own = table[table["kind"] == "own"].set_index(["block", "step"])["explained"]
    assert (fitted >= own - 0.05).all()  # on prompts that it was not fitted to
    assert {path.name for path in looked.figures_dir.glob("*.png")} >= {
        "lens.png", "lens_own.png", "lens_fitted.png", "heads.png", "features.png", "feature_patches.png",
    }  # fmt: skip


def columns(table, found: pd.DataFrame) -> set[str]:
    """Those columns that the table of stages explains."""
    return {name for name in found.columns if table.group(name)}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [LENS, HEADS, FEATURES], ids=lambda stage: stage.name)
def test_every_column_is_explained(looked: Run, stage):
    for table in stage.tables:
        if (looked.path / table.path).exists():
            found = pd.read_csv(looked.path / table.path)
            assert columns(table, found) == set(found.columns)


@pytest.mark.slow
def test_a_lens_that_was_killed_goes_on(looked: Run, run_copy, tiny_model, monkeypatch):
    run = run_copy(looked)
    (run.path / "lens" / "step_2.safetensors").unlink()
    (run.analysis_dir / "lens.csv").unlink()
    read = []
    at = lens_stage._Look.at
    monkeypatch.setattr(lens_stage._Look, "at", lambda self, step: read.append(step) or at(self, step))
    table = lens_stage.lens(tiny_model, run, redness, samples=30, permutations=49, folds=4)
    assert read == [2]
    before = pd.read_csv(looked.analysis_dir / "lens.csv")
    pd.testing.assert_frame_equal(table, before, rtol=1e-6)
    lens_stage.lens(tiny_model, run, redness, samples=30, permutations=49, folds=4)
    assert read == [2]


@pytest.mark.slow
def test_masses_of_a_head_are_shares(looked: Run):
    table = pd.read_csv(looked.analysis_dir / "heads.csv")
    assert set(table["group"]) == {"count", "words", "padding", "subject", "rest"}
    total = table.groupby(["block", "head", "step"])["mean"].sum()
    assert (total < 1).all() and (total > 0.8).all()  # the rest is of tokens themselves
    assert len(total) == 5 * 2 * 2


def test_count_words_are_found_in_the_text(tiny_model):
    prompt = "a left hand, palm view, five fingers raised"
    groups = heads_stage._words(tiny_model, [prompt], [20])
    assert [len(one[0]) for one in groups.values()] == [20, 20, 20]
    spans = tiny_model.family.text_spans(tiny_model.pipe, prompt)
    named = [prompt[slice(*spans[i])] for i in np.flatnonzero(groups["count"][0])]
    assert "five" in "".join(named) and len(named) == 1


@pytest.mark.slow
def test_features_come_with_autoencoders_and_effects(looked: Run):
    coder = SparseCoder.load(looked.path / "features" / "top_k")
    assert coder.about["block"] == "single.0" and coder.features == 64
    models = pd.read_csv(looked.analysis_dir / "feature_models.csv")
    assert len(models) == 4 and (models["lost"] > 0).all()
    effects = pd.read_csv(looked.analysis_dir / "feature_effects.csv")
    assert len(effects) == 3 * (1 + features_stage.CONTROLS) and effects["control_p"].notna().sum() == 3


@pytest.mark.slow
def test_the_page_has_a_section_of_each(looked: Run, studied_run, run_copy):
    import shutil

    from handscope.report.page import report

    run = run_copy(studied_run)
    for stage in (LENS, HEADS, FEATURES):
        for table in stage.tables:
            if (looked.path / table.path).exists():
                shutil.copy(looked.path / table.path, run.path / table.path)
    run.figures_dir.mkdir(exist_ok=True)
    for path in looked.figures_dir.glob("*.png"):
        shutil.copy(path, run.figures_dir / path.name)
    page = report(run).read_text(encoding="utf-8")
    for section in ("What would each block draw?", "What do heads look at?", "What are the streams made of?"):
        assert section in page
    for stage in (LENS, HEADS, FEATURES):
        assert stage.describe(looked)
