"""Several processes on one output: each picture is looked at by one, and a killed one's work is taken over."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from handscope.anatomy.judge import stage
from handscope.anatomy.judge.claims import FOLDER, STALE, Claims
from handscope.anatomy.judge.journal import NAME, Journal
from handscope.anatomy.judge.stage import examine_files, score_files
from made_hands import rendered
from PIL import Image

SETTINGS = {"handscope_journal": 1}


def entry(name: str) -> dict:
    return {"path": name, "hands": []}


def test_a_picture_is_claimed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a") and first.take("a") and not second.take("a") and second.take("b")
    first.release("a")
    assert second.take("a") and not first.take("a")
    second.end()
    assert not (tmp_path / FOLDER).exists()


def test_the_claims_of_the_dead_are_taken_over(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    living = Claims(tmp_path)
    cases = [
        (f"{platform.node()} {gone.pid}", 0.0, True),
        (f"{platform.node()} {os.getpid()}", 0.0, False),
        ("another-machine 1", 0.0, False),
        ("another-machine 1", STALE + 60, True),
        ("", 0.0, False),  # not yet written
    ]
    for number, (text, age, taken) in enumerate(cases):
        path = living._path(str(number))
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
        assert living.take(str(number)) == taken, text


def test_a_journal_of_several_writers(tmp_path: Path) -> None:
    first, second = (Journal.open(tmp_path, SETTINGS) for _ in range(2))
    first.add([entry("a")])
    second.add([entry("b")])
    first.refresh()
    assert set(first.entries) == {"a", "b"}
    with open(tmp_path / NAME, "ab") as file:
        file.write(b'{"path": "torn", "ha')
    second.add([entry("c")])
    first.refresh()
    assert set(first.entries) == {"a", "b", "c"} == set(Journal.open(tmp_path, SETTINGS).entries)
    (tmp_path / NAME).write_bytes(b'{"handscope_jou')  # killed at its very first line
    assert Journal.open(tmp_path, SETTINGS).entries == {}
    assert Journal.open(tmp_path, SETTINGS).path.read_bytes().count(b"\n") == 1


def test_what_another_process_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one holds the first picture, and has read it by the time that this one has looked at the second."""
    paths = rendered(tmp_path / "pictures", 2)
    examine_files(paths, tmp_path / "whole", search="plain")
    other, seen = Claims(tmp_path / "out"), []
    assert other.take(str(paths[0]))
    line = Journal.open(tmp_path / "whole", Journal.open(tmp_path / "whole", _settings()).settings).entries

    def wait(_: float) -> None:
        Journal.open(tmp_path / "out", _settings()).add([line[str(paths[0])]])
        other.end()

    monkeypatch.setattr(stage.time, "sleep", wait)
    examine = stage.examine
    monkeypatch.setattr(stage, "examine", lambda images, **rest: seen.append(len(images)) or examine(images, **rest))
    read = examine_files(paths, tmp_path / "out", search="plain")
    assert seen == [1] and read.paths == paths and not (tmp_path / "out" / FOLDER).exists()


def _settings() -> dict:
    return {
        "handscope_journal": 1,
        "networks": "full",
        "search": "plain",
        "hands": 2,
        "weights": stage.weights_hash(),
        "finding": stage.FINDING,
    }


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    rendered(tmp_path / "pictures", 34, size=128)
    command = [sys.executable, "-m", "handscope", "anatomy", "score", "pictures", "--search", "plain", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([*command, "shared"], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [process.wait(timeout=250) for process in both] == [0, 0]
    lines = (tmp_path / "shared" / NAME).read_bytes().splitlines()[1:]
    names = [line.split(b'"path": ')[1].split(b",")[0] for line in lines if b'"path"' in line]
    assert len(set(names)) == 34 and len(names) <= 35
    assert len(pd.read_csv(tmp_path / "shared" / "scores.csv")["path"].unique()) == 34
    assert not (tmp_path / "shared" / FOLDER).exists()


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """They are read, and written so that any reader takes them."""
    folder = os.fsencode(tmp_path)
    strange = Path(os.fsdecode(os.path.join(folder, b"caf\xe9.png")))
    torn = Path(os.fsdecode(os.path.join(folder, b"torn\xff.png")))
    try:
        Image.new("RGB", (64, 64), "grey").save(tmp_path / "plain.png")
        os.rename(tmp_path / "plain.png", strange)
    except OSError:
        pytest.skip("this file system takes no such name")
    torn.write_bytes(b"no picture")
    _, read, table = score_files([strange, torn], tmp_path / "out", search="plain")
    assert read.paths == [strange] and table["path"].tolist() == [f"{tmp_path}/caf\\xe9.png"]
    for name in ("scores.csv", "skipped.csv", "scores.json"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "\\xe9" in text or "\\xff" in text
    assert examine_files([strange], tmp_path / "out", search="plain").entries[0]["path"] == str(strange)
