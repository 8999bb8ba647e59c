"""The survey: moments of every block and step against stored tokens, and maps of them against slow references."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from handscope.analysis import auc, bhattacharyya, difference_of_means
from handscope.analysis.survey import RIDGE, map_survey
from handscope.analysis.zoom import zoom
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.store.store import ActivationStore
from handscope.extract.survey.survey import survey, token_moments, unsurveyed
from handscope.extract.survey.surveyed import SurveyStore, survey_folder
from handscope.labeling.database.labels import Annotation, Labels
from safetensors.numpy import load_file
from sklearn.linear_model import Ridge


@pytest.fixture(scope="module")
def surveyed_run(tiny_model, finished_run, tmp_path_factory):
    import shutil

    from handscope.run.folder import Run

    folder = tmp_path_factory.mktemp("runs") / "surveyed"
    shutil.copytree(finished_run.path, folder)
    run = Run(folder)
    survey(tiny_model, run)
    map_survey(run, permutations=39, folds=4)
    return run


def test_moments_are_those_of_the_tokens(tiny_model, surveyed_run, run_copy):
    run = run_copy(surveyed_run)
    extract(tiny_model, run, Plan(["double.0", "single.2"], [4, 1], of=4), tokens="labelled")
    tokens, found = ActivationStore(run.activations_dir), SurveyStore(survey_folder(run))
    assert set(found.samples) == set(Labels(run.labels_path).current())
    assert len(found.cells) == 5 * 4 and list(found.steps["step"]) == [4, 3, 2, 1]
    for hand in (True, False):
        for cell, mean, variance in found.read(found.samples, hand):
            if cell not in tokens.cells:
                continue
            x, table = tokens.read(cell.block, cell.step)
            for k, sample in enumerate(found.samples):
                own = x[(table["sample"] == sample) & ((table["instance"] > 0) == hand)].astype(np.float64)
                if hand and Labels(run.labels_path).current()[sample].verdict == "unsure":
                    continue  # its hand tokens have label 0: the survey reads them, the extraction of labelled ones not
                assert found.counts[k, 0 if hand else 1] == len(own)
                # The extraction rounds to bfloat16, the survey does not.
                np.testing.assert_allclose(mean[k], own.mean(0), atol=0.01 * np.abs(own).max())
                np.testing.assert_allclose(variance[k], own.var(0), atol=0.02 * own.var(0).max())


def test_tokens_are_reduced_to_exact_moments_on_the_device():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (3, 50)).astype(np.uint8)
    classes[1][classes[1] == 2] = 1
    stream = torch.from_numpy(rng.normal([6000, 0, 3], [10, 1, 1e-3], (3, 50, 3)).astype(np.float32))
    found = token_moments(classes)(stream[torch.from_numpy(classes > 0)]).numpy()
    assert found.shape == (3, 2, 2, 3)
    for sample in range(3):
        for number in (0, 1):
            own = stream[sample][torch.from_numpy(classes[sample] == number + 1)].double().numpy()
            if not len(own):
                assert np.isnan(found[sample, number]).all()
                continue
            np.testing.assert_allclose(found[sample, number, 0], own.mean(0), rtol=1e-6)
            np.testing.assert_allclose(found[sample, number, 1], own.var(0), rtol=1e-6)


def test_only_what_is_missing_is_made(tiny_model, surveyed_run, run_copy):
    run = run_copy(surveyed_run)
    files = sorted(survey_folder(run).glob("*.h5"))
    files[3].unlink()
    files[5].write_bytes(files[5].read_bytes()[:1000])
    relabelled = files[7].stem
    old = Labels(run.labels_path).current()[relabelled]
    Labels(run.labels_path).add(
        [Annotation(old.sample, old.image_sha256, np.where(old.instances > 0, 2, 1), old.instances, "good")]
    )
    hands = np.zeros_like(old.instances)
    hands[0, :3] = 1
    Labels(run.labels_path).add([Annotation(old.sample, old.image_sha256, np.where(hands > 0, 2, 1), hands, "good")])
    changed = {files[number].stem for number in (3, 5, 7)}
    assert set(unsurveyed(run)) == changed
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files if path.exists()}
    survey(tiny_model, run)
    assert unsurveyed(run) == []
    for path, (when, _) in before.items():
        assert (path.stat().st_mtime_ns == when) == (path.stem not in changed)
    with h5py.File(files[7]) as file:
        assert file["counts"][:].tolist() == [3, 13]
    # The same labels at the same batch size give the same bits as before.
    with h5py.File(files[5]) as file, h5py.File(survey_folder(surveyed_run) / files[5].name) as first:
        np.testing.assert_array_equal(file["moments"][:], first["moments"][:])


def test_parts_of_two_machines_are_the_whole(tiny_model, finished_run, surveyed_run, run_copy):
    run = run_copy(finished_run)
    first = survey(tiny_model, run, shard=(1, 2))
    assert first is not None and 0 < len(first.samples) < 48
    assert len(unsurveyed(run)) == 48 - len(first.samples)
    second = survey(tiny_model, run, shard=(2, 2))
    assert second is not None and second.samples == SurveyStore(survey_folder(surveyed_run)).samples


@pytest.mark.process
@pytest.mark.slow
def test_killed_at_any_point_it_goes_on(finished_run, tiny_pipe_folder, run_copy):
    run = run_copy(finished_run)
    code = (
        "import sys, handscope as hs; from handscope.extract.survey.survey import survey; "
        "survey(hs.load(sys.argv[1]), hs.Run(sys.argv[2]), batch_size=2)"
    )
    command = [sys.executable, "-c", code, str(tiny_pipe_folder), str(run.path)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        while len(list(survey_folder(run).glob("[!.]*.h5"))) < 4:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait()
    left = unsurveyed(run)
    assert 0 < len(left) <= 44
    for path in survey_folder(run).glob("[!.]*.h5"):
        with h5py.File(path) as file:
            assert np.isfinite(file["moments"][:, 0]).all()


def test_the_maps_are_those_of_slow_references(surveyed_run):
    run = surveyed_run
    table = pd.read_csv(run.analysis_dir / "survey.csv")
    assert len(table) == 20
    assert not table.drop(columns="massive_channels").isna().any().any()
    store = SurveyStore(survey_folder(run))
    from handscope.analysis.moments import Moments
    from handscope.analysis.statistics.folds import grouped_folds
    from handscope.labeling.table import labelled, sample_table

    samples = labelled(sample_table(run), "sure", 4, run.path)
    y, groups = samples["bad"].to_numpy(), samples["prompt"].to_numpy()
    fold = grouped_folds(groups, 4, 0)
    arrays = load_file(run.analysis_dir / "survey.safetensors")
    count = store.counts[[store.samples.index(sample) for sample in samples["sample"]], 0]
    for number, (_, mean, variance) in enumerate(store.read(samples["sample"].tolist())):
        row = table.iloc[number]
        keep = np.ones(mean.shape[1], bool)
        massive = row["massive_channels"]
        keep[[int(part) for part in str(massive).split(";")] if massive == massive else []] = False
        x = mean[:, keep].astype(np.float64)
        ridge, dom = np.empty(len(y)), np.empty(len(y))
        for one in range(4):
            train, test = fold != one, fold == one
            centred = x[train] - x[train].mean(0)
            strength = RIDGE * np.square(centred).sum() / train.sum()
            ridge[test] = Ridge(strength).fit(x[train], y[train]).predict(x[test])
            dom[test] = -x[test] @ difference_of_means(x[train & (y == 0)], x[train & (y == 1)])
        assert row["ridge_auc"] == pytest.approx(auc(ridge, y, fold), abs=1e-5)
        assert row["dom_auc"] == pytest.approx(auc(dom, y, fold), abs=1e-5)
        moments = Moments(count.astype(float), x, variance[:, keep] * count[:, None].astype(float))
        assert row["db"] == pytest.approx(bhattacharyya(moments.pool(1 - y), moments.pool(y)).distance, rel=1e-4)
        direction = arrays["direction"][number]
        assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-5) and (direction[~keep] == 0).all()
        assert (mean[y == 0] @ direction).mean() > (mean[y == 1] @ direction).mean()
    crossed = arrays["cosine_split"]
    np.testing.assert_allclose(crossed, crossed.T)
    np.testing.assert_allclose(table["agreement"], (crossed.sum(1) - np.diag(crossed)) / 19, atol=1e-4)
    best = json.loads((run.analysis_dir / "survey.json").read_text())["best"]
    assert best["auc_selected"] == pytest.approx(table["ridge_auc"].max(), abs=1e-5)
    assert best["auc_of_pure_noise"] == pytest.approx(table.query("step == 4")["ridge_auc"].max(), abs=1e-5)
    assert best["auc_of_size"] == 0.5  # all hands of this run have nine tokens
    assert best["auc_nested_lo"] <= best["auc_nested"] <= best["auc_nested_hi"]


def test_a_second_map_does_nothing_until_labels_change(surveyed_run, run_copy):
    run = run_copy(surveyed_run)
    path = run.analysis_dir / "survey.csv"
    map_survey(run, permutations=39, folds=4)
    before = path.stat().st_mtime_ns
    map_survey(run, permutations=39, folds=4)
    assert path.stat().st_mtime_ns == before
    table = Labels(run.labels_path).table()
    sample = table["sample"][(table["verdict"] == "good").argmax()]
    old = Labels(run.labels_path).current()[sample]
    Labels(run.labels_path).add([Annotation(sample, old.image_sha256, old.labels, old.instances, "good?")])
    assert map_survey(run, permutations=39, folds=4)["n_good"].iloc[0] == (table["verdict"] == "good").sum() - 1


def test_infinity_names_its_cell_and_its_number_of_samples(surveyed_run, run_copy):
    run = run_copy(surveyed_run)
    table = Labels(run.labels_path).table()
    for sample in table["sample"][table["verdict"] == "bad"][:2]:
        with h5py.File(survey_folder(run) / f"{sample}.h5", "r+") as file:
            file["moments"][7, 0, 0, 4] = np.inf
    with pytest.raises(HandscopeError, match="double.1 at step 1 .* in 2 of "):
        map_survey(run, permutations=9, folds=4)


def test_what_is_not_there_or_not_of_this_model_is_refused(tiny_model, finished_run, surveyed_run, run_copy):
    with pytest.raises(HandscopeError, match="There is no survey in"):
        map_survey(finished_run)
    run = run_copy(surveyed_run)
    path = sorted(survey_folder(run).glob("*.h5"))[2]
    with h5py.File(path, "r+") as file:
        file.attrs["weight_hash"] = "other"
    with pytest.raises(HandscopeError, match="its weight_hash is other"):
        survey(tiny_model, run)
    with pytest.raises(HandscopeError, match="its weight_hash is other"):
        SurveyStore(survey_folder(run))
    path.write_bytes(b"")
    with pytest.raises(HandscopeError, match="truncated or damaged"):
        SurveyStore(survey_folder(run))
    path.unlink()
    run.trajectory_path(path.stem).unlink()
    with pytest.raises(HandscopeError, match="1 samples have no trajectory"):
        survey(tiny_model, run)


def survey_table(ridge_auc, q):
    """A map of three blocks at four steps."""
    blocks, steps = ["double.0", "single.0", "single.1"], [4, 3, 2, 1]
    table = pd.DataFrame([(block, step) for block in blocks for step in steps], columns=["block", "step"])
    return table.assign(
        ridge_auc=np.ravel(ridge_auc), ridge_q=np.ravel(q), ridge_null_mean=0.5, ridge_null_sd=0.05, n_bad=9, n_good=11
    )


def test_zoom_takes_the_grid_of_cells_that_separate():
    grid = np.full((3, 4), 0.5)
    grid[1:, 1:3] = [[0.7, 0.8], [0.8, 0.9]]
    grid[0, 0] = 0.85  # large, and not significant
    plan = zoom(survey_table(grid, np.where((grid > 0.6) & (grid != 0.85), 0.01, 0.3)), cells=4)
    assert plan == Plan(["single.0", "single.1"], [3, 2], of=4)
    assert zoom(survey_table(grid, np.where(grid > 0.6, 0.01, 0.3)), cells=1) == Plan(["single.1"], [2], of=4)
    wide = zoom(survey_table(grid, np.where((grid > 0.6) & (grid != 0.85), 0.01, 0.3)), cells=12)
    assert wide == plan


def test_zoom_is_the_best_grid_of_all():
    from itertools import combinations

    rng = np.random.default_rng(0)
    for _ in range(10):
        grid = rng.random((3, 4))
        plan = zoom(survey_table(grid + 0.5, np.zeros((3, 4))), cells=5)
        assert len(plan.cells) <= 5
        found = sum(grid[["double.0", "single.0", "single.1"].index(str(c.block)), 4 - c.step] for c in plan.cells)
        every = [
            grid[np.ix_(rows, columns)].sum()
            for rows in (r for n in range(1, 4) for r in combinations(range(3), n))
            for columns in (c for n in range(1, 5) for c in combinations(range(4), n))
            if len(rows) * len(columns) <= 5
        ]
        assert found >= 0.95 * max(every)


def test_nothing_separable_is_said_in_those_words():
    with pytest.raises(HandscopeError, match=r"No cell is separable from chance .* \(n = 9 bad and 11 good"):
        zoom(survey_table(np.full((3, 4), 0.6), np.full((3, 4), 0.4)))


@pytest.fixture
def telling_run(surveyed_run, run_copy):
    """A run whose verdicts follow from what one cell says of each sample, so that a map of it finds something."""
    run = run_copy(surveyed_run)
    store, labels = SurveyStore(survey_folder(run)), Labels(run.labels_path)
    means = {str(cell): mean for cell, mean, _ in store.read(store.samples)}["single.1/2"]
    centred = means - means.mean(0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    bad = dict(zip(store.samples, along > np.median(along)))
    labels.add(
        [
            replace(
                one,
                labels=np.where(one.instances > 0, 2 + bad[sample], one.labels),
                verdict="bad" if bad[sample] else "good",
                kinds=(),
                faults={},
            )
            for sample, one in labels.current().items()
        ]
    )
    return run


def test_the_plan_that_a_survey_writes_is_what_extract_reads(telling_run, tiny_pipe_folder, capsys):
    run, options = telling_run, ["--permutations", "99", "--folds", "4", "--zoom", "3"]
    assert main(["survey", str(run.path), *options, "--model", str(tiny_pipe_folder)]) == 0
    *_, command = capsys.readouterr().out.splitlines()
    path = survey_folder(run) / "plan.json"
    assert command == f"handscope extract {run.path} --plan {path}"
    assert main([*command.split()[1:], "--model", str(tiny_pipe_folder)]) == 0
    plan = Plan.from_json(path.read_text())
    store = ActivationStore(run.activations_dir)
    assert store.plan == plan and 1 <= len(store.cells) <= 3
    assert len(store.samples) == 48 and (run.activations_dir / "store.h5").exists()


def test_a_map_that_finds_nothing_writes_no_plan(surveyed_run, run_copy, capsys):
    run = run_copy(surveyed_run)
    assert main(["survey", str(run.path), "--permutations", "39", "--folds", "4", "--zoom", "3"]) == 2
    said = capsys.readouterr()
    assert "separable from chance" in said.err and "no cell of 20 is separable" in said.out
    assert not (survey_folder(run) / "plan.json").exists()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, (), r"There is no plan in .*plan\.json"),
        ("{", (), r"There is no plan in .*plan\.json \(Expecting"),
        ("[1]", (), r"There is no plan in"),
        ('{"blocks": ["half.1"], "steps": [1], "of": 4}', (), "half.1"),
        ('{"blocks": ["single.1"], "steps": [1], "of": 4}', ("--steps", "1"), "either --plan or --steps, found both"),
        ('{"blocks": ["single.1"], "steps": [9], "of": 20}', (), "make the plan's `of` 4"),
    ],
)
def test_a_plan_that_cannot_be_extracted_is_refused(
    finished_run, tiny_pipe_folder, tmp_path, capsys, text, options, message
):
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    given = ["extract", str(finished_run.path), "--plan", str(path), "--model", str(tiny_pipe_folder), *options]
    assert main(given) == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
    assert not finished_run.activations_dir.exists()


def test_the_command_surveys_a_run_that_has_none(finished_run, tiny_pipe_folder, run_copy, capsys):
    run = run_copy(finished_run)
    options = ["--model", str(tiny_pipe_folder), "--permutations", "19", "--folds", "4"]
    assert main(["survey", str(run.path), "--shard", "1/2", *options]) == 0
    assert "left for other parts" in capsys.readouterr().out
    assert main(["survey", str(run.path), *options]) == 0
    assert (run.analysis_dir / "survey.csv").exists()


def test_another_verdict_on_the_same_tokens_leaves_moments_and_another_mask_does_not(surveyed_run, run_copy):
    run = run_copy(surveyed_run)
    labels = Labels(run.labels_path)
    one = next(one for one in labels.current().values() if one.verdict == "bad")
    labels.add([replace(one, verdict="good", kinds=(), labels=np.where(one.labels == 3, 2, one.labels))])
    assert unsurveyed(run) == []
    labels.add([replace(one, instances=2 * one.instances)])
    assert unsurveyed(run) == []
    moved = one.instances[::-1, ::-1]
    labels.add([replace(one, instances=moved, labels=np.where(moved > 0, 3, 1))])
    assert unsurveyed(run) == [one.sample]


def test_moments_of_0_3_belong_to_the_labels_they_name(surveyed_run, run_copy):
    run = run_copy(surveyed_run)
    labels = Labels(run.labels_path)
    one = next(iter(labels.current().values()))
    said = hashlib.sha256(one.labels.tobytes() + one.instances.tobytes()).hexdigest()
    with h5py.File(survey_folder(run) / f"{one.sample}.h5", "r+") as file:
        del file.attrs["classes_sha256"]
        file.attrs["labels_sha256"] = said
    assert unsurveyed(run) == []
    labels.add([replace(one, instances=2 * one.instances)])
    assert unsurveyed(run) == [one.sample]
