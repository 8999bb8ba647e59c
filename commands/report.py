"""``handscope report``: what was found, on one page."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import REPORT
from .verb import add_stage, open_run, perform


def add(verbs: Any) -> None:
    """Add ``report``."""
    add_stage(verbs, REPORT, _report)


def _report(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    perform(REPORT, run, {}, lambda: REPORT.do()(run, progress=progress))
