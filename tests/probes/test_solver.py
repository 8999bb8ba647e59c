"""The solver of all fits at once against scikit-learn, on whatever problems hypothesis draws."""

import numpy as np
import pytest
from handscope.probes import solver as solving
from handscope.probes.solver import logistic
from handscope.probes.standardise import AXES, NARROW, Preconditioner, Standardised, gram
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression


def objective(x, y, weights, l2, w, b):
    """The objective at coefficients in units of the input, in float64; a channel that does not vary costs nothing."""
    x, used = x.astype(np.float64), weights > 0
    x, y, weights = x[used], y[used], weights[used]
    scale = np.sqrt(np.average(np.square(x - np.average(x, axis=0, weights=weights)), axis=0, weights=weights))
    margin = (2 * y - 1) * (x @ w + b)
    return (weights * np.logaddexp(0, -margin)).sum() + l2 / 2 * np.square(w * scale).sum()


def by_scikit_learn(x, y, weights, l2):
    """The least objective that scikit-learn's solvers find on the standardised rows."""
    x, used = x.astype(np.float64), weights > 0
    x, y, weights = x[used], y[used], weights[used]
    mean = np.average(x, axis=0, weights=weights)
    scale = np.sqrt(np.average(np.square(x - mean), axis=0, weights=weights))
    varies = scale > 1e-7 * np.abs(x).max(0)
    z = np.where(varies, x - mean, 0) / np.where(varies, scale, 1)
    found = []
    for solver in ("lbfgs", "newton-cholesky"):
        fit = LogisticRegression(C=1 / l2, tol=1e-12, max_iter=3000, solver=solver).fit(z, y, weights)
        margin = (2 * y - 1) * fit.decision_function(z)
        found.append((weights * np.logaddexp(0, -margin)).sum() + l2 / 2 * np.square(fit.coef_).sum())
    return min(found)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, width = draw(st.integers(24, 90)), draw(st.integers(2, 120))
    x = rng.normal(size=(n, width)) * np.exp(draw(st.floats(0, 2)) * rng.normal(size=width))
    y = (x[:, 0] / x[:, 0].std() + draw(st.sampled_from([0.0, 1.0, 5.0])) * rng.normal(size=n) > 0).astype(float)
    y[:8] = np.arange(8) % 2  # every training set has both
    kind = draw(st.sampled_from(["plain", "collinear", "constant", "massive", "separable"]))
    if kind == "collinear":
        x[:, 1:] = x[:, :1] @ rng.normal(size=(1, width - 1)) + 1e-3 * x[:, 1:]
    if kind == "constant":
        x[:, 1] = 6000.1
    if kind == "massive":
        x[:, 1] = 3000 + 1000 * x[:, 1]
    if kind == "separable":
        x[:, 1] = 2 * y - 1 + 0.1 * x[:, 1] / x[:, 1].std()
    fold = np.arange(n) // 2 % 3
    weights = np.stack([fold != 0, fold != 1, np.full(n, True)]) * rng.uniform(0.2, 1, n)
    return x, y, weights


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::scipy.linalg.LinAlgWarning")
@settings(max_examples=25)
@given(problems(), st.sampled_from([np.float32, np.float64]))
def test_reaches_the_objective_of_scikit_learn_in_every_fold_and_for_every_penalty(problem, kind):
    x, y, weights = problem
    x = x.astype(kind)
    grid = np.array([0.01, 1.0, 100.0])
    design, l2 = np.repeat(np.arange(3), 3), np.tile(grid, 3)
    w, b = logistic(x, np.tile(y, (9, 1)), weights, l2, design)
    for k in range(9):
        best = by_scikit_learn(x, y, weights[design[k]], l2[k])
        assert objective(x, y, weights[design[k]], l2[k], w[k], b[k]) <= best * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("width", [9, NARROW + 1])
