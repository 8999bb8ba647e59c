"""The report: drawn from what the stages wrote, and following numbers that are invented, significant or not."""

import html
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope import figures
from handscope.analysis.statistics.rates import rates_by, wilson
from handscope.errors import HandscopeError
from handscope.labeling.database.labels import Labels
from handscope.labeling.subject import load_subject
from handscope.report.findings import findings
from handscope.report.optional_plates import optional_plates
from handscope.report.page import _rates, report
from handscope.report.results import Results
from handscope.report.short import flat
from handscope.report.words import CHANCE, signed
from handscope.run.folder import Run
from handscope.stages import TABLES
from invented import gain, invented, scores, with_optional
from matplotlib.figure import Figure
from PIL import Image
from subjects import BIRD

FIGURES = {
    "overview",
    "sheet_good",
    "sheet_bad",
    "sheet_leaning",
    "sheet_unsure",
    "rates",
    "grid_probe",
    "grid_direction",
    "grid_distance",
    "curves",
    "added",
    "planes",
    "components",
    "cosines",
    "distance_parts",
    "power",
}
OF_OPTIONAL_TABLES = {"contrasts", "gaussianity", "transfer", "probe_transfer", "methods", "reliability"}


def edited(run: Run, table: str, change) -> Results:
    """The results of a run after `change` was made to one of its tables."""
    path = run.analysis_dir / f"{table}.csv"
    rows = pd.read_csv(path)
    change(rows)
    rows.to_csv(path, index=False)
    return Results.read(run)


def words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S))).split())


@pytest.fixture(scope="module")
def reported(studied_run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run whose tables the stages wrote, and its page."""
    run = Run(shutil.copytree(studied_run.path, tmp_path_factory.mktemp("reports") / "run"))
    return run, report(run).read_text(encoding="utf-8")


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, and one dot of them is written: painting takes most of the time of a report."""

    def save(drawn: Figure, folder: Path, name: str) -> Path:
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (1, 1)).save(folder / f"{name}.png")
        return folder / f"{name}.png"

    monkeypatch.setattr(figures, "save", save)


def test_every_figure_is_there_as_png_and_svg_and_in_the_page(reported):
    run, page = reported
    assert (
        {path.stem for path in run.figures_dir.glob("*.png")}
        == {path.stem for path in run.figures_dir.glob("*.svg")}
        == {path.stem for path in run.figures_dir.glob("*.pdf")}
        == FIGURES | OF_OPTIONAL_TABLES
    )
    for path in run.figures_dir.glob("*.png"):
        with Image.open(path) as image:
            assert image.width >= 700 and image.info["dpi"][0] == pytest.approx(150, abs=1)
    narrow = {"overview", "grid_probe", "grid_direction", "grid_distance", "curves", "added"}
    assert page.count('src="data:image/webp;base64,') == len(FIGURES | OF_OPTIONAL_TABLES)
    assert page.count('srcset="data:image/webp;base64,') == len(narrow)
    assert sum(path.stat().st_size for path in run.figures_dir.glob("*.svg")) < 5e6


@pytest.mark.slow
def test_a_second_subject_is_spoken_of_in_its_own_words(tmp_path, monkeypatch):
    monkeypatch.delitem(figures.FORMATS, "pdf")  # which takes the most time, and is not read here
    run = invented(tmp_path / "run", 0.4, subject=load_subject(BIRD))
    run.write_settings({"provenance": {"name": "a painter"}, "labels": {}})
    text = words(report(run).read_text(encoding="utf-8"))
    for said in (
        "Does the model know that the bird it draws is wrong?",
        "some wrong: three wings, a beak at the back.",
        "How many birds are malformed? 43%",
        "tells deformed birds from sound ones of the same prompt in 6 of 12 cells",
        "the outline of the finished bird",
        "bent wing (24)",
        "leans to deformed",
        "colour red",
    ):
        assert said in text, said
    drawn = {path.stem: words(path.read_text(encoding="utf-8")) for path in run.figures_dir.glob("*.svg")}
    assert set(drawn) == FIGURES
    assert "deformed birds score above sound ones" in drawn["grid_probe"] and "deformed bird" in drawn["planes"]
    assert "labelled birds, sound and deformed" in drawn["power"] and "colour: grey" in drawn["rates"]
    assert "Birds judged deformed" in drawn["overview"] and "deformed: bent wing" in drawn["sheet_bad"]
    for place, every in {**drawn, "page": text}.items():
        assert not re.findall(r"(?i)\b(?:hand|finger|skin)s?\b", every), place


