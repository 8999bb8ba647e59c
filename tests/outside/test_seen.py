"""What the model sees of a prompt, and what the files of a run hold, against what is noted of them."""

import hashlib
import json
import shutil
import sys
import warnings

import numpy as np
import pytest
from handscope.cli import main
from handscope.commands.anatomy_known import pixels_by_metadata
from handscope.errors import HandscopeError, HandscopeWarning
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.labeling.server.pictures import Pictures
from handscope.labeling.table import as_seen
from handscope.run.folder import Run
from handscope.run.trajectory import Trajectory
from made_tiny import PROMPTS
from safetensors.torch import load_file, save_file

LONG = PROMPTS[0] + " " + " ".join(["blue"] * 20)
ALIKE = [LONG + " ring", LONG + " left view", "a left hand", "a  left hand ", "a right hand"]


@pytest.fixture(scope="module")
def seen_run(tiny_model, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("seen"))
    with pytest.warns(HandscopeWarning, match="2 of 5 prompts are longer than the 20 tokens of text"):
        generate(tiny_model, run, ALIKE, [0, 1], steps=1, trajectories=False)
    return run


def test_prompts_that_the_model_sees_alike_are_one_prompt(seen_run, tiny_model):
    encoded = tiny_model.encode(ALIKE)
    assert encoded.digest(ALIKE[0]) == encoded.digest(ALIKE[1]) != encoded.digest(ALIKE[2])
    # The two tokenizers of FLUX.1 strip and join blanks, so that spellings with other blanks are one text.
    assert encoded.digest(ALIKE[2]) == encoded.digest(ALIKE[3])
    assert seen_run.samples()["prompt"].nunique() == 5
    assert list(as_seen(seen_run)["prompt"].unique()) == [ALIKE[0], ALIKE[2], ALIKE[4]]
    assert seen_run.prompts_as_seen() == dict(zip(ALIKE, [ALIKE[0], ALIKE[0], ALIKE[2], ALIKE[2], ALIKE[4]]))


def test_a_run_that_notes_no_embeddings_has_its_prompts_as_they_are_spelled(seen_run, run_copy):
    run = run_copy(seen_run)
    rows = run.metadata()
    for row in rows.values():
        del row["embedding"]
    run.write_metadata(rows)
    assert as_seen(Run(run.path))["prompt"].nunique() == 5


