"""Labels that change after an extraction: what analyses see of it, and what is replayed for it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from handscope.analysis.subject_tokens import SubjectTokens
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.store.store import ActivationStore
from handscope.labeling.database.labels import Annotation, Labels
from handscope.models.model import Model
from handscope.run.folder import Run
from made_tiny import STEPS

PLAN = Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS)  # of `extracted_run`
ANALYZE = ("--permutations", "5", "--folds", "4")


@pytest.fixture(scope="module")
def analyzed_run(extracted_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was extracted and analysed."""
    folder = tmp_path_factory.mktemp("runs") / "analyzed"
    shutil.copytree(extracted_run.path, folder)
    analyzed(Run(folder))
    return Run(folder)


@pytest.fixture
def run(analyzed_run: Run, run_copy: Callable[[Run], Run]) -> Run:
    """A copy of it."""
    return run_copy(analyzed_run)


@pytest.fixture
def calls(tiny_model: Model) -> Iterator[list[int]]:
    """The samples of every call of the transformer, of whichever model: it is the class that counts."""
    kind, made = type(tiny_model.transformer), []

    def counted(self, hidden_states, *args, **kwargs):
        made.append(len(hidden_states))
        return super(kind, self).__call__(*args, hidden_states=hidden_states, **kwargs)

    kind.__call__ = counted
    yield made
    del kind.__call__


def analyzed(run: Run) -> pd.DataFrame:
    assert main(["analyze", str(run.path), *ANALYZE]) == 0
    return pd.read_csv(run.analysis_dir / "cells.csv")


def extracted(run: Run, tiny_pipe_folder: object) -> None:
    command = ["--blocks", "double.1,single.0,single.2", "--steps", "4,2,1", "--model", str(tiny_pipe_folder)]
    assert main(["extract", str(run.path), *command]) == 0


def add(run: Run, sample: str, **changes: object) -> Annotation:
    """Append what an annotator says now of a sample, where it is otherwise than before."""
    labels = Labels(run.labels_path)
    labels.add([replace(labels.current()[sample], revision=None, made=None, **changes)])
    return labels.current()[sample]


def files(run: Run) -> dict:
    return {path: path.stat().st_mtime_ns for path in run.activations_dir.rglob("*.h5")}


def sure(run: Run, verdict: str) -> Annotation:
    """The first sample of this verdict."""
    return next(one for one in Labels(run.labels_path).current().values() if one.verdict == verdict)


def tokens_of(run: Run, sample: str) -> pd.DataFrame:
    return ActivationStore(run.activations_dir).read("single.0", 2, samples=[sample])[1]


def nothing_is_replayed(run: Run, pipe: object, calls: list[int]) -> None:
    before = files(run)
    extracted(run, pipe)
    assert calls == [] and files(run) == before


def test_a_changed_verdict_changes_the_analysis_and_replays_nothing(run, calls, tiny_pipe_folder) -> None:
    before, one = analyzed(run), sure(run, "bad")
    add(run, one.sample, verdict="good", kinds=(), labels=np.where(one.labels == 3, 2, one.labels))
    after = analyzed(run)
    assert (after["n_good"] == before["n_good"] + 1).all() and (after["n_bad"] == before["n_bad"] - 1).all()
    assert (after["db"] != before["db"]).all()
    nothing_is_replayed(run, tiny_pipe_folder, calls)


def test_a_shrunken_mask_changes_the_analysis_and_replays_nothing(run, calls, tiny_pipe_folder) -> None:
    before, one = analyzed(run), sure(run, "bad")
    row, col = np.argwhere(one.instances > 0)[0]
    kept = one.instances.copy()
    kept[row, col] = 0
    add(run, one.sample, instances=kept, labels=np.where(kept > 0, one.labels, 1))
    after = analyzed(run)
    assert (after["db"] != before["db"]).all() and (after["n_bad"] == before["n_bad"]).all()
    left_out = tokens_of(run, one.sample).query("instance == 0")
    assert left_out[["row", "col", "label"]].to_numpy().tolist() == [[row, col, 1]]
    nothing_is_replayed(run, tiny_pipe_folder, calls)


