"""The AUC over its standard error: against a slow version, and where only the spread of two classes differs."""

import numpy as np
from handscope.analysis import auc, grouped_folds, p_value, permuted_labels
from handscope.analysis.directions import held_out_projections
from handscope.analysis.statistics.studentised import studentised_auc
from hypothesis import given, settings
from hypothesis import strategies as st


def slowly(scores: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """Placements counted pair by pair."""
    above = square = 0.0
    for one in np.unique(fold):
        bad, good = scores[(fold == one) & (y == 1)], scores[(fold == one) & (y == 0)]
        if not len(bad) or not len(good):
            continue
        won = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
        n = len(bad) * len(good)
        above += n * (won.mean() - 0.5)
        for places in (won.mean(1), won.mean(0)):
            square += n**2 * (places.var(ddof=1) / len(places) if len(places) > 1 else 0)
    return above / np.sqrt(square) if square > 0 else 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_it_is_the_standard_error_of_placements(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, fold = rng.integers(0, 6, (3, 30)), rng.integers(0, 3, 30)
    labels = rng.integers(0, 2, (3, 30))
    expected = [slowly(s, y, fold) for s, y in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(studentised_auc(scores, labels, fold), expected, atol=1e-9)
    np.testing.assert_allclose(studentised_auc(scores, 1 - labels, fold), -np.array(expected), atol=1e-9)


def test_classes_that_differ_in_spread_alone_are_not_called_more_often() -> None:
    """Scores that are given, 20 bad of 200 with five times the spread: the AUC is 1/2, and varies more."""
    called = np.zeros(2)
    for seed in range(120):
        rng = np.random.default_rng(seed)
        y = (np.arange(200) < 20).astype(float)
        scores, one = rng.normal(size=200) * np.where(y, 5, 1), np.zeros(200)
        labels = np.concatenate([y[None], permuted_labels(y, np.arange(200), 99, seed)])
        for place, values in enumerate((auc(scores, labels), studentised_auc(scores, labels, one))):
            called[place] += p_value(values[0], values[1:]) <= 0.05
    assert called[0] > 12 and called[1] <= 12


def test_a_direction_is_found_as_often() -> None:
    rng = np.random.default_rng(1)
    y = (np.arange(120) % 3 == 0).astype(float)
    x = rng.normal(size=(120, 8)) + 0.9 * y[:, None] * (np.arange(8) < 2)
    groups = np.arange(120)
    fold = grouped_folds(groups)
    labels = np.concatenate([y[None], permuted_labels(y, groups, 199, 0, fold)])
    values = studentised_auc(held_out_projections(x, labels, fold), labels, fold)
    assert p_value(values[0], values[1:]) <= 0.01
