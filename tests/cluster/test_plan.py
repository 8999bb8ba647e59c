"""What a plan says, held to what the stages then write, and to arithmetic by hand."""

import dataclasses
import json
import time
from pathlib import Path

import pandas as pd
import pytest
from handscope.cli import main
from handscope.cluster.plan import Measured, measure, plan, warnings_of
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.study import Study
from made_tiny import PROMPTS, STEPS

ONE = Measured("cuda", 16, 2.0, 8.0, 0.5, 60.0, 30 * 10**9, 80 * 10**9, 1e9, 10**15, 57, 3072, 4096, 64, 2, 1024, 1024)


def study(**more: object) -> Study:
    prompts = tuple(f"a hand, number {n}" for n in range(1000))
    return Study(**{"folder": "runs/none", "prompts": prompts, "seeds": range(10), "device": "cuda"} | more)


def test_numbers_are_those_by_hand() -> None:
    table = plan(study(also=("survey",)), ONE, 8).set_index("stage")
    batches, prompts = 625, 1000
    assert table.loc["generate", "calls"] == 10_000 * 20
    assert table.loc["generate", "hours"] * 3600 == pytest.approx(batches * 48 + prompts * 0.5 + 8 * 60)
    assert table.loc["generate", "wall"] == pytest.approx(79 * 48 + prompts * 0.5 / 8 + 60)
    trajectories = 21 * 4096 * 64 * 2
    assert table.loc["generate", "bytes"] == 10_000 * (trajectories + 1024**2 * 1.5 + 700)
    assert table.loc["generate", "files"] == 20_000 and table.loc["extract", "files"] == 10_000
    # All blocks, all steps, all tokens: the file system cannot take it, and the disk has no room.
    cells = 57 * 20 * 3072 * 2 * 4096
    assert table.loc["extract", "bytes"] == pytest.approx(2 * cells * 10_000, rel=1e-3)
    assert table.loc["extract", "wall"] == pytest.approx(table.loc["extract", "bytes"] / 1e9)
    assert table.loc["extract", "note"] == "the file system is the limit"
    assert table.loc["survey", "bytes"] == pytest.approx(10_000 * 57 * 20 * 2 * 2 * 3072 * 4, rel=0.01)
    few = plan(study(blocks=("double.1",), read_steps=(20, 4)), ONE, 8, kept=0.02).set_index("stage")
    assert few.loc["extract", "bytes"] == pytest.approx(10_000 * 2 * 82 * 2 * 3072 * 2, rel=0.03)
    assert few.loc["extract", "calls"] == 20_000


def test_what_would_run_out_is_told() -> None:
    def told(**more: object) -> list[str]:
        one = dataclasses.replace(ONE, **more)
        return list(warnings_of(study(), plan(study(), one), one))

    assert "The disk would run out: 574 TB" in told(disk=10**12)[0]
    assert any("Memory would run out in generate: 90 GB" in text for text in told(memory=90 * 10**9))
    assert told(memory=20 * 10**9)[-1] == "3 workers fit into the memory of one GPU (--per-gpu 3)."


def test_ten_thousand_samples_are_planned_at_once() -> None:
    begun = time.process_time()
    plan(study(), ONE, 1024)
    assert time.process_time() - begun < 2


def test_bytes_and_files_are_those_that_are_written(
    tiny_model, tiny_pipe_folder: Path, finished_run, run_copy, tmp_path: Path, capfd
) -> None:
    given = {
        "run": str(tmp_path / "none"), "model": str(tiny_pipe_folder), "prompts": PROMPTS, "seeds": list(range(6)),
        "steps": STEPS, "height": 32, "width": 32, "tokens": "all", "labels": "existing",
    }  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(given))
    made = Study.from_yaml(path)
    measured = measure(made)
    assert measured.step > 0 and measured.other > 0 and measured.write > 0 and not (tmp_path / "none").exists()
    table = plan(made, measured).set_index("stage")
    run = run_copy(finished_run)
    extract(tiny_model, run, Plan(None, range(STEPS, 0, -1), of=STEPS), tokens="all")
    for stage, folders in (("generate", ("samples", "trajectories")), ("extract", ("activations",))):
        every = [one for name in folders for one in (run.path / name).rglob("*")]
        files = [one for one in every if one.suffix in (".png", ".h5", ".safetensors")]
        assert abs(table.loc[stage, "files"] - len(files)) <= 1
        size = sum(one.stat().st_size for one in files)
        assert table.loc[stage, "bytes"] == pytest.approx(size, rel=0.25)
    assert main(["plan", str(path), "--gpus", "2", "--csv", str(tmp_path / "plan.csv")]) == 0
    assert "hours of cpu" in capfd.readouterr().out
    assert pd.read_csv(tmp_path / "plan.csv")["calls"].iloc[0] == 48 * STEPS
