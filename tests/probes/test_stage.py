"""The probe stage on a finished run of a tiny random model."""

import numpy as np
import pandas as pd
import pytest
from handscope.analysis.subject_tokens import mixed
from handscope.errors import HandscopeError
from handscope.extract.address import Block, Cell
from handscope.extract.extract import extract
from handscope.extract.store.store import ActivationStore
from handscope.labeling.database.labels import Annotation, Labels
from handscope.probes import load_probe, probe
from handscope.probes.baselines import Baseline
from handscope.probes.gains import NESTED, WIDE, gains
from handscope.probes.stage import _Samples
from handscope.progress import quiet
from handscope.stages import PROBE
from tables import check_columns


@pytest.fixture
def probed(studied_run):
    return studied_run


def test_the_norm_that_a_block_is_compared_with_is_its_own():
    rng = np.random.default_rng(0)
    y, groups = np.arange(60) % 2, np.repeat(np.arange(12), 5)
    baselines = [Baseline(name, 1, rng.normal(size=(60, 3))) for name in (*NESTED, WIDE)]
    telling, silent = y + 0.1 * rng.normal(size=60), rng.normal(size=60)
    cells = {
        Cell(Block.parse(f"single.{number}"), 1): (rng.normal(size=(60, 3)).astype(np.float32), norm)
        for number, norm in enumerate((telling, silent))
    }
    rows = pd.DataFrame(gains(cells, baselines, y, groups, 100.0, 4, 3, 0, quiet)[0]).set_index(["baseline", "block"])
    assert rows.loc[("norm", "single.0"), "auc_baseline"] > 0.95 > 0.75 > rows.loc[("norm", "single.1"), "auc_baseline"]


def test_the_whole_picture_is_compared_with_each_block_and_the_same_step(probed):
    whole = pd.read_csv(probed.analysis_dir / "whole_picture.csv")
    probes = pd.read_csv(probed.analysis_dir / "probes.csv").query("subset == 'sure'")
    baselines = pd.read_csv(probed.analysis_dir / "baselines.csv").query("subset == 'sure' and baseline == 'x0_flat'")
    both = whole.merge(probes, on=["block", "step"]).merge(baselines, on="step", suffixes=("", "_flat"))
    np.testing.assert_allclose(both["auc_baseline"], both["auc"], atol=1e-5)
    np.testing.assert_allclose(both["auc_both"], both["auc_flat"], atol=1e-5)


def test_writes_every_table_of_the_contract(probed):
    statistics = [
        "n_good", "n_bad", "auc", "lo", "hi", "null_mean", "null_sd", "p", "p_floor", "p_family", "q", "within_auc",
        "within_lo", "within_hi", "within_null_mean", "within_null_sd", "within_p", "within_p_floor",
        "within_p_family", "within_q", "balanced_accuracy", "balanced_lo", "balanced_hi",
    ]  # fmt: skip
    probes = pd.read_csv(probed.analysis_dir / "probes.csv")
    assert list(probes) == ["subset", "block", "step", "n_good", "n_bad", "n_mixed", *statistics[2:]]
    assert (probes["n_mixed"] == 0).all()
    assert probes.groupby("subset").size().to_dict() == {"sure": 9, "all": 9}
    assert not probes.isna().any().any()
    baselines = pd.read_csv(probed.analysis_dir / "baselines.csv")
    assert list(baselines) == ["subset", "baseline", "step", *statistics]
    free = baselines[baselines["step"].isna()]
    assert set(free["baseline"]) == {"prompt", "position", "noise", "final_image"}
    assert set(baselines["baseline"]) - set(free["baseline"]) == {"x_t", "x0", "x0_flat", "image", "norm", "random"}
    added = pd.read_csv(probed.analysis_dir / "added.csv")
    assert {"block", "step", "baseline", "auc_baseline", "auc_both", "added", "lo", "hi", "p", "q"} <= set(added)
    np.testing.assert_allclose(added["added"], added["auc_both"] - added["auc_baseline"], atol=1e-5)


def test_the_table_of_stages_says_what_every_column_is(probed):
    check_columns(probed, PROBE)


def test_leaning_verdicts_are_in_the_subset_all_only(probed):
    probes = pd.read_csv(probed.analysis_dir / "probes.csv").set_index("subset")
    sure, everyone = (probes.loc[name, ["n_good", "n_bad"]].to_numpy()[0] for name in ("sure", "all"))
    assert (everyone > sure).all()


