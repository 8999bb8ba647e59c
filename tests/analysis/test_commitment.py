"""When a shape is decided: planted answers, and the literal definition."""

import numpy as np
import pytest
from handscope.analysis.commitment import along_bones, commitment, distances_between, hausdorff, literal
from handscope.errors import HandscopeError
from hypothesis import given
from hypothesis import strategies as st

RANDOM = np.random.default_rng(0)
SHAPE = RANDOM.uniform(0, 60, (30, 2))


def shapes_that_settle_at(index: int, steps: int) -> list[np.ndarray]:
    """Far from each other up to `index`, and from there on within 2 pixels."""
    return [
        SHAPE + (np.array([0.0, 50.0 * (index - i)]) if i < index else RANDOM.uniform(-1, 1, 2)) for i in range(steps)
    ]


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_planted_steps_are_recovered(steps: int) -> None:
    for index in range(steps):
        found = commitment(distances_between(shapes_that_settle_at(index, steps)), 5.0)
        if index == steps - 1:
            assert (found.index, found.reason) == (None, "changes to the end")
        else:
            assert (found.index, found.at_latest, found.reason) == (index, index, "")
            assert found.from_the_start == (index == 0)


def test_a_shape_that_comes_back_is_decided_only_when_it_stays() -> None:
    away = [SHAPE, SHAPE, SHAPE + 40, SHAPE, SHAPE]
    assert commitment(distances_between(away), 5.0).index == 3


def test_slow_drift_is_not_decided_however_small_its_steps() -> None:
    drifting = [SHAPE + [0, 3.0 * i] for i in range(10)]
    found = commitment(distances_between(drifting), 5.0)
    assert found.index == 8
    near = commitment(distances_between(drifting), 28.0)
    assert near.index == 0


def test_missing_shapes_leave_a_range() -> None:
    shapes = shapes_that_settle_at(2, 8)
    shapes[4] = None
    found = commitment(distances_between(shapes), 5.0)
    assert (found.index, found.at_latest, found.found) == (2, 5, 7)
    shapes[2] = None
    assert commitment(distances_between(shapes), 5.0).index == 3
    shapes[7] = None
    assert commitment(distances_between(shapes), 5.0).reason == "no shape at the end"
    assert commitment(np.full((4, 4), np.nan), 5.0).found == 0


def slow(distances: np.ndarray, tolerance: float) -> int | None:
    """The definition, read aloud."""
    steps = len(distances)
    for i in range(steps - 1):
        if np.isnan(distances[i, i]):
            continue
        if all(distances[i, j] < tolerance for j in range(i + 1, steps) if not np.isnan(distances[j, j])):
            return i
    return None


@given(st.integers(1, 12), st.integers(0, 10_000), st.floats(0.5, 12))
def test_it_is_what_the_definition_says(steps: int, seed: int, tolerance: float) -> None:
    random = np.random.default_rng(seed)
    shapes = [None if random.random() < 0.2 else random.normal(0, 3, (4, 2)) for _ in range(steps - 1)]
    distances = distances_between([*shapes, random.normal(0, 3, (4, 2))])
    found = commitment(distances, tolerance)
    assert found.index == (slow(distances, tolerance) if steps > 1 else 0)
    if found.index is not None and found.at_latest is not None:
        assert found.at_latest >= found.index
    if found.index is not None:
        wider = commitment(distances, tolerance * 2)
        assert wider.index is not None and wider.index <= found.index


def test_the_literal_definition_picks_the_other_end() -> None:
    timesteps = np.linspace(1000, 50, 20)
    distances = distances_between(shapes_that_settle_at(7, 20))
    assert commitment(distances, 5.0).index == 7
    assert literal(distances, timesteps, 5.0) == 18  # the last step that has another within 50 timesteps after it
    assert literal(distances, timesteps, 5.0, reach=49.0) is None


def test_hausdorff_is_the_furthest_from_the_nearest() -> None:
    one, other = RANDOM.normal(size=(40, 2)), RANDOM.normal(size=(25, 2))
    between = np.linalg.norm(one[:, None] - other, axis=-1)
    furthest = max(between.min(0).max(), between.min(1).max())
    assert hausdorff(one, other) == hausdorff(other, one) == pytest.approx(furthest)
    assert hausdorff(one, one + [3, 4]) <= 5.0 + 1e-9


def test_bones_are_lines() -> None:
    line = along_bones([(0, 0), (10, 0), (10, 4)], [(0, 1), (1, 2)])
    assert np.abs(np.diff(line, axis=0)).sum(1).max() <= 1 + 1e-9
    longer = along_bones([(0, 0), (5, 0), (10, 0)], [(0, 1), (1, 2)])
    whole = along_bones([(0, 0), (2, 0), (10, 0)], [(0, 1), (1, 2)])
    assert hausdorff(longer, whole) < 1  # one line, whose middle joint moved along it


@pytest.mark.parametrize(("distances", "tolerance"), [(np.zeros((2, 3)), 5.0), (np.zeros((2, 2)), 0.0)])
def test_what_makes_no_sense_is_refused(distances: np.ndarray, tolerance: float) -> None:
    with pytest.raises(HandscopeError):
        commitment(distances, tolerance)
