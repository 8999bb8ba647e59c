"""``handscope study``: every stage from one YAML file."""

import argparse
from typing import Any

from ..progress import Progress
from .verb import add_verb, say


def add(verbs: Any) -> None:
    """Add ``study``."""
    verb = add_verb(verbs, "study", _study, "run every stage of a study, and only what is missing of it")
    verb.add_argument("file", metavar="FILE.yaml", help="the study; datasets/demo.yaml is one")


def _study(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..study import Study

    study = Study.from_yaml(arguments.file)
    ran = []
    for result in study.stages(progress):
        ran.append(result.ran)
        say(result.stage, result.summary if result.ran else f"complete: {result.summary}")
    if not any(ran):
        print(f"Nothing to do: every stage of {study.folder} is complete.")
    print(f"The report is {(study.folder / 'report.html').resolve()}")