def test_the_page_needs_nothing_but_itself(reported):
    page = reported[1]
    assert "://" not in re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page)
    assert "<script" not in page and "<link" not in page
    targets = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert targets and all(target.startswith(("data:image/webp", "#")) for target in targets)
    assert all(f'id="{target[1:]}"' in page for target in targets if target[0] == "#")


def test_the_page_is_well_formed(reported):
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "source"):  # which have no end
                open_tags.append(tag)
            assert tag != "img" or dict(attrs)["alt"]

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag, self.getpos()

    Parser().feed(reported[1])
    assert not open_tags


def test_the_page_says_what_the_tables_of_the_stages_say(reported):
    run, page = reported
    text, results = words(page).replace("−", "-"), Results.read(run)
    rows = pd.read_csv(run.analysis_dir / "probes.csv").query("subset == 'sure'")
    best = rows.loc[rows[f"{results.prefix}auc"].idxmax()]
    separable = (rows[f"{results.prefix}q"] <= 0.05).sum()
    assert f"The largest, in {best.block} at step {best.step}, is AUC {best[f'{results.prefix}auc']:.2f}" in text
    assert separable == 0 and f"n = {best.n_good + best.n_bad}" in text and f"in each of {len(rows)} cells" in text
    labels = Labels(run.labels_path).table()
    bad, judged = int(labels["bad"].sum()), int(labels["bad"].notna().sum())
    assert f"{bad} of {judged}" in text and f"A study of {len(run.samples())} pictures" in text
    cells = pd.read_csv(run.analysis_dir / "cells.csv")
    top = cells.loc[cells["db_excess"].idxmax()]
    excess = signed(top.db_excess).replace("−", "-")
    assert f"The largest, in {top.block} at step {top.step}, is excess {excess} nats" in text
    null = f"{top.db_null_mean:.2f} ± {top.db_null_sd:.2f}"
    assert f"permuted verdicts give {null} nats, so of the raw {top.db:.2f}" in text
    shared = pd.read_csv(run.analysis_dir / "shared.csv").iloc[0]
    assert f"AUC {shared.auc:.2f} ({shared.lo:.2f} to {shared.hi:.2f})" in text


def test_the_page_tells_what_was_found_with_n_and_interval(tmp_path, unpainted):
    text = words(report(invented(tmp_path / "run", 0.4)).read_text(encoding="utf-8"))
    assert "24 of 56" in text and "43% (17% to 73%; 24 of 56, 95% interval over 8 prompts) of the hands" in text
    assert "in 6 of 12 cells (q ≤ 0.05 over all); most in single.3 at step 1: AUC 0.88 (0.82 to 0.94; n" in text
    assert "not separable from chance (n = 40" in text
    assert "hypothesis about FLUX" in text
    assert "41 are identical" in text and "23 more are the same at a PSNR of 40.0 dB" in text
    assert "0123abcd" in text and "2.13.0" in text
    assert "Direction, in-sample" in text and "0.93" in text
    assert "single.3: 3, 17" in text
    assert "fused (24)" in text


def test_a_second_call_does_nothing_until_something_changes(reported, monkeypatch):
    run, _ = reported
    written = [run.report_path, *run.figures_dir.iterdir()]
    before = [path.stat().st_mtime_ns for path in written]
    report(run)
    assert [path.stat().st_mtime_ns for path in written] == before
    os.utime(run.analysis_dir / "probes.csv")
    report(run)
    assert [path.stat().st_mtime_ns for path in written] == before
    edited(run, "cells", lambda rows: rows.__setitem__("dom_auc_in_sample", 0.71))
    # The words are what is looked at: figures are drawn, and their files left as they are.
    monkeypatch.setattr(figures, "save", lambda drawn, folder, name: folder / f"{name}.png")
    assert "0.71" in words(report(run).read_text(encoding="utf-8"))