def test_a_repainted_mask_is_refused_until_its_sample_alone_was_read_again(
    run, analyzed_run, calls, tiny_pipe_folder, capsys
) -> None:
    before, one = analyzed(run), sure(run, "bad")
    # Moved to the opposite corner: some tokens are stored, some are new, and some are no longer of the subject.
    moved = one.instances[::-1, ::-1].copy()
    new = int(((moved > 0) & (one.instances == 0)).sum())
    assert 0 < new < moved.sum()
    add(run, one.sample, instances=moved, labels=np.where(moved > 0, 3, 1))
    capsys.readouterr()
    for command in (["analyze", *ANALYZE], ["probe", "--permutations", "2", "--folds", "4"]):
        assert main([command[0], str(run.path), *command[1:]]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{new} subject tokens of 1 samples ({one.sample}) are not stored: run extract" in said
    extracted(run, tiny_pipe_folder)
    assert calls == [16] * 4, "one batch of the generation's size, copies of one sample: compared, and three steps"
    after = analyzed(run)
    assert (after["db"] != before["db"]).all()
    both = (moved > 0) | (one.instances > 0)
    found = tokens_of(run, one.sample)
    assert np.array_equal(found[["row", "col"]], np.argwhere(both))
    assert np.array_equal(found["instance"], moved[both])
    assert np.array_equal(found["label"], np.where(moved[both] > 0, 3, 1))
    # The tokens that were stored have their bits still, those of every other sample among them.
    then, now = ActivationStore(analyzed_run.activations_dir), ActivationStore(run.activations_dir)
    stays = (now.tokens["sample"] != one.sample).to_numpy(copy=True)
    stays[~stays] = one.instances[both] > 0
    for cell in PLAN.cells:
        expected, got = (store.read(cell.block, cell.step)[0] for store in (then, now))
        assert np.array_equal(got[stays], expected)
    calls.clear()
    nothing_is_replayed(run, tiny_pipe_folder, calls)


def test_another_instance_number_or_kind_replays_nothing(run, calls, tiny_pipe_folder) -> None:
    one = sure(run, "bad")
    add(run, one.sample, instances=4 * one.instances, kinds=("fused",))
    assert set(tokens_of(run, one.sample)["instance"]) == {4}
    nothing_is_replayed(run, tiny_pipe_folder, calls)


@pytest.mark.parametrize("how", ["emptied", "removed"])
def test_a_sample_whose_labels_are_gone_is_left_out_and_stays_stored(run, calls, tiny_pipe_folder, how) -> None:
    before, one = analyzed(run), sure(run, "bad")
    if how == "emptied":
        add(run, one.sample, verdict="unsure", kinds=(), instances=0 * one.instances, labels=0 * one.labels)
    else:
        rest = [other for other in Labels(run.labels_path).current().values() if other.sample != one.sample]
        for path in run.path.glob("labels.sqlite*"):
            path.unlink()
        Labels(run.labels_path).add(rest)
    after = analyzed(run)
    assert (after["n_bad"] == before["n_bad"] - 1).all() and (after["n_good"] == before["n_good"]).all()
    stored = tokens_of(run, one.sample)
    assert len(stored) == 9 and not stored[["label", "instance"]].to_numpy().any()
    nothing_is_replayed(run, tiny_pipe_folder, calls)


def test_a_review_counts_and_what_the_annotator_says_afterwards_does_not(run, calls, tiny_pipe_folder) -> None:
    before, one = analyzed(run), sure(run, "bad")
    good = {"verdict": "good", "kinds": (), "labels": np.where(one.labels == 3, 2, one.labels)}
    reviewed = add(run, one.sample, source="review", author="ruth", **good)
    assert reviewed.review and set(tokens_of(run, one.sample)["label"]) == {2}
    Labels(run.labels_path).add([one])
    after = analyzed(run)
    assert set(tokens_of(run, one.sample)["label"]) == {2}
    assert (after["n_bad"] == before["n_bad"] - 1).all()
    nothing_is_replayed(run, tiny_pipe_folder, calls)


def test_a_draft_changes_nothing(run, calls, tiny_pipe_folder) -> None:
    before, one = (run.analysis_dir / "cells.csv").stat().st_mtime_ns, sure(run, "bad")
    tokens, fingerprint = tokens_of(run, one.sample), Labels(run.labels_path).fingerprint()
    add(run, one.sample, verdict="", kinds=(), done=False, instances=1 + 0 * one.instances, labels=2 + 0 * one.labels)
    analyzed(run)
    assert (run.analysis_dir / "cells.csv").stat().st_mtime_ns == before
    assert tokens_of(run, one.sample).equals(tokens) and Labels(run.labels_path).fingerprint() == fingerprint
    nothing_is_replayed(run, tiny_pipe_folder, calls)


def test_a_new_sample_is_named_counted_and_read_alone(run, calls, tiny_pipe_folder) -> None:
    samples = list(run.samples()["sample"][[3, 30, 31, 40]])
    for sample in samples:
        (run.activations_dir / "shards" / f"{sample}.h5").unlink()
    (run.activations_dir / "store.h5").unlink()
    store = ActivationStore(run.activations_dir)
    assert store.unstored == dict.fromkeys(samples, 9)
    named = ", ".join(samples[:3])
    with pytest.raises(HandscopeError, match=rf"^36 subject tokens of 4 samples \({named}, …\) are not stored"):
        SubjectTokens(store, list(run.samples()["sample"]))
    assert SubjectTokens(store, [samples[0][:-1], store.samples[0]]).samples == store.samples[:1]
    extracted(run, tiny_pipe_folder)
    assert calls == [16] * 4 and ActivationStore(run.activations_dir).unstored == {}


def test_text_tokens_have_the_worst_label_of_now(tiny_model, finished_run, run_copy, calls) -> None:
    run, plan = run_copy(finished_run), Plan(["double.1"], [2], of=STEPS, stream="text")
    one = sure(run, "good")
    grid = np.zeros((4, 4), np.uint8)
    add(run, one.sample, instances=grid, labels=grid, verdict="unsure")
    store = extract(tiny_model, run, plan)
    assert one.sample not in store.samples and len(store.samples) == 47 and len(store.tokens) == 47 * 20
    grid[0, :2], grid[1, 0] = 1, 2
    two = add(run, one.sample, instances=grid, labels=np.array([0, 2, 3])[grid], verdict="bad")
    assert ActivationStore(run.activations_dir).unstored == {one.sample: 20}
    calls.clear()
    tokens = extract(tiny_model, run, plan).sample(two.sample)[1]
    assert len(calls) == 2
    assert set(tokens["label"]) == {3} and set(tokens["instance"]) == {1} and list(tokens["col"]) == list(range(20))
    add(run, one.sample, instances=0 * grid, labels=0 * grid, verdict="unsure")
    tokens = ActivationStore(run.activations_dir).sample(two.sample)[1]
    assert len(tokens) == 20 and not tokens[["label", "instance"]].to_numpy().any()
    add(run, two.sample, instances=np.eye(4), labels=2 * np.eye(4), verdict="good")
    calls.clear()
    extract(tiny_model, run, plan)
    assert calls == []
