"""The published score, any-violation and their words: truth table, monotony, and a page that agrees with the code."""

from pathlib import Path

import pytest
import torch
from handscope.anatomy.judge import tables
from handscope.anatomy.judge.reasons import joint_reason, violations
from handscope.anatomy.judge.scores import any_violation, paper, paper_score, truth_table
from handscope.anatomy.measure.excess import angle_excess, ratio_deviation, spread_excess
from handscope.anatomy.measure.limits import JOINT_LIMITS, RATIOS, SPREAD_LIMITS, bounds, reference_ratios
from handscope.anatomy.read.skeleton import JOINTS
from handscope.organism.hands import LIMITS
from hypothesis import given, settings
from hypothesis import strategies as st

DOCS = Path(__file__).parents[3] / "docs" / "anatomy_scores.md"
PIP = JOINTS.index("index PIP")


def hand(five=True, joints=True, similar=True, n=1):
    """A count, angles and ratios that are in order, or not."""
    angles = torch.zeros(n, 15)
    if not joints:
        angles[:, PIP] = -60
    ratios = reference_ratios()[0].expand(n, 5).clone()
    if not similar:
        ratios[:, 1] *= 1.8
    return torch.full((n,), 5 if five else 6), angles, ratios


def test_the_published_score_passes_every_single_violation():
    assert paper_score(*hand())[0] == pytest.approx(1.0)
    for single in ({"five": False}, {"joints": False}, {"similar": False}):
        verdict = paper(*hand(**single))[0]
        assert verdict.plausible and verdict.score >= 0.5
        if "similar" not in single:
            assert verdict.reasons  # it says so, and passes it all the same
    assert paper_score(*hand(five=False))[0] == pytest.approx(0.7)
    assert paper_score(*hand(joints=False))[0] == pytest.approx(0.6)
    assert not paper(*hand(five=False, joints=False))[0].plausible


def test_the_truth_table_is_what_the_formula_does():
    """Over similarities from 0 to 1, written out again from the paper's own formula."""
    for row in truth_table():
        flagged = [s / 100 for s in range(101) if 0.3 * row.five + 0.4 * row.joints + 0.3 * (s / 100) < 0.5 - 1e-9]
        if row.flagged == "never":
            assert not flagged
        elif row.flagged == "always":
            assert len(flagged) == 101
        else:
            assert flagged == [s / 100 for s in range(101) if s / 100 < float(row.flagged.split()[-1]) - 1e-3]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.2, 5), min_size=5, max_size=5), st.integers(-1, 8), st.floats(-90, 150), st.integers(0, 14))
def test_the_published_score_by_hand(ratios, count, degrees, joint):
    """The formula in plain Python, one number at a time."""
    angles = [0.0] * 15
    angles[joint] = degrees
    reference = [row.reference for row in RATIOS]
    dot = sum(a * b for a, b in zip(ratios, reference))
    similarity = dot / (sum(a * a for a in ratios) ** 0.5 * sum(b * b for b in reference) ** 0.5)
    low, high = JOINT_LIMITS[joint].active
    expected = 0.3 * (count in (5, -1)) + 0.4 * (low <= degrees <= high) + 0.3 * similarity
    found = paper_score(torch.tensor([count]), torch.tensor([angles]), torch.tensor([ratios]))
    assert float(found[0]) == pytest.approx(expected, abs=1e-5)


def test_any_violation_flags_every_single_violation_and_says_which():
    assert any_violation(*hand())[0].plausible and not any_violation(*hand())[0].reasons
    for single, words in [
        ({"five": False}, ["6 fingers counted (expected 5)"]),
        ({"joints": False}, ["index PIP bent back 60° (limit −15°)"]),
        ({"similar": False}, [f"index {1.8 * RATIOS[1].reference:.2f} of the middle finger's length"]),
    ]:
        verdict = any_violation(*hand(**single))[0]
        assert verdict.plausible is False and verdict.score == 0 and min(verdict.subscores.values()) < 1
        assert len(verdict.reasons) == 1 and verdict.reasons[0].startswith(words[0])