def test_invented_tables_have_the_columns_that_the_stages_write(tmp_path):
    run = invented(tmp_path / "run", 0.4)
    with_optional(run, True)
    made = {path.stem for path in run.analysis_dir.glob("*.csv")}
    assert made <= set(TABLES)
    for name in made:
        table = TABLES[name][0]
        columns = pd.read_csv(run.path / table.path).columns
        assert {column: table.group(column) for column in columns if table.group(column) is None} == {}, name


def answers(results: Results) -> dict[str, tuple[str, str]]:
    return {one.question: (one.mark, f"{one.brief} {one.detail}") for one in findings(results)}


SEPARABLE = "Can the activations tell a bad hand from a good one?"
WHEN = "When can it be told?"
BEYOND = "Is it more linearly accessible inside than in the picture that the model predicts at that step?"
ELSE = "What else predicts the verdict?"
DIRECTION = "Is one direction, the difference of means, enough?"
DISTANCE = "How far apart are the two clouds of hand tokens?"
DOUBT = "Is the same called with doubtful labels?"


def test_a_null_run_says_so_everywhere(tmp_path):
    said = answers(Results.read(invented(tmp_path / "null", 0.0)))
    for question in (SEPARABLE, WHEN, BEYOND, DIRECTION, DISTANCE, ELSE, DOUBT):
        assert said[question][0] == "chance" and "not separable from chance (n = 40" in said[question][1], question
    assert "AUC 0.60 would have been seen with a chance of 80%" in said[SEPARABLE][1]
    assert not any("Yes" in text for _, text in said.values())


def test_words_follow_a_signal(tmp_path):
    said = answers(Results.read(invented(tmp_path / "signal", 0.4)))
    assert said[SEPARABLE][0] == "yes" and "of the same prompt in 6 of 12 cells" in said[SEPARABLE][1]
    assert "at 2 of 4 steps, 4 and 1 (q ≤ 0.05 over 12 tests)" in said[WHEN][1]
    assert "First called at step 4: AUC 0.82 (0.76 to 0.88)" in said[WHEN][1]
    assert "step that was read, 20: AUC 0.50 (0.44 to 0.56)" in said[WHEN][1]
    assert "That may be a leak: what it adds there to the outline of the finished hand" in said[WHEN][1]
    assert "no paired comparison of steps was made" in said[WHEN][1]
    assert said[DIRECTION][0] == "yes" and "6 of 12 cells" in said[DIRECTION][1] and "in-sample" in said[DIRECTION][1]
    assert said[DISTANCE][0] == "chance"
    assert "most for x0 at step 1: AUC 0.65" in said[ELSE][1]
    assert "Shown: the predicted clean latents x0 at the hand." in said[ELSE][1]
    assert said[DOUBT][0] == "yes" and "(n = 40 and 48)" in said[DOUBT][1]


@pytest.mark.parametrize(
    ("beyond", "mark"),
    [
        ((), "chance"),
        (("x0",), "chance"),
        (("x0", "image", "all"), "chance"),
        (("x0", "x0_flat", "image", "all"), "partly"),
    ],
)
def test_the_honest_question_needs_all_accounts_of_the_picture_at_one_step(tmp_path, beyond, mark):
    said = answers(Results.read(invented(tmp_path / "run", 0.4, beyond)))[BEYOND]
    assert said[0] == mark
    assert ("at 2 of 4 steps, 4 and 1" in said[1].split("Accounts")[0]) == (mark == "partly")
    for name, words in (("x0", "predicted clean latents x0 at the hand"), ("image", "plain statistics")):
        shown = f"Beside {'the ' if name == 'x0' else ''}{words}"
        line = said[1][said[1].index(shown) :]
        found = line.index(": shown") if ": shown" in line else len(line)
        assert (found < line.index("over 96 tests")) == (name in beyond)
    if beyond:
        assert "most at step 4: gain +0.07 (+0.02 to +0.12), from AUC 0.60 to 0.67" in said[1]
    else:
        assert "gain +0.01 (−0.06 to +0.08), from AUC 0.60 to 0.61" in said[1]


