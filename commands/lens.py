"""``handscope lens``: what each block would draw."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import LENS
from .options import at_least, model_of, model_options, names, numbers, statistics_options
from .verb import add_stage, open_run, perform, say


def add(verbs: Any) -> None:
    """Add ``lens``."""
    verb = add_stage(verbs, LENS, _lens)
    verb.add_argument("--blocks", type=names, default=[], help="blocks to look at (default: those that were extracted)")
    verb.add_argument("--steps", type=numbers, default=[], help="steps to look at (default: those that were extracted)")
    most = LENS.defaults["samples"]
    verb.add_argument("--samples", type=at_least(1), default=most, help=f"look at so many at most (default {most})")
    statistics_options(verb, permutations=1000)
    model_options(verb)


def _lens(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    import pandas as pd

    from ..report.inside import lens_sentences

    model = model_of(run, arguments)
    settings = {name: getattr(arguments, name) for name in (*LENS.settings, *LENS.defaults)}
    perform(LENS, run, settings, lambda: LENS.do()(model, run, **settings, progress=progress))
    for sentence in lens_sentences(pd.read_csv(run.analysis_dir / "lens.csv")):
        say("lens", sentence)
