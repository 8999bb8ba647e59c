"""``handscope report``: what was found, on one page."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import REPORT
from .options import crew_options
from .verb import add_stage, open_run, perform


def add(verbs: Any) -> None:
    """Add ``report``."""
    crew_options(add_stage(verbs, REPORT, _report), ray=False)


def _report(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    perform(REPORT, run, {}, lambda: REPORT.do()(run, progress=progress))
