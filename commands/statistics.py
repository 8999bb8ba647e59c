"""``handscope analyze``, ``probe``, ``pairs``, ``crossed``, ``values``, ``classes``: numbers of cells, with nulls."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import ANALYZE, CLASSES, CROSSED, PAIRS, PROBE, VALUES, Stage
from .options import crew_options, statistics_options
from .verb import Function, add_stage, open_run, perform


def add(verbs: Any) -> None:
    """Add ``analyze``, ``probe``, ``pairs``, ``crossed``, ``values`` and ``classes``."""
    for stage in (ANALYZE, PROBE, PAIRS, CROSSED, VALUES, CLASSES):
        verb = add_stage(verbs, stage, _doing(stage))
        statistics_options(verb, permutations=1000)
        crew_options(verb)
        if stage is PROBE:
            verb.add_argument(
                "--primary", metavar="CELL", help="a cell named beforehand, such as single.3/14: tested first, alone"
            )


def _doing(stage: Stage) -> Function:
    def do(arguments: argparse.Namespace, progress: Progress) -> None:
        run = open_run(arguments, begun=True)
        settings = {name: getattr(arguments, name) for name in stage.settings}
        perform(stage, run, settings, lambda: stage.do()(run, **settings, progress=progress))

    return do