def test_gains_at_different_steps_are_no_gain_beside_all_of_them(tmp_path):
    run = invented(tmp_path / "run", 0.4, ("x0", "x0_flat", "image", "all"))

    def apart(rows: pd.DataFrame) -> None:
        for name, step in (("x0", 4), ("x0_flat", 4), ("image", 1), ("all", 1)):
            elsewhere = (rows["baseline"] == name) & (rows["step"] != step)
            rows.loc[elsewhere, list(gain(False))] = list(gain(False).values())

    said = answers(edited(run, "added", apart))[BEYOND]
    assert said[0] == "chance" and "at no step called together" in said[1] and "Yes" not in said[1]


def test_the_table_with_permuted_rows_comes_before_the_plain_one(tmp_path):
    run = invented(tmp_path / "run", 0.4, ("x0", "x0_flat", "image", "all"))
    with_optional(run, False)
    mark, text = answers(Results.read(run))[BEYOND]
    assert mark == "no" and text.startswith("No, or by less than 0.05: it is not shown that the verdict is more")
    said = answers(with_optional(invented(tmp_path / "other", 0.4), True))[BEYOND]
    assert said[0] == "partly" and "gain +0.07 (+0.03 to +0.11 by the spread of its null; n = 40" in said[1]
    assert "beside all 4 accounts are at no step called together" in said[1]


def test_it_is_said_where_the_whole_predicted_picture_tells_more_than_the_block(tmp_path):
    run = invented(tmp_path / "run", 0.4, ("x0",))
    whole = "A probe of the whole predicted picture in place of single.3's: "
    assert f"{whole}not separable" in answers(Results.read(run))[BEYOND][1]

    def gain_early(rows: pd.DataFrame) -> None:
        for name, value in gain(True).items():
            rows.loc[rows["step"] >= 12, name] = value

    said = answers(edited(run, "whole_picture", gain_early))[BEYOND][1]
    assert f"{whole}shown at 2 of 4 steps, 20 and 12 (q ≤ 0.05 over 12 tests); most at step 20: gain +0.07" in said


@pytest.mark.parametrize(
    ("beyond", "mark", "words"),
    [((), "chance", "at each of 4 steps"), (("norm",), "partly", "at 2 of 4 steps, 4 and 1")],
)
def test_the_length_of_the_activations_is_asked_first(tmp_path, beyond, mark, words):
    said = answers(Results.read(invented(tmp_path / "run", 0.4, beyond)))
    said = said["Is it more than how large the activations are?"]
    assert said[0] == mark and words in said[1] and "that length alone has AUC 0.60" in said[1]


def test_a_block_that_adds_to_the_outline_of_the_hand_is_no_leak(tmp_path):
    said = answers(Results.read(invented(tmp_path / "run", 0.4, ("position",))))[WHEN][1]
    assert "That is more than the outline of the finished hand" in said and "leak" not in said


def test_a_change_over_steps_needs_a_paired_comparison_of_them(tmp_path):
    run = invented(tmp_path / "run", 0.4)
    row = {
        "block_a": "single.3", "step_a": 20, "block_b": "single.3", "step_b": 1, "auc_a": 0.5, "auc_b": 0.88,
        "difference": 0.38, "lo": 0.2, "hi": 0.5, "p": 0.001, "q": 0.002,
    }  # fmt: skip

    def said(**change) -> str:
        results = replace(Results.read(run), optional={"pairs_of_cells": pd.DataFrame([row | change])})
        return answers(results)[WHEN][1]

    assert "A rise from step 20 to step 1: shown (one test, q = 0.002): difference +0.38 (+0.20 to +0.50)" in said()
    turned = said(difference=-0.38, lo=-0.5, hi=-0.2)
    assert "A rise from step 20 to step 1: shown" in turned
    assert "+0.38 (+0.20 to +0.50), from AUC 0.50 to 0.88" in turned
    fallen = said(auc_a=0.88, auc_b=0.5, difference=-0.38, lo=-0.5, hi=-0.2)
    assert "A fall from step 20 to step 1: shown" in fallen
    assert "+0.38 (+0.20 to +0.50), from AUC 0.88 to 0.50" in fallen
    assert "A rise from step 20 to step 1: not separable from chance" in said(lo=-0.1, hi=0.6, q=0.3)