def test_prompts_seen_alike_stand_in_one_fold(finished_run, run_copy, tiny_model):
    from handscope.labeling.table import labelled, sample_table

    run = run_copy(finished_run)
    rows = run.metadata()
    assert {row["embedding"] for row in rows.values()} == {tiny_model.encode(PROMPTS).digest(p) for p in PROMPTS}
    for row in rows.values():
        row["embedding"] = str(PROMPTS.index(row["prompt"]) // 2)
    run.write_metadata(rows)
    table = labelled(sample_table(run), "sure", 4, run.path)
    assert set(table["prompt"]) == set(PROMPTS[::2])
    with pytest.raises(HandscopeError, match="of 4 prompts"):
        labelled(sample_table(run), "sure", 5, run.path)


def test_a_prompt_that_is_just_short_enough_is_not_cut(tiny_model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", HandscopeWarning)
        generate(tiny_model, Run(tmp_path), [PROMPTS[0], "a " * 18], [0], steps=1, trajectories=False)


def test_the_command_line_says_that_a_prompt_is_cut(tiny_pipe_folder, tmp_path, capsys):
    words = ["generate", str(tmp_path / "run"), "--model", str(tiny_pipe_folder), "--prompt", LONG, "--steps", "1"]
    assert main([*words, "--seeds", "0", "--no-trajectories"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("handscope: 1 of 1 prompts are longer than the 20 tokens") and "generate.py" not in said


# What is noted of a file is compared with it


def damage(path, place):
    data = bytearray(path.read_bytes())
    data[8 + int.from_bytes(data[:8], "little") + place] ^= 0x03
    path.write_bytes(data)


@pytest.mark.parametrize("place", [3, 1027, -1])
def test_a_number_that_changed_on_the_disk_is_not_extracted(place, tiny_model, finished_run, run_copy):
    run = run_copy(finished_run)
    sample = list(run.metadata())[5]
    path = run.trajectory_path(sample)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    damage(path, place if place >= 0 else path.stat().st_size - header - 1)
    with pytest.raises(HandscopeError, match=f"{sample}.safetensors is damaged: its numbers are not those"):
        extract(tiny_model, run, Plan(["double.1"], [4], of=4))
    assert not list(run.activations_dir.rglob("*.h5"))


def test_a_trajectory_without_a_checksum_is_held_to_its_noise(finished_run, run_copy):
    run = run_copy(finished_run)
    sample = next(iter(run.metadata()))
    path, noted = run.trajectory_path(sample), run.trajectory_metadata(run.metadata()[sample])
    tensors = load_file(path)
    save_file(tensors, path, noted)
    run.trajectory(sample)
    tensors["latents"][0, 3, 2] += 0.1
    save_file(tensors, path, noted)
    with pytest.raises(HandscopeError, match=r"initial noise is not the one that was drawn .noise_sha256"):
        run.trajectory(sample)


def test_two_undisturbed_trajectories_are_the_same_file(finished_run, tmp_path):
    sample = next(iter(finished_run.metadata()))
    trajectory = finished_run.trajectory(sample)
    hashes = set()
    for turn in range(8):
        trajectory.save(tmp_path / str(turn), {f"key {i} é": str(i) for i in range(9)} | {"a": '"\\\n\x01'})
        hashes.add(hashlib.sha256((tmp_path / str(turn)).read_bytes()).hexdigest())
    assert len(hashes) == 1
    again = Trajectory.load(tmp_path / "0", {"key 3 é": "3", "a": '"\\\n\x01'})
    assert np.array_equal(again.latents, trajectory.latents)


def test_swapped_pictures_are_not_read_as_each_other(finished_run, run_copy, tmp_path):
    run = run_copy(finished_run)
    first, second = list(run.metadata())[:2]
    assert len(pixels_by_metadata([run.image_path(first)])) == 1
    run.image(first)
    pictures = Pictures(run)
    pictures.path(first)
    a, b = run.image_path(first), run.image_path(second)
    shutil.move(a, tmp_path / "held")
    shutil.move(b, a)
    shutil.move(tmp_path / "held", b)
    for read in (run.image, Run(run.path).image, pictures.path):
        with pytest.raises(HandscopeError, match="is not the one that was generated"):
            read(first)


def test_anatomy_skips_a_picture_that_is_anothers(finished_run, run_copy, tmp_path):
    from handscope.anatomy.judge.claims import Claims
    from handscope.anatomy.judge.journal import Journal
    from handscope.anatomy.judge.stage import _unread

    run = run_copy(finished_run)
    first, second, third = (run.image_path(sample) for sample in list(run.metadata())[:3])
    shutil.copy(second, first)
    skipped = []
    paths, journal = [first, second, third], Journal.open(tmp_path, {"a": 1})
    read = list(_unread(paths, journal, {}, {}, pixels_by_metadata(paths), skipped, Claims(tmp_path), []))
    assert [one.path for one in read] == [second, third] and "another" not in skipped[0].reason
    assert skipped[0].path == first and "its pixels are not those of the sample" in skipped[0].reason


def test_a_picture_is_hashed_once_for_each_state_of_its_file(finished_run, monkeypatch):
    run, hashed = Run(finished_run.path), []
    sample, sha256 = next(iter(run.metadata())), hashlib.sha256

    def counting(data=b""):
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr(sys.modules[Run.__module__].hashlib, "sha256", counting)
    for _ in range(3):
        run.image(sample)
    assert len(hashed) == 1


# What made the samples stays on record


def test_each_call_keeps_what_made_the_samples_before(tmp_path):
    run = Run(tmp_path)
    for threads in (1, 2, 2, 1, 3):
        run.write_settings({"provenance": {"name": "organism", "threads": threads}})
    assert run.settings["provenance"]["threads"] == 3
    assert [one["threads"] for one in run.settings["provenance_before"]] == [1, 2]
    assert "provenance_before" not in json.dumps(Run(tmp_path / "other").settings)


def test_what_a_kill_left_goes_and_what_is_being_written_stays(tmp_path):
    from handscope.files import atomic, sweep

    dead = [".shared.0123abcd.tmp.csv", ".cells.0123abcd.tmp.h5"]
    kept = [".a.tmp", "a.tmp.csv", ".b.0123abcd.tmp.safetensors", ".tmpAbC123"]
    for name in dead + kept:
        (tmp_path / name).touch()
    with atomic(tmp_path / "c.csv") as temporary:
        sweep(tmp_path)
        assert temporary.exists()
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "c.csv"}
    sweep(tmp_path / "nowhere")
