"""The diversity of pictures, and what a picture looks like."""

import numpy as np
import pandas as pd
import pytest
from handscope.anatomy.read.embedding import landmark_features
from handscope.errors import HandscopeError
from handscope.evaluation.quality import SHIFTS, appearance, diversity, shifts

RANDOM = np.random.default_rng(0)


def test_diversity_is_the_mean_distance_within_prompts() -> None:
    x = RANDOM.normal(size=(7, 3))
    groups = np.array([0, 0, 0, 1, 1, 2, 2])
    expected = [
        np.mean([np.linalg.norm(x[i] - x[j]) for i in some for j in some if i != j])
        for some in ([0, 1, 2], [3, 4], [5, 6])
    ]
    assert diversity(x, groups) == pytest.approx(np.mean(expected))
    with pytest.raises(HandscopeError, match="two pictures"):
        diversity(x, np.arange(7))


def bar(angle: float, brightness: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A bar through the middle that leans to the right by an angle in degrees, on black."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    lean = np.radians(angle)
    along, across = x * np.sin(lean) - y * np.cos(lean), x * np.cos(lean) + y * np.sin(lean)
    mask = (np.abs(along) < 24) & (np.abs(across) < 5)
    return np.where(mask[..., None], brightness, 0).astype(np.uint8).repeat(3, 2), mask


@pytest.mark.parametrize("angle", [-60, -20, 0, 35, 80])
def test_angle_and_brightness_are_read_back(angle: float) -> None:
    picture, mask = bar(angle, 128)
    row = appearance(picture[None], [mask]).iloc[0]
    assert row["angle"] == pytest.approx(angle, abs=1.5)
    assert row["brightness"] == pytest.approx(128 / 255, abs=1e-6) and row["contrast"] == pytest.approx(0, abs=1e-6)
    assert row["area"] == pytest.approx(mask.mean()) and row["centre_x"] == pytest.approx(0.5, abs=0.02)


def test_shifts_are_in_standard_deviations_and_axes_turn_the_short_way() -> None:
    before = pd.DataFrame(RANDOM.normal(size=(50, len(SHIFTS))), columns=list(SHIFTS))
    before["angle"] = RANDOM.normal(85, 3, 50)
    after = before.copy()
    after["brightness"] += 2.0
    after["angle"] = after["angle"] + 10 - 180
    found = shifts(before, after)
    assert found["brightness"] == pytest.approx(2 / before["brightness"].std())
    assert found["angle"] == pytest.approx(10 / before["angle"].std())
    assert found["area"] == 0
    empty = appearance(np.zeros((1, 8, 8, 3), np.uint8), [np.zeros((8, 8), bool)])
    assert empty.isna().all(axis=None)


def test_features_are_of_the_hand_network() -> None:
    pictures = RANDOM.integers(0, 255, (3, 48, 48, 3)).astype(np.uint8)
    found = landmark_features(pictures, batch_size=2)
    assert found.shape == (3, 1152) and np.isfinite(found).all()
    assert np.abs(found[:1] - landmark_features(pictures[:1])).max() < 1e-3 * np.abs(found).max()
