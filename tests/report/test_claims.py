"""Sentences say what the tables say: every finding is fed with tables of every kind, and what it says is read."""

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from handscope.analysis.statistics.multiple import benjamini_hochberg
from handscope.report.claims import GAIN, SCORE, Claim, Effect, claim_of, holm_line, of_parts, verdict_of
from handscope.report.findings import findings, first_page, together
from handscope.report.results import Results
from handscope.report.words import CHANCE, TOO_FEW, capital, number
from invented import invented, with_optional

COARSE, FINE = 1 / 101, 1 / 5001
KINDS = ("null", "strong", "mixed", "floor", "disjoint", "empty", "one", "nan", "near", "against")


def changed(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """A table with effects of a kind in every column that holds one, and corrected p values that follow from them."""
    rows = rows.copy()
    if kind == "one":
        rows = rows.iloc[: 1 if "subset" not in rows else None]
    place = np.arange(len(rows))
    for column in list(rows):
        prefix, _, name = column.rpartition("_")
        prefix = f"{prefix}_" if prefix else ""
        if name not in ("auc", "added", "excess") or column.startswith(("llr", "auc_", "within_auc_")):
            continue
        null = 0.5 if name == "auc" else 0.0
        real = {
            "null": place < 0, "strong": place >= 0, "mixed": place % 2 == 0, "floor": place < 9,
            "disjoint": (place // 3) % 4 == place % 3, "empty": place < 0, "one": place >= 0, "nan": place < 0,
            "near": place < 0, "against": place < 0,
        }[kind]  # fmt: skip
        size = {"near": 0.001, "against": -0.2}.get(kind, 0.3)
        rows[column] = null + np.where(real, 0.3, {"mixed": -0.3, "null": 0.01}.get(kind, size * 0.1))
        if kind == "against":
            rows[column] = null - 0.2
        half = 0.01 if kind == "near" else 0.08
        floor = COARSE if kind == "floor" else FINE
        p = np.where(real, floor, np.maximum(0.3, (place % 7) / 7))
        new = {"lo": rows[column] - half, "hi": rows[column] + half, "null_sd": half / 2, "p": p, "p_floor": floor}
        new["q"] = benjamini_hochberg(p)
        for end, values in new.items():
            rows[f"{prefix}{end}"] = values
        if kind == "nan":
            rows[[column, *(f"{prefix}{end}" for end in new)]] = np.nan
    return rows


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Results:
    return with_optional(invented(tmp_path_factory.mktemp("claims") / "run", 0.4), True)


def results_of(plain: Results, kind: str) -> Results:
    names = ("cells", "probes", "baselines", "added", "whole_picture")
    tables = {name: changed(getattr(plain, name), kind) for name in names}
    optional = {} if kind == "empty" else {name: changed(rows, kind) for name, rows in plain.optional.items()}
    return replace(plain, **tables, optional=optional)


def every(claims: list[Claim]) -> list[Claim]:
    return [one for claim in claims for one in (claim, *every(list(claim.parts)))]


@pytest.mark.parametrize("kind", KINDS)
def test_no_sentence_says_more_than_its_test(plain, kind):
    results = results_of(plain, kind)
    claims = findings(results)
    for claim in every(claims):
        called = claim.family is not None and claim.family.called > 0
        if claim.verdict in ("yes", "partly") and claim.family is not None:
            assert called and claim.effect is not None and claim.effect.value > claim.effect.null, claim
            assert claim.family.least <= 0.05
        if claim.family is not None and not called:
            assert claim.verdict in ("no", "chance", "too_few")
    for claim in claims:
        text = f"{claim.brief} {claim.detail}"
        assert "cannot" not in text.lower() and "nan" not in text.split(), text
        assert not re.search(r"−0.00\b|[-−]0%|-\d", text), text  # no zero with a sign, no minus that is a hyphen
        if "Yes" in text:
            assert claim.verdict == "yes", text
        if claim.family is None:
            continue
        assert "n = " in text and re.search(r"over all|[\d,]+ (cells|tests|intervals)|one test", text), text
        assert " to " in text or math.isnan(claim.effect.low), text
        if claim.verdict in ("yes", "partly"):
            assert claim.effect.words()[: len(claim.effect.name) + 3] in claim.brief
            assert not re.search(rf"{claim.effect.name} [−-]", claim.brief), claim.brief
        if claim.verdict == "chance":
            assert f"{CHANCE} (n = " in claim.brief
        if claim.verdict == "too_few":
            assert claim.brief.lower().startswith(TOO_FEW)
    found = {claim.topic: claim for claim in claims}
    verdict = found["a probe"].verdict
    assert verdict == {
        "null": "chance", "strong": "yes", "mixed": "yes", "floor": "yes", "disjoint": "yes", "empty": "chance",
        "one": "yes", "nan": "not_measured", "near": "no", "against": "chance",
    }[kind]  # fmt: skip
    if kind == "against":
        assert "The other way in double.1 at step 20: AUC 0.30 (0.22 to 0.38)" in found["a probe"].detail
    if kind in ("null", "nan", "near", "against"):
        assert not any("Yes" in f"{claim.brief} {claim.detail}" for claim in claims if claim.family is not None)


def test_a_null_too_coarse_for_its_family_is_named(plain):
    rows = changed(plain.probe_of("sure"), "null")
    places = pd.concat([rows.assign(block=f"block.{number}") for number in range(4)], ignore_index=True)
    places["p"], places["p_floor"] = [COARSE] * 9 + [0.5] * 39, COARSE
    places["q"], places["auc"], places["lo"], places["hi"] = benjamini_hochberg(places["p"]), 0.9, 0.85, 0.94
    claim = claim_of("?", "a probe", "a probe tells it", "n = 509", places)
    assert places["q"].min() > 0.05 and claim.verdict == "too_few"
    assert claim.brief.startswith("Too few permutations to tell whether a probe tells it (n = 509)")
    assert "10 of 48 tests would have to reach it" in claim.brief and "AUC 0.90 (0.85 to 0.94)" in claim.detail
    # The p that is adjusted for the family stands in for it.
    claim = claim_of("?", "a probe", "a probe tells it", "n = 509", places.assign(p_family=[0.01] * 9 + [1.0] * 39))
    assert claim.verdict == "yes" and "in 9 of 48 cells (family-wise p ≤ 0.05 over all)" in claim.brief
    # Where no p is small, finer nulls would have shown nothing.
    claim = claim_of("?", "a probe", "a probe tells it", "n = 509", places.assign(p=0.5, q=0.5))
    assert claim.verdict == "chance"


def test_an_interval_that_holds_no_effect_makes_a_call_hold_in_part():
    row = pd.DataFrame([{"auc": 0.58, "lo": 0.49, "hi": 0.66, "p": 0.015}])
    claim = claim_of("?", "one direction", "one direction does", "n = 509", row)
    assert claim.verdict == "partly"
    assert claim.brief == (
        "In part: one direction does (one test, p = 0.015): AUC 0.58 (0.49 to 0.66; n = 509), an interval that holds "
        "0.50."
    )


def test_the_least_gain_and_the_largest_p_speak_for_all_accounts():
    rows = pd.DataFrame(
        {
            "block": "single.3", "step": [8, 8, 4, 4], "baseline": ["all", "x0_flat"] * 2,
            "added": [0.1, 0.05, 0.1, -0.02], "p": [0.001, 0.01, 0.001, 0.001], "q": 0.01, "p_floor": [0.001, 0.01] * 2,
        }
    )  # fmt: skip
    cells = together(rows, "").set_index("step")
    assert cells["added"].tolist() == [0.05, -0.02] and cells["p"].tolist() == [0.01, 0.001]
    assert np.allclose(cells["q"], benjamini_hochberg([0.01, 0.001])) and (cells["p_floor"] == 0.01).all()
    assert GAIN.called(cells).tolist() == [True, False]
    rows.loc[0, ["added", "p"]] = np.nan
    assert together(rows, "").set_index("step")["p"].isna().tolist() == [True, False]


def test_a_gain_over_a_reader_below_one_half_says_how_much_of_it_that_is():
    row = pd.DataFrame([{"added": 0.21, "lo": 0.12, "hi": 0.28, "p": 0.001, "auc_baseline": 0.43, "auc_both": 0.64}])
    claim = claim_of("?", "x", "it adds", "n = 509", row, GAIN)
    assert claim.detail == "Of that gain, 0.07 is only what the other reader lies below 0.5."
    assert claim_of("?", "x", "it adds", "n = 509", row.assign(auc_baseline=0.5), GAIN).detail == ""


def test_everything_together_is_holms_over_the_questions():
    def claim(topic: str, p: float, auc: float = 0.7) -> Claim:
        row = pd.DataFrame([{"auc": auc, "lo": auc - 0.1, "hi": auc + 0.1, "p": p}])
        return claim_of("?", topic, "so it is", "n = 9", row)

    line = holm_line([claim("first", 0.001), claim("second", 0.02), claim("third", 0.03), claim("fourth", 0.5)])
    assert line.verdict == "partly"
    assert line.brief == (
        "Of 4 questions with 4 tests, these hold: first; and these only when asked alone: second and third (Holm's "
        "correction over the smallest q of each, family-wise error 5%)."
    )
    assert "none holds" in holm_line([claim("first", 0.4)]).brief
    assert holm_line([]).verdict == "not_measured"


def test_a_claim_of_parts_holds_if_all_do_and_no_coarse_null_speaks_against_it():
    def part(verdict: str) -> Claim:
        return Claim("?", "x", "x", "n = 1", verdict)

    for verdicts, expected in (
        ("yes yes", "yes"), ("yes chance", "partly"), ("yes too_few", "too_few"), ("chance no", "chance"),
        ("not_measured", "not_measured"), ("yes not_measured", "yes"),
    ):  # fmt: skip
        assert of_parts([part(one) for one in verdicts.split()]) == expected
    text = Claim("?", "x", "each tells it", "n = 9", "too_few", parts=(part("yes"), part("too_few"))).brief
    assert text == f"{capital(TOO_FEW)} whether each tells it (n = 9). Shown: x. {capital(TOO_FEW)}: x."


def test_equivalence_needs_every_interval_within_the_margin():
    near, wide = Effect("gain", 0.0, -0.04, 0.04), Effect("gain", 0.0, -0.06, 0.04)
    row = pd.DataFrame([{"added": 0.0, "lo": -0.04, "hi": 0.04, "p": 0.6}])
    family = claim_of("?", "x", "x", "n = 1", row, GAIN).family
    assert verdict_of(family, [near], near) == "no" and verdict_of(family, [near, wide], near) == "chance"
    assert SCORE.effect(pd.Series({"auc": 0.5, "null_sd": 0.01})).near  # by the spread of its null


@pytest.mark.parametrize(
    ("value", "said"), [(-0.001, "−0.001"), (0.0, "0.00"), (-0.0001, "0.00"), (0.126, "0.13"), (-0.126, "−0.13")]
)
def test_no_number_loses_its_sign_in_rounding(value, said):
    assert number(value) == said


def test_the_cell_that_was_named_beforehand_is_tested_alone_and_comes_first(plain):
    named = findings(replace(plain, primary="single.3/1"))
    first = first_page(named)[0]
    assert first.topic == "the cell named beforehand" and first.verdict == "yes" and first.family.size == 1
    assert "single.3/1" in first.question and "(one test, p = 0.001): AUC 0.88 (0.82 to 0.94; n = 40" in first.brief
    # Its q would not do, and is not asked for.
    probes = plain.probes.assign(within_q=0.4, within_p_family=0.4)
    first = first_page(findings(replace(plain, probes=probes, primary="single.3/1")))[0]
    assert first.verdict == "yes"
    first = first_page(findings(replace(plain, primary="single.3/20")))[0]
    assert first.verdict == "chance" and f"{CHANCE} (n = 40" in first.brief and "(one test, p = 0.4)" in first.brief
    assert first_page(findings(replace(plain, primary="single.9/1")))[0].verdict == "not_measured"
    assert first_page(findings(plain))[0].topic == "a probe"


@pytest.mark.parametrize(
    ("low", "verdict", "words"), [(0.55, "yes", "does not hold 0.5"), (0.45, "chance", "interval holds 0.5")]
)
def test_a_cell_that_the_folds_choose_is_told_with_what_choosing_adds(plain, low, verdict, words):
    row = {"n_good": 24, "n_bad": 16, "n_cells": 12, "auc": 0.61, "lo": low, "hi": 0.7, "largest": 0.68}
    cells = {"all": "single.0/1;single.0/1", "within": "single.3/1;single.3/1;single.3/4"}
    chosen = pd.DataFrame([{"pairs": pairs, "cells": names, **row} for pairs, names in cells.items()])
    results = replace(plain, optional={**plain.optional, "chosen": chosen})
    claim = next(claim for claim in first_page(findings(results)) if claim.topic == "a chosen cell")
    assert claim.verdict == verdict
    assert f"for each of 3 folds, the held-out folds have AUC 0.61 ({low:.2f} to 0.70; n = 40" in claim.brief
    assert "Chosen: single.3/1 (2), single.3/4 (1)." in claim.detail and "looks better by 0.07" in claim.detail
    assert words in claim.detail
