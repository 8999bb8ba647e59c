"""What a user gets for input that does not fit: status 2, a sentence or two, and a run folder that is as it was."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from handscope.cli import main
from handscope.files import sha256
from made_tiny import PROMPTS

Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """``refused("extract", folder, ...)``: run the command, expect it to refuse, and give back what it said."""

    def run(*arguments: object) -> str:
        capfd.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("handscope: ") and err.count("\n") == 1, err
        assert "Traceback" not in err
        assert len(re.findall(r"[.!?] [A-Z]", err)) <= 1, f"more than two sentences: {err}"
        return err

    return run


@pytest.fixture
def study_file(tmp_path: Path, tiny_pipe_folder: Path) -> Callable[..., Path]:
    """``study_file(seeds=[-1])``: a study of the tiny model with some keys changed, else it would run to its end."""

    def write(**changes: object) -> Path:
        settings = {
            "run": str(tmp_path / "run"),
            "model": str(tiny_pipe_folder),
            "prompts": PROMPTS[:2],
            "seeds": [0, 1, 2, 3, 4],
            "folds": 2,
            "steps": 4,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(settings | changes), encoding="utf-8")
        return path

    return write


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with its hash, hidden ones too; the database's side files come and go with its readers."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


# A study file


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"read_step": [4]}, ["'read_step'", "did you mean 'read_steps'"]),
        ({"xyzzy": 1}, ["'xyzzy'", "batch_size"]),
        ({"blocks": ["duble.1"]}, ["'duble.1'", "double.0"]),
        ({"blocks": ["double.1", "double.1"]}, ["double.1", "more than once"]),
        ({"read_steps": [4, 5]}, ["Step 5", "of 4"]),
        ({"read_steps": [0]}, ["Step 0", "down to 1"]),
        ({"primary": "single.3"}, ["key 'primary'", "a cell such as single.3/14", "'single.3'"]),
        ({"primary": "single.3/9"}, ["key 'primary'", "No cell single.3/9", "every block at steps 4, 3, 2, 1"]),
        ({"blocks": ["single.1"], "primary": "single.3/4"}, ["No cell single.3/4", "single.1 at steps 4, 3"]),
        ({"seeds": [0, -1]}, ["-1", "4294967295"]),
        ({"seeds": [2**32]}, ["4294967296"]),
        ({"seeds": {"first": 2**32 - 1, "count": 2}}, ["4294967296"]),
        ({"seeds": {"first": 0, "number": 2}}, ["'seeds'", "{first: 0, count: 12}"]),
        ({"seeds": {"first": 0, "count": 0}}, ["'seeds'", "count of at least 1"]),
        ({"seeds": []}, ["'seeds'"]),
        ({"seeds": [1.5]}, ["1.5"]),
        ({"steps": "20"}, ["'steps'", "whole number", "'20'"]),
        ({"steps": True}, ["'steps'", "True"]),
        ({"steps": 0}, ["'steps'", "at least 1"]),
        ({"guidance": "high"}, ["'guidance'", "'high'"]),
        ({"folds": 1}, ["'folds'", "at least 2"]),
        ({"labels": "maybe"}, ["'labels'", "auto, existing"]),
        ({"tokens": "fingers"}, ["'tokens'", "labelled"]),
        ({"dtype": "float16"}, ["'dtype'", "bfloat16"]),
        ({"offload": "disk"}, ["'offload'", "sequential"]),
        ({"quantisation": "int2"}, ["'quantisation'", "bnb-4bit"]),
        ({"base": 7}, ["'base'", "a text"]),
        ({"stream": "both"}, ["'stream'", "image, text"]),
        ({"at": "middle"}, ["'at'", "output, input"]),
        ({"compression": "lossy"}, ["'compression'", "lossless"]),
        ({"offload": "model"}, ["Offload", "cpu"]),
        ({"also": ["survey", "label"]}, ["'also'", "features, commit, triage, mend, anatomy", "'label'"]),
        ({"also": "survey"}, ["'also'", "a list of"]),
        ({"folder": "run"}, ["'folder'", "which a study does not have"]),
        ({"prompts": []}, ["'prompts'"]),
        ({"prompts": ["a hand", " "]}, ["'prompts'"]),
        ({"prompts": "nowhere.txt"}, ["nowhere.txt", "one prompt a line"]),
        ({"run": 3}, ["'run'", "a text"]),
    ],
)
def test_study_keys_and_values(
    changes: dict, said: list[str], study_file: Callable[..., Path], refused: Refused, tmp_path: Path
) -> None:
    message = refused("study", study_file(**changes))
    for words in said:
        assert words in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["run", "prompts", "seeds"])
def test_study_without_a_key_that_it_needs(key: str, study_file: Callable[..., Path], refused: Refused) -> None:
    path = study_file()
    path.write_text(
        yaml.safe_dump({name: value for name, value in yaml.safe_load(path.read_text()).items() if name != key})
    )
    assert f"lacks the key '{key}'" in refused("study", path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"run: [1, 2\nmodel: x", "line 2"),
        (b"", "found nothing"),
        (b"- run\n- model\n", "found list"),
        (b"run: \xff\xfe", "UTF-8"),
        (b"run: !!python/object/apply:os.getcwd []", "line 1"),
        (b"run: x\nprompts: [a hand]\nseeds: [0]\nrun: y\n", "line 4, column 1"),
        (b"run: x\nseeds: {first: 0, first: 1, count: 2}\n", "the key 'first' stands there a second time"),
        (b"run: x\n? [1, 2]\n: 3\n", "unhashable key"),
    ],
)
def test_study_that_is_not_a_study(content: bytes, said: str, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    assert said in refused("study", path)


# YAML 1.1 takes these for 8, 90, 16, 1000, infinity, true and a day; none is plainly what its key asks for.
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("steps: 010", "a whole number of at least 1, found '010'"),
        ("steps: 1:30", "a whole number of at least 1, found '1:30'"),
        ("batch_size: 0x10", "found '0x10'"),
        ("permutations: 1_000", "found '1_000'"),
        ("guidance: .inf", "a number of at least 0, found '.inf'"),
        ("read_steps: [4, 01]", "found [4, '01']"),
        ("folds: yes", "found 'yes'"),
        ("seed: 2026-01-02", "found '2026-01-02'"),
    ],
)
def test_only_decimal_numbers_are_numbers(
    line: str, said: str, study_file: Callable[..., Path], refused: Refused, tmp_path: Path
) -> None:
    path = study_file()
    key = line.partition(":")[0]
    kept = [other for other in path.read_text().splitlines() if not other.startswith(f"{key}:")]
    path.write_text("\n".join([*kept, line]))
    message = refused("study", path)
    assert f"{key!r}" in message and said in message
    assert not (tmp_path / "run").exists()


def test_a_text_that_looks_like_a_number_is_kept(study_file: Callable[..., Path]) -> None:
    from handscope.study import Study

    path = study_file()
    path.write_text(path.read_text() + "revision: 0123\nguidance: 1e1\nheight: null\n")
    study = Study.from_yaml(path)
    assert (study.revision, study.guidance, study.height) == ("0123", 10.0, None)


def test_study_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert "nothing.yaml" in refused("study", tmp_path / "nothing.yaml")


def test_block_that_the_model_lacks_is_refused_before_an_image_is_made(
    study_file: Callable[..., Path], refused: Refused, tmp_path: Path
) -> None:
    message = refused("study", study_file(blocks=["double.7"]))
    assert "double.7" in message and "double.0 to double.1" in message
    assert not (tmp_path / "run" / "samples").exists()


# Prompts and seeds


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found none"),
        (b"# only a comment\n\n", "found none"),
        (b"a hand\n\xe9\xe8", "byte 0xe9 at position 7"),
        (None, "No such file"),
    ],
)
def test_prompt_file(
    content: bytes | None, said: str, refused: Refused, study_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    for message in (
        refused("generate", tmp_path / "run", "--prompts", path),
        refused("study", study_file(prompts="prompts.txt")),
    ):
        assert said in message and "prompts.txt" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seeds", ["-1", "4294967296", "0-99999999999"])
def test_seed_out_of_range(seeds: str, refused: Refused, tmp_path: Path) -> None:
    message = refused("generate", tmp_path / "run", "--prompt", "a hand", f"--seeds={seeds}")
    assert "from 0 to 4294967295" in message and seeds.split("-")[-1] in message


def test_model_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused("generate", tmp_path / "run", "--prompt", "a hand", "--model", tmp_path / "empty")
    assert "model_index.json" in message
    assert not (tmp_path / "run").exists()


# A run folder


@pytest.mark.parametrize("verb", [["label", "--auto"], ["extract"], ["analyze"], ["probe"], ["report"]])
def test_run_that_is_not_there(verb: list[str], refused: Refused, tmp_path: Path) -> None:
    assert "no run folder" in refused(verb[0], tmp_path / "nothing", *verb[1:])
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("verb", [["label", "--auto"], ["extract"], ["analyze"], ["probe"], ["report"]])
def test_run_that_is_empty(verb: list[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(verb[0], tmp_path / "empty", *verb[1:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--blocks", "duble.1"], "'duble.1'"),
        (["--blocks", "double.9"], "double.0 to double.1"),
        (["--steps", "5"], "Step 5"),
        (["--steps", "0"], "Step 0"),
        (["--batch-size", "0"], "batch_size"),
    ],
)
def test_plan_that_does_not_fit_the_run(options: list[str], said: str, refused: Refused, finished_run) -> None:
    before = contents(finished_run.path)
    assert said in refused("extract", finished_run.path, *options)
    assert contents(finished_run.path) == before


def test_another_kind_of_plan_does_not_mix(refused: Refused, extracted_run) -> None:
    before = contents(extracted_run.path)
    message = refused("extract", extracted_run.path, "--blocks", "double.0", "--steps", "4", "--at", "input")
    assert "at input" in message and contents(extracted_run.path) == before


def test_trajectory_truncated(refused: Refused, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    path = run.trajectory_path(run.samples()["sample"][20])
    cut(path)
    message = refused("extract", run.path, "--blocks", "double.1", "--steps", "4")
    assert path.name in message and "generate" in message


@pytest.mark.parametrize("name", ["samples/metadata.jsonl", "labels.sqlite", "run.yaml"])
def test_file_of_the_run_that_is_not_what_it_should_be(name: str, refused: Refused, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    (run.path / name).write_bytes(b"\x00{ nonsense ]\n")
    before = contents(run.path)
    assert Path(name).name in refused("extract", run.path, "--blocks", "double.1", "--steps", "4")
    assert contents(run.path) == before


def test_a_sample_whose_name_leaves_the_folder(refused: Refused, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    text = run.metadata_path.read_text()
    first = next(iter(run.metadata()))
    run.metadata_path.write_text(text.replace(f'"{first}"', '"../../elsewhere"', 1))
    message = refused("extract", run.path, "--blocks", "double.1", "--steps", "4")
    assert "'../../elsewhere'" in message and "without a folder" in message


def test_metadata_with_a_gap(refused: Refused, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    data = run.metadata_path.read_bytes()
    run.metadata_path.write_bytes(data[: len(data) // 3] + data[len(data) // 2 + 20 :])
    assert "metadata.jsonl" in refused("extract", run.path, "--blocks", "double.1", "--steps", "4")


@pytest.mark.parametrize("verb", ["analyze", "probe"])
def test_store_truncated(verb: str, refused: Refused, extracted_run, run_copy) -> None:
    run = run_copy(extracted_run)
    shutil.rmtree(run.analysis_dir, ignore_errors=True)
    cut(run.activations_dir / "store.h5")
    assert "store.h5" in refused(verb, run.path, "--permutations", "5")
    assert not (run.analysis_dir / "cells.csv").exists() and not (run.analysis_dir / "probes.csv").exists()


def test_labels_of_another_grid(refused: Refused, finished_run, run_copy) -> None:
    from handscope.labeling.database.labels import Annotation, Labels

    run = run_copy(finished_run)
    row = run.samples().iloc[3]
    hands = np.zeros((5, 6), np.uint8)
    Labels(run.labels_path).add([Annotation(row["sample"], row["image_sha256"], hands + 1, hands, "good")])
    message = refused("extract", run.path, "--blocks", "double.1", "--steps", "4")
    for words in (row["sample"], "5 by 6", "4 by 4", "label it again"):
        assert words in message
    assert not run.activations_dir.exists()


def test_labels_of_another_image(refused: Refused, finished_run, run_copy) -> None:
    from handscope.labeling.database.labels import Annotation, Labels

    run = run_copy(finished_run)
    row = run.samples().iloc[3]
    hands = np.zeros((4, 4), np.uint8)
    Labels(run.labels_path).add([Annotation(row["sample"], "0" * 64, hands + 1, hands, "good")])
    assert row["sample"] in refused("extract", run.path, "--blocks", "double.1", "--steps", "4")


def test_too_few_labels_to_analyze(refused: Refused, extracted_run, run_copy) -> None:
    from handscope.labeling.database.labels import Annotation, Labels

    run = run_copy(extracted_run)
    current = Labels(run.labels_path).current()
    Labels(run.labels_path).add(
        [
            Annotation(a.sample, a.image_sha256, np.where(a.instances > 0, 2, 1), a.instances, "good")
            for a in current.values()
        ]
    )
    before = contents(run.path)
    refused("analyze", run.path)
    refused("probe", run.path)
    assert contents(run.path) == before


# Activations


@pytest.mark.parametrize("verb", ["check", "info", "consolidate"])
def test_store_that_is_not_there(verb: str, refused: Refused, tmp_path: Path) -> None:
    assert "nothing at" in refused("store", verb, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "un extract first" in refused("store", verb, tmp_path / "empty")


def test_merging_nothing(refused: Refused, extracted_run, tmp_path: Path) -> None:
    assert "nothing at" in refused("store", "merge", tmp_path / "joined", extracted_run.path, tmp_path / "nowhere")
    assert not (tmp_path / "joined").exists()


# A full disk


@pytest.mark.parametrize("verb", ["generate", "extract", "analyze"])
def test_full_disk_loses_nothing(
    verb: str,
    refused: Refused,
    tiny_pipe_folder: Path,
    extracted_run,
    run_copy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The disk is full at the third file that a stage writes; with space again, the same command ends well."""
    run = run_copy(extracted_run)
    shutil.rmtree(run.analysis_dir, ignore_errors=True)
    command = {
        "generate": [
            "generate",
            run.path,
            "--model",
            tiny_pipe_folder,
            "--prompt",
            PROMPTS[0],
            "--seeds",
            "6-8",
            "--steps",
            "4",
        ],
        "extract": ["extract", run.path, "--blocks", "double.1,single.0,single.2", "--steps", "4,2,1"],
        "analyze": ["analyze", run.path, "--permutations", "5", "--folds", "3"],
    }[verb]
    if verb == "extract":
        (run.activations_dir / "store.h5").unlink()
        for shard in sorted((run.activations_dir / "shards").glob("*.h5"))[:5]:
            shard.unlink()
    before = contents(run.path)
    written = 0
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    message = refused(*command)
    assert "disk is full" in message and "same command again" in message
    after = contents(run.path)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if ".tmp" in name]

    monkeypatch.setattr(os, "fsync", fsync)
    assert main([str(argument) for argument in command]) == 0
    mended = contents(run.path)
    assert len(mended) > len(after)
    for name in set(after) - {"run.yaml", "samples/metadata.jsonl"}:
        if not name.startswith("trajectories/"):  # safetensors writes the lines of its header in any order
            assert mended[name] == after[name], name
