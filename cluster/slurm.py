"""A study as jobs for Slurm: an array for each stage that machines can divide, and single jobs in between."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import HandscopeError
from ..files import atomic
from ..stages import Stage
from ..study import Study

OWN = ("array", "dependency", "job-name", "output")
"""Options of sbatch that handscope sets."""


@dataclass(frozen=True)
class Job:
    """One job, or an array of them.

    Attributes
    ----------
    name : str
    command : str
        A line of shell.
    parts : int
        Members of the array; 0 for a single job.
    after : tuple of str
        Names of the jobs that have to have ended well before.
    """

    name: str
    command: str
    parts: int
    after: tuple[str, ...]

    @property
    def divided(self) -> bool:
        """Whether it is an array."""
        return self.parts > 0


def jobs(study: Study, file: Path, parts: int, settings: Sequence[str] = ()) -> list[Job]:
    """The jobs of a study, in an order in which each comes after those that it waits for.

    Stages that cannot be divided run in one job each time, which first completes what the arrays before it have made:
    puts lines together, consolidates the store, enters stages in the record.

    Parameters
    ----------
    file : of the study
    parts : of each array
    settings : ``key=value``, as in ``handscope study --set``
    """
    study_command = [sys.executable, "-m", "handscope", "study", str(file.absolute())]
    study_command += [word for setting in settings for word in ("--set", setting)]
    made: list[Job] = []
    before: tuple[str, ...] = ()
    arrays: list[Stage] = []
    last = study.chosen[-1].name
    for stage, following in zip(study.chosen, [*study.chosen[1:], None]):
        if stage.divided:
            command = shlex.join([*study_command, "--part", stage.name]) + f' "$SLURM_ARRAY_TASK_ID/{parts}"'
            read = [other.name for other in arrays if {*other.writes} & {*stage.reads}]
            made.append(Job(stage.name, command, parts, (*before, *read)))
            arrays.append(stage)
        elif following is None or following.divided:
            until = [] if stage.name == last else ["--until", stage.name]
            waits = (*before, *(array.name for array in arrays))
            made.append(Job(f"to-{stage.name}", shlex.join([*study_command, *until]), 0, waits))
            before, arrays = (made[-1].name,), []
    return made


def write_scripts(made: Sequence[Job], folder: Path, options: Sequence[str] = ()) -> list[Path]:
    """Write one script a job, for ``sbatch``; logs will lie beside it.

    Parameters
    ----------
    folder : made where it is missing
    options : of sbatch, such as ``--gres=gpu:1`` and ``--time=4:00:00``

    Raises
    ------
    HandscopeError
        An option is one that handscope sets.
    """
    for option in options:
        if not option.startswith("--") or option[2:].partition("=")[0] in OWN:
            raise HandscopeError(
                f"Expected an option of sbatch such as --gres=gpu:1, written with = and none of {', '.join(OWN)}, "
                f"found {option!r}."
            )
    paths = []
    for job in made:
        log = folder / f"{job.name}{'-%a' if job.divided else ''}.log"
        lines = ["#!/bin/bash", f"#SBATCH --job-name=handscope-{job.name}", f"#SBATCH --output={log}"]
        lines += [f"#SBATCH --array=1-{job.parts}"] if job.divided else []
        lines += ["#SBATCH --requeue", "#SBATCH --open-mode=append"]
        lines += [f"#SBATCH {option}" for option in options]
        # The machine that submits may be in another folder, and have another Python first in its path.
        lines += ["", f"cd {shlex.quote(os.getcwd())}", f"exec {job.command}"]
        paths.append(folder / f"{job.name}.sh")
        with atomic(paths[-1]) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def submit(made: Sequence[Job], paths: Sequence[Path]) -> dict[str, str]:
    """Give the scripts to ``sbatch``, each after the jobs that it waits for; the numbers of the jobs by name.

    Raises
    ------
    HandscopeError
        There is no sbatch, or it refused.
    """
    numbers: dict[str, str] = {}
    for job, path in zip(made, paths):
        try:
            said = subprocess.run(
                ["sbatch", "--parsable", *waiting(job, numbers), str(path)], capture_output=True, text=True, check=True
            )
        except FileNotFoundError as error:
            raise HandscopeError(
                f"There is no sbatch on this machine: the scripts in {path.parent} are for one that has it."
            ) from error
        except subprocess.CalledProcessError as error:
            raise HandscopeError(f"sbatch refused {path}: {error.stderr.strip()}") from error
        numbers[job.name] = said.stdout.strip().partition(";")[0]
    return numbers


def waiting(job: Job, numbers: dict[str, str]) -> list[str]:
    """The option of sbatch that makes a job wait, given the numbers (or names of shell variables) of the others."""
    return [f"--dependency=afterok:{':'.join(numbers[name] for name in job.after)}"] if job.after else []
