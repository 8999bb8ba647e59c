"""Directions, planes and components against definitions and scikit-learn."""

import numpy as np
import pytest
from handscope.analysis import PCA, ContrastivePCA, Moments, auc, difference_of_means, massive_channels, plane
from handscope.analysis.directions import DENSE, cosines, half_directions, held_out_projections, unit
from handscope.analysis.scatter import Scatter
from handscope.errors import HandscopeError
from sklearn.base import clone


@pytest.fixture
def classes():
    rng = np.random.default_rng(0)
    scale = np.array([1, 5, 2, 1, 1.0])
    return rng.normal(size=(60, 5)) * scale + [2, 0, 0, 0, 0], rng.normal(size=(40, 5)) * scale


def test_difference_points_from_bad_to_good(classes):
    np.testing.assert_allclose(difference_of_means(*classes), classes[0].mean(0) - classes[1].mean(0))
    with pytest.raises(HandscopeError, match="0 bad"):
        difference_of_means(classes[0], classes[1][:0])
    with pytest.raises(HandscopeError, match="good has 5, bad has 4"):
        difference_of_means(classes[0], classes[1][:, :4])


def test_moments_and_scatters_have_the_direction_of_their_rows(classes):
    expected = difference_of_means(*classes)
    np.testing.assert_allclose(difference_of_means(*map(Moments.of, classes)), expected)
    np.testing.assert_allclose(difference_of_means(*map(Scatter.of, classes)), expected)
    assert np.linalg.norm(unit(expected)) == pytest.approx(1)
    assert unit(np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("rows", [40, 3])
def test_plane_takes_the_largest_variance_beside_the_direction(classes, rows):
    good, bad = (part[:rows] for part in classes)
    found = plane(good, bad)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(2), atol=1e-10)
    x = np.concatenate([good, bad])
    x = x - x.mean(0)
    left = x - np.outer(x @ found.axes[0], found.axes[0])
    assert np.square(left @ found.axes[1]).sum() == pytest.approx(np.linalg.svd(left)[1][0] ** 2)
    assert found.transform(good)[:, 0].mean() > found.transform(bad)[:, 0].mean()


@pytest.mark.parametrize("width", [6, DENSE + 50])
def test_plane_of_scatters_is_the_plane_of_their_rows(width):
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(width, width)) * np.linspace(3, 0.2, width)[:, None]
    good, bad = rng.normal(size=(width - 2, width)) @ mixing + 1, rng.normal(size=(3, width)) @ mixing
    tall = np.concatenate([good, bad])
    expected = np.linalg.svd(
        (lambda x, d: x - np.outer(x @ d, d))(tall - tall.mean(0), unit(good.mean(0) - bad.mean(0)))
    )
    for found in (plane(good, bad), plane(Scatter.of(good), Scatter.of(bad)), plane(good, Scatter.of(bad))):
        np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(2), atol=1e-9)
        np.testing.assert_allclose(found.axes[0], unit(good.mean(0) - bad.mean(0)), atol=1e-9)
        assert abs(found.axes[1] @ expected[2][0]) == pytest.approx(1, abs=1e-8)
        np.testing.assert_allclose(found.mean, tall.mean(0), atol=1e-9)
    few = plane(good[: width // 3], bad)
    wide = plane(Scatter.of(good[: width // 3]), Scatter.of(bad))
    np.testing.assert_allclose(few.axes, wide.axes, atol=1e-6)


def test_held_out_projections_are_of_directions_fitted_without_the_fold():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(24, 7)) + 40, np.stack([rng.permutation(np.arange(24) % 2) for _ in range(3)])
    fold = np.arange(24) // 4 % 3
    found = held_out_projections(x, labels, fold)
    for y, scores in zip(labels, found):
        for one in range(3):
            train, test = fold != one, fold == one
            direction = difference_of_means(x[train & (y == 0)], x[train & (y == 1)])
            np.testing.assert_allclose(scores[test], -(x[test] - x.mean(0)) @ direction, atol=1e-9)


def test_halves_of_noise_do_not_agree_and_those_of_a_signal_do():
    rng = np.random.default_rng(0)
    y, groups = np.arange(200) % 2, np.arange(200) // 4
    noise = rng.normal(size=(200, 300))
    signal = noise + np.outer(y, np.r_[np.full(4, 2.5), np.zeros(296)])
    halves = [half_directions(x, y, groups, splits=5) for x in (noise, signal)]
    whole = [unit(difference_of_means(x[y == 0], x[y == 1])) for x in (noise, signal)]
    np.testing.assert_allclose(whole[0] @ halves[0][0].mean(0), 0.7, atol=0.1)
    cosine, split = cosines(whole, halves)
    assert split[0, 0] < 0.15
    # The difference is 5 long, and noise adds 300 * (1 + 1) / 50 to its square in each half.
    assert split[1, 1] == pytest.approx(25 / (25 + 12), abs=0.1)
    np.testing.assert_allclose(split, split.T)
    slow = np.mean([a[0] @ b[1] / 2 + b[0] @ a[1] / 2 for a, b in zip(*halves)])
    assert split[0, 1] == pytest.approx(slow)
    assert cosine[0, 1] == pytest.approx(whole[0] @ whole[1])


def test_a_half_with_one_class_is_not_a_number_and_is_left_out_of_cosines():
    x, y, groups = np.random.default_rng(0).normal(size=(6, 3)), np.array([1, 0, 0, 0, 0, 0]), np.arange(6) // 2
    halves = half_directions(x, y, groups, splits=3)
    assert np.isnan(halves).any(-1).sum() == 3
    assert np.isnan(cosines([unit(x[0])], [halves])[1]).all()


def test_in_sample_noise_separates_and_held_out_noise_does_not():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(2, 100, 400))
    y = np.repeat([0, 1], 50)
    direction = difference_of_means(x[y == 1], x[y == 0])
    assert auc(x @ direction, y) > 0.95
    assert 0.35 < auc(new @ direction, y) < 0.65


def test_massive_channels_are_named():
    x = np.random.default_rng(0).normal(size=(50, 30))
    assert massive_channels(x).tolist() == []
    x[:, 7] += 400
    x[:, 21] *= 40
    assert massive_channels(x).tolist() == [7, 21]


def test_contrastive_pca_at_alpha_zero_is_pca(classes):
    foreground, background = classes
    ours = ContrastivePCA(2, alpha=0).fit(foreground, background)
    theirs = PCA(2).fit(foreground)
    np.testing.assert_allclose(np.abs((ours.components_ * theirs.components_).sum(1)), 1)
    np.testing.assert_allclose(ours.contrast_, theirs.explained_variance_)
    assert (ours.components_[np.arange(2), np.abs(ours.components_).argmax(1)] > 0).all()


def test_contrastive_pca_finds_what_the_background_hides():
    rng = np.random.default_rng(0)
    background = rng.normal(size=(400, 6)) * [10, 1, 1, 1, 1, 1]
    foreground = rng.normal(size=(400, 6)) * [10, 1, 3, 1, 1, 1]
    estimator = clone(ContrastivePCA(1, alpha=1.5)).fit(foreground, background)
    assert abs(estimator.components_[0, 2]) > 0.95
    assert abs(PCA(1).fit(foreground).components_[0, 0]) > 0.95
    assert estimator.transform(rng.normal(size=(7, 6))).shape == (7, 1)
    with pytest.raises(HandscopeError, match="of one width"):
        estimator.fit(foreground, background[:, :5])
