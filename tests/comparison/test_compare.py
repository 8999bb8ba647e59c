"""Comparing runs: what equal runs give, going on after a kill, the page, and what cannot be compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from handscope import cli
from handscope.comparison import alike, compare
from handscope.comparison.compare import TABLES
from handscope.comparison.maps import Map, _threshold, maps
from handscope.comparison.replicate import QUANTITIES, replicate
from handscope.comparison.runs import depths, open_runs
from handscope.comparison.streams import Shared
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.labeling.database.labels import Annotation, Labels
from handscope.report.compared import compared_findings, compared_page
from handscope.report.replicated import replicated_findings, replicated_page
from handscope.run.folder import Run
from handscope.study import Study
from made_tiny import STEPS


@pytest.fixture(scope="module")
def compared(two_runs, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("compared")
    return compare(two_runs, out, pairings=19, permutations=39), out


def test_equal_runs_are_alike(compared) -> None:
    found, out = compared
    streams = found.tables["streams"]
    assert len(streams) == 3 * 3 * 3 and (streams["rows"] == "means").all()
    same = streams[streams["block_a"] == streams["block_b"]]
    np.testing.assert_allclose(same["cka"], 1)
    np.testing.assert_allclose(same["procrustes"], 0, atol=1e-6)
    assert (same["ridge_ab"] > 0.99).all() and np.allclose(same["ridge_ab"], same["ridge_ba"])
    assert (same["cka_p"] == 1 / 20).all() and (streams["cka_p_family"] >= streams["cka_p"] - 1e-9).all()
    assert (same["cka_null_mean"] < 1).all() and (same["kept_a"] == 1).all()
    pair = found.tables["pairs"].iloc[0]
    assert pair["seed_apart"] and pair["cka"] == pytest.approx(1) and pair["same"] == 1 and pair["verdict_auc"] == 1
    assert (found.tables["differences"]["difference"] == 0).all()
    assert (found.tables["differences"][["lo", "hi"]] == 0).all(axis=None)
    carried = found.tables["carried"]
    assert len(carried) == 2 * 27
    own = carried[carried["block_from"] == carried["block_to"]]
    assert own["less_own"].abs().max() < 0.15
    for name in found.tables:
        assert name in TABLES and (out / f"{name}.csv").exists()


def test_what_was_done_is_kept(compared, two_runs, monkeypatch: pytest.MonkeyPatch) -> None:
    found, out = compared
    parts = sorted((out / "parts").iterdir())
    assert len(parts) == 3
    parts[1].write_bytes(parts[1].read_bytes()[:100])  # a disk that lost the rest
    done = []
    whole = alike._compared
    monkeypatch.setattr(alike, "_compared", lambda *given: done.append(given[1]) or whole(*given))
    again = compare(two_runs, out, pairings=19, permutations=39)
    assert len(done) == 1
    pd.testing.assert_frame_equal(again.tables["streams"], found.tables["streams"])


def test_the_page_says_what_the_tables_say(compared) -> None:
    found, out = compared
    page = compared_page(found, out).read_text(encoding="utf-8")
    assert page.count("<img ") == 4 and "tiny-1" in page
    begins, differ, alike_, seeds, verdicts, carried = compared_findings(found)
    called = found.tables["summary"].query("quantity == 'begins'")["value"].notna().sum()
    assert f"begins in {called} of 2 runs" in begins.brief
    assert "0 of 4 differences" in differ.brief and differ.mark == "chance"
    assert "tiny and tiny-1 1.00 (" in alike_.brief or "tiny and tiny-1 1.00" in alike_.brief
    assert "CKA of 1.00 in the mean (1 pair)" in seeds.brief
    assert "AUC 1.00" in verdicts.brief and "tiny to tiny-1" in carried.brief


def test_all_tokens_are_compared_place_by_place(tiny_model, copied) -> None:
    for run in copied:
        shutil.rmtree(run.activations_dir)
        extract(tiny_model, run, Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS), tokens="all")
    a, b = open_runs(copied)
    shared = Shared.of(a, b)
    assert shared.rows == "tokens" and shared.places[0].shape == (48, 16)
    stream = shared.read(b, "single.0", 2)
    name = shared.samples["sample"][5]
    x, tokens = b.store.read("single.0", 2, samples=[name])
    order = np.lexsort((tokens["col"], tokens["row"]))
    expected = x[order].copy()
    expected[:, stream.massive] = 0
    np.testing.assert_array_equal(stream.x[5], expected)
    fewer = Shared.of(a, b, most=16)
    assert len(fewer.samples) == 16 and (fewer.samples["prompt"].value_counts() == 2).all()


def test_maps_agree_with_the_tables_and_their_draws_with_their_intervals(two_runs) -> None:
    opened = open_runs(two_runs)
    first, second = maps(opened, draws=400)
    assert first.drawn.shape == (400, 9) and first.prompts == 8
    np.testing.assert_array_equal(first.drawn, second.drawn)  # the same prompts in each draw
    wide = np.nanquantile(first.drawn, 0.975, axis=0) - np.nanquantile(first.drawn, 0.025, axis=0)
    table = first.cells["hi"] - first.cells["lo"]
    inner = (first.cells["auc"] < 0.9).to_numpy()
    assert inner.any() and 0.4 < np.median(wide[inner] / table[inner]) < 1.6


def made_map(auc: list[float], called: list[bool], drawn: np.ndarray | None = None) -> Map:
    cells = pd.DataFrame(
        {
            "block": ["a.0", "a.0", "a.1", "a.1"], "step": [2, 1, 2, 1], "depth": [0.5, 0.5, 1.0, 1.0],
            "sigma": [1.0, 0.4, 1.0, 0.4], "auc": auc, "null_mean": 0.5, "null_sd": 0.05, "called": called,
        }
    )  # fmt: skip
    cells["z"] = (cells["auc"] - 0.5) / 0.05
    return Map(cells, _threshold(cells), drawn, 8)


def test_where_a_signal_begins_and_peaks() -> None:
    drawn = np.array([[0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.5, 0.6], [0.5, 0.5, 0.5, 0.7]])
    found = made_map([0.5, 0.55, 0.54, 0.7], [False, False, False, True], drawn)
    assert found.found() == pytest.approx({"begins": 0.4, "peak_sigma": 0.4, "peak_depth": 1.0, "level": 0.5725})
    assert found.threshold == pytest.approx((4.0 + 1.0) / 2)
    assert found.draws()["begins"].tolist() == [0.0, 1.0, 0.4]
    assert found.draws()["peak_depth"].tolist()[1:] == [0.5, 1.0]
    nowhere = made_map([0.5, 0.55, 0.54, 0.6], [False] * 4)
    assert np.isnan(nowhere.found()["begins"]) and nowhere.threshold > nowhere.cells["z"].max()


def test_depth_counts_all_blocks_of_a_model() -> None:
    found = depths(["double.1", "single.3:attn"], {"double": 2, "single": 4})
    assert found == {"double.1": 1 / 3, "single.3:attn": 1.0}
    assert depths(["double.0", "single.1"], None) == {"double.0": 1 / 3, "single.1": 1.0}


def test_a_run_without_activations_has_its_tables(copied, tmp_path: Path) -> None:
    shutil.rmtree(copied[1].activations_dir)
    found = compare(copied, tmp_path / "out", pairings=3, permutations=9)
    assert "kept without its activations" in found.missing["tiny", "tiny-1"]
    table = found.tables["summary"].set_index(["run", "quantity"])
    assert np.isnan(table.loc[("tiny-1", "level"), "lo"]) and table.loc[("tiny-1", "level"), "value"] > 0.5
    page = compared_page(found, tmp_path / "out").read_text(encoding="utf-8")
    assert "kept without its activations" in page and "No two runs have activations" in page


def test_other_noises_are_not_shared(copied) -> None:
    lines = [json.loads(line) for line in copied[1].metadata_path.read_text().splitlines()]
    copied[1].write_metadata({row["sample"]: row | {"noise_sha256": "of another shape"} for row in lines})
    a, b = open_runs(copied)
    assert "began from other noises, as latents of another shape do" in Shared.of(a, b)
    other = [row | {"sample": f"x{row['sample']}", "prompt": f"{row['prompt']}!", "embedding": ""} for row in lines]
    copied[1].write_metadata({row["sample"]: row for row in other})
    assert "they share no prompt" in Shared.of(*open_runs([copied[0], Run(copied[1].path)]))


def test_labels_that_changed_since_are_refused(copied) -> None:
    labels = Labels(copied[0].labels_path)
    old = [one for one in labels.current().values() if one.verdict in ("good", "bad")]
    flip = {"good": "bad", "bad": "good"}
    for one in old[:10]:
        cells = np.where(one.labels >= 2, 5 - one.labels, one.labels)
        faults = ("count",) if one.verdict == "good" else ()
        labels.add(
            [Annotation(one.sample, one.image_sha256, cells, one.instances, flip[one.verdict], faults, "test", "hand")]
        )
    with pytest.raises(HandscopeError, match="run probe again"):
        maps(open_runs(copied))


def test_bad_input_is_refused_in_a_sentence(copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (str(run.path) for run in copied)
    link = tmp_path / "link"
    link.symlink_to(one)
    out = ["--out", str(tmp_path / "out")]
    for given, words in (
        ([one], "at least two runs"),
        ([one, str(link)], "named twice"),
        ([one, str(tmp_path / "none")], "There is no run folder"),
        ([one, other, "--like", one, str(tmp_path)], "Expected runs that are compared"),
    ):
        assert cli.main(["compare", *given, *out]) == 2
        said = capsys.readouterr().err
        assert words in said and len(said.splitlines()) == 1
    (copied[1].analysis_dir / "probes.csv").unlink()
    assert cli.main(["compare", one, other, *out]) == 2
    assert "analyze and probe wrote" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_that_were_read_at_other_places_are_refused(tiny_model, copied) -> None:
    shutil.rmtree(copied[1].activations_dir)
    extract(tiny_model, copied[1], Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS, at="input"))
    with pytest.raises(HandscopeError, match="agree on which tokens are read"):
        open_runs(copied)


def test_a_study_is_replicated_and_left_as_it_is_when_done(
    copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def stages(self: Study, progress: object) -> list:
        asked.append((self.model, self.folder, self.also))
        if self.model == "tiny-2":
            raise HandscopeError("too few of a kind")
        return []

    monkeypatch.setattr(Study, "stages", stages)
    file = tmp_path / "studies" / "study.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"run": "runs/one", "prompts": ["a cat"], "seeds": [0]}))
    given = ["replicate", str(file), "--models", "tiny,tiny-1,tiny-2", "--out", str(tmp_path), "--also", "triage"]
    assert cli.main(given) == 0
    assert asked == [(name, tmp_path / name, ("triage",)) for name in ("tiny", "tiny-1", "tiny-2")]
    said = capsys.readouterr().out
    assert "left out: too few of a kind" in said and str(tmp_path / "replication.html") in said
    page = (tmp_path / "replication.html").read_text(encoding="utf-8")
    assert "could not be done on tiny-2" in page
    assert cli.main(["replicate", str(file), "--models", "tiny"]) == 2
    assert cli.main(["replicate", str(file), "--models", "x/tiny,y/tiny"]) == 2
    assert "called tiny" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)  # as in a checkout, which has a folder of an organism's name
    (tmp_path / "organism").mkdir()
    asked.clear()
    assert cli.main(["replicate", str(file), "--models", "organism,tiny-2", "--out", "."]) == 2
    assert asked[0][0] == "organism"


def test_what_does_not_hold_is_said_first(copied, tmp_path: Path) -> None:
    for run, fall in zip(copied, (-0.2, -0.1), strict=True):
        looks = pd.DataFrame(
            {
                "feature": ["", "image", "image"], "step": [0, 3, 2], "way": ["plain", "threshold", "threshold"],
                "rate": [0.4, 0.4 + fall, 0.1], "lo": [0.3, 0.3 + fall, 0.0], "hi": [0.5, 0.5 + fall, 0.2],
            }
        )  # fmt: skip
        looks.to_csv(run.analysis_dir / "triage.csv", index=False)
        (run.path / "mend").mkdir()
        arms = pd.DataFrame(
            {
                "arm": ["baseline", "steer 1", "steer 2"], "family": ["plain", "steering", "steering"],
                "difference": [0, -0.05, 0.01], "low": [0, -0.1, -0.05], "high": [0, 0.0, 0.05],
                "p": [np.nan, 0.04, 0.7], "control_p": [np.nan, 0.6, 0.9],
            }
        )  # fmt: skip
        arms.to_csv(run.path / "mend" / "arms.csv", index=False)
    found = replicate(copied, tmp_path)
    assert set(found.over["quantity"]) == set(QUANTITIES)
    over = found.over.set_index("quantity")
    assert over.loc["triage", "mean"] == pytest.approx(-0.15) and over.loc["steering", "shown"] == 0
    each = found.each.set_index(["run", "quantity"])
    half = float(np.hypot(0.2, 0.2) / 2)
    assert each.loc[("tiny", "triage"), "hi"] == pytest.approx(-0.2 + half)
    assert each.loc[("tiny", "steering"), "value"] == -0.05
    said = replicated_findings(found, ["other"])
    marks = [one.mark for one in said]
    assert marks[0] == "not_measured" and "chance" in marks
    assert marks[1:] == sorted(marks[1:], key=["chance", "partly", "yes"].index)
    assert replicated_page(found, tmp_path).exists()
