"""``handscope submit`` and ``handscope plan``: a study on many machines, and what it would cost."""

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..progress import Progress
from .options import at_least, number
from .verb import add_verb, remark, say, show


def add(verbs: Any) -> None:
    """Add ``submit`` and ``plan``."""
    verb = add_verb(verbs, "submit", _submit, "write a study as jobs of a cluster, and submit them when told to")
    _study_options(verb)
    verb.add_argument("--slurm", action="store_true", required=True, help="as job arrays of Slurm")
    verb.add_argument("--parts", type=at_least(1), default=8, help="members of each array (default 8)")
    verb.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="of every job, such as --sbatch=--gres=gpu:1"
    )
    verb.add_argument("--go", action="store_true", help="submit them; else nothing but the scripts is made")

    verb = add_verb(verbs, "plan", _plan, "what each stage of a study would cost, from one measured step")
    _study_options(verb)
    verb.add_argument("--gpus", type=at_least(1), default=1, metavar="N", help="workers (default 1)")
    verb.add_argument(
        "--kept", type=number, metavar="SHARE", help="of a picture's tokens that is stored (default 1, the most)"
    )
    verb.add_argument("--csv", type=Path, metavar="FILE", help="write the table for a paper's appendix too")


def _study_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", metavar="FILE.yaml", type=Path, help="the study")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the file, otherwise")


def _study(arguments: argparse.Namespace) -> Any:
    from ..study import Study
    from .study import setting

    return Study.from_yaml(arguments.file, dict(map(setting, arguments.set)))


def _submit(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..cluster.slurm import jobs, submit, waiting, write_scripts

    study = _study(arguments)
    study.check_size()
    made = jobs(study, arguments.file, arguments.parts, arguments.set)
    paths = write_scripts(made, study.folder.absolute() / "slurm", arguments.sbatch)
    if arguments.go:
        for name, given in submit(made, paths).items():
            say("submit", f"{name} is job {given}")
        return
    remark("Nothing is submitted; --go does it, and so do these lines:")
    names = {job.name: f"${job.name.replace('-', '_')}" for job in made}
    for job, path in zip(made, paths):
        command = f"sbatch --parsable {' '.join([*waiting(job, names), shlex.quote(str(path))])}"
        show(f"{names[job.name][1:]}=$({command})", job=job.name, script=str(path), after=job.after)


def _plan(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..cluster.plan import measure, plan, shown, warnings_of
    from ..files import write_csv

    study = _study(arguments)
    measured = measure(study)
    table = plan(study, measured, arguments.gpus, arguments.kept)
    show(shown(table, measured, arguments.gpus), stages=table.to_dict("records"), measured=asdict(measured))
    for warning in warnings_of(study, table, measured):
        remark(warning)
    if arguments.csv is not None:
        write_csv(arguments.csv, table)
