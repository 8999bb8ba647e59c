"""CKA, Procrustes and ridge maps against closed forms, slow obvious versions, scipy and scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from handscope.comparison.linear_maps import PENALTIES, RidgeMap, Side
from handscope.comparison.similarity import AXES, Dependence, Stream, nuclear, procrustes
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def cka_of(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> float:
    estimate = Dependence(np.arange(len(x)) if groups is None else groups)
    return float(estimate.cka(*(estimate.parts((one @ one.T)[None]) for one in (x, y)))[0, 0])


def hsic(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    estimate = Dependence(groups)
    return float(estimate.parts(x @ x.T) * estimate.weights @ estimate.parts(y @ y.T))


def slow_hsic(k: np.ndarray, m: np.ndarray, groups: np.ndarray) -> float:
    """The means over two, three and four samples of different prompts of the kernel of Song et al. (2012)."""
    fours = [some for some in permutations(range(len(k)), 4) if len(set(groups[list(some)])) == 4]
    triples = [some for some in permutations(range(len(k)), 3) if len(set(groups[list(some)])) == 3]
    twos = [(i, j) for i, j in permutations(range(len(k)), 2) if groups[i] != groups[j]]
    pair = np.mean([k[i, j] * m[i, j] for i, j in twos])
    return float(pair + np.mean([k[i, j] * m[q, r] for i, j, q, r in fours])
                 - 2 * np.mean([k[i, j] * m[i, q] for i, j, q in triples]))


def test_the_estimate_is_the_mean_over_fours_of_different_prompts(rng) -> None:
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    groups = np.array([0, 0, 1, 1, 1, 2, 3, 4, 4])
    assert hsic(x, y, groups) == pytest.approx(slow_hsic(x @ x.T, y @ y.T, groups))


def test_with_a_sample_a_prompt_it_is_that_of_song(rng) -> None:
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    n = len(x)
    fast = hsic(x, y, np.arange(8))
    assert fast == pytest.approx(slow_hsic(x @ x.T, y @ y.T, np.arange(8)))
    # And as Song et al. write it, equation 5.
    k, m = ((one @ one.T) * (1 - np.eye(n)) for one in (x, y))
    ones = np.ones(n)
    written = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    written = (written - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))
    assert fast == pytest.approx(written)


def test_cka_sees_no_shift_rotation_or_size(rng) -> None:
    x = rng.normal(size=(30, 12))
    turned = 3.0 * x @ ortho_group.rvs(12, random_state=0) + rng.normal(size=12)
    assert cka_of(x, turned) == pytest.approx(1)
    skewed = x @ np.diag(np.geomspace(1, 30, 12))
    assert cka_of(x, skewed) < 0.9
    assert np.isnan(cka_of(x, np.zeros((30, 2))))


def test_cka_of_independent_streams_is_0_in_the_mean_however_wide_they_are(rng) -> None:
    values, plain = [], []
    for _ in range(200):
        x, y = rng.normal(size=(20, 200)), rng.normal(size=(20, 200))
        values.append(cka_of(x, y))
        k, m = ((one - one.mean(0)) @ (one - one.mean(0)).T for one in (x, y))
        plain.append((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert np.mean(plain) > 0.8  # the estimate with bias calls noise alike


def test_cka_of_two_gaussians_is_that_of_their_covariances(rng) -> None:
    """y = x A + noise: |Cov(x, y)|² / (|Cov x| |Cov y|) of the populations."""
    a = rng.normal(size=(3, 2))
    found = []
    for _ in range(20):
        x = rng.normal(size=(800, 3)) * [1.0, 2.0, 0.5]
        y = x @ a + rng.normal(size=(800, 2))
        found.append(cka_of(x, y))
    s = np.diag([1.0, 4.0, 0.25])
    truth = np.square(s @ a).sum() / (np.linalg.norm(s) * np.linalg.norm(a.T @ s @ a + np.eye(2)))
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(20))


def test_what_prompts_make_alike_in_independent_streams_is_not_called_alike(rng) -> None:
    groups, values, taken_apart = np.repeat(np.arange(10), 6), [], []
    for _ in range(100):
        x, y = (rng.normal(size=(10, 5))[groups] + rng.normal(size=(60, 5)) for _ in range(2))
        values.append(cka_of(x, y, groups))
        taken_apart.append(cka_of(x, y))
    assert abs(np.mean(values)) < 3 * np.std(values) / 10
    assert np.mean(taken_apart) > 0.03  # as if samples of a prompt were independent


def test_a_stream_is_compared_about_its_mean_at_each_position(rng) -> None:
    x = rng.normal(size=(10, 4, 6)).astype(np.float32)
    moved = x + 100 * rng.normal(size=(4, 6)).astype(np.float32)
    np.testing.assert_allclose(Stream.of(x.copy()).gram, Stream.of(moved.copy()).gram, rtol=1e-2, atol=0.05)
    flat = (x - x.mean(0)).reshape(10, -1)
    np.testing.assert_allclose(Stream.of(x.copy()).gram, flat @ flat.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(Stream.of(x.copy()).axes[0], x - x.mean(0), rtol=1e-5, atol=1e-5)
    assert Stream.of(x.copy()).axes[1] == 1.0


def test_massive_channels_are_left_out(rng) -> None:
    x = rng.normal(size=(10, 2, 6)).astype(np.float32)
    x[..., 3] *= 1000
    stream = Stream.of(x)
    assert stream.massive.tolist() == [3] and not stream.x[..., 3].any()


def test_a_stream_wider_than_its_tokens_keeps_all_of_its_variance(rng) -> None:
    x = rng.normal(size=(12, 2, 400)).astype(np.float32)
    turned, kept = Stream.of(x).axes
    assert turned.shape == (12, 2, 24) and kept == pytest.approx(1)
    flat = (x - x.mean(0)).reshape(24, -1)
    np.testing.assert_allclose(turned.reshape(24, -1) @ turned.reshape(24, -1).T, flat @ flat.T, atol=1e-2)


def test_a_stream_wider_than_the_axes_says_how_much_they_keep(rng) -> None:
    x = (rng.normal(size=(300, 1, AXES + 44)) * np.geomspace(3, 1, AXES + 44)).astype(np.float32)
    turned, kept = Stream.of(x).axes
    assert turned.shape == (300, 1, AXES) and 0.9 < kept < 1


def test_procrustes_is_that_of_the_best_rotation(rng) -> None:
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 5))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    turn, size = orthogonal_procrustes(x, y)
    assert float(nuclear(x.T @ y)) == pytest.approx(size)
    assert float(procrustes(x.T @ y, 1.0, 1.0)) == pytest.approx(np.square(x @ turn - y).sum())
    assert float(procrustes(x.T @ (2 * x @ turn), 1.0, 4.0)) == pytest.approx(0, abs=1e-6)
    wider = np.hstack([y, np.zeros((40, 3))])
    assert float(procrustes(x.T @ wider, 1.0, 1.0)) == pytest.approx(float(procrustes(x.T @ y, 1.0, 1.0)))


def planted(rng: np.random.Generator, noise: float) -> tuple[Side, Side, np.ndarray]:
    fold = np.repeat(np.arange(5), 8)
    x = rng.normal(size=(40, 3, 6)) * np.geomspace(2, 0.3, 6)
    y = x @ rng.normal(size=(6, 4)) + noise * rng.normal(size=(40, 3, 4))
    return *(Side((one - one.mean(0)).astype(np.float32), fold) for one in (x, y)), fold


def slow_map(x: Side, y: Side, pairing: np.ndarray) -> tuple[float, np.ndarray]:
    """Each fold from scikit-learn's ridge regression to the others, with the penalty that suits the fold before."""
    paired, fold = y.x[pairing].astype(float), x.fold

    def error(train: np.ndarray, test: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
        means = x.x[train].mean(0), paired[train].mean(0)
        from_, to = (x.x - means[0]).reshape(len(fold), -1, 6), paired - means[1]
        rows = from_[train].reshape(-1, 6)
        alpha = penalty * np.trace(rows.T @ rows) / 6
        ridge = Ridge(alpha, fit_intercept=False).fit(rows, to[train].reshape(-1, to.shape[-1]))
        left = to[test] - ridge.predict(from_[test].reshape(-1, 6)).reshape(to[test].shape)
        return np.square(left).sum((1, 2)), float(np.square(to[test]).sum())

    left, total = np.empty(len(fold)), 0.0
    for one in range(5):
        before = (one - 1) % 5
        errors = [error((fold != one) & (fold != before), fold == before, p)[0].sum() for p in PENALTIES]
        left[fold == one], whole = error(fold != one, fold == one, PENALTIES[int(np.argmin(errors))])
        total += whole
    return 1 - left.sum() / total, left


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_a_ridge_map_is_that_of_scikit_learn(rng, noise: float) -> None:
    x, y, fold = planted(rng, noise)
    for pairing in (np.arange(40), np.concatenate([rng.permutation(np.flatnonzero(fold == k)) for k in range(5)])):
        share, left = slow_map(x, y, pairing)
        fitted = RidgeMap(x, y, x.crossed(y, pairing))
        assert fitted.explained == pytest.approx(share, abs=1e-4)
        if (pairing == np.arange(40)).all():
            np.testing.assert_allclose(fitted.of_samples()[0], left, rtol=2e-3)
            assert 1 - fitted.of_samples()[0].sum() / fitted.of_samples()[1].sum() == pytest.approx(share, abs=1e-4)


def test_a_map_of_what_is_independent_explains_nothing_and_of_what_is_not_nearly_all(rng) -> None:
    x, y, _ = planted(rng, 0.01)
    assert RidgeMap(x, y, x.crossed(y)).explained > 0.99
    other = Side(rng.normal(size=(40, 3, 4)).astype(np.float32), x.fold)
    assert RidgeMap(x, other, x.crossed(other)).explained < 0.05
