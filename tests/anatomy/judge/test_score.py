"""The score on tensors: verdicts with reasons, outcomes of pictures, and what a person's labels make of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from handscope.anatomy import score
from handscope.anatomy.judge.calibrate import calibrate, chosen_hands
from handscope.anatomy.judge.calibration import SHIPPED, Calibration
from handscope.anatomy.judge.scores import paper
from handscope.anatomy.judge.scoring import METHODS, Scores, judge
from handscope.anatomy.judge.stage import weights_hash
from handscope.anatomy.measure.count import Count
from handscope.anatomy.measure.examine import Examined, raised_evidence
from handscope.errors import HandscopeError
from made_hands import examined, open_hands
from sklearn.metrics import cohen_kappa_score, roc_auc_score

WEIGHTS = Calibration(("arcs_most", "sil_parts"), (0.0, 0.0), (1.0, 1.0), (2.0, 0.5), -1.0, 0.5)


@pytest.fixture(scope="module")
def pictures() -> list[torch.Tensor]:
    """Three renders, of 192 and of 256 pixels, and a picture of nothing."""
    first, second = open_hands(2, 1), open_hands(1, 2, 256)
    return [first[0], torch.full((3, 120, 200), 0.4), first[1], second[0]]


@pytest.fixture(scope="module")
def scores(pictures: list[torch.Tensor]) -> dict[str, Scores]:
    return {method: score(pictures, method, search="plain") for method in METHODS}


def test_every_picture_has_an_outcome(scores: dict[str, Scores]) -> None:
    for method, one in scores.items():
        outcomes = one.outcomes()
        assert len(outcomes) == 4 and outcomes[1] == "undetected" and one.undetected == [1]
        assert set(outcomes) - {"undetected"} <= {"plausible", "implausible", "cannot tell"}
        assert method == "calibrated" or "cannot tell" not in outcomes
        table = one.table()
        assert sorted(set(table["image"])) == [0, 1, 2, 3]
        nothing = table[table["image"] == 1].iloc[0]
        assert (nothing["hand"], nothing["outcome"], nothing["reasons"]) == (0, "undetected", "no hand was found")
        found = table[table["hand"] > 0]
        assert len(found) >= 3 and not found.isna().any().any()
        assert (found["score"].between(0, 1)).all()
        assert (found.loc[found["outcome"] == "implausible", "reasons"] != "").all(), method


def test_verdicts_are_those_of_the_methods(scores: dict[str, Scores]) -> None:
    read = scores["paper"].examined
    assert scores["paper"].verdicts == paper(read.count, read.angles, read.ratios)
    x = read.matrix(Calibration.load().names).numpy()
    p = Calibration.load().probability(x)
    told = [k for k, verdict in enumerate(scores["calibrated"].verdicts) if verdict.plausible is not None]
    found = [verdict.score for verdict in judge(read, "calibrated", replace(Calibration.load(), limits={})).verdicts]
    assert found == pytest.approx((1 - p).tolist())
    assert all(scores["calibrated"].verdicts[k].score == pytest.approx(found[k]) for k in told)


def test_a_picture_is_scored_as_it_is_alone(pictures: list[torch.Tensor], scores: dict[str, Scores]) -> None:
    alone = score(pictures[3][None], "calibrated", search="plain")
    together = [
        verdict.score
        for verdict, image in zip(scores["calibrated"].verdicts, scores["calibrated"].examined.hands.image.tolist())
        if image == 3
    ]
    assert [verdict.score for verdict in alone.verdicts] == pytest.approx(together, abs=2e-3)


def test_what_was_read_survives_its_journal(scores: dict[str, Scores]) -> None:
    read = scores["calibrated"].examined
    rows: list[list] = [[] for _ in range(read.pictures)]
    for image, record in zip(read.hands.image.tolist(), read.records(), strict=True):
        rows[image].append(record)
    again = Examined.of_records(rows)
    assert again.undetected == read.undetected and list(again.evidence) == list(read.evidence)
    for method in METHODS:
        one, other = judge(read, method), judge(again, method)
        assert [v.plausible for v in one.verdicts] == [v.plausible for v in other.verdicts]
        assert [v.score for v in one.verdicts] == pytest.approx([v.score for v in other.verdicts], abs=1e-4)


@pytest.mark.parametrize("name", list(SHIPPED))
def test_shipped_calibrations_are_of_these_networks(name: str, scores: dict[str, Scores]) -> None:
    shipped = Calibration.load(name)
    assert scores["paper"].examined.matrix(shipped.names).shape[1] == len(shipped.names) > 10
    assert shipped.trust["held_out"] and shipped.provenance["fitted_to"]
    # Other weights see other evidence: after a change of any, bench/validity/anatomy_evaluation.py --write fits anew.
    assert shipped.provenance["weights"] == weights_hash()


def test_nothing_found_anywhere() -> None:
    blank = score(torch.rand(2, 3, 64, 64), "calibrated", search="plain")
    assert blank.outcomes() == ["undetected"] * 2 and blank.verdicts == []
    assert blank.table()["outcome"].tolist() == ["undetected"] * 2


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(1, 3, 64, 64, dtype=torch.int32), "three channels"),
        (torch.zeros(1, 1, 64, 64), "three channels"),
        (torch.zeros(1, 3, 0, 64), "three channels"),
        (torch.full((1, 3, 64, 64), 200.0), "number 0 go from 200 to 200. Bring"),
        ([torch.zeros(3, 64, 64), torch.full((3, 64, 64), float("nan"))], "number 1 go from nan"),
        (torch.full((1, 3, 64, 64), -0.5), "number 0 go from -0.5"),
    ],
)
def test_pictures_of_another_form_are_refused(images, said: str) -> None:
    with pytest.raises(HandscopeError, match=said):
        score(images)


def test_other_arguments_are_refused(pictures: list[torch.Tensor]) -> None:
    with pytest.raises(HandscopeError, match="no method 'best': choose one of calibrated"):
        score(pictures, "best")  # type: ignore[arg-type]
    with pytest.raises(HandscopeError, match="raised digits of each of 1 pictures"):
        score(pictures[1][None], raised=[5, 4], search="plain")


def test_calibrated_weighs_evidence() -> None:
    read = examined([0, 1, 2], 3, {"arcs_most": [0.0, 2.0, 0.1], "sil_parts": [0.0, 0.0, 1.0]})
    verdicts = judge(read, "calibrated", WEIGHTS).verdicts
    p = [1 / (1 + math.exp(-z)) for z in (-1.0, 3.0, -0.3)]
    assert [verdict.score for verdict in verdicts] == pytest.approx([1 - one for one in p])
    assert [verdict.plausible for verdict in verdicts] == [True, False, True]
    assert verdicts[1].reasons == ["digits counted across the fan of fingers (+4.0)"]
    assert verdicts[0].reasons == [] and verdicts[2].reasons == []
    assert verdicts[2].subscores["sil"] == pytest.approx(-0.5)


def test_reasons_name_what_is_broken_first() -> None:
    read = examined([0], 1, {"arcs_most": [3.0], "sil_parts": [0.0]}, count=6)
    read.angles[0, 4] = -40  # index PIP
    reasons = judge(read, "calibrated", WEIGHTS).verdicts[0].reasons
    assert reasons[0] == "6 fingers counted (expected 5)"
    assert reasons[1].startswith("index PIP bent back 40°")
    assert reasons[2] == "digits counted across the fan of fingers (+6.0)"


def test_no_verdict_against_a_hand_is_without_a_reason() -> None:
    many = Calibration(tuple(f"arcs_{i}" for i in range(3)), (0.0,) * 3, (1.0,) * 3, (0.01,) * 3, 2.0, 0.5)
    read = examined([0], 1, {f"arcs_{i}": [1.0] for i in range(3)})
    assert judge(read, "calibrated", many).verdicts[0].reasons == ["many small signs, none of which stands out"]


def test_evidence_of_another_version_is_refused() -> None:
    with pytest.raises(HandscopeError, match="does not gather .*arcs_most.*fit it again"):
        judge(examined([0], 1, {"other": [0.0]}), "calibrated", WEIGHTS)


def test_a_picture_with_one_bad_hand_is_bad() -> None:
    read = examined([0, 0, 2], 4, {"arcs_most": [0.0, 3.0, 0.0], "sil_parts": [0.0, 0.0, 0.0]})
    scores = judge(read, "calibrated", WEIGHTS)
    assert scores.outcomes() == ["implausible", "undetected", "plausible", "undetected"]
    assert scores.table()["hand"].tolist() == [1, 2, 0, 1, 0]


def test_raised_digits_that_were_asked_for() -> None:
    probability = torch.tensor([[0.0, 0, 0, 0.1, 0.9, 0, 0, 0]]).expand(3, 8)
    one, many = torch.ones(3), torch.ones(3, 4)
    count = Count(probability, one.long(), one, many, many, many)
    found = raised_evidence(count, torch.tensor([4.0, 4.0, 4.0]), [4, 5, None])
    assert found["raised_missing"].tolist() == [0, 0, 1]
    assert found["raised_fewer"].tolist() == pytest.approx([0.1, 1.1, 0], abs=1e-5)
    assert found["raised_arcs_fewer"].tolist() == [0, 1, 0] and found["raised_arcs_more"].tolist() == [0, 0, 0]
    assert found["raised_odds"].tolist() == pytest.approx([math.log(0.1 / 0.9), math.log(1e6), 0], abs=1e-3)


def test_the_hand_that_a_label_is_about() -> None:
    read = examined([0, 0, 1, 3], 4)
    read.hands.presence[:] = torch.tensor([0.6, 0.8, 0.7, 0.9])
    read.hands.points[0, :, 0] += 300
    assert chosen_hands(read).tolist() == [1, 2, -1, 3]
    right_half = [300.0, 0.0, 600.0, 200.0]
    assert chosen_hands(read, [right_half, right_half, None, None]).tolist() == [0, -1, -1, 3]


@pytest.fixture(scope="module")
def labelled() -> tuple[Examined, np.ndarray, np.ndarray]:
    """240 pictures of 24 prompts; the evidence knows about the labels; 20 hands are not found, most of them bad."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), 10)
    bad = rng.random(240) < 0.35
    lost = rng.random(240) < np.where(bad, 0.15, 0.04)
    seen = np.flatnonzero(~lost)
    told = bad[seen] * 1.5 + rng.normal(size=len(seen))
    evidence = {"arcs_most": told.tolist(), "sil_parts": rng.normal(size=len(seen)).tolist()}
    return examined(seen.tolist(), 240, evidence), bad, groups


