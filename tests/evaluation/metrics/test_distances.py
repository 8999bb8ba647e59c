"""Distances between sets of pictures: written out, in closed form, and against torch-fidelity's own numbers."""

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.evaluation.metrics import Distance, named
from handscope.evaluation.metrics.frechet import frechet, jackknifed
from handscope.evaluation.metrics.kernels import kid, mmd
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from scipy.stats import t as student

RANDOM = np.random.default_rng(0)
SEEDED = np.random.default_rng(7)
X, Y = SEEDED.normal(size=(60, 8)), SEEDED.normal(0.4, 1.3, (60, 8))
TORCH_FIDELITY = {"frechet": 3.562321356351468, "kid": 1.1929013829740933, "rbf 3": 0.07556534757140454}
"""What the functions of torch-fidelity 0.4.0 give for X and Y: of features, with one subset of all, with sigma 3."""


def as_printed(x: np.ndarray, y: np.ndarray) -> float:
    """KID as it is printed."""
    d = x.shape[1]
    xx = [(a @ b / d + 1) ** 3 for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [(a @ b / d + 1) ** 3 for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    xy = [(a @ b / d + 1) ** 3 for a in x for b in y]
    return float(np.mean(xx) + np.mean(yy) - 2 * np.mean(xy))


def test_all_are_those_of_torch_fidelity() -> None:
    assert frechet(X, Y).value == pytest.approx(TORCH_FIDELITY["frechet"], rel=1e-9)
    assert kid(X, Y).value == pytest.approx(TORCH_FIDELITY["kid"], rel=1e-9)
    assert mmd(X, Y, sigma=3.0).value == pytest.approx(TORCH_FIDELITY["rbf 3"], rel=1e-9)


def test_kid_is_the_printed_one_and_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = RANDOM.normal(size=(12, 5)), RANDOM.normal(0.5, 1.2, (9, 5)), np.arange(12) % 5
    whole = kid(x, y, groups)
    assert whole.value == pytest.approx(as_printed(x, y)) and whole.lo < whole.hi
    assert (whole.n, whole.m) == (12, 9)
    monkeypatch.setattr("handscope.evaluation.metrics.kernels.ROWS", 5)
    parts = kid(x, y, groups)
    assert [parts.value, parts.lo, parts.hi] == pytest.approx([whole.value, whole.lo, whole.hi])


def test_the_interval_is_from_the_distances_without_one_prompt_each() -> None:
    x, y, groups = RANDOM.normal(size=(9, 3)), RANDOM.normal(size=(7, 3)), np.array([0, 1, 2, 3, 0, 1, 2, 3, 3])
    without = np.array([as_printed(x[groups != one], y) for one in range(4)])
    half = student.ppf(0.975, 3) * np.sqrt(3 / 4 * np.square(without - without.mean()).sum())
    found = kid(x, y, groups)
    assert (found.hi - found.value, found.value - found.lo) == pytest.approx((half, half))


def test_one_distribution_is_at_zero_and_a_moved_one_is_not() -> None:
    reference = RANDOM.normal(size=(500, 16))
    for distance in (kid, mmd):
        same = [distance(RANDOM.normal(size=(80, 16)), reference).value for i in range(20)]
        assert abs(np.mean(same)) < 0.02
        moved = distance(RANDOM.normal(0.5, 1, (80, 16)), reference)
        assert moved.value > max(same) and moved.lo > 0


def test_frechet_is_the_closed_form() -> None:
    """Of whitened samples the means and covariances are known exactly, and these commute."""
    z = RANDOM.normal(size=(400, 6))
    z = (z - z.mean(0)) @ linalg.inv(linalg.sqrtm(np.cov(z, rowvar=False)))
    one, other, shift = np.arange(1, 7), np.linspace(0.5, 2, 6), np.full(6, 0.3)
    expected = 6 * 0.09 + np.square(one - other).sum()
    assert frechet(z * one + shift, z * other).value == pytest.approx(expected)


def test_frechet_of_few_pictures_is_that_of_the_full_matrices() -> None:
    x, y = RANDOM.normal(size=(6, 20)), RANDOM.normal(size=(9, 20))
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.maximum(np.linalg.eigvals(s @ t).real, 0)).sum()
    found = frechet(x, y)
    assert found.value == pytest.approx(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s + t) - 2 * root, rel=1e-6)
    assert "rank of 5 of 20" in found.warning


def test_frechet_grows_as_pictures_are_fewer_and_says_so() -> None:
    reference = RANDOM.normal(size=(2000, 30))
    few, more = (frechet(RANDOM.normal(size=(n, 30)), reference) for n in (60, 600))
    assert few.value > 3 * more.value and "too few" in few.warning
    assert few.lo < few.value < few.hi


def test_the_jackknife_of_a_mean_is_the_textbooks_standard_error() -> None:
    x = RANDOM.normal(size=20)
    value, low, high = jackknifed(lambda rows: float(x[rows].mean()), np.arange(20), 20)
    half = student.ppf(0.975, 19) * x.std(ddof=1) / np.sqrt(20)
    assert (value, low, high) == pytest.approx((x.mean(), x.mean() - half, x.mean() + half))


@given(st.integers(0, 10**6))
def test_turning_and_moving_both_sets_changes_no_distance_between_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(8, 4)), random.normal(size=(9, 4))
    turn = linalg.qr(random.normal(size=(4, 4)))[0]
    for distance, moved in ((frechet, random.normal(size=4)), (mmd, random.normal(size=4)), (kid, np.zeros(4))):
        assert distance(x @ turn + moved, y @ turn + moved).value == pytest.approx(distance(x, y).value, abs=1e-8)
    order = random.permutation(8)
    assert kid(x[order], y, order // 2).value == pytest.approx(kid(x, y, np.arange(8) // 2).value)


@pytest.mark.parametrize("distance", [kid, mmd, frechet])
@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.zeros((5, 3)), np.full((5, 4), np.nan)])
def test_what_makes_no_sense_is_refused(distance, bad: np.ndarray) -> None:
    with pytest.raises(HandscopeError):
        distance(bad, np.zeros((5, 4)))


def test_one_picture_over_and_over_has_no_kernel_width() -> None:
    with pytest.raises(HandscopeError, match="width"):
        mmd(X, np.zeros((5, 8)))


def test_a_few_prompts_are_warned_of() -> None:
    assert kid(X, Y, np.arange(60) % 3).warning and not kid(X, Y).warning


def test_metrics_are_found_by_name_and_by_address(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "def length(pictures, prompts, *, factor=1):\n    return [factor * len(p) for p in prompts]\n"
        "length.higher_is_better = False\n"
        "def wrong(pictures, prompts):\n    return [1.0]\n"
        "def words(pictures, prompts):\n    return prompts\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    metric = named("mine:length", factor=2)
    assert metric([None, None], ["a", "bcd"]).tolist() == [2, 6] and not metric.higher and metric.kind == "picture"
    found = named("kid")(X, Y, None)
    assert isinstance(found, Distance) and found.value == pytest.approx(TORCH_FIDELITY["kid"])
    for name, said in (("mine:wrong", "shape"), ("mine:words", "no numbers")):
        with pytest.raises(HandscopeError, match=said):
            named(name)([None, None], ["a", "b"])
    for name, settings, said in (
        ("nothing", {}, "no metric"),
        ("mine:none", {}, "not found"),
        ("nowhere:none", {}, "not found"),
        ("frechet", {"sigma": 1}, "no setting sigma"),
    ):
        with pytest.raises(HandscopeError, match=said):
            named(name, **settings)
