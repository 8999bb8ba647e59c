"""The analyze stage on a finished run of a tiny random model."""

from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from handscope.analysis import analyze, bhattacharyya
from handscope.analysis.class_parts import ClassParts
from handscope.analysis.contrasts import contrasts
from handscope.analysis.subject_tokens import instance_table, mixed
from handscope.errors import HandscopeError
from handscope.labeling.subject import load_subject
from handscope.stages import ANALYZE
from safetensors.numpy import load_file
from tables import check_columns

COLUMNS = [
    "block", "step", "sigma", "n_good", "n_bad", "n_prompts", "n_mixed", "dom_auc", "dom_lo", "dom_hi",
    "dom_null_mean", "dom_null_sd", "dom_p", "dom_p_floor", "dom_p_family", "dom_q", "dom_student_p",
    "dom_student_p_floor", "dom_student_p_family", "dom_student_q", "dom_auc_in_sample", "dom_within_auc", "db",
    "db_mean_term", "db_variance_term", "db_null_mean", "db_null_sd", "db_excess", "db_lo", "db_hi", "db_z", "db_p",
    "db_p_floor", "db_p_family", "db_q", "c2st_auc", "c2st_lo", "c2st_hi", "c2st_accuracy", "c2st_null_mean",
    "c2st_null_sd", "c2st_p", "c2st_p_floor", "c2st_p_family", "c2st_q", "pca_var1", "pca_var2", "massive_channels",
    "constant_channels", "shared_auc", "shared_p", "shared_p_floor", "shared_p_family", "shared_q", "reason",
]
NUMBERS = [name for name in COLUMNS if name not in ("massive_channels", "constant_channels", "reason")]


@pytest.fixture
def analysed(studied_run):
    return studied_run


def tables(run):
    return {table.name: pd.read_csv(run.path / table.path) for table in ANALYZE.tables}


def relabel(run, change):
    """Annotate every sample anew, as `change` has its annotation."""
    from handscope.labeling.database.labels import Labels

    labels = Labels(run.labels_path)
    labels.add([new for new in map(change, labels.current().values()) if new is not None])


def test_writes_every_table_of_the_contract(analysed):
    cells = pd.read_csv(analysed.analysis_dir / "cells.csv")
    assert list(cells) == COLUMNS
    assert len(cells) == 9
    assert not cells[NUMBERS].isna().any().any() and cells["reason"].isna().all()
    np.testing.assert_allclose(cells["db"], cells["db_mean_term"] + cells["db_variance_term"], rtol=1e-4)
    np.testing.assert_allclose(cells["db_excess"], cells["db"] - cells["db_null_mean"], rtol=1e-3, atol=1e-4)
    samples = pd.read_csv(analysed.analysis_dir / "samples.csv")
    assert set(samples["verdict"]) == {"good", "bad"}
    assert (samples.groupby("prompt")["fold"].nunique() == 1).all()
    for name in ("dom", "dom_student", "db", "c2st", "shared"):
        assert (cells[f"{name}_p_family"] >= cells[f"{name}_p"] - 1e-6).all()
    arrays = load_file(analysed.analysis_dir / "cells.safetensors")
    for name in ("plane", "pca", "cpca"):
        assert arrays[f"single.2/4/{name}"].shape == (len(samples), 2)
    for name in ("single.2/4/direction", "shared/direction"):
        assert np.linalg.norm(arrays[name]) == pytest.approx(1, abs=1e-5)
    cosines = pd.read_csv(analysed.analysis_dir / "cosines.csv")
    assert len(cosines) == 81
    same = cosines.query("block_a == block_b and step_a == step_b")
    np.testing.assert_allclose(same["cosine"], 1, atol=1e-5)
    assert (same["cosine_split"] < 0.999).all() and cosines["reason"].isna().all()


def test_the_table_of_stages_says_what_every_column_is(analysed):
    check_columns(analysed, ANALYZE)


def test_a_cell_carried_to_itself_is_itself(analysed):
    found = tables(analysed)
    own = found["transfer"].query("block_a == block_b and step_a == step_b")
    merged = own.merge(found["cells"], left_on=["block_a", "step_a"], right_on=["block", "step"])
    np.testing.assert_allclose(merged["auc"], merged["dom_auc"], atol=1e-4)
    assert len(found["transfer"]) == 81
    shared = found["shared"].iloc[0]
    assert shared["auc"] == pytest.approx(found["cells"]["shared_auc"].mean(), abs=1e-4)
    assert shared["lo"] < shared["auc"] <= shared["hi"] + 1e-5 and shared["cells"] == 9


def test_gaussianity_is_there_for_every_cell(analysed):
    found = tables(analysed)["gaussianity"]
    assert len(found) == 9 and not found.drop(columns="reason").isna().any().any()
    assert ((found["effective_rank"] >= 1) & (found["effective_rank"] <= 32)).all()
    assert (found["bayes_lo"] <= found["bayes_hi"]).all()
    assert found[["llr_auc", "llr_auc_in_sample", "llr_auc_implied"]].apply(lambda x: x.between(0, 1)).all().all()


