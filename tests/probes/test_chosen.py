"""A cell that is chosen inside the training folds, against the same choice made by hand, and where there is nothing."""

import numpy as np
import pytest
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.folds import grouped_folds
from handscope.extract.address import Block, Cell
from handscope.probes import RidgeProbe, cross_validate
from handscope.probes.chosen import chosen_cells
from handscope.probes.crossval import held_out_scores


def samples(strength: float, seed: int = 0, cells: int = 3, n: int = 80):
    """Features of some cells, the second of which tells most, labels and prompts of eight samples."""
    random = np.random.default_rng(seed)
    y, groups = random.integers(0, 2, n).astype(float), np.repeat(np.arange(n // 8), 8)
    features = {}
    for number in range(cells):
        x = random.normal(size=(n, 4)).astype(np.float32)
        x[:, 0] += strength * (2.0 if number == 1 else 0.5) * y
        features[Cell(Block("single", number), 4)] = x
    return features, y, groups


def judged(features, y, groups, permutations=20):
    return {cell: cross_validate(RidgeProbe(1.0), x, y, groups, folds=4, permutations=permutations, bootstraps=50)
            for cell, x in features.items()}  # fmt: skip


@pytest.mark.parametrize("strength", [0.0, 0.6])
def test_each_fold_chooses_as_one_would_by_hand(strength):
    features, y, groups = samples(strength)
    cells = judged(features, y, groups)
    table = chosen_cells(cells, y, groups).set_index("pairs")
    fold = next(iter(cells.values())).fold
    for pairs in ("all", "within"):
        names, scores = [], np.empty(len(y))
        for one in range(4):
            kept = fold != one
            inner = grouped_folds(groups[kept], 4, 0)
            found = {}
            for cell, x in features.items():
                s = held_out_scores(RidgeProbe(1.0), x[kept], y[None, kept], inner)[0]
                # Fits of other folds differ in their intercept, which no pair of one fold or one prompt sees.
                found[cell] = float(auc(s, y[kept], inner if pairs == "all" else groups[kept]))
            best = max(found, key=found.get)
            names.append(str(best))
            fitted = RidgeProbe(1.0).fit(features[best][kept], y[kept])
            scores[~kept] = fitted.decision_function(features[best][~kept])
        row = table.loc[pairs]
        assert row["cells"].split(";") == names
        assert row["auc"] == pytest.approx(float(auc(scores, y, fold if pairs == "all" else groups)), abs=1e-6)
        assert row["lo"] < row["auc"] < row["hi"] and row["n_cells"] == 3
        assert row["n_bad"] + row["n_good"] == len(y)
    if strength:
        assert set(table.loc["all", "cells"].split(";")) == {"single.1/4"} and table.loc["all", "lo"] > 0.5
        assert table.loc["all", "auc"] == pytest.approx(table.loc["all", "largest"])


def test_the_best_of_many_that_tell_nothing_looks_good_and_the_chosen_one_does_not():
    largest, chosen = [], []
    for seed in range(6):
        features, y, groups = samples(0.0, seed, cells=12)
        row = chosen_cells(judged(features, y, groups, 2), y, groups).iloc[0]
        largest.append(row["largest"])
        chosen.append(row["auc"])
    assert np.mean(largest) > 0.58 and np.mean(chosen) < 0.55


def test_without_a_prompt_of_both_kinds_there_is_nothing_to_compare_within():
    features, y, groups = samples(0.5)
    y = (groups % 2).astype(float)
    row = chosen_cells(judged(features, y, groups), y, groups).iloc[1]
    assert np.isnan(row["auc"]) and np.isnan(row["lo"]) and np.isnan(row["largest"])
