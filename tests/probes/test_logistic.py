"""The probe against scikit-learn, and on the ground that permutations need."""

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.probes import LogisticProbe, load_probe, save_probe
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def data(n, width, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) * rng.lognormal(size=width) + 5
    y = (x[:, 0] - x[:, 0].mean() + x[:, 0].std() * rng.normal(size=n) > 0).astype(int)
    return x, y


def reference(l2):
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2, tol=1e-10, max_iter=20_000))


@pytest.mark.parametrize(("n", "width", "l2"), [(200, 20, 1.0), (200, 60, 100.0), (50, 120, 1.0), (80, 3, 0.01)])
def test_reaches_scikit_learns_objective_and_scores(n, width, l2):
    x, y = data(n, width)
    ours, theirs = LogisticProbe(l2).fit(x, y), reference(l2).fit(x, y)

    def objective(scores, weights):
        return np.logaddexp(0, -(2 * y - 1) * scores).sum() + l2 / 2 * np.square(weights).sum()

    mine = objective(ours.decision_function(x), ours.coef_ * ours.scale_)
    best = objective(theirs.decision_function(x), theirs[-1].coef_[0])
    assert mine == pytest.approx(best, rel=1e-6)
    assert mine <= best * (1 + 1e-9)
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=2e-4)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-4)
    assert (ours.predict(x) == theirs.predict(x)).mean() > 0.99


@pytest.mark.parametrize(("n", "width"), [(120, 30), (40, 90)])
def test_many_labellings_at_once_are_as_one_by_one(n, width):
    x, y = data(n, width)
    new = data(25, width, seed=1)[0]
    rng = np.random.default_rng(0)
    labels = np.stack([y, *(rng.permutation(y) for _ in range(8))])
    found = LogisticProbe(10.0).score_many(x, labels, new)
    for scores, one in zip(found, labels, strict=True):
        slow = reference(10.0).fit(x, one).decision_function(new)
        np.testing.assert_allclose(scores, slow, atol=1e-2)
        assert np.corrcoef(scores, slow)[0, 1] > 0.99999


def test_separable_classes_and_extreme_scales_are_solved():
    x = np.random.default_rng(0).normal(size=(60, 4)) * [1, 1e6, 1e-6, 1]
    y = (x[:, 0] > 0).astype(int)
    probe = LogisticProbe(1e-4).fit(x, y)
    assert (probe.predict(x) == y).all()
    np.testing.assert_allclose(probe.decision_function(x), reference(1e-4).fit(x, y).decision_function(x), rtol=1e-3)


def test_a_channel_that_does_not_vary_gets_no_weight():
    x, y = data(60, 4)
    constant = np.column_stack([x, np.full(60, 6000.1, np.float32)])
    probe = clone(LogisticProbe(2.0)).fit(constant, y)
    assert probe.coef_[4] == 0
    np.testing.assert_allclose(probe.decision_function(constant), LogisticProbe(2.0).fit(x, y).decision_function(x))


def test_saves_and_loads_with_where_it_comes_from(tmp_path):
    x, y = data(60, 4)
    probe = LogisticProbe(3.0).fit(x, y)
    save_probe(probe, tmp_path / "probe.safetensors", {"block": "single.3", "step": 12})
    loaded = load_probe(tmp_path / "probe.safetensors")
    np.testing.assert_array_equal(loaded.decision_function(x), probe.decision_function(x))
    np.testing.assert_array_equal(loaded.predict(x), probe.predict(x))
    assert loaded.l2 == 3 and loaded.metadata_["block"] == "single.3"
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "probe.safetensors").read_bytes()[:40])
    for name in ("torn.safetensors", "missing.safetensors"):
        with pytest.raises(HandscopeError, match=name):
            load_probe(tmp_path / name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x, np.zeros_like(y)), "both of them"),
        (lambda x, y: (x, y + 1), "labels of 0"),
        (lambda x, y: (np.where(x > x.max() - 1e-9, np.nan, x), y), "1 of 60 rows hold NaN"),
        (lambda x, y: (x[:10], y), "x of shape"),
    ],
)
def test_bad_input_is_refused(spoil, message):
    with pytest.raises(HandscopeError, match=message):
        LogisticProbe().fit(*spoil(*data(60, 4)))
    with pytest.raises(HandscopeError, match="l2 > 0"):
        LogisticProbe(l2=0).fit(*data(60, 4))