def test_an_unknown_count_breaks_nothing():
    _, angles, ratios = hand()
    unknown = torch.tensor([-1])
    assert any_violation(unknown, angles, ratios)[0].plausible and paper(unknown, angles, ratios)[0].score == 1.0


def test_reasons_in_words_the_worst_first():
    assert joint_reason(JOINT_LIMITS[PIP], -40, "active") == "index PIP bent back 40° (limit −5°)"
    assert joint_reason(JOINT_LIMITS[PIP], 140) == "index PIP bent 140° (limit 120°)"
    count, angles, ratios = hand(five=False, joints=False)
    angles[:, JOINTS.index("ring DIP")] = -150
    ratios[:, 4] = 2.5
    said = violations(count, angles, ratios)[0]
    assert said[0].startswith("6 fingers") and len(said) == 4
    assert said.index("ring DIP bent back 150° (limit −30°)") < said.index("index PIP bent back 60° (limit −15°)")
    # Within the tolerance nothing is said, and an angle exactly there is still within.
    angles = torch.zeros(1, 15)
    angles[0, PIP] = -30
    assert violations(torch.tensor([5]), angles, hand()[2]) == [[]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 14), st.floats(0, 200), st.floats(0.01, 100), st.sampled_from([-1, 1]))
def test_excess_is_nothing_inside_and_grows_outside(joint, start, more, way):
    angles = torch.zeros(3, 15, dtype=torch.float64)
    angles[1, joint], angles[2, joint] = way * start, way * (start + more)
    excess = angle_excess(angles)[:, joint]
    low, high = JOINT_LIMITS[joint].passive
    assert excess[0] == 0 and excess[2] >= excess[1]
    assert (excess[1] == 0) == (low <= way * start <= high)
    assert excess[1] == 0 or excess[2] > excess[1]


def test_excess_is_one_at_the_edge_of_what_any_violation_allows():
    low, high = bounds("passive", tolerance=True)
    assert torch.allclose(angle_excess(torch.stack([low, high])), torch.ones(2, 15))
    spread = torch.tensor([[limit.passive[1] + limit.tolerance for limit in SPREAD_LIMITS]])
    assert torch.allclose(spread_excess(spread, torch.zeros(1, 15)), torch.ones(1, 4))
    bent = torch.full((1, 15), 90.0)
    assert spread_excess(spread, bent).max() < 1e-6  # a bent finger has no direction in the palm's plane


def test_ratio_deviation_is_symmetric_in_the_logarithm():
    reference, spread = reference_ratios()
    out = ratio_deviation(torch.stack([reference, reference * spread.exp(), reference / (2 * spread).exp()]))
    others = torch.tensor([0, 1, 3, 4])
    assert torch.allclose(out[:, others], torch.tensor([[0.0], [1.0], [-2.0]]).expand(3, 4), atol=1e-5)
    assert (out[:, 2] == 0).all()


def test_limits_are_ordered_sourced_and_agree_with_the_renderer():
    for limit in (*JOINT_LIMITS, *SPREAD_LIMITS):
        assert limit.passive[0] <= limit.active[0] < limit.active[1] <= limit.passive[1] and limit.tolerance > 0
        assert limit.active_source and limit.passive_source
    low, high = bounds("active")
    assert [limit.name for limit in JOINT_LIMITS] == list(JOINTS)
    assert torch.equal(torch.stack([low, high], 1), LIMITS)


@pytest.mark.parametrize("table", [tables.limits_table, tables.spread_table, tables.ratio_table, tables.paper_table])
def test_the_document_prints_the_tables_that_the_code_uses(table):
    assert table() in DOCS.read_text(encoding="utf-8"), f"docs/anatomy_scores.md should contain:\n{table()}"
