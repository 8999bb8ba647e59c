"""Directions, planes and components against definitions and scikit-learn."""

import numpy as np
import pytest
from handscope.analysis import PCA, ContrastivePCA, auc, difference_of_means, massive_channels, plane
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
