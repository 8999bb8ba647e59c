"""``handscope anatomy``: folders of any kind, killed at any moment, and a calibration that the score then uses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope import cli
from handscope.anatomy.judge import stage
from handscope.anatomy.judge.calibration import Calibration
from handscope.anatomy.judge.journal import NAME, Journal
from handscope.anatomy.judge.stage import examine_files
from handscope.anatomy.read.pictures import find_pictures
from handscope.commands.anatomy_known import labels_of, raised_by_prompts
from handscope.errors import HandscopeError
from made_hands import rendered
from PIL import Image

Run = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two renders, a picture of nothing, one that is torn, and a text."""
    folder = tmp_path_factory.mktemp("pictures")
    rendered(folder, 2)
    Image.new("RGB", (300, 200), (120, 130, 140)).save(folder / "nothing.png")
    (folder / "torn.png").write_bytes((folder / "good_00.png").read_bytes()[:3000])
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def handscope(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command and give back what it prints, its line breaks undone."""

    def run(*arguments: object, status: int = 0) -> str:
        capfd.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == status
        out, err = capfd.readouterr()
        assert (err == "") == (status == 0)
        return out + err

    return run


@pytest.fixture(scope="module")
def scored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored")
    assert cli.main(["anatomy", "score", str(folder), "--out", str(out), "--search", "plain"]) == 0
    return out


def test_score_writes_a_verdict_or_a_reason_for_every_file(folder: Path, scored: Path) -> None:
    table = pd.read_csv(scored / "scores.csv", keep_default_na=False)
    document = json.loads((scored / "scores.json").read_text(encoding="utf-8"))
    skipped = pd.read_csv(scored / "skipped.csv")
    pictures = {path.name for path in folder.iterdir()} - {"notes.txt"}
    assert {Path(path).name for path in table["path"]} | {Path(path).name for path in skipped["path"]} == pictures
    assert skipped["path"].tolist() == [str(folder / "torn.png")] and "damaged" in skipped["reason"][0]
    nothing = table[table["path"] == str(folder / "nothing.png")].iloc[0]
    assert (nothing["outcome"], nothing["reasons"], nothing["score"]) == ("undetected", "no hand was found", "")
    assert document["undetected"] == [str(folder / "nothing.png")] and len(document["skipped"]) == 1
    assert [len(hand["landmarks"]) for hand in document["hands"]] == [21] * len(document["hands"])
    hands = table[table["outcome"] != "undetected"]
    assert len(hands) == len(document["hands"]) >= 2
    assert hands["score"].astype(float).tolist() == pytest.approx([hand["score"] for hand in document["hands"]])
    with Image.open(scored / "sheets" / "sheet_001.png") as sheet:
        assert sheet.size[0] > 1000


def test_score_says_what_it_left_out(folder: Path, scored: Path, handscope: Run) -> None:
    said = handscope("anatomy", "score", folder, "--out", scored, "--search", "plain", "--method", "paper")
    assert "implausible by paper" in said and "in 1 no hand was found" in said
    assert f"skipped   {folder / 'torn.png'}: it is damaged" in said
    assert "others    1 files are not pictures by their names, notes.txt among them" in said
    assert set(pd.read_csv(scored / "scores.csv")["outcome"]) <= {"plausible", "implausible", "undetected"}


def test_json_is_printed_for_other_programs(folder: Path, scored: Path, handscope: Run) -> None:
    said = handscope("anatomy", "score", folder, "--out", scored, "--search", "plain", "--json")
    assert json.loads(said) == json.loads((scored / "scores.json").read_text(encoding="utf-8"))


def test_boxes_and_the_most_hands(folder: Path, tmp_path: Path, handscope: Run) -> None:
    """A second hand beside the one of a render is found only where a box says so, and two only where two may be."""
    one = np.array(Image.open(folder / "good_00.png"))
    small = Image.fromarray(one).resize((24, 24))
    wide = Image.fromarray(np.concatenate([one, np.tile(one[:1, :1], (*one.shape[:2], 1))], 1))
    wide.paste(small, (one.shape[1] + 40, 60))
    wide.save(tmp_path / "two.png")
    x = one.shape[1] + 40
    (tmp_path / "boxes.csv").write_text(f"path,x0,y0,x1,y1\ntwo.png,{x},60,{x + 24},84\n")
    options = ("anatomy", "score", tmp_path / "two.png", "--search", "plain", "--json", "--out")
    boxes = ("--boxes", tmp_path / "boxes.csv")
    both = json.loads(handscope(*options, tmp_path / "both", *boxes))["hands"]
    assert sorted(hand["found_by"] for hand in both) == ["box", "palm"]
    single = json.loads(handscope(*options, tmp_path / "one", *boxes, "--max-hands", 1))["hands"]
    assert len(single) == 1
    assert "--max-hands of 1 and more" in handscope(*options, tmp_path / "no", "--max-hands", 0, status=2)
    said = handscope("anatomy", "score", folder, "--out", tmp_path / "no", *boxes, status=2)
    assert "has boxes for none of the" in said


def test_methods_share_what_was_read(folder: Path, scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a picture was looked at again")

    monkeypatch.setattr(stage, "examine", never)
    for method in ("any-violation", "paper", "calibrated"):
        assert (
            cli.main(["anatomy", "score", str(folder), "--out", str(scored), "--search", "plain", "--method", method])
            == 0
        )


def test_other_settings_are_not_mixed(folder: Path, scored: Path, handscope: Run) -> None:
    said = handscope("anatomy", "score", folder, "--out", scored, status=2)
    assert "search 'plain'" in said and "name another folder" in said


def test_a_picture_that_changed_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rendered(tmp_path / "pictures", 2)
    seen: list[int] = []
    examine = stage.examine
    monkeypatch.setattr(stage, "examine", lambda images, **rest: seen.append(len(images)) or examine(images, **rest))

    def read() -> int:
        seen.clear()
        found = find_pictures([tmp_path / "pictures"])
        examine_files(found.pictures, tmp_path / "out", search="plain")
        return sum(seen)

    assert read() == 2
    assert read() == 0
    Image.new("RGB", (64, 64)).save(second)
    assert read() == 1
    # Half a line, as of a process that was killed while it wrote, is written again.
    journal = tmp_path / "out" / NAME
    journal.write_bytes(journal.read_bytes()[:-100])
    assert read() == 1
    assert read() == 0
    assert examine_files([first], tmp_path / "out", search="plain", raised={first: 5}).entries[0]["asked"] == [5, []]


@pytest.mark.process
@pytest.mark.slow
def test_killed_while_it_scores(tmp_path: Path) -> None:
    """A batch that was finished is not looked at again, and the table is that of a run that nobody killed."""
    rendered(tmp_path / "pictures", 18, size=128)
    command = [sys.executable, "-m", "handscope", "anatomy", "score", "pictures", "--search", "plain", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "killed"], cwd=tmp_path, env=environment, start_new_session=True)
    journal = tmp_path / "killed" / NAME
    until = time.monotonic() + 200
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 17) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lines = journal.read_bytes().splitlines()
    assert len(lines) >= 17 and not (tmp_path / "killed" / "scores.csv").exists()
    for name in ("killed", "whole"):
        subprocess.run([*command, name], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=250)
    assert journal.read_bytes().splitlines()[:17] == lines[:17]
    assert (tmp_path / "killed" / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()


def test_nothing_to_score(tmp_path: Path, handscope: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = handscope("anatomy", "score", tmp_path / "empty", "--out", tmp_path / "out", status=2)
    assert "There are no pictures in" in said
    said = handscope("anatomy", "score", tmp_path / "torn.png", "--out", tmp_path / "out", status=2)
    assert "None of 1 pictures could be read" in said and "torn.png: it is damaged" in said
    said = handscope("anatomy", "score", tmp_path, "--out", tmp_path / "out", "--calibration", "gone.json", status=2)
    assert "There is no calibration gone.json" in said


@pytest.mark.parametrize("text", ["", "{}\n", "not json\n", '{"a": 1}\n[1]\n'])
def test_a_journal_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    if text == "":
        assert Journal.open(tmp_path, {"search": "plain"}).entries == {}
    else:
        with pytest.raises(HandscopeError, match="damaged|does not mix"):
            Journal.open(tmp_path, {"search": "plain"})


@pytest.mark.slow
def test_calibrate_and_then_score_with_it(tmp_path: Path, handscope: Run) -> None:
    paths = rendered(tmp_path / "pictures", 16, size=160) + rendered(
        tmp_path / "pictures", 14, seed=6, corrupt=True, size=160
    )
    rows = [(f"pictures/{path.name}", path.name.split("_")[0], f"p{i % 6}") for i, path in enumerate(paths)]
    rows[3] = (rows[3][0], "unsure", "p3")
    pd.DataFrame(rows, columns=["path", "label", "group"]).to_csv(tmp_path / "labels.csv", index=False)
    out = tmp_path / "calibrated"
    said = handscope("anatomy", "calibrate", tmp_path / "labels.csv", "--out", out, "--search", "plain")
    assert "in 6 groups" in said and "1 unsure ones left out" in said
    for method in ("calibrated", "any-violation", "paper"):
        assert f"\n{method}" in said and f"flagged by {method}" in said
    made = Calibration.load(out / "calibration.json")
    assert made.provenance["pictures"] == 29 and set(made.trust) >= {"calibrated", "any-violation", "paper"}
    agreement = pd.read_csv(out / "agreement.csv")
    assert len(agreement) == 9 and agreement["n"].max() == 29
    held_out = pd.read_csv(out / "held_out.csv")
    assert held_out["probability"].between(0, 1).all() and len(held_out) == agreement["n"].min()
    assert (out / "reliability.png").exists()

    options = ("--calibration", out / "calibration.json", "--out", tmp_path / "scored", "--search", "plain")
    said = handscope("anatomy", "score", tmp_path / "pictures", *options)
    assert "of the hands that were found are flagged" in said
    table = pd.read_csv(tmp_path / "scored" / "scores.csv")
    probability = dict(zip(held_out["path"], held_out["probability"], strict=True))
    both = table[table["path"].isin(probability) & (table["hand"] == 1)]
    held = 1 - both["path"].map(probability)
    assert np.corrcoef(both["score"], held)[0, 1] > 0.3  # fitted to all, so not the same, and alike


def test_labels_of_a_run(finished_run) -> None:
    labels = labels_of(finished_run.path)
    current = {f"{sample}.png": one for sample, one in finished_run_labels(finished_run).items()}
    assert labels.grouped and labels.table["group"].nunique() == 8
    assert labels.unsure == sum(one.verdict == "unsure" for one in current.values()) > 0
    for row in labels.table.itertuples():
        annotation = current[row.path.name]
        assert row.path.exists() and row.bad == annotation.verdict.startswith("bad") and row.raised == 5
        top, left = (int(where.min()) for where in np.nonzero(annotation.instances))
        assert (row.x0, row.y0, row.x1, row.y1) == (8 * left, 8 * top, 8 * (left + 3), 8 * (top + 3))


def finished_run_labels(run) -> dict:
    from handscope.labeling.database.labels import Labels

    return Labels(run.labels_path).current()


def test_a_run_without_labels(finished_run, run_copy, handscope: Run, tmp_path: Path) -> None:
    run = run_copy(finished_run)
    for path in run.path.glob("labels.sqlite*"):
        path.unlink()
    assert "no labels yet" in handscope("anatomy", "calibrate", run.path, "--out", tmp_path / "out", status=2)
    assert "There are no labels" in handscope("anatomy", "calibrate", "gone.csv", "--out", tmp_path / "out", status=2)


def test_a_label_of_another_image_is_refused(finished_run, run_copy, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_copy(finished_run)
    other = run.samples().assign(image_sha256="0" * 64)
    monkeypatch.setattr("handscope.run.folder.Run.samples", lambda self: other)
    with pytest.raises(HandscopeError, match="made on another image"):
        labels_of(run.path)


def test_prompts_beside_pictures_say_how_many_digits(tmp_path: Path) -> None:
    lines = ["a hand, three fingers raised, red", "one finger raised", "a hand", "a hand with five fingers"]
    text = "".join(json.dumps({"file_name": f"{i}.png", "prompt": line}) + "\n" for i, line in enumerate(lines))
    (tmp_path / "metadata.jsonl").write_text(text)
    pictures = [tmp_path / f"{i}.png" for i in range(4)] + [tmp_path / "deeper" / "0.png"]
    assert raised_by_prompts(pictures) == {pictures[0]: 3, pictures[1]: 1}
    (tmp_path / "metadata.jsonl").write_text("{}\n")
    with pytest.raises(HandscopeError, match="does not name a file"):
        raised_by_prompts(pictures)
