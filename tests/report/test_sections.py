"""The page has a section for every stage whose tables are there, in the order of the table of stages."""

import re

import numpy as np
import pandas as pd
from handscope.report.page import report
from handscope.report.plates import plates
from handscope.report.results import Results
from handscope.report.sections import sections
from handscope.stages import REPORT, STAGES, TABLES
from invented import invented, with_optional
from PIL import Image

INSIDE = ("lens", "heads", "features")
"""Stages whose sections are tested on tables that they wrote, in tests/inside/test_stages.py."""
OWN = [stage for stage in STAGES if "own" in stage.designs and stage.name not in INSIDE]
"""Stages of a run with noises of each prompt's own; the other designs have a page of their own."""

TOLERANCES = (1.0, 2.0, 3.0, 5.0, 8.0)


def with_requested(run) -> Results:
    """A run with the tables of the stages that a study runs on request."""
    regions = [
        {
            "region": region, "unit": "px", "tolerance": tolerance, "group": group, "n": 30, "missing": 2,
            "undecided": 4, "from_the_start": 0, "median_step": np.nan if region == "palm" else 20 - tolerance,
            "steps_hi": 18, "steps_lo": 16, "median_sigma": 0.8, "snr_db": -2.0, "difference": 1.5, "p": 0.01,
            "reason": "half were not decided before the end" if region == "palm" else "",
        }
        for region in ("hand", "palm") for tolerance in TOLERANCES for group in ("all", "good", "bad")
    ]  # fmt: skip
    looks = [
        {
            "feature": f"look {number}", "step": 18, "way": "threshold", "attempts": 8, "rate": 0.3 - number / 100,
            "lo": 0.1, "hi": 0.4, "cost": 1.7, "calls_per_good": 40.0, "ratio": 0.5, "within_auc": 0.6,
        }
        for number in range(9)
    ]  # fmt: skip
    plain = {"feature": "none", "step": np.nan, "way": "plain", "attempts": 1, "rate": 0.31, "lo": 0.2, "hi": 0.4}
    names = (("baseline", "plain", 0.28), ("push", "steering", 0.25), ("begin early", "triage", 0.12))
    arms = [
        {
            "arm": name, "family": family, "n": 40, "before": 0.28, "after": after, "difference": after - 0.28,
            "low": -0.2, "high": 0.1, "p": 0.02, "q": 0.04, "control_p": np.nan,
        }
        for name, family, after in names
    ]  # fmt: skip
    hands = [("implausible", f"two fingers fused {said}") for said in ("(+2.8); too long", "(+0.1)")]
    hands.append(("plausible", ""))
    patch = [
        {
            "direction": direction, "arm": arm, "block": block, "step": step, "n": 40, "prompts": 20, "way": 0.12,
            "moved": 0.2 - step / 100, "moved_lo": 0.05, "moved_hi": 0.3, "p": 0.001, "q": 0.01, "p_family": 0.01,
            "beyond_latents": 0.02, "beyond_latents_lo": -0.01, "beyond_latents_hi": 0.05, "beyond_latents_n": 40,
            "beyond_latents_p": 0.2, "beyond_latents_q": 0.4,
        }
        for direction in ("both", "into bad")
        for arm, block in (("donor", "double.1"), ("donor", "single.3"), ("latents", "")) for step in (4, 2)
    ]  # fmt: skip
    values = [
        {
            "block": block, "step": step, "value": value, "n_of": 40, "n": 120, "n_prompts": 20, "n_pairs": 300,
            "auc": 0.7 - step / 100, "lo": 0.6, "hi": 0.8, "null_mean": 0.5, "null_sd": 0.03, "p": 0.001,
            "p_floor": 0.001, "p_family": 0.01, "q": 0.01,
        }
        for block in ("double.1", "single.3") for step in (4, 2) for value in ("all", "order", "2", "3", "4")
    ]  # fmt: skip
    classes = [
        {
            "block": block, "step": step, "class": name, "n": 60, "n_prompts": 20, "share": 0.3,
            "auc": 0.9 - step / 100, "lo": 0.8, "hi": 0.95, "place_auc": 0.7, "gain": 0.2, "gain_lo": 0.1,
            "gain_hi": 0.3, "match": 0.4, "null_mean": 0.1, "null_sd": 0.03, "p": 0.001, "p_floor": 0.001,
            "p_family": 0.01, "q": 0.01,
        }
        for block in ("double.1", "single.3") for step in (4, 2) for name in ("hand", "thumb")
    ]  # fmt: skip
    confusion = [
        {"block": block, "step": step, "value": value, "said": said, "n": 30 if value == said else 5}
        for block in ("double.1", "single.3") for step in (4, 2) for value in (2, 3, 4) for said in (2, 3, 4)
    ]
    agree = {"causal": "moved", "other": "probe", "rho": 0.3, "lo": -0.1, "hi": 0.6, "cells": 4, "worst": "double.1/4"}
    made = {
        "value_probes": values,
        "value_confusion": confusion,
        "value_baselines": [{"baseline": "image", **{k: v for k, v in values[0].items() if k != "block"}}],
        "class_probes": classes,
        "class_baselines": [{"baseline": "predicted", "step": 2, "class": "thumb", "auc": 0.8, "lo": 0.7, "hi": 0.9}],
        "patch": patch,
        "patch_first_order": [{"block": "double.1", "step": 4, "n": 40, "exact": 0.1, "estimate": 0.2}],
        "patch_agreement": [agree],
        "patch_pairs": [{"pair": "000-", "recipient": "a", "donor": "b"}],
        "commitment": [{"sample": "a", "region": "hand"}],
        "commitment_summary": regions,
        "triage": [plain | {"cost": 1.0, "calls_per_good": 29.0}, *looks],
        "arms": arms,
        "scores": [{"outcome": outcome, "reasons": reasons} for outcome, reasons in [*hands, ("undetected", "none")]],
    }
    for name, rows in made.items():
        path = run.path / TABLES[name][0].path
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, index=False)
    return with_optional(run, True)


