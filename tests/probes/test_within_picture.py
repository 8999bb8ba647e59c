"""Classes of tokens: told beyond where they lie, by a probe that is what scikit-learn fits; and the stage around it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.labeling.exchange.token_classes import import_classes
from handscope.labeling.token_classes import read_classes, token_classes
from handscope.probes.token_classes import probe_classes
from handscope.probes.within_picture import SHRINKAGE, WithinPicture
from handscope.report.token_classes import sentences
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

PROMPTS, EACH, ROWS, COLUMNS = 8, 4, 6, 5


def squares(rng: np.random.Generator, count: int) -> np.ndarray:
    """Masks of 2 by 2 tokens about the middle, which wander by a token."""
    mask = np.zeros((count, ROWS, COLUMNS), bool)
    for one in mask:
        row, column = 2 + rng.integers(-1, 2), 1 + rng.integers(-1, 2)
        one[row : row + 2, column : column + 2] = True
    return mask.reshape(count, -1)


USUAL = squares(np.random.default_rng(99), 2000).mean(0)


def made(seed: int, signal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of which one knows where squares usually lie, and one sees the square itself as far as is asked."""
    rng = np.random.default_rng(seed)
    mask = squares(rng, PROMPTS * EACH)
    x = rng.normal(size=(*mask.shape, 6)).astype(np.float32)
    x[..., 0] += 8 * USUAL
    x[..., 1] += signal * mask
    return x, mask, np.repeat(np.arange(PROMPTS), EACH)


def test_scores_are_those_of_scikit_learns_ridge() -> None:
    x, mask, prompt = made(0, 1.0)
    within = WithinPicture.of(mask, prompt, 19)
    told = within.told(x.copy())
    centred = x - x.mean(1, keepdims=True)
    centred /= np.sqrt(np.square(centred).mean((0, 1)))
    target = mask - mask.mean(1, keepdims=True)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    auc = np.empty(len(mask))
    for fold in np.unique(within.fold):
        train, held = within.fold != fold, within.fold == fold
        rows = centred[train].reshape(-1, x.shape[2])
        ridge = Ridge(SHRINKAGE * np.square(rows).sum(0).mean(), fit_intercept=False).fit(rows, target[train].ravel())
        for one in np.flatnonzero(held):
            auc[one] = roc_auc_score(mask[one], centred[one] @ ridge.coef_)
    np.testing.assert_allclose(told.of_picture, auc, atol=1e-9)
    assert told.auc == pytest.approx(auc.mean()) and told.interval[0] < told.auc < told.interval[1]
    assert told.p == pytest.approx(1 / 20) == pytest.approx(within.p_floor)


def test_where_a_class_usually_lies_is_no_evidence() -> None:
    """Features that know the place alone reach the place's AUC, and are called as often as chance."""
    ps, gains = [], []
    for seed in range(60):
        x, mask, prompt = made(seed, 0.0)
        within = WithinPicture.of(mask, prompt, 99, seed=seed)
        told, where = within.told(x), within.where()
        ps.append(told.p)
        gains.append(within.gain(told, where)[0])
        assert told.auc > 0.7  # by the place
    # Of 1,200 data sets 4.4% were called, and the mean p was 0.504.
    assert np.mean(np.array(ps) <= 0.05) <= 0.17 and 0.38 < np.mean(ps) < 0.62
    assert np.mean(gains) < 0.01
    planted = [made(seed, 1.5) for seed in range(5)]
    assert max(WithinPicture.of(mask, prompt, 99).told(x).p for x, mask, prompt in planted) == pytest.approx(0.01)


def test_intervals_hold_the_mean_of_other_prompts() -> None:
    """95% intervals of the AUC hold that of many prompts in about as many data sets."""
    told = []
    for seed in range(160):
        x, mask, prompt = made(seed, 0.6)
        told.append(WithinPicture.of(mask, prompt, 1).told(x))
    truth = np.mean([one.auc for one in told])
    inside = [one.interval[0] <= truth <= one.interval[1] for one in told]
    assert np.mean(inside) >= 0.9  # 95.6% when this was written