def test_a_scope_without_samples_has_a_reason_and_the_other_its_numbers(analysed):
    """Every bad hand of the run is labelled `count`, which is global: no bad sample is left out of that contrast."""
    found = tables(analysed)
    contrasted, cells = found["contrasts"], found["cells"]
    local, whole = (contrasted[contrasted["contrast"] == name] for name in ("local", "global"))
    assert len(local) == len(whole) == 9
    assert (local["n_bad"] == 0).all() and local["dom_auc"].isna().all()
    assert local["reason"].str.startswith("0 bad samples have local faults alone, and 5 are needed").all()
    assert whole["reason"].isna().all()
    assert not whole.drop(columns="reason").isna().any().any()
    for name in ("dom_auc", "dom_p", "dom_p_family", "db_excess", "db_p_family", "db_q"):
        np.testing.assert_allclose(whole[name].to_numpy(), cells[name].to_numpy(), rtol=1e-4)
    np.testing.assert_allclose(whole["cosine_all"], 1, atol=1e-6)


def test_a_contrast_takes_bad_samples_of_one_scope_and_all_good_ones():
    kinds = [()] * 20 + [("fused",)] * 5 + [("count",)] * 6 + [("count", "fused")] * 4 + [("joint:global",)]
    bad = np.repeat([0, 1], [20, 16])
    table = pd.DataFrame({"bad": bad, "kinds": kinds, "fold": np.arange(36) % 3, "prompt": np.arange(36).astype(str)})
    local, whole = contrasts(table, 3, load_subject("hand"))
    assert (local.n_good, local.n_bad, local.reason) == (20, 5, "")
    assert whole.rows.tolist() == [*range(20), *range(25, 31), 35]
    local, _ = contrasts(table.assign(fold=np.repeat([0, 1, 2], [25, 7, 4])), 3, load_subject("hand"))
    assert "samples for local faults are left in 1 of 3 folds" in local.reason
    local, _ = contrasts(table.assign(fold=np.where(table.index < 20, table.index % 2, 2)), 3, load_subject("hand"))
    assert local.reason.startswith("All 20 samples outside fold 2 are good")
    local, _ = contrasts(table.drop(index=20), 3, load_subject("hand"))
    assert local.reason.startswith("4 bad samples have local faults alone")


def test_direction_points_from_bad_to_good(analysed):
    from handscope.extract.store.store import ActivationStore

    x, tokens = ActivationStore(analysed.activations_dir).read("double.1", 1)
    vectors = pd.DataFrame(x).groupby(tokens["sample"].to_numpy()).mean()
    samples = pd.read_csv(analysed.analysis_dir / "samples.csv")
    projected = (
        vectors.loc[samples["sample"]] @ load_file(analysed.analysis_dir / "cells.safetensors")["double.1/1/direction"]
    )
    bad = samples["bad"].to_numpy() == 1
    assert projected[~bad].mean() > projected[bad].mean()


def test_a_good_hand_beside_a_bad_one_counts_as_good(analysed):
    """Tokens go by the hand they lie on: the sums of a store whose bad samples have a good hand too."""
    from handscope.extract.store.store import ActivationStore

    store = ActivationStore(analysed.activations_dir)
    samples = pd.read_csv(analysed.analysis_dir / "samples.csv")
    bad_samples = samples.loc[samples["bad"] == 1, "sample"]
    beside = store.tokens["sample"].isin(bad_samples[:6]) & (store.tokens["row"] % 2 == 0)
    store.tokens.loc[beside & (store.tokens["instance"] > 0), ["label", "instance"]] = 2, 2
    table = instance_table(store, samples)
    assert len(table) == len(samples) + 6 and mixed(table) == 6
    assert table["bad"].sum() == samples["bad"].sum()
    hands = ClassParts(store, table)
    sums = hands.read(store.cells[0])
    x = store.read(str(store.cells[0].block), store.cells[0].step)[0]
    kept = store.tokens["sample"].isin(samples["sample"]) & (store.tokens["instance"] > 0)
    good, bad = (x[kept & (store.tokens["label"] == label)] for label in (2, 3))
    expected = bhattacharyya(good, bad).distance
    y = table["bad"].to_numpy()
    assert len(sums.massive) == len(sums.constant) == 0
    assert bhattacharyya(sums.parts.pool(1 - y), sums.parts.pool(y)).distance == pytest.approx(expected)
    np.testing.assert_allclose(sums.scatter.mean, [good.mean(0), bad.mean(0)], atol=1e-5)
    for place in (0, len(table) - 1):
        one = table.iloc[place]
        own = (store.tokens["sample"] == one["sample"]) & (store.tokens["instance"] == one["instance"])
        np.testing.assert_allclose(sums.vectors[place], x[own].mean(0), atol=1e-6)