@pytest.mark.slow
def test_each_instance_of_a_picture_is_read_with_its_own_label(probed, run_copy):
    """Half of the tokens of four bad samples become a good instance beside the bad one."""
    run = run_copy(probed)
    labels = Labels(run.labels_path)
    chosen = [a for a in labels.current().values() if a.verdict == "bad"][:4]
    rows = (np.indices(chosen[0].labels.shape)[0] % 2 == 0)[None] & (np.stack([a.instances for a in chosen]) > 0)
    labels.add(
        [
            Annotation(a.sample, a.image_sha256, np.where(part, 2, a.labels), np.where(part, 2, a.instances), "bad")
            for a, part in zip(chosen, rows, strict=True)
        ]
    )
    samples = _Samples.read(run, 4, 0, quiet)
    before = pd.read_csv(run.analysis_dir / "samples.csv")
    sure = samples.of("sure")
    assert len(sure.table) == len(before) + 4 and sure.y.sum() == before["bad"].sum() and mixed(sure.table) == 4
    assert set(map(tuple, sure.groups)) == set(zip(sure.table["prompt"], sure.table["sample"], strict=True))
    cell = samples.store.cells[0]
    x, tokens = samples.store.read(str(cell.block), cell.step)
    features = {b.name: b.x for b in sure.baselines if b.step in (None, cell.step)}
    for row in np.flatnonzero(sure.table["sample"] == chosen[0].sample):
        instance = sure.table["instance"].iloc[row]
        own = ((tokens["sample"] == chosen[0].sample) & (tokens["instance"] == instance)).to_numpy()
        np.testing.assert_allclose(sure.vectors[cell][row], x[own].mean(0), atol=1e-5)
        assert sure.y[row] == (instance == 1) and features["position"][row].sum() == own.sum()
    assert all(len(b.x) == len(sure.table) for b in sure.baselines)


def test_a_second_call_does_nothing_and_a_new_label_makes_it_stale(probed, run_copy, tiny_model):
    from handscope.labeling.database.labels import Annotation, Labels

    path = probed.analysis_dir / "probes.csv"
    before = path.stat().st_mtime_ns
    probe(probed, permutations=19, folds=4)
    assert path.stat().st_mtime_ns == before
    copy = run_copy(probed)
    labels = Labels(copy.labels_path)
    sample, old = next((s, a) for s, a in labels.current().items() if a.verdict == "good")
    labels.add([Annotation(sample, old.image_sha256, np.where(old.instances > 0, 3, 1), old.instances, "bad")])
    n_bad = pd.read_csv(path)["n_bad"][0]
    assert probe(copy, permutations=19, folds=4)["n_bad"][0] == n_bad + 1


def test_a_saved_probe_reads_sample_vectors(probed):
    from handscope.extract.store.store import ActivationStore

    fitted = load_probe(probed.probes_dir / "single.0_2.safetensors")
    x, tokens = ActivationStore(probed.activations_dir).read("single.0", 2)
    vectors = pd.DataFrame(x).groupby(tokens["sample"].to_numpy()).mean()
    verdicts = pd.read_csv(probed.analysis_dir / "probes.csv")
    assert fitted.metadata_["block"] == "single.0" and fitted.metadata_["step"] == 2
    assert fitted.decision_function(vectors).shape == (len(vectors),)
    assert fitted.metadata_["held_out_auc"] == pytest.approx(
        verdicts.query("subset == 'sure' and block == 'single.0' and step == 2")["auc"].item(), abs=1e-5
    )


def test_extract_decodes_what_a_probe_needs_and_does_it_once(probed, run_copy, tiny_model, monkeypatch):
    copy = run_copy(probed)
    table = copy.analysis_dir / "image_statistics.csv"
    before = table.read_bytes()
    first = pd.read_csv(table)["sample"].iloc[0]
    text = before.decode().splitlines(keepends=True)
    table.write_text("".join(line for line in text if not line.startswith(first)))
    (copy.analysis_dir / "probes.csv").unlink()
    with pytest.raises(HandscopeError, match=f"of 1 samples, {first} among them, are not in .*: run extract"):
        probe(copy, permutations=1, folds=4)
    decoded = []
    decode = type(tiny_model).decode
    monkeypatch.setattr(
        type(tiny_model), "decode", lambda self, x, *size: decoded.append(len(x)) or decode(self, x, *size)
    )
    plan = ActivationStore(copy.activations_dir).plan
    extract(tiny_model, copy, plan)
    assert decoded == [1, 1, 1], "one sample at the plan's three steps"
    extract(tiny_model, copy, plan)
    assert decoded == [1, 1, 1]
    probe(copy, permutations=1, folds=4)
    expected = pd.read_csv(probed.analysis_dir / "image_statistics.csv").sort_values(["sample", "step"])
    found = pd.read_csv(table).sort_values(["sample", "step"])
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True), rtol=1e-6)


