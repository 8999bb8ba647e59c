"""The lines of samples/metadata.jsonl: appended, whole, the later one counts."""

import errno
import json
import os
from pathlib import Path

import pytest
from handscope import files
from handscope.errors import HandscopeError
from handscope.run.folder import COLUMNS, Run


def row(number: int, prompt: str = "a hand") -> dict:
    known = {"sample": f"s{number:05d}", "prompt": prompt, "file_name": f"s{number:05d}.png"}
    return {column: known.get(column, "0" * 64 if kind is str else 1) for column, kind in COLUMNS.items()}


def test_each_batch_adds_its_own_lines_and_rewrites_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, rewritten = [], []
    write = os.write

    class Counting:
        """Counts what goes through a file opened for appending."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            written.append(len(data))
            return write(self.file.fileno(), data)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    monkeypatch.setattr(files, "open", lambda path, *rest, **more: Counting(open(path, *rest, **more)), raising=False)  # noqa: SIM115
    run, batch = Run(tmp_path), 16
    monkeypatch.setattr(run, "write_metadata", lambda rows: rewritten.append(len(rows)))
    with run.writing_samples():
        for first in range(0, 10_000, batch):
            run.append_metadata(row(number) for number in range(first, first + batch))
    assert sum(written) == run.metadata_path.stat().st_size and not rewritten
    assert len(written) == 625 and max(written) == len(run.metadata_path.read_bytes()) // 625
    assert list(run.metadata()) == [f"s{number:05d}" for number in range(10_000)]


def test_a_sample_made_again_has_one_line_in_the_end_and_its_place(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.writing_samples():
        run.append_metadata([row(1), row(2)])
    with run.writing_samples():
        run.append_metadata([row(1, "another")])
        assert run.metadata()["s00001"]["prompt"] == "another"
        assert run.metadata_path.read_bytes().count(b"\n") == 3
    lines = [json.loads(line) for line in run.metadata_path.read_bytes().split(b"\n")[:-1]]
    assert [(line["sample"], line["prompt"]) for line in lines] == [("s00001", "another"), ("s00002", "a hand")]


def test_what_a_killed_writer_left_of_a_line_is_not_read_and_not_added_to(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.writing_samples():
        run.append_metadata([row(1), row(2)])
    whole = run.metadata_path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second, len(whole)):
        run.metadata_path.write_bytes(whole[:cut])
        # The last line may lack nothing but its end.
        there = ["s00001", "s00002"] if cut == len(whole) - 1 else ["s00001"]
        assert list(Run(tmp_path).metadata()) == there
    for cut in (second + 20, len(whole) - 1):
        run.metadata_path.write_bytes(whole[:cut])
        with Run(tmp_path).writing_samples():
            run.append_metadata([row(2), row(3)])
        expected = [row(1), row(2), row(3)]
        assert [json.loads(line) for line in run.metadata_path.read_bytes().split(b"\n")[:-1]] == expected


def test_a_damaged_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_metadata({"a": row(1), "b": row(2)})
    run.metadata_path.write_bytes(run.metadata_path.read_bytes()[10:])
    with pytest.raises(HandscopeError, match=r"metadata\.jsonl is damaged"):
        run.metadata()


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n"])
def test_a_prompt_may_hold_any_letter(tmp_path: Path, letter: str) -> None:
    run = Run(tmp_path)
    with run.writing_samples():
        run.append_metadata([row(1, f"an open{letter}hand"), row(2)])
    assert Run(tmp_path).metadata() == {"s00001": row(1, f"an open{letter}hand"), "s00002": row(2)}


def test_a_full_disk_leaves_the_lines_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    with run.writing_samples():
        run.append_metadata([row(1)])
    before = run.metadata_path.read_bytes()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HandscopeError, match="The disk is full"):
        run.append_metadata([row(2)])
    assert run.metadata_path.read_bytes() == before
