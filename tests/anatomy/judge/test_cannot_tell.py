"""Where nothing can be told the score says so, and a calibration that learnt nothing says so of every hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope.anatomy.integrations.redraw import rejected
from handscope.anatomy.judge.calibrate import (
    NEVER,
    calibrate,
    flagged_apart,
    folds_of,
    report_card,
    threshold_at,
)
from handscope.anatomy.judge.calibration import Calibration
from handscope.anatomy.judge.scoring import NEITHER, judge
from handscope.anatomy.judge.sheet import draw_sheets
from handscope.errors import HandscopeError
from made_hands import examined

BAND = Calibration(("arcs_most",), (0.0,), (1.0,), (1.0,), 0.0, 0.8, passes=0.4)


def test_between_the_thresholds_nothing_is_told() -> None:
    read = examined([0, 1, 2, 4], 5, {"arcs_most": [-2.0, 0.0, 3.0, 0.5]})
    scores = judge(read, "calibrated", BAND)
    assert [one.outcome for one in scores.verdicts] == ["plausible", "cannot tell", "implausible", "cannot tell"]
    assert [one.plausible for one in scores.verdicts] == [True, None, False, None]
    assert scores.outcomes() == ["plausible", "cannot tell", "implausible", "undetected", "cannot tell"]
    assert scores.verdicts[1].reasons == [NEITHER] and scores.verdicts[0].reasons == []
    table = scores.table()
    assert table["outcome"].tolist() == scores.outcomes()
    assert table["score"].dropna().tolist() == pytest.approx([1 - 1 / (1 + np.exp(-z)) for z in (-2, 0, 3, 0.5)])
    assert rejected(scores, ["cannot tell"]) == [False, True, False, False, True]


def test_the_gravest_hand_speaks_for_its_picture() -> None:
    read = examined([0, 0, 1, 1], 2, {"arcs_most": [-2.0, 0.0, 0.0, 3.0]})
    assert judge(read, "calibrated", BAND).outcomes() == ["cannot tell", "implausible"]


@pytest.mark.parametrize(
    ("name", "ends", "values", "said"),
    [
        ("points_size", (float(np.log(0.5)), None), (np.log(0.4), np.log(0.6)), "fewer than 50 pixels across"),
        ("presence", (0.6, None), (0.5, 0.7), "hardly looks like a hand"),
        ("straight_digits", (1.0, None), (0.0, 1.0), "a fist"),
        ("picture_strange", (None, 1.4), (1.5, 1.3), "unlike the photographs"),
        ("count_more", (None, 0.0), (0.1, -0.1), "more than five digits"),
    ],
)
def test_a_hand_beyond_the_limits_is_neither(
    name: str, ends: tuple[float | None, float | None], values: tuple[float, float], said: str
) -> None:
    """Whatever its evidence says: never plausible with a high score, never implausible with a low one."""
    calibration = replace(BAND, limits={name: ends})
    for weight in (-5.0, 5.0):
        read = examined([0, 1], 2, {"arcs_most": [weight, weight], name: list(values)})
        beyond, within = judge(read, "calibrated", calibration).verdicts
        assert beyond.outcome == "cannot tell" and any(said in reason for reason in beyond.reasons)
        assert within.outcome == ("plausible" if weight < 0 else "implausible")
        assert 1 - calibration.threshold < beyond.score <= 1 - calibration.passing + 1e-9


def test_six_counted_is_a_reason_and_a_verdict() -> None:
    limits = {"count_more": (None, 0.0), "presence": (0.6, None)}
    calibration = replace(BAND, flags={"count_more": (None, 1.0)}, limits=limits)
    evidence = {"arcs_most": [-5.0] * 4, "count_more": [-1.0, 0.5, 1.5, 1.5], "presence": [0.9, 0.9, 0.9, 0.5]}
    verdicts = judge(examined([0, 1, 2, 3], 4, evidence), "calibrated", calibration).verdicts
    assert [one.outcome for one in verdicts] == ["plausible", "cannot tell", "implausible", "cannot tell"]
    assert verdicts[2].reasons == ["more than five digits are counted"] and verdicts[2].score <= 0.2
    assert "hardly looks like a hand" in verdicts[3].reasons
    read = examined([0], 1, {name: values[2:3] for name, values in evidence.items()}, count=6)
    assert judge(read, "calibrated", calibration).verdicts[0].reasons == ["6 fingers counted (expected 5)"]


def test_a_calibration_without_a_band_tells_of_every_hand() -> None:
    plain = replace(BAND, passes=None)
    read = examined([0, 1], 2, {"arcs_most": [-2.0, 3.0]})
    assert [one.outcome for one in judge(read, "calibrated", plain).verdicts] == ["plausible", "implausible"]


def test_thresholds_survive_their_file_and_have_to_fit(tmp_path: Path) -> None:
    saved = replace(BAND, limits={"presence": (0.6, None)})
    saved.save(tmp_path / "one.json")
    again = Calibration.load(tmp_path / "one.json")
    assert again.passing == 0.4 and again.limits == {"presence": [0.6, None]}
    for wrong in (replace(BAND, passes=0.9), replace(BAND, limits={"presence": (0.6,)})):
        wrong.save(tmp_path / "wrong.json")
        with pytest.raises(HandscopeError, match="do not fit"):
            Calibration.load(tmp_path / "wrong.json")


def test_the_shipped_general_calibration_can_say_that_it_cannot_tell() -> None:
    general = Calibration.load()
    assert general.passing < general.threshold and "picture_fault" in general.names
    assert {"points_size", "presence", "straight_digits", "count_more"} <= set(general.limits)
    organism = Calibration.load("organism")
    assert organism.passing == organism.threshold and not organism.limits


def test_sheets_show_what_cannot_be_told(tmp_path: Path) -> None:
    from PIL import Image

    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (200, 200), "white").save(paths[-1])
    scores = judge(examined([0, 1, 2], 3, {"arcs_most": [0.0, -2.0, 3.0]}), "calibrated", BAND)
    (sheet,) = draw_sheets(scores, paths, tmp_path / "sheets")
    assert sheet.stat().st_size > 1000


def test_a_threshold_keeps_its_rate_of_false_alarms() -> None:
    """Of new hands of the same kind at most the stated share is flagged, on average over calibration sets."""
    random = np.random.default_rng(0)
    for n in (19, 40, 200):
        limits = [threshold_at(random.normal(size=n), 0.1) for _ in range(300)]
        rates = [float((random.normal(size=500) >= limit).mean()) for limit in limits]
        assert 0.1 - 2 / n < np.mean(rates) <= 0.1 + 0.006, n
    assert threshold_at(np.array([]), 0.05) == NEVER
    assert (np.arange(5.0) >= threshold_at(np.arange(5.0), 0.05)).sum() == 0  # too few: beyond the largest


@pytest.fixture(scope="module")
def rare() -> tuple:
    """A tenth of 382 hands is bad, in 12 groups, and the evidence knows something of it."""
    random = np.random.default_rng(1)
    groups = np.arange(382) % 12
    bad = np.zeros(382, bool)
    bad[random.choice(382, 39, replace=False)] = True
    told = bad * 1.2 + random.normal(size=382)
    evidence = {"arcs_most": told.tolist(), "sil_parts": random.normal(size=382).tolist()}
    return examined(list(range(382)), 382, evidence), bad, groups


def test_rare_bad_hands_are_found_at_the_stated_rate(rare: tuple) -> None:
    read, bad, groups = rare
    result = calibrate(read, bad, groups)
    row = result.agreement.set_index(["method", "undetected"]).loc[("calibrated", "left out")]
    at_half = (result.held_out["probability"][bad] >= 0.5).mean()
    assert row["sensitivity"] > max(0.15, 2 * at_half) and row["specificity"] > 0.92, at_half
    assert not result.warning and result.calibration.threshold < 0.5
    wider = calibrate(read, bad, groups, alarms=0.2)
    assert wider.calibration.threshold < result.calibration.threshold and wider.calibration.trust["alarms"] == 0.2


def test_a_threshold_for_a_fold_did_not_see_it(rare: tuple) -> None:
    _, bad, groups = rare
    p = np.random.default_rng(2).random(382)
    flagged = flagged_apart(p, bad, groups, 0.1)
    for train, test in folds_of(bad, groups):
        assert (flagged[test] == (p[test] >= threshold_at(p[train][~bad[train]], 0.1))).all()


def test_evidence_without_meaning_is_said_to_be_so(rare: tuple) -> None:
    read, bad, groups = rare
    noise = np.random.default_rng(3).normal(size=(2, 382))
    deaf = replace(read, evidence={"arcs_most": torch.tensor(noise[0]), "sil_parts": torch.tensor(noise[1])})
    result = calibrate(deaf, bad, groups)
    assert "nothing was learnt" in result.warning and "39 bad and 343 good" in result.warning
    outcomes = {one.outcome for one in judge(deaf, "calibrated", result.calibration).verdicts}
    assert outcomes == {"cannot tell"}


def test_a_report_card_has_a_row_a_group(rare: tuple) -> None:
    read, bad, groups = rare
    result = calibrate(read, bad, groups)
    card = report_card(result.held_out)
    assert card["n"].sum() == 382 and card["bad"].sum() == 39 and len(card) == 12
    own = result.held_out[result.held_out["group"] == card["group"][0]]
    assert card["flagged"][0] == pytest.approx(own["calibrated"].mean())
    assert card["specificity"][0] == pytest.approx(1 - own["calibrated"][~own["bad"]].mean())
