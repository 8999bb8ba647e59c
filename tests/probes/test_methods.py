"""Ridge and mass-mean probes against closed forms and scikit-learn; every probe as a file."""

import json
import pickle

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.probes import LogisticProbe, MassMeanProbe, RidgeProbe, even_weights, load_probe, save_probe
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

KINDS = [LogisticProbe(3.0), RidgeProbe(3.0), MassMeanProbe()]


def data(n=80, width=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) * rng.lognormal(size=width) + 5
    return x, (x[:, 0] - x[:, 0].mean() + x[:, 0].std() * rng.normal(size=n) > 0.3 * x[:, 0].std()).astype(int)


@pytest.mark.parametrize(("n", "width"), [(80, 6), (40, 90)])
def test_ridge_points_where_ridge_regression_does(n, width):
    x, y = data(n, width)
    z = StandardScaler().fit_transform(x)
    theirs = Ridge(alpha=20.0).fit(z, 2 * y - 1).coef_
    ours = RidgeProbe(20.0).fit(x, y)
    direction = ours.coef_ * ours.scale_
    np.testing.assert_allclose(direction / np.linalg.norm(direction), theirs / np.linalg.norm(theirs), atol=1e-8)


def test_ridge_is_linear_discriminant_analysis_with_a_shrunken_covariance():
    x, y = data()
    z = StandardScaler().fit_transform(x)
    within = z - np.where(y[:, None] == 1, z[y == 1].mean(0), z[y == 0].mean(0))
    trace = np.square(within).sum() / z.size  # mean variance within the classes
    shrinkage = 0.3
    l2 = len(z) * shrinkage / (1 - shrinkage) * trace
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(z, y)
    ours = RidgeProbe(l2).fit(x, y)
    ours_direction, theirs = ours.coef_ * ours.scale_, lda.coef_[0]
    np.testing.assert_allclose(
        ours_direction / np.linalg.norm(ours_direction), theirs / np.linalg.norm(theirs), atol=1e-6
    )
    plain = LinearDiscriminantAnalysis(solver="lsqr").fit(z, y)
    np.testing.assert_allclose(RidgeProbe(1e-9).fit(x, y).decision_function(x), plain.decision_function(z), rtol=1e-5)


def test_mass_mean_is_the_difference_of_means_with_log_odds_along_it():
    x, y = data()
    probe = MassMeanProbe().fit(x, y)
    theta = x[y == 1].mean(0) - x[y == 0].mean(0)
    np.testing.assert_allclose(probe.coef_ / np.linalg.norm(probe.coef_), theta / np.linalg.norm(theta), atol=1e-10)
    one = LinearDiscriminantAnalysis(solver="lsqr").fit((x @ theta)[:, None], y)
    np.testing.assert_allclose(probe.decision_function(x), one.decision_function((x @ theta)[:, None]), rtol=1e-6)


@pytest.mark.parametrize("probe", KINDS, ids=lambda probe: type(probe).__name__)
def test_tokens_that_are_given_twice_count_twice(probe):
    x, y = data()
    twice = np.repeat(np.arange(80), np.where(np.arange(80) % 3 == 0, 2, 1))
    weighted = clone(probe).fit(x, y, sample_weight=1 + (np.arange(80) % 3 == 0))
    np.testing.assert_allclose(weighted.coef_, clone(probe).fit(x[twice], y[twice]).coef_, rtol=1e-4, atol=1e-7)
    assert even_weights(["a", "b", "a", "c"]).tolist() == [0.5, 1, 0.5, 1]


@pytest.mark.parametrize("probe", KINDS, ids=lambda probe: type(probe).__name__)
@pytest.mark.parametrize(("n", "width"), [(80, 6), (40, 90)])
def test_many_labellings_are_as_one_by_one(probe, n, width):
    x, y = data(n, width)
    new = data(15, width, 1)[0]
    rng = np.random.default_rng(0)
    labels = np.stack([y, *(rng.permutation(y) for _ in range(4))])
    found = probe.score_many(x, labels, new)
    for scores, one in zip(found, labels, strict=True):
        slow = clone(probe).fit(x, one).decision_function(new)
        assert np.abs(scores - slow).max() < 0.01 * np.abs(slow).max()


