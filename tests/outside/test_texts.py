"""Letters that part lines for some readers and not for others, numbers that are none, names that two prompts share."""

import argparse
import json

import pandas as pd
import pytest
from handscope.cli import main
from handscope.commands import options
from handscope.commands.anatomy_known import raised_by_prompts
from handscope.errors import HandscopeError
from handscope.extract.generate import generate
from handscope.files import read_csv, write_csv
from handscope.labeling.exchange.export import export_labels
from handscope.labeling.exchange.importing import import_labels
from handscope.labeling.subject import load_subject
from handscope.run.folder import Run, sample_id
from handscope.run.prompts import check_prompts, read_prompts
from handscope.study import Study, noted_settings
from made_runs import make_run

LETTERS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
"""What str.splitlines parts a text at beside the ends of lines (volcengine/OpenViking#3984, datalad/datalad#3523)."""
TWINS = "an open hand, picture 12142", "an open hand, picture 74434"


@pytest.mark.parametrize("letter", LETTERS)
def test_a_prompt_a_line_whatever_letters_are_in_it(letter, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(f"a hand{letter}in rain\r\n\n# no{letter}t this\na fist\n".encode())
    assert read_prompts(path) == [f"a hand{letter}in rain", "a fist"]


@pytest.mark.parametrize("letter", [*LETTERS, "\r"])
def test_labels_and_prompts_beside_pictures_are_lines_too(letter, tmp_path):
    from handscope.labeling.database.labels import Annotation, Labels

    run = make_run(tmp_path / "run", n=2)
    rows = run.metadata()
    for number, row in enumerate(rows.values()):
        row["prompt"] = f"a hand, {('two', 'three')[number]} fingers{letter}raised"
    run.write_metadata(rows)
    assert [row["prompt"][-7:] for row in Run(run.path).metadata().values()] == [f"{letter}raised"] * 2
    paths = [run.image_path(sample) for sample in rows]
    text = run.metadata_path.read_text(encoding="utf-8").replace("fingers", "fingers raised")
    run.metadata_path.write_bytes(text.encode())
    assert list(raised_by_prompts(paths).values()) == [2, 3]
    sample, row = next(iter(rows.items()))
    grid = [[0] * 12] * 12
    Labels(run.labels_path).add(
        [Annotation(sample, row["image_sha256"], grid, grid, "unsure", author="a", source=f"eye{letter}left")]
    )
    export_labels(run, tmp_path / "pngs")
    assert import_labels(run, tmp_path / "pngs").known == 1


def test_a_table_gives_back_the_texts_that_were_written(tmp_path):
    texts = ["a\rb", "c\u2028d", "e\nf", "g\x85h", "NA", "null", "None", "nan", "1", "", 'q"r', "s,t", "-"]
    table = pd.DataFrame({"sample": "s", "prompt": texts, "number": range(len(texts)), "auc": 0.5})
    write_csv(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), table, check_dtype=False)
    plain = table[~table["prompt"].str.contains("\r")]
    write_csv(tmp_path / "b.csv", plain)
    assert '"0.5"' not in (tmp_path / "b.csv").read_text() and "s,c" in (tmp_path / "b.csv").read_text()


def test_prompts_that_are_joined_otherwise_are_other_prompts():
    assert noted_settings({"prompts": ["a\nb"]}) != noted_settings({"prompts": ["a", "b"]})


def test_half_a_letter_is_no_prompt(tmp_path, capsys):
    with pytest.raises(HandscopeError, match=r"in UTF-8, found 'a hand \\udcff', whose letter 8"):
        check_prompts(["a hand", "a hand \udcff"])
    assert main(["generate", str(tmp_path / "run"), "--prompt", "a hand \udcff"]) == 2
    assert "whose letter 8 is none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    path = tmp_path / "study.yaml"
    path.write_text('run: x\nprompts: ["a hand \\uD800"]\nseeds: [0]\n')
    with pytest.raises(HandscopeError, match="'prompts'"):
        Study.from_yaml(path)


def test_two_prompts_of_one_name_are_told_apart_in_two_calls(tiny_model, tmp_path):
    assert len({sample_id(prompt, 0) for prompt in TWINS}) == 1
    run = Run(tmp_path)
    generate(tiny_model, run, TWINS[:1], [0], steps=1, trajectories=False)
    with pytest.raises(HandscopeError, match="share the sample name 598aee9b"):
        generate(tiny_model, run, TWINS[1:], [0], steps=1, trajectories=False)
    with pytest.raises(HandscopeError, match="share the sample name 598aee9b"):
        generate(tiny_model, Run(tmp_path / "other"), TWINS, [0], steps=1, trajectories=False)
    assert [row["prompt"] for row in run.metadata().values()] == [TWINS[0]]


@pytest.mark.parametrize("text", ["1_0", "0x10", "1e2", "", " ", "1.0", "ten", "9" * 30])
def test_whole_numbers_are_written_in_digits(text):
    for kind in (options.whole, options.at_least(1), options.seed, options.numbers):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)
    assert options.numbers("020,1") == [20, 1] and options.seeds("010-011") == [range(10, 12)]


@pytest.mark.parametrize("text", ["3_5", "nan", "inf", "1e999", "3,5", "0x1p3", ""])
def test_numbers_are_written_in_digits(text):
    with pytest.raises(argparse.ArgumentTypeError):
        options.number(text)
    assert (options.number("3.5"), options.number("-2"), options.number("1e-3")) == (3.5, -2.0, 0.001)


def test_a_subject_is_read_as_plainly_as_a_study(tmp_path):
    path = tmp_path / "bird.yaml"
    path.write_text("name: bird\nnoun: bird\nplural: no\nkinds: {wing: {scope: local}}\n")
    assert load_subject(path).plural == "no"
    path.write_text("name: bird\nname: cat\n")
    with pytest.raises(HandscopeError, match="a second time"):
        load_subject(path)


def test_lists_without_end_are_no_file(tmp_path):
    run, deep = make_run(tmp_path / "run", n=1), "[" * 100_000
    run.metadata_path.write_text(deep + "\n")
    with pytest.raises(HandscopeError, match="is damaged"):
        run.metadata()
    (run.path / "record.json").write_text(deep)
    from handscope.run.record import entry_of
    from handscope.stages import LABEL

    assert entry_of(run.path, LABEL) == {}
    path = tmp_path / "a.yaml"
    path.write_text("a: " + "[" * 2000)
    for read in (Study.from_yaml, load_subject):
        with pytest.raises(HandscopeError, match=str(path)):
            read(path)
    run.settings_path.write_text("a: " + "[" * 2000)
    with pytest.raises(HandscopeError, match="is damaged"):
        _ = run.settings


@pytest.mark.parametrize("section", ["model", "generation", "provenance"])
@pytest.mark.parametrize("value", [None, "x", 3, []])
def test_a_section_of_settings_holds_named_settings(section, value, tmp_path):
    run = Run(tmp_path)
    run.settings_path.write_text(json.dumps({section: value}))
    with pytest.raises(HandscopeError, match=f"named settings as '{section}'"):
        _ = run.settings


def test_a_run_lies_where_it_was_opened(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    run = Run("runs/one")
    monkeypatch.chdir(tmp_path / "b")
    run.write_settings({"provenance": {"name": "organism"}})
    assert (tmp_path / "a" / "runs" / "one" / "run.yaml").exists() and not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("words", [["generate", "", "--prompt", "x"], ["report", ""], ["labels", "export", "r", ""]])
def test_an_empty_name_is_not_the_current_folder(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert "empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(HandscopeError, match="found an empty text"):
        Run("")