def test_a_section_is_there_where_its_tables_are(tmp_path):
    run = invented(tmp_path / "run", 0.4)
    assert sections(Results.read(run), ()) == []
    found = {section.id: section for section in sections(with_requested(run), {"mend", "mend_pairs"})}
    assert list(found) == [stage.section.split()[0] for stage in OWN if stage.section and not stage.always]
    assert set(found["survey"].figures) == {"survey_probe", "survey_distance"}
    assert set(found["mend"].figures) == {"mend", "mend_pairs"} and found["commit"].figures == {}
    assert found["classes"].rows[1] == (
        "thumb, 30% of a picture", "double.1 at step 2", "0.88 (0.80 to 0.95)", "0.01", "0.70", "0.80 (0.70 to 0.90)"
    )  # fmt: skip
    assert "class hand are told from others of their picture" in found["classes"].text
    first = found["patch"].rows[0]
    assert first[0] == "double.1, step 2" and first[1].startswith("0.18 (0.05 to 0.30; q = 0.01)")
    assert first[3] == "+0.02 (−0.01 to +0.05; q = 0.4; n = 40)" and first[4] == ""
    said = found["patch"].text
    assert "40 donor, 40 latents" in said and "moved and probe: 0.30 (−0.10 to 0.60)" in said
    hand, palm = found["commit"].rows
    assert hand[:4] == ("hand", "3 px", "step 17 (16 to 18)", "+1.50 steps (p = 0.01)")
    assert palm[2] == "no median: half were not decided before the end"
    assert [row[0] for row in found["triage"].rows][:2] == ["none", "look 8"] and "Of 9 looks" in found["triage"].text
    assert [row[0] for row in found["mend"].rows] == ["begin early", "push"] and "28% of 40" in found["mend"].text
    assert "finds 2 of 3 hands implausible; in 1 pictures" in found["anatomy"].text
    assert list(found["anatomy"].rows) == [("two fingers fused", "2"), ("too long", "1")]


def test_every_figure_that_is_drawn_belongs_to_a_stage(tmp_path):
    results = with_requested(invented(tmp_path / "run", 0.4))
    rates = pd.DataFrame({"factor": ["view"], "level": ["palm"], "rate": [0.3]})
    drawn = set(plates(results, lambda sample: None, rates))
    said = {name for stage in OWN for name in stage.figures}
    sheets = {name for name in drawn if name.startswith("sheet_")}
    assert drawn - sheets == said - {"sheet_*"} and sheets
    assert {f"figures/{name}.*" for name in said} <= set(REPORT.files)


def test_the_page_has_the_sections_with_links_to_them(tmp_path, monkeypatch):
    run = invented(tmp_path / "run", 0.4)
    with_requested(run)
    names = {name for stage in OWN for name in stage.figures if "*" not in name}
    dot = Image.new("RGB", (1, 1))

    def save(drawn, folder, name):
        folder.mkdir(exist_ok=True)
        dot.save(folder / f"{name}.png")
        return folder / f"{name}.png"

    save(None, run.figures_dir, "commitment")
    monkeypatch.setattr("handscope.report.plates.narrow", lambda *given: {})
    monkeypatch.setattr("handscope.report.plates.plates", lambda *given: dict.fromkeys(names, lambda: None))
    monkeypatch.setattr("handscope.figures.save", save)
    page = report(run).read_text(encoding="utf-8")
    ids = re.findall(r'<(?:h2|div class="inside") id="(\w+)">', page)
    asked_for = [stage.section.split()[0] for stage in OWN if stage.section and not stage.always]
    assert [id for id in ids if id in asked_for] == asked_for
    assert {stage.section.split()[0] for stage in OWN if stage.section} <= set(ids)
    assert all(f'<a href="#{id}">' in page for id in ids)
    assert "step 17 (16 to 18)" in page and "figures/commitment.svg" in page and "figures/mend.svg" not in page