def test_calibrate_measures_on_hands_it_did_not_see(labelled: tuple[Examined, np.ndarray, np.ndarray]) -> None:
    read, bad, groups = labelled
    result = calibrate(read, bad, groups, provenance={"labels": "made"})
    table = result.held_out
    assert len(table) == len(read.hands)
    row = result.agreement.set_index(["method", "undetected"]).loc[("calibrated", "left out")]
    assert row["kappa"] == pytest.approx(cohen_kappa_score(table["bad"], table["calibrated"]))
    assert row["auc"] == pytest.approx(roc_auc_score(table["bad"], table["probability"]))
    assert row["kappa_lo"] < row["kappa"] < row["kappa_hi"] and row["auc_lo"] < row["auc"] < row["auc_hi"]
    in_sample = result.calibration.probability(read.matrix(result.calibration.names).numpy())
    assert not np.allclose(in_sample, table["probability"])
    trust = result.calibration.trust["calibrated"]
    assert np.array(trust["counts"]).sum() == len(table) and len(trust["counts"]) == 24
    assert result.calibration.provenance == {"labels": "made"}
    assert result.curve["n"].sum() == len(table) and 0 <= result.error < 0.2


def test_undetected_hands_are_counted_both_ways(labelled: tuple[Examined, np.ndarray, np.ndarray]) -> None:
    read, bad, groups = labelled
    rows = calibrate(read, bad, groups).agreement.set_index(["method", "undetected"]).loc["calibrated"]
    lost = np.isin(np.arange(240), read.undetected)
    assert rows.loc["left out", "n"] == 240 - lost.sum() and rows.loc["counted as plausible", "n"] == 240
    assert rows.loc["left out", "undetected_bad"] == pytest.approx(lost[bad].mean())
    assert rows.loc["left out", "undetected_good"] == pytest.approx(lost[~bad].mean())
    assert rows.loc["counted as implausible", "sensitivity"] > rows.loc["counted as plausible", "sensitivity"]
    assert rows.loc["counted as implausible", "specificity"] < rows.loc["counted as plausible", "specificity"]


def test_rates_are_corrected_for_the_scorers_error(labelled: tuple[Examined, np.ndarray, np.ndarray]) -> None:
    read, bad, groups = labelled
    rates = calibrate(read, bad, groups).rates.set_index("method")
    labelled_rate = rates.loc["calibrated", "labelled"]
    assert abs(rates.loc["calibrated", "corrected"] - labelled_rate) < 0.05
    # These methods pass all of these hands, which are straight: nothing can be told from their verdicts.
    assert math.isnan(rates.loc["paper", "corrected"]) and rates.loc["paper", "why"]


def test_a_calibration_of_no_hands(labelled: tuple[Examined, np.ndarray, np.ndarray]) -> None:
    with pytest.raises(HandscopeError, match="No hand was found in any of 3 labelled pictures"):
        calibrate(examined([], 3, {"arcs_most": []}), np.array([True, False, True]), np.arange(3))
