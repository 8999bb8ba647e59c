"""Transfer of directions between cells, against a loop over cells, folds and labellings."""

import numpy as np
import pytest
from handscope.analysis import auc, difference_of_means, grouped_folds, permuted_labels
from handscope.analysis.directions import unit
from handscope.analysis.transfer import transfer
from handscope.errors import HandscopeError
from handscope.extract.address import Plan

CELLS = Plan(["double.0", "single.1"], [4, 2], of=4).cells


def samples(seed=0, n=60, width=20, strength=0.0, turned=False):
    """Vectors of four cells: noise of their own and a difference of `strength`, along one channel or each its own."""
    rng = np.random.default_rng(seed)
    groups, y = np.arange(n) // 3, rng.permutation(np.arange(n) % 2)
    x = {cell: rng.normal(size=(n, width)) for cell in CELLS}
    for k, cell in enumerate(CELLS):
        x[cell][:, k if turned else 0] += strength * y
    return x, y, groups, grouped_folds(groups, 5, seed)


def test_it_is_the_loop_over_cells_and_folds():
    x, y, groups, fold = samples(strength=1.0)
    found = transfer(x, y, groups, fold, permutations=9, seed=3)

    def slow(labels):
        table, shared = np.empty((4, 4)), np.empty((4, len(labels)))
        scores = np.empty((4, 4, len(labels)))
        for one in range(5):
            train, test = fold != one, fold == one
            directions = [
                unit(difference_of_means(v[train & (labels == 0)], v[train & (labels == 1)])) for v in x.values()
            ]
            for b, v in enumerate(x.values()):
                shared[b, test] = -v[test] @ np.mean(directions, axis=0) / np.sqrt(np.square(v - v.mean(0)).mean())
                for a, direction in enumerate(directions):
                    scores[a, b, test] = -v[test] @ direction
        for a in range(4):
            table[a] = auc(scores[a], labels, fold)
        return table, auc(shared, labels, fold)

    table, shared = slow(y)
    np.testing.assert_allclose(found.auc, table)
    np.testing.assert_allclose(found.shared.auc, shared)
    nulls = [slow(labels) for labels in permuted_labels(y, groups, 9, 3, fold)]
    np.testing.assert_allclose(found.null_mean, np.mean([table for table, _ in nulls], axis=0))
    np.testing.assert_allclose(found.p, (1 + sum(null >= table for null, _ in nulls)) / 10)
    np.testing.assert_allclose(found.shared.null, [shared.mean() for _, shared in nulls])


def test_one_direction_in_all_cells_is_shared_and_turned_ones_are_not():
    x, y, groups, fold = samples(n=120, strength=2.0)
    same = transfer(x, y, groups, fold, permutations=99)
    assert (same.auc > 0.8).all() and (same.p == 0.01).all()
    assert same.shared.mean > np.diag(same.auc).mean() and same.shared.mean_p == 0.01
    assert same.shared.direction[0] < -0.9
    assert same.shared.interval[0] < same.shared.mean < same.shared.interval[1]
    x, y, groups, fold = samples(n=120, strength=2.0, turned=True)
    turned = transfer(x, y, groups, fold, permutations=99)
    assert (np.diag(turned.auc) > 0.8).all()
    assert turned.auc[~np.eye(4, dtype=bool)].mean() < 0.62
    assert turned.shared.mean < np.diag(turned.auc).mean() - 0.05


def test_pure_noise_is_not_separated():
    found = [transfer(*samples(seed), permutations=39, bootstraps=100, seed=seed) for seed in range(60)]
    p = np.array([one.shared.mean_p for one in found])
    # 60 draws, 5% of them by chance: 8 or more have a probability of 1%.
    assert (p <= 0.05).sum() < 8
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.03)
    covered = np.mean([one.shared.interval[0] <= 0.5 <= one.shared.interval[1] for one in found])
    assert covered > 0.85


def test_neither_scale_nor_offset_of_a_cell_matters():
    x, y, groups, fold = samples(strength=1.0)
    scaled = {cell: v * 1000.0**k + 50 * k for k, (cell, v) in enumerate(x.items())}
    one, other = transfer(x, y, groups, fold, permutations=5), transfer(scaled, y, groups, fold, permutations=5)
    np.testing.assert_allclose(one.auc, other.auc, atol=2e-3)
    np.testing.assert_allclose(one.shared.direction, other.shared.direction, atol=1e-4)


def test_the_table_names_both_cells_of_a_pair():
    table = transfer(*samples(strength=1.0), permutations=19).table()
    assert len(table) == 16
    row = table.iloc[6]
    assert (row["block_a"], row["step_a"], row["block_b"], row["step_b"]) == ("double.0", 2, "single.1", 4)
    assert (table["q"] >= table["p"]).all()


def test_a_cell_that_never_moves_is_at_chance():
    x, y, groups, fold = samples()
    x[CELLS[1]] = np.full_like(x[CELLS[1]], 3.0)
    found = transfer(x, y, groups, fold, permutations=5)
    np.testing.assert_array_equal(found.auc[1], 0.5)
    np.testing.assert_array_equal(found.auc[:, 1], 0.5)
    assert np.isfinite(found.shared.auc).all()


def test_what_does_not_fit_is_refused_by_the_name_of_the_cell():
    x, y, groups, fold = samples()
    with pytest.raises(HandscopeError, match=r"double.0/4 has \(60, 20\) and single.1/2 has \(60, 19\)"):
        transfer({**x, CELLS[3]: x[CELLS[3]][:, :19]}, y, groups, fold)
    x[CELLS[2]][5, 0] = np.nan
    with pytest.raises(HandscopeError, match="single.1/4 holds NaN or infinity in 1 of 60"):
        transfer(x, y, groups, fold)
    with pytest.raises(HandscopeError, match="at least one cell"):
        transfer({}, y, groups, fold)
    with pytest.raises(HandscopeError, match="outside fold 0 are good"):
        transfer(x, np.where(fold == 0, y, 0), groups, fold)