def test_x0_at_the_last_step_is_the_final_image(probed):
    from handscope.extract.picture_statistics import STATISTICS, image_statistics

    table = pd.read_csv(probed.analysis_dir / "image_statistics.csv")
    last = table[table["step"] == 1].head(8)
    images = np.stack([probed.image(sample) for sample in last["sample"]]) / 255
    np.testing.assert_allclose(last[list(STATISTICS)[1:]], image_statistics(images)[:, 1:], atol=0.02)


def test_the_other_tables_say_what_they_are_of(probed):
    read = {name: pd.read_csv(probed.analysis_dir / f"{name}.csv") for name in
            ("methods", "calibration", "reliability", "conditional", "probe_transfer")}  # fmt: skip
    assert read["methods"].groupby("method").size().to_dict() == {"ridge": 9, "mass_mean": 9}
    assert read["methods"].query("method == 'ridge'")["l2"].gt(0).all()
    missing = read["methods"][["l2", "within_auc"]].isna().any(axis=1)
    assert missing.any() and (read["methods"]["reason"].notna() == missing).all()
    assert read["calibration"].groupby("log_odds").size().to_dict() == {"raw": 9, "platt": 9}
    bins = read["reliability"].groupby(["block", "step", "log_odds"])["n"].sum()
    probes = pd.read_csv(probed.analysis_dir / "probes.csv").query("subset == 'sure'")
    assert set(bins) == {probes["n_good"].iloc[0] + probes["n_bad"].iloc[0]}
    assert read["conditional"].groupby("baseline").size().to_dict() == {"all": 9, "x0_flat": 9}
    assert (read["conditional"]["p_family"] >= read["conditional"]["p"]).all()
    transfer = read["probe_transfer"]
    own = transfer[
        (transfer["fitted_block"] == transfer["judged_block"]) & (transfer["fitted_step"] == transfer["judged_step"])
    ]
    assert len(transfer) == 81
    np.testing.assert_allclose(own["auc"], probes["auc"], atol=2e-3)
    for table in read.values():
        for column in table.filter(regex="(^|_)[pq]$"):
            assert table[column].between(0, 1).all(), column


def test_a_store_with_all_tokens_is_probed_with_its_places(probed, run_copy, tiny_model):
    import shutil

    from handscope.extract.address import Plan
    from handscope.extract.extract import extract

    copy = run_copy(probed)
    shutil.rmtree(copy.activations_dir)
    extract(tiny_model, copy, Plan(["single.0"], [2], of=4), tokens="all")
    probe(copy, permutations=5, folds=4)
    table = pd.read_csv(copy.analysis_dir / "block_flat.csv")
    assert table[["block", "step", "features"]].to_numpy().tolist() == [["single.0", 2, 16 * 32]]
    baseline = pd.read_csv(copy.analysis_dir / "baselines.csv")
    picture = baseline.query("subset == 'sure' and baseline == 'x0_flat' and step == 2")["auc"].item()
    assert table["added_auc_baseline"].item() == pytest.approx(picture, abs=2e-3)
    assert table["instead_auc_baseline"].item() == pytest.approx(table["auc"].item(), abs=2e-3)
    assert not table.isna().any().any()
    check_columns(copy, PROBE)
    shutil.rmtree(copy.activations_dir)
    extract(tiny_model, copy, Plan(["single.0"], [2], of=4))
    probe(copy, permutations=5, folds=4)
    assert not (copy.analysis_dir / "block_flat.csv").exists()


def test_the_command_line_counts_what_the_report_counts(probed):
    from handscope.report.results import Results
    from handscope.stages import PROBE

    results = Results.read(probed)
    assert results.prefix == "within_", "prompts repeat in this run"
    assert results.n("within_") in PROBE.describe(probed)
