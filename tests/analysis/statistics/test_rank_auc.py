"""AUCs of many scores at once, against the slow ones; and verdicts on them."""

import numpy as np
import pytest
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.rank_auc import Verdicts, auc_table


@pytest.mark.parametrize("strata", [False, True])
def test_the_table_has_the_aucs_of_the_slow_version(strata: bool):
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, (4, 40)).astype(float)  # with ties
    labels = random.integers(0, 2, (3, 40))
    labels[2] = 1
    stratum = np.repeat(np.arange(8), 5) if strata else None
    slow = [[auc(one, y, stratum) for y in labels] for one in scores]
    np.testing.assert_allclose(auc_table(scores, labels, stratum), slow)


def made(rows: int, seed: int, shift: float = 0.0):
    random = np.random.default_rng(seed)
    groups, y = np.repeat(np.arange(12), 8).astype(object), np.tile([0, 1], 48)
    scores = random.normal(size=(rows, 96))
    scores[0] -= shift * y
    return Verdicts.of(y, groups, permutations=199, folds=4), scores


def test_a_planted_score_is_called_in_its_direction_and_no_other():
    verdicts, scores = made(30, 1, 2.0)
    table = verdicts.table(scores, directed=False)
    assert table["direction"][0] == -1 and table["auc"][0] > 0.85 and table["within_auc"][0] > 0.85
    for name in ("p_family", "within_p_family"):
        assert list(np.flatnonzero(table[name] <= 0.05)) == [0]
    # Where larger must mean bad, the same score tells nothing.
    assert verdicts.table(scores)["auc"][0] < 0.15


def test_directions_of_other_folds_leave_noise_at_chance():
    """A direction that was chosen on what it is judged by would have an AUC above one half each time."""
    found = [made(20, seed)[0].table(made(20, seed)[1], directed=False) for seed in range(4)]
    values = np.concatenate([table["auc"] for table in found])
    assert abs(values.mean() - 0.5) < 0.03
    called = np.concatenate([table["p"] <= 0.05 for table in found])
    assert called.mean() <= 0.11  # of 80


def test_held_out_directions_are_those_that_the_other_folds_show():
    verdicts, scores = made(3, 5, 0.4)
    table, y, fold = verdicts.table(scores, directed=False), verdicts.y, verdicts.fold
    for row, one in zip(table.itertuples(), scores):
        turned = one.copy()
        for number in range(4):
            sign = 1 if auc(one[fold != number], y[fold != number]) >= 0.5 else -1
            turned[fold == number] *= sign
        assert row.auc == pytest.approx(auc(turned, y, fold))
