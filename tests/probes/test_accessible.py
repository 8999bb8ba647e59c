"""What is called more accessible is not called new: nonlinear baselines, bits and control tasks, on known answers."""

import numpy as np
import pytest
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.folds import grouped_folds
from handscope.probes.accessible import accessible_tables, middle_step
from handscope.probes.baselines import Baseline
from handscope.probes.conditional import Offset, conditional_gain
from handscope.probes.description_length import ORDERS, SHARES, online_codelength, usable_information
from handscope.probes.nested import GRID
from handscope.probes.nonlinear import WAVES, WIDTHS, beside, fourier, nonlinear_offset, picture_axes, polynomial
from handscope.probes.ridge import RidgeProbe
from handscope.probes.selectivity import selectivity
from handscope.progress import quiet


def squares(seed: int = 0):
    """A picture of 6 numbers, whose verdict hangs on the square of the first; the block shows that square."""
    rng = np.random.default_rng([seed, 5])
    groups = np.repeat(np.arange(32), 14)
    z = rng.normal(size=(len(groups), 6))
    y = (rng.random(len(groups)) < 1 / (1 + np.exp(-2 * (z[:, 0] ** 2 - 1)))).astype(float)
    block = np.outer(z[:, 0] ** 2, rng.normal(size=12)).astype(np.float32)
    return z, y, groups, block, grouped_folds(groups)


@pytest.fixture(scope="module")
def baseline() -> Offset:
    """The nonlinear baseline of `squares`."""
    z, y, groups, _, fold = squares()
    return nonlinear_offset(picture_axes(z), y, groups, fold)


def test_a_square_of_the_picture_is_more_accessible_and_not_new(baseline: Offset) -> None:
    z, y, groups, block, fold = squares()
    linear = Offset.of(RidgeProbe(), z, y, groups, fold, 0, GRID)
    assert auc(linear.held_out, y, fold) < 0.6 < 0.75 < auc(baseline.held_out, y, fold)
    found = conditional_gain(linear, block, y, groups, 100.0, permutations=39)
    assert found.added > 0.15 and found.p == 1 / 40  # beside a baseline that reads along straight lines only
    again = conditional_gain(baseline, block, y, groups, 100.0, permutations=39)
    assert again.added < 0.02
    assert auc(beside(baseline, block, y, 100.0), y, fold) == pytest.approx(again.auc_both, abs=1e-6)


def test_what_the_picture_lacks_is_still_found(baseline: Offset) -> None:
    z, y, groups, block, fold = squares()
    rng = np.random.default_rng(1)
    own = (0.7 * y[:, None] + rng.normal(size=(len(y), 4))).astype(np.float32)
    found = conditional_gain(baseline, own, y, groups, 100.0, permutations=39)
    assert found.added > 0.03 and found.p == 1 / 40


def test_an_offset_is_held_out(baseline: Offset) -> None:
    z, y, groups, _, fold = squares()
    changed = y.copy()
    changed[fold == 2] = 1 - changed[fold == 2]
    other = nonlinear_offset(picture_axes(z), changed, groups, fold)
    np.testing.assert_array_equal(baseline.held_out[fold == 2], other.held_out[fold == 2])
    np.testing.assert_array_equal(np.isnan(baseline.inner), fold == np.arange(5)[:, None])


def test_waves_approach_a_gaussian_kernel() -> None:
    z = np.random.default_rng(0).normal(size=(30, 3))
    np.testing.assert_array_equal(polynomial(z), np.hstack([z, z**2, z[:, [0, 0, 1]] * z[:, [1, 2, 2]]]))
    waves = fourier(z)
    assert waves.shape == (30, WAVES * len(WIDTHS))
    apart = np.square(z[:, None] - z).sum(-1)
    median = np.sqrt(np.median(apart[np.triu_indices(30, 1)]))
    for place, width in enumerate(WIDTHS):
        part = waves[:, place * WAVES : (place + 1) * WAVES]
        np.testing.assert_allclose(2 * part @ part.T / WAVES, np.exp(-apart / 2 / (width * median) ** 2), atol=0.25)


