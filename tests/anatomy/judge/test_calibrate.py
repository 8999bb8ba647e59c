"""How far a score can be trusted, against closed forms, scikit-learn and statsmodels."""

import json
from pathlib import Path

import numpy as np
import pytest
from handscope.analysis.statistics import trust
from handscope.analysis.statistics.trust import Counts
from handscope.anatomy.judge.calibrate import best_penalty, folds_of, held_out
from handscope.anatomy.judge.calibration import CLIP, Calibration, fit, standardised
from handscope.anatomy.judge.labels import read_labels
from handscope.errors import HandscopeError
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

TABLES = st.tuples(*[st.integers(1, 60)] * 4)


def labels_of(table: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts and labels with these counts: flagged bad, missed bad, flagged good, passed good."""
    flagged = np.repeat([1, 0, 1, 0], table).astype(bool)
    return flagged, np.repeat([1, 1, 0, 0], table).astype(bool)


@given(TABLES)
def test_kappa_and_shares_are_those_of_others(table: tuple[int, ...]) -> None:
    flagged, bad = labels_of(table)
    counts = Counts.of(flagged, bad, np.arange(len(bad)) % 3).total()
    assert counts.tolist() == list(table)
    assert trust.kappa(counts) == pytest.approx(cohen_kappa_score(bad, flagged))
    grid = np.array([[table[0], table[1]], [table[2], table[3]]])
    assert trust.kappa(counts) == pytest.approx(cohens_kappa(grid, return_results=False))
    assert trust.sensitivity(counts) == table[0] / (table[0] + table[1])
    assert trust.specificity(counts) == table[3] / (table[2] + table[3])
    assert trust.accuracy(counts) == pytest.approx((flagged == bad).mean())


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_that_of_statsmodels(part: int, n: int) -> None:
    part = min(part, n)
    assert np.allclose(trust.wilson(part, n), proportion_confint(part, n, method="wilson"))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_auc_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    score, bad = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if bad.all() or not bad.any():
        assert np.isnan(trust.auc(score, bad))
    else:
        assert trust.auc(score, bad) == pytest.approx(roc_auc_score(bad, score))


def test_interval_of_a_share_in_groups_of_one_is_the_normal_one() -> None:
    flagged, bad = labels_of((300, 100, 50, 550))
    counts = Counts.of(flagged, bad, np.arange(1000))
    share, low, high = trust.with_interval(trust.sensitivity, counts)
    half = norm.ppf(0.975) * np.sqrt(0.75 * 0.25 / 400)
    assert share == 0.75 and (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.008)


def test_groups_that_are_alike_widen_an_interval() -> None:
    """100 groups of 10 hands, each group all right or all wrong: worth 100 hands, not 1,000."""
    flagged = np.repeat(np.arange(100) < 75, 10)
    bad = np.ones(1000, bool)
    _, low, high = trust.with_interval(trust.sensitivity, Counts.of(flagged, bad, np.repeat(np.arange(100), 10)))
    _, low_1, high_1 = trust.with_interval(trust.sensitivity, Counts.of(flagged, bad, np.arange(1000)))
    assert (high - low) / (high_1 - low_1) == pytest.approx(np.sqrt(10), rel=0.1)


def test_agreement_without_exception_is_not_certainty() -> None:
    flagged, bad = labels_of((20, 0, 0, 20))
    for measure in (trust.kappa, trust.sensitivity, trust.specificity):
        value, low, high = trust.with_interval(measure, Counts.of(flagged, bad, np.arange(40)))
        assert value == high == 1 and 0.8 < low < 0.95
    # 20 of 20 sound hands passed: 0.025 ** (1/20), the exact one-sided bound.
    exact = proportion_confint(20, 20, method="beta")[0]
    assert trust.with_interval(trust.specificity, Counts.of(flagged, bad, np.arange(40)))[1] == pytest.approx(exact)


@given(st.floats(0, 1), st.floats(0.55, 1), st.floats(0.55, 1))
def test_rogan_gladen_undoes_what_errors_do(rate: float, se: float, sp: float) -> None:
    flagged = rate * se + (1 - rate) * (1 - sp)
    assert trust.rogan_gladen(flagged, se, sp) == pytest.approx(rate, abs=1e-9)


def test_rogan_gladen_of_the_source_study() -> None:
    """Sensitivity and specificity .942 turn its 38.7% and 9.4% into 37.2% and 4.1%."""
    assert trust.rogan_gladen([0.387, 0.094], 0.942, 0.942) == pytest.approx([0.372, 0.041], abs=5e-4)
    assert np.isnan(trust.rogan_gladen(0.3, 0.4, 0.6))  # a coin cannot be corrected
    assert trust.rogan_gladen(0.01, 0.9, 0.9) == 0 and trust.rogan_gladen(0.99, 0.9, 0.9) == 1


def test_interval_of_the_corrected_rate_is_that_of_the_delta_method() -> None:
    """Var = (q(1-q)/n + p² Var(se) + (1-p)² Var(sp)) / (se + sp - 1)², for independent hands."""
    flagged, bad = labels_of((240, 60, 70, 630))
    counts = Counts.of(flagged, bad, np.arange(1000))
    n, k = 800, 300
    rate, low, high = trust.corrected_rate(k, n, counts)
    q, se, sp = k / n, 0.8, 0.9
    p = (q + sp - 1) / (se + sp - 1)
    variance = (q * (1 - q) / n + p**2 * se * (1 - se) / 300 + (1 - p) ** 2 * sp * (1 - sp) / 700) / (se + sp - 1) ** 2
    half = norm.ppf(0.975) * np.sqrt(variance)
    assert rate == pytest.approx(p) and (low, high) == pytest.approx((p - half, p + half), abs=0.01)
    useless = Counts.of(*labels_of((10, 10, 10, 10)), np.arange(40))
    assert np.isnan(trust.corrected_rate(5, 10, useless)).all()


def test_coverage_of_the_corrected_rate() -> None:
    """In 200 repeats with a known rate the 95% interval holds it about 95% of the time."""
    rng = np.random.default_rng(0)
    held = 0
    for repeat in range(200):
        bad = np.arange(300) < 100
        flagged = np.where(bad, rng.random(300) < 0.8, rng.random(300) < 0.12)
        new = rng.random(400) < 0.25
        seen = np.where(new, rng.random(400) < 0.8, rng.random(400) < 0.12).sum()
        _, low, high = trust.corrected_rate(int(seen), 400, Counts.of(flagged, bad, np.arange(300)), seed=repeat)
        held += low <= 0.25 <= high
    assert 180 <= held <= 199


def test_reliability_of_honest_probabilities() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(5000)
    table = trust.reliability(p, rng.random(5000) < p)
    assert table["n"].tolist() == [500] * 10
    assert ((table["lo"] <= table["predicted"]) & (table["predicted"] <= table["hi"])).sum() >= 8
    assert trust.calibration_error(table) < 0.03
    assert trust.calibration_error(trust.reliability(p, rng.random(5000) < p**3)) > 0.15


def planted(n: int = 240, groups: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), n // groups)
    x = rng.normal(size=(n, 6))
    y = rng.random(n) < 1 / (1 + np.exp(-2 * x[:, 0]))
    return x, y, group.astype(str)


NAMES = [f"e{i}" for i in range(6)]


def test_fit_is_the_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y, _ = planted()
    fitted = fit(x, y, NAMES, l2=10.0)
    z = StandardScaler().fit_transform(x)
    other = LogisticRegression(C=0.1, max_iter=1000, tol=1e-8).fit(z, y)
    assert fitted.probability(x) == pytest.approx(other.predict_proba(z)[:, 1], abs=1e-4)
    shares = fitted.shares(x)
    assert shares.shape == x.shape
    assert fitted.probability(x) == pytest.approx(1 / (1 + np.exp(-shares.sum(1) - fitted.intercept)))


def test_weighted_rows_count_as_often() -> None:
    x, y, _ = planted()
    twice = fit(np.concatenate([x, x[:50]]), np.concatenate([y, y[:50]]), NAMES, l2=10.0)
    weighted = fit(x, y, NAMES, l2=10.0, weight=np.where(np.arange(len(y)) < 50, 2.0, 1.0))
    assert weighted.probability(x) == pytest.approx(twice.probability(x), abs=1e-4)


def test_one_wild_number_does_not_decide() -> None:
    x, y, _ = planted()
    fitted = fit(x, y, NAMES, l2=10.0)
    wild = x[:1].copy()
    wild[0, 3] = 1e9
    far = x[:1].copy()
    far[0, 3] = fitted.mean[3] + CLIP * fitted.scale[3]
    assert fitted.probability(wild) == pytest.approx(fitted.probability(far))
    assert np.abs(standardised(wild, np.array(fitted.mean), np.array(fitted.scale))).max() == CLIP


def test_held_out_probabilities_saw_nothing_of_their_group() -> None:
    """Changing the labels of a group changes no probability in it as long as the folds stay."""
    x, y, group = planted()
    before = held_out(x, y, group, NAMES)
    splits = folds_of(y, group)
    for _, test in splits[:2]:
        assert not set(group[test]) & set(np.delete(group, test))
        changed = y.copy()
        one = np.flatnonzero(group == group[test[0]])
        good, bad = one[~y[one]], one[y[one]]
        if len(good) and len(bad):  # swap a pair, so that the folds, which look at class counts, stay
            changed[[good[0], bad[0]]] = True, False
            after = held_out(x, changed, group, NAMES)
            assert after[one] == pytest.approx(before[one])
            assert not np.allclose(after, before)


def test_labels_without_meaning_are_not_learnt() -> None:
    """Each group has one label, and evidence that gives the group away: grouped folds see that it means nothing."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(40), 6)
    y = rng.random(40)[group] < 0.5
    x = rng.normal(size=(40, 6))[group] + 0.01 * rng.normal(size=(240, 6))
    p = held_out(x, y, group.astype(str), NAMES)
    assert abs(trust.auc(p, y) - 0.5) < 0.2
    assert trust.auc(fit(x, y, NAMES, l2=1.0).probability(x), y) > 0.6


def test_more_noise_asks_for_a_stronger_penalty() -> None:
    rng = np.random.default_rng(2)
    x, y, group = planted()
    noise = rng.random(len(y)) < 0.5
    assert best_penalty(x, noise, group, NAMES) > best_penalty(x, y, group, NAMES)


def test_too_few_groups_or_one_label() -> None:
    x, y, group = planted()
    with pytest.raises(HandscopeError, match="at least 5 groups.*found 3"):
        folds_of(y, np.arange(len(y)) % 3)
    with pytest.raises(HandscopeError, match="at least 5 good and 5 bad hands .* 2 bad ones among 240"):
        folds_of(np.arange(len(y)) < 2, group)
    with pytest.raises(HandscopeError, match="only one kind"):
        folds_of(np.arange(len(y)) < 10, group)  # all of them in one prompt
    with pytest.raises(HandscopeError, match="all 240 are good"):
        fit(x, np.zeros(240, bool), NAMES, l2=1.0)


def test_calibration_survives_its_file(tmp_path: Path) -> None:
    x, y, _ = planted()
    made = fit(x, y, NAMES, l2=10.0)
    made.save(tmp_path / "c.json")
    read = Calibration.load(tmp_path / "c.json")
    assert read == made and (read.probability(x) == made.probability(x)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card.pop("weights"), "damaged"),
        (lambda card: card["weights"].pop(), "do not fit each other"),
        (lambda card: card.update(handscope_calibration=99), "no calibration of schema"),
        (lambda card: card["scale"].__setitem__(0, 0.0), "do not fit each other"),
        (lambda card: card.update(intercept=float("nan")), "do not fit each other"),
        (lambda card: card.update(surprise=1), "damaged"),
    ],
)
def test_damaged_calibrations_are_refused(tmp_path: Path, change, said: str) -> None:
    x, y, _ = planted()
    fit(x, y, NAMES, l2=10.0).save(tmp_path / "c.json")
    card = json.loads((tmp_path / "c.json").read_text())
    change(card)
    (tmp_path / "c.json").write_text(json.dumps(card))
    with pytest.raises(HandscopeError, match=said):
        Calibration.load(tmp_path / "c.json")


