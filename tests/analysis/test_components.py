"""Principal and contrastive components against scikit-learn, dense solvers and the package `contrastive`."""

import numpy as np
import pytest
from contrastive import CPCA
from handscope.analysis import PCA, ContrastivePCA, Scatter, contrastive_sweep
from handscope.analysis.eigen import leading_basis, leading_of_differences
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.exceptions import NotFittedError


def two_sets(n=300, m=260, width=20, seed=0):
    """Foreground and background that share their largest directions; the foreground has two more of its own."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(5, width)) * 3
    own = rng.normal(size=(2, width))
    background = rng.normal(size=(m, 5)) @ shared + rng.normal(size=(m, width))
    foreground = rng.normal(size=(n, 5)) @ shared + 2 * rng.normal(size=(n, 2)) @ own + rng.normal(size=(n, width))
    return foreground + 3, background - 2


def apart(first, second):
    """Sine of the largest angle between two subspaces, given by orthonormal rows."""
    return np.linalg.norm(first - first @ second.T @ second, 2)


def dense(foreground, background, alpha, k):
    difference = np.cov(foreground, rowvar=False) - alpha * np.cov(background, rowvar=False)
    values, vectors = np.linalg.eigh(difference)
    return values[::-1][:k], vectors[:, ::-1][:, :k].T


@pytest.mark.parametrize("alpha", [0.0, 0.7, 30.0])
def test_components_are_the_leading_eigenvectors(alpha):
    foreground, background = two_sets()
    fitted = ContrastivePCA(3, alpha).fit(foreground, background)
    values, vectors = dense(foreground, background, alpha, 3)
    np.testing.assert_allclose(fitted.contrast_, values, rtol=1e-8)
    assert apart(fitted.components_, vectors) < 1e-8
    np.testing.assert_allclose(fitted.components_ @ fitted.components_.T, np.eye(3), atol=1e-10)
    coordinates = fitted.transform(foreground)
    np.testing.assert_allclose(coordinates, (foreground - foreground.mean(0)) @ fitted.components_.T, atol=1e-9)
    scatters = [Scatter.of(part) for part in (foreground, background)]
    same = ContrastivePCA(3, alpha).fit_covariances(*(one.covariance for one in scatters), scatters[0].mean)
    np.testing.assert_allclose(same.transform(foreground), coordinates, atol=1e-6)


def test_fewer_rows_than_channels_give_what_the_whole_matrix_gives():
    foreground, background = two_sets(25, 20, 90)
    fitted = ContrastivePCA(2, 0.5).fit(foreground, background)
    values, vectors = dense(foreground, background, 0.5, 2)
    np.testing.assert_allclose(fitted.contrast_, values, rtol=1e-8)
    assert apart(fitted.components_, vectors) < 1e-8
    assert fitted.transform(foreground).mean() == pytest.approx(0, abs=1e-9)


def test_alpha_0_is_the_pca_of_the_foreground_and_a_larger_alpha_finds_what_is_its_own():
    foreground, background = two_sets()
    pca = SklearnPCA(2).fit(foreground)
    assert apart(ContrastivePCA(2, 0.0).fit(foreground, background).components_, pca.components_) < 1e-8
    rng = np.random.default_rng(0)
    _ = rng.normal(size=(5, 20))
    own = np.linalg.qr(rng.normal(size=(2, 20)).T)[0].T
    assert apart(ContrastivePCA(2, 5.0).fit(foreground, background).components_, own) < 0.5
    assert apart(pca.components_, own) > 0.9


def test_it_is_a_scikit_learn_estimator():
    foreground, background = two_sets()
    estimator = ContrastivePCA(n_components=2, alpha=3.0)
    assert clone(estimator).get_params() == {"n_components": 2, "alpha": 3.0}
    with pytest.raises(NotFittedError):
        estimator.transform(foreground)
    framed = estimator.set_output(transform="pandas").fit(foreground, background).transform(foreground)
    assert list(framed.columns) == ["contrastivepca0", "contrastivepca1"]
    assert np.allclose(clone(estimator).fit_transform(foreground, background), framed.to_numpy())
    assert estimator.n_features_in_ == 20


def test_pca_of_a_scatter_is_that_of_the_rows():
    rows = two_sets()[0]
    expected = SklearnPCA(4, svd_solver="full").fit(rows)
    found = PCA(4).fit_scatter(Scatter.of(rows))
    assert apart(found.components_, expected.components_) < 1e-6
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
    turned = np.sign((found.components_ * expected.components_).sum(1))
    np.testing.assert_allclose(found.transform(rows), expected.transform(rows) * turned, atol=1e-4)
    np.testing.assert_allclose(found.get_covariance(), expected.get_covariance(), atol=1e-4)


@pytest.mark.parametrize("power", [0.3, 1.5])
def test_a_wide_sweep_agrees_with_a_dense_solver(power):
    """Wide enough for the inverted solver: 410 channels, alphas over five decades."""
    rng = np.random.default_rng(1)
    width = 410
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0] * np.arange(1, width + 1) ** -power
    foreground, background = (rng.normal(size=(700, width)) @ turn.T @ turn for _ in range(2))
    a, b = np.cov(foreground, rowvar=False), np.cov(background, rowvar=False)
    alphas = np.concatenate([[0], np.logspace(-1, 4, 8)])
    values, vectors = leading_of_differences(a, b, alphas, 3)
    for alpha, found, rows in zip(alphas, values, vectors, strict=True):
        exact, expected = np.linalg.eigh(a - alpha * b)
        exact, expected = exact[::-1], expected[:, ::-1].T
        scale = np.abs(exact).max()
        np.testing.assert_allclose(found, exact[:3], atol=1e-10 * scale)
        if exact[1] - exact[2] > 1e-6 * scale:
            assert apart(rows[:2], expected[:2]) < 1e-6


@pytest.mark.parametrize("ratio", [1.0, 0.0])
def test_a_sweep_whose_largest_eigenvalue_is_linear_in_alpha_does_not_break(ratio):
    """Then the chord is no bound above but the eigenvalue itself, and the matrix to factorise all but singular."""
    rng = np.random.default_rng(2)
    a = np.cov(rng.normal(size=(600, 420)) * np.geomspace(1, 3, 420), rowvar=False)
    values, vectors = leading_of_differences(a, ratio * a, np.array([0, 0.2, 0.5, 0.9]), 3)
    exact = np.linalg.eigvalsh(a)[::-1][:3]
    for alpha, found, rows in zip([0, 0.2, 0.5, 0.9], values, vectors, strict=True):
        np.testing.assert_allclose(found, (1 - ratio * alpha) * exact, rtol=1e-8)
        np.testing.assert_allclose(rows @ a @ rows.T, np.diag(exact), atol=1e-7)


def test_many_leading_vectors_of_a_wide_matrix():
    rng = np.random.default_rng(3)
    matrix = np.cov(rng.normal(size=(900, 460)) * np.geomspace(1, 10, 460), rowvar=False)
    values, vectors = leading_basis(matrix, 150)
    exact, expected = np.linalg.eigh(matrix)
    np.testing.assert_allclose(values, exact[::-1][:150], rtol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(150), atol=1e-10)
    assert apart(vectors.T, expected[:, ::-1][:, :150].T) < 1e-8


@pytest.mark.parametrize(("standardise", "reduce"), [(False, None), (True, None), (False, 15), (True, 15)])
def test_a_sweep_finds_the_subspaces_of_the_package_contrastive(standardise, reduce):
    foreground, background = two_sets(400, 350, 30)
    sweep = contrastive_sweep(foreground, background, standardise=standardise, reduce=reduce)
    package = CPCA(standardize=standardise)
    package.fit(foreground, background, preprocess_with_pca_dim=reduce or 30)
    np.random.seed(0)  # its clustering draws from the global generator
    chosen, alphas, _, labels = package.find_spectral_alphas(40, 3, 4)
    np.testing.assert_allclose(sweep.alphas, alphas)
    np.testing.assert_allclose(sweep.affinity, package.affinity_matrix, atol=1e-6)
    np.testing.assert_allclose(sweep.chosen, np.concatenate([[0], chosen]))
    assert len(set(zip(sweep.labels.tolist(), labels.tolist(), strict=True))) == 4  # the same clusters
    for alpha in alphas:
        # Its second coordinate may be turned round, and the plane is the same: compare what the coordinates span.
        own = np.linalg.qr(sweep.transform(foreground, alpha))[0]
        theirs = np.linalg.qr(package.cpca_alpha(package.fg, alpha))[0]
        assert apart(own.T, theirs.T) < 1e-6


def test_a_sweep_of_scatters_is_that_of_the_rows_and_its_estimators_that_of_one_alpha():
    foreground, background = two_sets()
    sweep = contrastive_sweep(foreground, background)
    same = contrastive_sweep(Scatter.of(foreground), Scatter.of(background))
    np.testing.assert_array_equal(sweep.components, same.components)
    number = 17
    alpha = sweep.alphas[number]
    single = ContrastivePCA(2, alpha).fit(foreground, background)
    np.testing.assert_allclose(sweep.contrast[number], single.contrast_, rtol=1e-5)
    assert apart(sweep.components[number], single.components_) < 1e-4
    new = two_sets(seed=9)[0]
    np.testing.assert_allclose(sweep.transform(new, alpha), sweep.pca(alpha).transform(new), atol=1e-9)
    with pytest.raises(HandscopeError, match="nearest is"):
        sweep.transform(new, alpha * 1.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_affinities_are_those_of_subspaces(seed, k):
    foreground, background = two_sets(60, 50, 8, seed)
    sweep = contrastive_sweep(foreground, background, np.logspace(-1, 2, 6), k, 2)
    assert np.allclose(sweep.affinity, sweep.affinity.T) and np.all(np.diagonal(sweep.affinity) == 1)
    assert (sweep.affinity >= 0).all() and (sweep.affinity <= 1 + 1e-12).all()
    spans = [np.linalg.qr((foreground - foreground.mean(0)) @ space.T)[0] for space in sweep.components]
    expected = np.prod(np.linalg.svd(spans[0].T @ spans[-1])[1])
    assert sweep.affinity[0, -1] == pytest.approx(expected, abs=1e-5)
    assert (np.diff(sweep.contrast[:, 0]) <= 1e-9).all()  # more of the background taken away
    assert 0 in sweep.chosen


def test_bad_input_is_refused_in_words():
    foreground, background = two_sets()
    with pytest.raises(HandscopeError, match=r"\(300, 20\) and \(260, 19\)"):
        ContrastivePCA().fit(foreground, background[:, :19])
    with pytest.raises(HandscopeError, match="1 of background"):
        ContrastivePCA().fit(foreground, background[:1])
    with pytest.raises(HandscopeError, match="1 to 20 components"):
        ContrastivePCA(21).fit(foreground, background)
    with pytest.raises(HandscopeError, match="fitted to width 20"):
        ContrastivePCA().fit(foreground, background).transform(foreground[:, 1:])
    with pytest.raises(HandscopeError, match="have 20 and 19"):
        contrastive_sweep(foreground, background[:, :19])
    with pytest.raises(HandscopeError, match="at least two rows in the background"):
        contrastive_sweep(foreground, background[:1])
    with pytest.raises(HandscopeError, match="alphas from -1"):
        contrastive_sweep(foreground, background, [-1, 1])
    with pytest.raises(HandscopeError, match="21 were asked"):
        PCA(21).fit_scatter(Scatter.of(foreground))
    background[3, 3] = np.inf
    with pytest.raises(HandscopeError, match="1 of 260 rows of the background"):
        ContrastivePCA().fit(foreground, background)