def test_a_fit_whose_rows_are_of_one_class_is_left_at_zero():
    x, y = data()
    labels = np.stack([y, np.zeros(80)])
    for probe in KINDS:
        w, b = probe.fit_many(x, labels, np.ones((1, 80)), np.zeros(2, int))
        assert w[0].any() and not w[1].any() and b[1] == 0


@pytest.mark.parametrize("probe", KINDS, ids=lambda probe: type(probe).__name__)
def test_a_saved_probe_scores_vectors_and_tokens_anywhere(probe, tmp_path):
    x, y = data()
    fitted = clone(probe).fit(x, y)
    save_probe(fitted, tmp_path / "probe.safetensors", {"block": "single.3", "step": 12, "folds": 5})
    loaded = load_probe(tmp_path / "probe.safetensors")
    assert type(loaded) is type(probe) and loaded.get_params() == probe.get_params()
    np.testing.assert_array_equal(loaded.decision_function(x), fitted.decision_function(x))
    np.testing.assert_array_equal(loaded.predict_proba(x), fitted.predict_proba(x))
    np.testing.assert_array_equal(loaded.mean_, fitted.mean_)
    assert loaded.metadata_["block"] == "single.3" and loaded.metadata_["kind"] == type(probe).__name__
    with pytest.raises(HandscopeError, match="width 6"):
        loaded.decision_function(np.ones((3, 7)))


def test_what_is_no_probe_is_refused_in_a_sentence_and_never_run(tmp_path):
    x, y = data()
    save_probe(LogisticProbe(3.0).fit(x, y), tmp_path / "probe.safetensors")
    whole = (tmp_path / "probe.safetensors").read_bytes()

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    arrays = {name: np.ones(3) for name in ("coef", "mean", "scale")} | {"intercept": np.ones(1)}
    foreign = {
        "torn": whole[: len(whole) // 2],
        "empty": b"",
        "pickle": pickle.dumps(Trap()),
        "weights": {"weight": np.ones(3)},
        "unknown": (arrays, {"kind": "OtherProbe"}),
        "text": (arrays, None),
        "shapes": (arrays | {"coef": np.ones(4)}, {"kind": "MassMeanProbe"}),
        "nan": (arrays | {"coef": np.full(3, np.nan)}, {"kind": "MassMeanProbe"}),
    }
    for name, content in foreign.items():
        path = tmp_path / f"{name}.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, dict):
            save_file(content, path)
        else:
            given, metadata = content
            save_file(given, path, {"handscope": "not json" if metadata is None else json.dumps(metadata)})
        with pytest.raises(HandscopeError, match=name):
            load_probe(path)
    with pytest.raises(HandscopeError, match="missing"):
        load_probe(tmp_path / "missing.safetensors")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("probe", [*KINDS, RidgeProbe(0.1)])
@pytest.mark.parametrize("width", [5, 90])
@pytest.mark.parametrize("many", [3, 40])
def test_a_scorer_orders_rows_as_the_fits_do(probe, width, many):
    rng = np.random.default_rng(0)
    x, new, weights = rng.normal(size=(60, width)), rng.normal(size=(17, width)), rng.uniform(0.5, 2, 60)
    labels = (rng.random((many, 60)) < 0.4).astype(float)
    l2 = np.tile([30.0, getattr(probe, "l2", 1.0)], (many, 1))
    l2[1] = l2[1, ::-1]  # each labelling has penalties of its own
    w, b = (
        np.stack(part)
        for part in zip(
            *(probe.fit_many(x, labels, weights[None], np.zeros(many, int), column, 1e-12) for column in l2.T),
            strict=True,
        )
    )
    centre = w @ (weights @ x / weights.sum()) + b
    expected = np.moveaxis(w @ new.T + (b - centre)[..., None], 0, 1)
    scorer = probe.scorer(x, weights, new)
    for found in (scorer.scores(labels, l2), scorer.order(labels, l2)):
        lengths = np.linalg.norm(found, axis=-1), np.linalg.norm(expected, axis=-1)
        np.testing.assert_allclose((found * expected).sum(-1) / np.prod(lengths, axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(scorer.scores(labels, l2), expected, rtol=1e-3, atol=2e-3)
