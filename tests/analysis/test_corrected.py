"""p adjusted for all rows of cells.csv and contrasts.csv, in worlds where it is known what is there."""

import numpy as np
import pandas as pd
from handscope.analysis.class_parts import CellSums
from handscope.analysis.comparison import Comparison
from handscope.analysis.moments import Moments
from handscope.analysis.stage import _corrected
from handscope.analysis.statistics.folds import grouped_folds

CELLS, SAMPLES, WIDTH, TOKENS = 6, 60, 4, 20
TESTS = ("dom", "dom_student", "db", "c2st")


def six_cells(seed: int, planted: float = 0.0, tests: tuple[str, ...] = ("direction",)) -> pd.DataFrame:
    """The tests of six cells of one store, alike by half; in the first, bad samples lie `planted` further on."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(20), 3).astype(str)
    bad = rng.permutation(np.repeat([0, 1], SAMPLES // 2))
    table = pd.DataFrame({"sample": np.arange(SAMPLES).astype(str), "prompt": prompt, "bad": bad})
    table["fold"] = grouped_folds(prompt, 3, seed)
    comparison = Comparison.of(table, np.arange(SAMPLES), 99, seed)
    together = rng.standard_normal((SAMPLES, WIDTH))
    found = []
    for cell in range(CELLS):
        mean = (together + rng.standard_normal((SAMPLES, WIDTH))) / np.sqrt(2) + (cell == 0) * planted * bad[:, None]
        moments = Moments(np.full(SAMPLES, TOKENS), mean, np.full((SAMPLES, WIDTH), float(TOKENS)))
        sums = CellSums(moments, None, np.array([], int), np.array([], int))
        found.append([getattr(comparison, test)(sums, seed) for test in tests])
    rows = pd.DataFrame([{name: value for row, _ in cell for name, value in row.items()} for cell in found])
    return _corrected(rows, [{name: null for _, nulls in cell for name, null in nulls.items()} for cell in found])


def test_a_planted_cell_is_called_and_it_alone():
    table = six_cells(0, 1.2, ("direction", "distance", "classifier"))
    for name in TESTS:
        assert table.index[table[f"{name}_p_family"] <= 0.05].tolist() == [0], name
        assert (table[f"{name}_p_family"] >= table[f"{name}_p"]).all()


def test_where_nothing_is_any_cell_is_called_as_rarely_as_is_said():
    """One cell or more of six is called in as many stores as p goes by; by p alone in twice as many or more."""
    tables = [six_cells(seed) for seed in range(60)]
    adjusted = sum((table["dom_p_family"] <= 0.1).any() for table in tables)
    single = sum((table["dom_p"] <= 0.1).any() for table in tables)
    assert adjusted <= 12  # of 60 at a chance of 0.1: more come in fewer than one of a hundred
    assert single >= 15 and single >= 1.5 * adjusted


def test_a_row_without_a_test_is_left_out_of_its_family():
    rng = np.random.default_rng(0)
    there = np.array([3.0, *rng.standard_normal(99)])
    table = pd.DataFrame({"dom_p": [0.01, np.nan], "dom_p_floor": [0.01, np.nan]})
    found = _corrected(table, [{"dom": there}, {}])
    assert found["dom_p_family"].iloc[0] == 0.01 and np.isnan(found["dom_p_family"].iloc[1])
    none = _corrected(table[["dom_p", "dom_p_floor"]].iloc[1:].copy(), [{}])
    assert none["dom_p_family"].isna().all() and none["dom_q"].isna().all()