def test_fits_in_parts_are_those_of_one_by_one(width, monkeypatch):
    """Both where features are turned to their axes and where they are not, with more fits than go at a time."""
    monkeypatch.setattr(solving, "AT_ONCE", 3 * (NARROW + 40))
    rng = np.random.default_rng(6)
    x = rng.normal(size=(NARROW + 40, width))
    labels = (rng.random((8, len(x))) < 0.4).astype(float)
    w, b = logistic(x, labels, np.ones((1, len(x))), np.full(8, 20.0), np.zeros(8, int), 1e-12)
    for one, w_one, b_one in zip(labels, w, b, strict=True):
        alone = logistic(x, one[None], np.ones((1, len(x))), np.array([20.0]), np.zeros(1, int), 1e-12)
        np.testing.assert_allclose(w_one, alone[0][0], atol=1e-6)
        np.testing.assert_allclose(b_one, alone[1][0], atol=1e-6)


def test_a_fit_does_not_depend_on_what_is_fitted_beside_it():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(80, 10)), (rng.random((5, 80)) < 0.4).astype(float)
    weights = np.stack([np.arange(80) % 4 != k for k in range(4)]).astype(float)
    design, l2 = np.array([0, 1, 2, 3, 0]), np.array([1.0, 10, 0.1, 1, 5])
    w, b = logistic(x, labels, weights, l2, design, 1e-12)
    for k in range(5):
        alone = logistic(x, labels[k : k + 1], weights[design[k : k + 1]], l2[k : k + 1], np.zeros(1, int), 1e-12)
        np.testing.assert_allclose(w[k], alone[0][0], atol=1e-5)
        np.testing.assert_allclose(b[k], alone[1][0], atol=1e-5)


def test_held_out_rows_are_not_looked_at():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 8)), np.arange(60) % 2 * 1.0
    weights = np.stack([np.arange(60) < 40, np.arange(60) >= 0]).astype(float)
    first = logistic(x, y[None], weights[:1], np.ones(1), np.zeros(1, int), 1e-12)[0]
    x[40:] += 100
    np.testing.assert_allclose(
        logistic(x, y[None], weights[:1], np.ones(1), np.zeros(1, int), 1e-12)[0], first, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(70, 9), (40, 90)])
def test_an_offset_enters_with_weight_one(shape):
    """The gradient of the penalised likelihood, written out, is 0 at the solution."""
    rng = np.random.default_rng(2)
    x, y, offset = rng.normal(size=shape), np.arange(shape[0]) % 2 * 1.0, rng.normal(size=shape[0])
    w, b = logistic(x, y[None], np.ones((1, len(x))), np.array([3.0]), np.zeros(1, int), 1e-13, offset[None])
    miss = 1 / (1 + np.exp(-(x @ w[0] + b[0] + offset))) - y
    np.testing.assert_allclose(x.T @ miss + 3.0 * w[0] * x.var(0), 0, atol=1e-4)
    assert abs(miss.sum()) < 1e-4


def test_standardising_keeps_small_spreads_on_large_means():
    rng = np.random.default_rng(3)
    x = np.column_stack([6000 + 10 * rng.normal(size=5000), rng.normal(size=5000), np.full(5000, 6000.1)])
    x = x.astype(np.float32)
    found = Standardised.of(x, np.ones(5000))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(found.scale[:2], exact[:, :2].std(0), rtol=1e-5)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-6, atol=1e-6)
    assert found.varies.tolist() == [True, True, False] and not found.x[:, 2].any()
    np.testing.assert_allclose(found.x[:, :2].mean(0), 0, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_gram_matrix_is_whole(kind):
    x = np.random.default_rng(4).normal(size=(50, 7)).astype(kind)
    np.testing.assert_allclose(gram(x), x.T @ x, rtol=1e-4, atol=1e-5)


def test_the_preconditioner_is_exact_along_main_axes():
    rng = np.random.default_rng(5)
    wide = NARROW + 88
    q = np.linalg.qr(rng.normal(size=(wide, wide)))[0]
    size = np.r_[np.full(AXES // 2, 30.0), np.full(wide - AXES // 2, 1.0)]
    x = rng.normal(size=(1200, wide)) * size @ q.T
    steered = Preconditioner(x)
    matrix = 0.2 * x.T @ x + 5 * np.eye(wide)
    done = steered.divide(matrix, np.full((wide, 1), 0.2), np.full((wide, 1), 5.0))
    values = np.linalg.eigvals(done).real
    before = np.linalg.eigvalsh(matrix)
    assert values.max() / values.min() < 60 < 5000 < before.max() / before.min()
