"""A study as jobs: what waits for what, and that the jobs together make what one command makes."""

import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from handscope.cli import main
from handscope.cluster import slurm
from handscope.cluster.slurm import jobs
from handscope.stages import STAGES
from handscope.study import Study
from made_state import state


def sbatch(asked: list[list[str]], command: list[str], **more: object) -> subprocess.CompletedProcess:
    """Do a job at once, the members of an array from the last to the first, as a shell would."""
    script = Path(command[-1])
    lines = script.read_text().splitlines()
    parts = next((int(line.partition("=1-")[2]) for line in lines if "--array=1-" in line), 0)
    for task in range(parts, 0, -1) if parts else [0]:
        words = shlex.split(lines[-1].replace("$SLURM_ARRAY_TASK_ID", str(task)))
        assert words[:4] == ["exec", sys.executable, "-m", "handscope"] and main(words[4:]) == 0
    asked.append([script.name, *command[1:-1]])
    return subprocess.CompletedProcess(command, 0, f"{99 + len(asked)};cluster\n", "")


def test_divided_stages_are_arrays_and_the_rest_waits_for_them(tmp_path: Path) -> None:
    study = Study(folder=tmp_path, prompts=("a hand",), seeds=(0,), also=("survey", "commit"))
    made = {job.name: job for job in jobs(study, tmp_path / "a.yaml", 4, ["device=cuda"])}
    assert {name: (job.parts, job.after) for name, job in made.items()} == {
        "generate": (4, ()),
        "to-label": (0, ("generate",)),
        "extract": (4, ("to-label",)),
        "survey": (4, ("to-label",)),
        "to-report": (0, ("to-label", "extract", "survey")),
    }
    assert made["extract"].command.endswith("a.yaml --set device=cuda --part extract \"$SLURM_ARRAY_TASK_ID/4\"")
    assert made["to-label"].command.endswith("--until label") and made["to-report"].command.endswith("device=cuda")
    assert [stage.name for stage in STAGES if stage.divided][:3] == ["generate", "extract", "survey"]


def study_file(folder: Path, model: Path) -> Path:
    path = folder / "study.yaml"
    pairs = [[f"a hand with {n} fingers", f"a hand with {n} rings"] for n in "abcde"]
    text = {
        "run": str(folder / "run"), "model": str(model), "pairs": pairs, "seeds": [0, 1, 2], "steps": 2, "height": 32,
        "width": 32, "tokens": "all", "blocks": ["double.1"], "batch_size": 4, "labels": "existing", "permutations": 9,
    }  # fmt: skip
    path.write_text(json.dumps(text))
    return path


@pytest.mark.slow
def test_jobs_make_what_one_command_makes(tiny_pipe_folder: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for folder in (whole, parted):
        folder.mkdir()
    assert main(["study", str(study_file(whole, tiny_pipe_folder))]) == 0
    file, asked = study_file(parted, tiny_pipe_folder), list[list[str]]()
    command = ["submit", str(file), "--slurm", "--parts", "2", "--sbatch=--time=10"]
    capfd.readouterr()
    assert main(command) == 0
    said = capfd.readouterr().out.splitlines()[1:]
    assert [line.partition("=")[0] for line in said] == ["generate", "extract", "to_report"]
    assert "--dependency=afterok:$generate " in said[1] and not (parted / "run" / "samples").exists()
    script = (parted / "run" / "slurm" / "generate.sh").read_text()
    assert "#SBATCH --array=1-2\n" in script and "#SBATCH --time=10\n" in script
    monkeypatch.setattr(slurm.subprocess, "run", partial(sbatch, asked))
    assert main([*command, "--go"]) == 0
    assert asked == [
        ["generate.sh", "--parsable"],
        ["extract.sh", "--parsable", "--dependency=afterok:100"],
        ["to-report.sh", "--parsable", "--dependency=afterok:100:101"],
    ]
    for name in ("samples", "trajectories", "activations", "analysis"):
        assert state(parted / "run" / name) == state(whole / "run" / name)
    assert (parted / "run" / "report.html").exists()


def test_options_that_are_ours_are_refused(tiny_pipe_folder: Path, tmp_path: Path, capfd) -> None:
    file = study_file(tmp_path, tiny_pipe_folder)
    for option in ("--array=1-3", "-p gpu", "--output=x"):
        assert main(["submit", str(file), "--slurm", f"--sbatch={option}"]) == 2
        assert "Expected an option of sbatch" in capfd.readouterr().err
    assert main(["study", str(file), "--part", "report", "1/2"]) == 2
    assert "one of generate, extract, found 'report'" in capfd.readouterr().err