def test_other_files_are_no_calibrations(tmp_path: Path) -> None:
    with pytest.raises(HandscopeError, match="There is no calibration"):
        Calibration.load(tmp_path / "gone.json")
    for text in ("", "[]", "{}", "\x00\xff"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(HandscopeError, match="not a calibration"):
            Calibration.load(tmp_path / "c.json")


def test_labels_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,label,group,raised\na.png,good?,p1,4\nb.png,bad,p2,\nc.png,unsure,p2,3\nd.png,1,p1,5\n")
    labels = read_labels(path)
    assert labels.unsure == 1 and labels.grouped
    assert labels.table["bad"].tolist() == [False, True, True]
    assert labels.table["path"].tolist() == [tmp_path / name for name in ("a.png", "b.png", "d.png")]
    assert labels.raised() == {tmp_path / "a.png": 4, tmp_path / "d.png": 5} and labels.boxes() == {}
    path.write_text("path,label,x0,y0,x1,y1\na.png,0,1,2,3,4.5\nb.png,1,,,,\n")
    labels = read_labels(path)
    assert labels.boxes() == {tmp_path / "a.png": (1, 2, 3, 4.5)} and not labels.grouped
    assert labels.table["group"].tolist() == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na,good\n", "path cannot be found among file, label"),
        ("path,label\na,good\nb,fine\n", "line 3 has 'fine'"),
        ("path,label\na,good\na,bad\n", "line 3 labels a again"),
        ("path,label,raised\na,good,many\n", "line 2 has 'many'"),
        ("", "could not be read as a CSV"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(HandscopeError, match=said):
        read_labels(tmp_path / "labels.csv")
