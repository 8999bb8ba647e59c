"""The analyze stage on a finished run of a tiny random model."""

import numpy as np
import pandas as pd
import pytest
from handscope.analysis import analyze
from handscope.errors import HandscopeError
from safetensors.numpy import load_file

COLUMNS = [
    "block", "step", "sigma", "n_good", "n_bad", "n_prompts", "dom_auc", "dom_lo", "dom_hi", "dom_null_mean",
    "dom_null_sd", "dom_p", "dom_q", "dom_auc_in_sample", "dom_within_auc", "db", "db_mean_term", "db_variance_term",
    "db_null_mean", "db_null_sd", "db_excess", "db_lo", "db_hi", "db_z", "db_p", "db_q", "pca_var1", "pca_var2",
    "massive_channels",
]


@pytest.fixture(scope="module")
def analysed(extracted_run):
    analyze(extracted_run, permutations=49, folds=4)
    return extracted_run


def test_writes_every_table_of_the_contract(analysed):
    cells = pd.read_csv(analysed.analysis_dir / "cells.csv")
    assert list(cells) == COLUMNS
    assert len(cells) == 9
    assert not cells.drop(columns="massive_channels").isna().any().any()
    np.testing.assert_allclose(cells["db"], cells["db_mean_term"] + cells["db_variance_term"], rtol=1e-4)
    np.testing.assert_allclose(cells["db_excess"], cells["db"] - cells["db_null_mean"], rtol=1e-3, atol=1e-4)
    samples = pd.read_csv(analysed.analysis_dir / "samples.csv")
    assert set(samples["verdict"]) == {"good", "bad"}
    assert (samples.groupby("prompt")["fold"].nunique() == 1).all()
    arrays = load_file(analysed.analysis_dir / "cells.safetensors")
    assert arrays["single.2/4/plane"].shape == arrays["single.2/4/pca"].shape == (len(samples), 2)
    assert np.linalg.norm(arrays["single.2/4/direction"]) == pytest.approx(1, abs=1e-5)
    cosines = pd.read_csv(analysed.analysis_dir / "cosines.csv")
    assert len(cosines) == 81
    same = cosines.query("block_a == block_b and step_a == step_b")
    np.testing.assert_allclose(same["cosine"], 1, atol=1e-5)
    assert (same["cosine_split"] < 0.999).all()


def test_direction_points_from_bad_to_good(analysed):
    from handscope.extract.store import ActivationStore

    x, tokens = ActivationStore(analysed.activations_dir).read("double.1", 1)
    vectors = pd.DataFrame(x).groupby(tokens["sample"].to_numpy()).mean()
    samples = pd.read_csv(analysed.analysis_dir / "samples.csv")
    projected = (
        vectors.loc[samples["sample"]] @ load_file(analysed.analysis_dir / "cells.safetensors")["double.1/1/direction"]
    )
    bad = samples["bad"].to_numpy() == 1
    assert projected[~bad].mean() > projected[bad].mean()


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
    from handscope.extract.labels import Annotation, Labels

    copy = run_copy(extracted_run)
    labels = Labels(copy.labels_path)
    found = labels.current().values()
    labels.add(
        [
            Annotation(a.sample, a.image_sha256, np.where(a.hands > 0, 2, 1), a.hands, "good")
            for a in found
            if a.verdict == "bad"
        ]
    )
    with pytest.raises(HandscopeError, match="0 bad"):
        analyze(copy)


def test_fewer_prompts_than_folds_are_refused(extracted_run):
    with pytest.raises(HandscopeError, match="of 9 or more prompts"):
        analyze(extracted_run, folds=9)