def test_instances_are_bad_where_their_tokens_say_so():
    rows = [("a", 1, 2), ("a", 2, 2), ("b", 1, 3), ("b", 2, 2), ("c", 1, 0), ("c", 2, 0), ("d", 1, 2), ("e", 0, 1)]
    tokens = pd.DataFrame(rows, columns=["sample", "instance", "label"])
    table = pd.DataFrame({"sample": list("cbade"), "bad": [1, 1, 0, 1, 0]})
    found = instance_table(SimpleNamespace(tokens=tokens), table)
    assert found["sample"].tolist() == list("ccbbaad") and found["instance"].tolist() == [1, 2, 1, 2, 1, 2, 1]
    # c: of no instance is it said; d: the verdict outranks the mask of its only one
    assert found["bad"].tolist() == [1, 1, 1, 0, 0, 0, 1] and mixed(found) == 1


def test_a_second_call_does_nothing_other_settings_do(analysed, run_copy):
    copy = run_copy(analysed)
    path = copy.analysis_dir / "cells.csv"
    shards = sorted(copy.activations_dir.rglob("*.h5"))
    analyze(copy, permutations=49, folds=4)
    before = path.stat().st_mtime_ns
    analyze(copy, permutations=49, folds=4)
    assert path.stat().st_mtime_ns == before
    analyze(copy, permutations=29, folds=4)
    assert path.stat().st_mtime_ns != before
    assert shards == sorted(copy.activations_dir.rglob("*.h5"))


def test_too_few_samples_are_refused_with_their_counts(extracted_run, run_copy):
    from handscope.labeling.database.labels import Annotation

    copy = run_copy(extracted_run)
    relabel(
        copy,
        lambda a: Annotation(a.sample, a.image_sha256, np.where(a.instances > 0, 2, 1), a.instances, "good")
        if a.verdict == "bad"
        else None,
    )
    with pytest.raises(HandscopeError, match="0 bad"):
        analyze(copy)


def test_fewer_prompts_than_folds_are_refused(extracted_run):
    with pytest.raises(HandscopeError, match="of 9 or more prompts"):
        analyze(extracted_run, folds=9)


def spoil(run, cell, change):
    with h5py.File(run.activations_dir / "store.h5", "r+") as file:
        bits = file[f"activations/{cell}"][:]
        file[f"activations/{cell}"][:] = change(bits)


NAN = 0x7FC0
ONE = 0x3F80


def test_nan_in_a_store_is_named_with_its_cell_and_count(extracted_run, run_copy):
    copy = run_copy(extracted_run)

    def broken(bits):
        bits[:, 3] = NAN
        return bits

    (copy.analysis_dir / "cells.csv").unlink(missing_ok=True)
    spoil(copy, "single.0/2", broken)
    with pytest.raises(HandscopeError, match=r"single\.0 at step 2 .* NaN or infinity in \d+ of \d+ tokens"):
        analyze(copy, permutations=9, folds=4)
    assert not (copy.analysis_dir / "cells.csv").exists()


def test_constant_channels_are_left_out_and_named(extracted_run, run_copy):
    copy = run_copy(extracted_run)

    def constant(bits):
        bits[:, [3, 5]] = ONE
        return bits

    spoil(copy, "single.0/2", constant)
    analyze(copy, permutations=9, folds=4)
    found = tables(copy)
    row = found["cells"].query("block == 'single.0' and step == 2").iloc[0]
    assert row["constant_channels"] == "3;5" and np.isfinite(row[NUMBERS[2:]].to_numpy(float)).all()
    assert found["cells"]["constant_channels"].notna().sum() == 1


def test_a_cell_without_any_variation_is_refused_by_name(extracted_run, run_copy):
    copy = run_copy(extracted_run)
    spoil(copy, "double.1/1", lambda bits: np.full_like(bits, ONE))
    with pytest.raises(HandscopeError, match=r"double\.1.1: 32 of 32 channels do not vary"):
        analyze(copy, permutations=9, folds=4)


def test_prompts_of_one_class_each_leave_a_reason_where_a_number_is_missing(extracted_run, run_copy):
    from handscope.labeling.database.labels import Annotation

    copy = run_copy(extracted_run)
    prompts = copy.samples().set_index("sample")["prompt"]
    bad = set(sorted(set(prompts))[::2])

    def one_class(a):
        worse = prompts[a.sample] in bad
        return Annotation(
            a.sample,
            a.image_sha256,
            np.where(a.instances > 0, 3 if worse else 2, 1),
            a.instances,
            "bad" if worse else "good",
        )

    relabel(copy, one_class)
    analyze(copy, permutations=19, folds=4)
    found = tables(copy)
    assert found["cells"]["dom_within_auc"].isna().all()
    assert found["cells"]["reason"].str.startswith("no prompt has both good and bad samples").all()
    assert (found["contrasts"]["reason"].str.startswith("0 bad samples have")).all()
    for name, table in found.items():
        numbers = table.drop(columns=[c for c in ("massive_channels", "constant_channels", "reason") if c in table])
        missing = numbers.isna().any(axis=1)
        assert not missing.any() or table.loc[missing, "reason"].notna().all(), name
