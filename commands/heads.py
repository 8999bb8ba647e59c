"""``handscope heads``: what heads look at."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import HEADS
from .options import at_least, model_of, model_options, names, numbers, statistics_options
from .verb import add_stage, open_run, perform, say


def add(verbs: Any) -> None:
    """Add ``heads``."""
    verb = add_stage(verbs, HEADS, _heads)
    verb.add_argument("--blocks", type=names, default=[], help="blocks (default: all that attend to image and text)")
    verb.add_argument("--steps", type=numbers, default=[], help="steps (default: every fourth from the second on)")
    most = HEADS.defaults["samples"]
    verb.add_argument("--samples", type=at_least(1), default=most, help=f"look at so many at most (default {most})")
    statistics_options(verb, permutations=1000)
    model_options(verb)


def _heads(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..report.inside import head_sentences, run_tables

    model = model_of(run, arguments)
    settings = {name: getattr(arguments, name) for name in (*HEADS.settings, *HEADS.defaults)}
    perform(HEADS, run, settings, lambda: HEADS.do()(model, run, **settings, progress=progress))
    for table in run_tables(run, HEADS).values():
        for sentence in head_sentences(table):
            say("heads", sentence)