def test_without_pairs_inside_prompts_all_pairs_are_used_and_it_is_said(tmp_path):
    run = invented(tmp_path / "run", 0.4)

    def clear(rows: pd.DataFrame) -> None:
        rows[[name for name in rows if name.startswith("within_")]] = np.nan

    for table in ("baselines", "added"):
        edited(run, table, clear)
    results = edited(run, "probes", clear)
    said = answers(results)
    assert results.prefix == "" and "of different prompts, since no prompt has both" in said[SEPARABLE][1]
    assert said[BEYOND][0] == "chance" and "(n = 40 of 8 prompts)" in said[BEYOND][1]


@pytest.mark.parametrize("name", ["probes.csv", "added.csv", "cells.csv", "cells.safetensors"])
def test_a_missing_or_damaged_table_names_the_stage_to_run(tmp_path, name):
    run = invented(tmp_path / "run", 0.4)
    path = run.analysis_dir / name
    path.write_bytes(path.read_bytes()[:0])
    with pytest.raises(HandscopeError, match="run (analyze|probe) "):
        report(run)
    path.unlink()
    with pytest.raises(HandscopeError, match=re.escape(str(path))):
        report(run)
    assert not run.report_path.exists()


def test_wilson_agrees_with_the_published_table():
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    for bad, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert np.allclose(wilson(bad, n), (low, high), atol=5e-5)


def test_rates_are_counted_by_level():
    factors = pd.DataFrame({"side": ["left", "left", "right", "right"], "view": ["palm", "back", "palm", "palm"]})
    table = rates_by(factors, [1, 0, 1, 1], ["a", "a", "b", "c"]).set_index(["factor", "level"])
    assert table.loc[("side", "left"), ["bad", "n", "groups", "rate"]].tolist() == [1, 2, 1, 0.5]
    assert table.loc[("side", "left"), ["lo", "hi"]].tolist() == [0, 1]  # one prompt tells nothing of others
    assert table.loc[("view", "palm"), ["bad", "n", "groups", "rate"]].tolist() == [3, 3, 3, 1.0]