def test_usable_information_in_bits() -> None:
    y = np.tile([0, 0, 0, 0, 1, 1, 1, 1], 20)
    groups = np.repeat(np.arange(20), 8)
    fold = grouped_folds(groups)
    told = np.log(3) * np.tile([-1, -1, -1, 1, 1, 1, 1, -1], 20)  # right with 3 of 4, and says so
    found = usable_information(told, y, groups, fold)
    assert found.bits == pytest.approx(1 + 0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert found.low == pytest.approx(found.bits) == found.high  # every group is alike
    nothing = usable_information(np.zeros(len(y)), y, groups, fold)
    assert nothing.bits == pytest.approx(0)
    assert usable_information(told, y, groups, fold, beside=told).bits == 0
    rng = np.random.default_rng(0)
    mixed = usable_information(rng.normal(size=len(y)), y, groups, fold)
    assert mixed.bits < 0 and mixed.low < mixed.bits < mixed.high


def test_an_online_code() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(32), 6)
    y = (rng.random(len(groups)) < 0.3).astype(float)
    stops = [round(share * 32) for share in SHARES]
    lengths = []
    for order in range(ORDERS):  # the code of the rate, label by label
        rank = np.random.default_rng([0, 8, order]).permutation(32)[groups]
        length = 0.0
        for label, place in zip(y, rank, strict=True):
            start = max([stop for stop in stops if stop <= place], default=0)
            known = y[rank < start]
            rate = (known.sum() + 0.5) / (len(known) + 1)
            length -= np.log2(rate if label else 1 - rate)
        lengths.append(length)
    assert online_codelength(None, y, groups) == pytest.approx(np.mean(lengths))
    telling = (y[:, None] * 4 + rng.normal(size=(len(y), 3))).astype(np.float32)
    nothing = rng.normal(size=(len(y), 3)).astype(np.float32)
    rate = online_codelength(None, y, groups)
    assert online_codelength(telling, y, groups) < 0.5 * rate < rate - 5 < online_codelength(nothing, y, groups)


def test_a_probe_that_knows_prompts_is_not_selective() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    y = (rng.random(200) < 0.5).astype(float)
    who = np.eye(20)[groups] + 0.01 * rng.normal(size=(200, 20))
    prompts = selectivity(RidgeProbe(1.0), who.astype(np.float32), y, groups)
    assert prompts.control > 0.95 and prompts.selectivity < -0.2 and prompts.auc < 0.65
    telling = (y[:, None] + 0.3 * rng.normal(size=(200, 2))).astype(np.float32)
    verdicts = selectivity(RidgeProbe(1.0), telling, y, groups)
    assert abs(verdicts.control - 0.5) < 0.1 and verdicts.selectivity > 0.35 and verdicts.auc > 0.9


def test_tables_are_of_the_middle_step() -> None:
    from handscope.extract.address import Cell

    assert middle_step([20, 1, 8]) == 8 and middle_step([4, 3, 2, 1]) == 2 and middle_step([5, 5]) == 5
    z, y, groups, block, _ = squares()
    keep = groups < 12
    cells = {Cell("single.0", step): block[keep] for step in (3, 2, 1)} | {Cell("single.1", 2): -block[keep]}
    baselines = [Baseline("x0_flat", step, z[keep]) for step in (3, 2, 1)] + [Baseline("image", 2, z[keep, 3:] ** 2)]
    tables = accessible_tables(cells, baselines, y[keep], groups[keep], 100.0, 4, 9, 0, quiet)
    assert list(tables["nonlinear"]["block"]) == ["single.0", "single.1"] and set(tables["nonlinear"]["step"]) == {2}
    assert list(tables["information"]["what"]) == ["rate", "x0_flat", "x0_nonlinear", "single.0", "single.1"]
    bits = tables["information"].set_index("what")["usable_bits"]
    assert bits["single.0"] > 0.1 > bits["x0_flat"] and np.isnan(bits["rate"])