@pytest.mark.parametrize(("change", "words"), [
    (lambda mask: mask[:4], "at least 5 pictures"),
    (lambda mask: mask & False, "found 0 such pictures of 32"),
    (lambda mask: np.repeat(mask[::EACH], EACH, axis=0), "same tokens in all pictures of a prompt"),
])  # fmt: skip
def test_masks_that_cannot_be_asked_for_are_refused(change, words) -> None:
    _, mask, prompt = made(0, 1.0)
    mask = change(mask)
    with pytest.raises(HandscopeError, match=words):
        WithinPicture.of(mask, prompt[: len(mask)], 19)


@pytest.fixture
def whole(tiny_model, finished_run, run_copy):
    """A run with the activations of all tokens."""
    run = run_copy(finished_run)
    extract(tiny_model, run, Plan(["double.1", "single.2"], [4, 1], of=4), tokens="all")
    return run


def tokens(run, path: Path, name: str = "corner") -> Path:
    """A class of two tokens in the corner, that moves from sample to sample."""
    grid = next(iter(token_classes(run)["hand"].values())).shape
    rows = [
        (f"{sample}.png", (i + j) % grid[0], i // 3 % grid[1], name)
        for i, sample in enumerate(run.metadata()) for j in range(2)
    ]  # fmt: skip
    pd.DataFrame(rows, columns=["file", "row", "column", "what"]).to_csv(path, index=False)
    return path


def test_classes_are_imported_and_asked_for_in_every_cell(whole, tmp_path, capsys) -> None:
    table = tokens(whole, tmp_path / "tokens.csv")
    assert main(["labels", "import", str(whole.path), str(table), "--classes", "what"]) == 0
    assert "96 tokens" in capsys.readouterr().out and len(read_classes(whole)) == 96
    assert main(["classes", str(whole.path), "--permutations", "19"]) == 0
    said = capsys.readouterr().out
    found = probe_classes(whole, 19)
    assert len(found) == 4 * 2 and set(found["class"]) == {"hand", "corner"} and sentences(found) in said
    assert (found["p_family"] >= found["p"]).all() and (found["p_floor"] == 0.05).all()
    baselines = pd.read_csv(whole.analysis_dir / "class_baselines.csv")
    assert baselines["baseline"].value_counts().to_dict() == {"place": 2, "predicted": 4}
    before = (whole.analysis_dir / "class_probes.csv").stat().st_mtime_ns
    probe_classes(whole, 19)
    assert (whole.analysis_dir / "class_probes.csv").stat().st_mtime_ns == before
    sample = next(iter(whole.metadata()))
    (tmp_path / "more.csv").write_text(f"sample,row,col,what\n{sample},0,0,corner\n")
    import_classes(whole, tmp_path / "more.csv", "what")
    assert (read_classes(whole)["sample"] == sample).sum() == 1
    probe_classes(whole, 19)
    assert (whole.analysis_dir / "class_probes.csv").stat().st_mtime_ns != before


def test_activations_of_the_subject_alone_are_refused(extracted_run) -> None:
    with pytest.raises(HandscopeError, match="begin a run with tokens: all"):
        probe_classes(extracted_run, 19)


@pytest.mark.parametrize(("text", "words"), [
    ("sample,row,col,what\nNAME,0,99,corner\n", "row 0 and column 99 of"),
    ("sample,row,col,what\nNAME,0,a,corner\n", "Expected whole numbers"),
    ("sample,row,col,what\nNAME,0,0,hand\n", "give it another name"),
    ("sample,what\nNAME,corner\n", "Expected columns row, column and 'what' .* found sample, what"),
    ("sample,row,col,what\nnothing,0,0,corner\n", "no samples"),
])  # fmt: skip
def test_classes_that_do_not_fit_are_refused(finished_run, run_copy, tmp_path, text, words) -> None:
    run = run_copy(finished_run)
    (tmp_path / "in.csv").write_text(text.replace("NAME", next(iter(run.metadata()))))
    with pytest.raises(HandscopeError, match=words):
        import_classes(run, tmp_path / "in.csv", "what")
    assert not run.classes_path.exists()