def test_a_grid_hatches_what_cannot_be_told_from_chance():
    cells = pd.DataFrame(
        {
            "block": ["a", "a", "b", "b"],
            "step": [1, 20, 1, 20],
            "auc": [0.9, 0.5, 0.8, np.nan],
            "q": [0.01, 0.2, 0.05, np.nan],
        }
    )
    drawn = Figure()
    ax = figures.grid(cells, "auc", "q", drawn.subplots(), centre=0.5)
    assert sorted(patch.get_xy() for patch in ax.patches) == [(-0.5, -0.5), (-0.5, 0.5)]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["20", "1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.texts] == ["0.50", "0.90", "–", "0.80"]


def test_curves_run_from_the_noisiest_step_to_the_last():
    rows = pd.DataFrame([{"step": step, **scores(step, 0.4)} for step in (1, 20, 4)])
    free = pd.DataFrame([{"step": np.nan, **scores(20, 0.0)}])
    ax = figures.curves({"single.3": rows, "prompt": free}, "", Figure().subplots())
    left, right = ax.get_xlim()
    assert left > 20 > 1 > right
    block, prompt = (line for line in ax.lines if len(line.get_xdata()) == 3)
    assert list(block.get_xdata()) == list(prompt.get_xdata()) == [20, 4, 1]
    assert list(prompt.get_ydata()) == [0.5, 0.5, 0.5]


def test_prompts_of_another_kind_have_no_rates():
    assert _rates(pd.DataFrame({"prompt": ["a dog", "a cat"], "bad": [1.0, 0.0]}), load_subject("hand")).empty


def test_settings_become_lines():
    assert flat({"a": {"b": 1, "c": None}, "d": [1, 2]}) == [("a.b", "1"), ("a.c", "–"), ("d", "[1, 2]")]


WHAT_ELSE = {
    "shared": "Does one direction do for all blocks and steps?",
    "contrasts": "Are faults of a part of the hand alone told from good hands?",
    "gaussianity": "Are the clouds as Gaussian as the distance takes them to be?",
    "methods": "Do other linear probes tell it too?",
    "calibration": "Are the probe's stated probabilities off, as fitted?",
    "survey": "Where, over all blocks and all steps?",
}


def test_optional_tables_are_told_only_where_they_are(tmp_path):
    run = invented(tmp_path / "run", 0.4)
    assert not set(WHAT_ELSE.values()) & set(answers(Results.read(run)))
    assert set(WHAT_ELSE.values()) <= set(answers(with_optional(run, True)))
    for name in ("transfer", *WHAT_ELSE):
        (run.analysis_dir / f"{name}.csv").unlink()
        said = answers(Results.read(run))
        assert WHAT_ELSE.get(name, WHAT_ELSE["shared"]) not in said
    (run.analysis_dir / "methods.csv").write_bytes(b"")
    with pytest.raises(HandscopeError, match="run probe again"):
        Results.read(run)


def test_words_follow_the_optional_tables(tmp_path):
    said = answers(with_optional(invented(tmp_path / "run", 0.4), True))
    mark, text = said[WHAT_ELSE["shared"]]
    assert mark == "yes" and "AUC 0.66 (0.55 to 0.74; n = 40" in text
    assert "(one test, p = 0.01)" in text and "in 132 of 132 pairs" in text
    mark, text = said[WHAT_ELSE["contrasts"]]
    assert mark == "yes" and "in 6 of 12 cells" in text and "n = 34)" in text
    mark, text = said["Are faults of the whole of the hand alone told from good hands?"]
    assert mark == "not_measured" and "2 bad samples have global faults alone" in text
    assert said[WHAT_ELSE["gaussianity"]][0] == "no" and "implies an AUC of 0.93" in said[WHAT_ELSE["gaussianity"]][1]
    assert said[WHAT_ELSE["methods"]][1].count("shown in 6 of 12 cells") == 3
    mark, text = said[WHAT_ELSE["calibration"]]
    assert mark == "yes" and "off by more than chance in 12 of 12 cells" in text and "excess error 5% (1% to 9%" in text
    assert said["Are the probe's stated probabilities off, calibrated inside the training folds?"][0] == "chance"
    assert "in 6 of 12 cells (q ≤ 0.05 over all), most in" in said[WHAT_ELSE["survey"]][1].replace(";", ",")


def test_optional_tables_of_nothing_say_so(tmp_path):
    said = answers(with_optional(invented(tmp_path / "run", 0.0), False))
    for name in ("shared", "contrasts", "methods", "calibration", "survey"):
        mark, text = said[WHAT_ELSE[name]]
        assert mark == "chance" and CHANCE in text, name
    assert said[WHAT_ELSE["gaussianity"]][0] == "yes"
    power = said["What could these data have shown?"]
    assert "(n = 40" in power[1] and "an AUC of 0.60 or more" in power[1]
    assert "labelled hands to make it 80%" in power[1]


def test_every_optional_figure_is_drawn(tmp_path):
    results = with_optional(invented(tmp_path / "run", 0.4), True)
    drawings = optional_plates(results)
    assert set(drawings) == {
        "contrasts", "gaussianity", "transfer", "probe_transfer", "methods", "reliability", "survey_probe",
        "survey_distance", "distance_parts", "power",
    }  # fmt: skip
    titles = {name: [ax.get_title() for ax in draw().axes] for name, draw in drawings.items()}
    assert titles["contrasts"] == ["Difference of means in double.1"]
    assert titles["reliability"] == ["As fitted: single.3 at step 1", "Calibrated: single.3 at step 1"]
