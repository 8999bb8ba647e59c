"""``handscope report``: what was found, on one page."""

import argparse
from typing import Any

from ..progress import Progress
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``report``."""
    add_verb(verbs, "report", _report, "figures, and one HTML page with what was found", run=True)


def _report(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..report.page import report
    from ..report.summary import reported

    report(run, progress=progress)
    say("report", reported(run))
