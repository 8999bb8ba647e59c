"""Probes carried through maps, on planted streams of which the truth is known."""

import numpy as np
import pytest
from handscope.analysis.statistics.auc import auc
from handscope.comparison.carried import Receiver, carry
from handscope.comparison.streams import pairings_of
from handscope.errors import HandscopeError
from handscope.probes import LogisticProbe
from handscope.probes.held_out_ridge import HeldOutRidge
from handscope.probes.stage import L2
from scipy.stats import ortho_group

PROMPTS = np.repeat(np.arange(20), 12)
FOLD = PROMPTS % 5


def planted(seed: int, alike: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A stream, a rotation of it with noise, and verdicts that one channel of the first decides, in part."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(PROMPTS), 10))
    y = (x[:, 0] + 0.7 * rng.normal(size=len(PROMPTS)) > 0.4).astype(float)
    source = x if alike else rng.normal(size=x.shape)
    other = source @ ortho_group.rvs(10, random_state=seed) + 0.1 * rng.normal(size=x.shape)
    return x.astype(np.float32), other.astype(np.float32), y


def test_through_a_rotation_a_probe_is_worth_what_it_was() -> None:
    a, b, y = planted(0)
    receiver = Receiver.of(y, PROMPTS, FOLD, 199)
    table, null = carry([a], y, [b], receiver, pairings_of(PROMPTS, 19))
    row = table.iloc[0]
    assert row["auc"] > 0.8 and abs(row["less_own"]) < 0.03 and row["less_own_lo"] < 0 < row["less_own_hi"]
    assert row["p"] == row["p_floor"] == pytest.approx(1 / 200) and row["shuffled_p"] == pytest.approx(1 / 20)
    assert abs(row["shuffled_mean"] - 0.5) < 0.1 and null.shape == (199, 1)
    assert row["lo"] < row["auc"] < row["hi"]


def test_between_independent_streams_it_is_worth_nothing() -> None:
    found = []
    for seed in range(8):
        a, b, y = planted(seed, alike=0.0)
        receiver = Receiver.of(y, PROMPTS, FOLD, 99)
        table, _ = carry([a], y, [b], receiver, pairings_of(PROMPTS, 9))
        found.append(table["auc"][0])
    assert abs(np.mean(found) - 0.5) < 0.03


def test_carrying_is_regressing_what_the_probe_says_on_the_other_stream() -> None:
    """The slow way: map B to A by ridge regression, read the probe off what is mapped."""
    a, b, y = planted(3)
    unsure = np.random.default_rng(0).random(len(y)) < 0.2
    y_a, y_b = np.where(unsure, np.nan, y), np.where(unsure[::-1], np.nan, y)
    receiver = Receiver.of(y_b, PROMPTS, FOLD, 9)
    table, _ = carry([a], y_a, [b], receiver, pairings_of(PROMPTS, 2))
    scores = np.empty(len(y))
    ridge = HeldOutRidge(b, FOLD)
    for place in range(5):
        train = (place != FOLD) & ~np.isnan(y_a)
        probe = LogisticProbe(L2).fit(a[train], y_a[train])
        said = probe.decision_function(a).reshape(20, 12)
        said = (said - said.mean(1, keepdims=True)).ravel()[place != FOLD]
        scores[place == FOLD] = ridge.along(place, said[:, None])[0][:, 0]
    judged = ~np.isnan(y_b)
    assert table["auc"][0] == pytest.approx(float(auc(scores[judged], y_b[judged], PROMPTS[judged])))
    assert table["n_good"][0] + table["n_bad"][0] == judged.sum()


def test_no_verdict_on_the_receiver_is_read() -> None:
    a, b, y = planted(4)
    rng = np.random.default_rng(1)
    other = rng.permutation(y)
    first, second = (
        Receiver.of(verdicts, PROMPTS, FOLD, 9).row(scores, scores[None], scores)[0]
        for verdicts, scores in ((y, a[:, 0].astype(float)), (other, a[:, 0].astype(float)))
    )
    assert first["auc"] != second["auc"]  # the judge sees them
    tables = [carry([a], y, [b], Receiver.of(one, PROMPTS, FOLD, 9), pairings_of(PROMPTS, 3))[0] for one in (y, 1 - y)]
    assert tables[0]["auc"][0] == pytest.approx(1 - tables[1]["auc"][0])  # the scores do not change


def test_shuffled_pairs_stay_in_their_prompt() -> None:
    shuffled = pairings_of(PROMPTS, 50)
    assert (PROMPTS[shuffled] == PROMPTS).all() and (np.sort(shuffled, axis=1) == np.arange(len(PROMPTS))).all()
    assert (shuffled != np.arange(len(PROMPTS))).any(0).all()


def test_a_fold_that_leaves_one_class_is_refused() -> None:
    a, b, y = planted(5)
    y = np.where(FOLD == 0, y, 0.0)
    with pytest.raises(HandscopeError, match="nothing can be fitted"):
        carry([a], y, [b], Receiver.of(y, PROMPTS, FOLD, 3), pairings_of(PROMPTS, 2))
