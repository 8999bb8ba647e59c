"""A calibration is fitted and judged on hands that it was not fitted to."""

import json
from pathlib import Path

import numpy as np
import pytest
from handscope.analysis.statistics.auc import auc
from handscope.anatomy.judge.calibrate import best_penalty, folds_of, held_out
from handscope.anatomy.judge.calibration import CLIP, Calibration, fit, standardised
from handscope.anatomy.judge.labels import read_labels
from handscope.errors import HandscopeError


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
    assert abs(auc(p, y) - 0.5) < 0.2
    assert auc(fit(x, y, NAMES, l2=1.0).probability(x), y) > 0.6


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
