"""``handscope analyze`` and ``handscope probe``: numbers of every cell, with their nulls."""

import argparse
from typing import Any

from ..progress import Progress
from .options import model_of, model_options, statistics_options
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``analyze`` and ``probe``."""
    text = "directions, distances and components of every cell, with nulls"
    statistics_options(add_verb(verbs, "analyze", _analyze, text, run=True), permutations=1000)

    verb = add_verb(verbs, "probe", _probe, "linear probes of every cell, beside their baselines", run=True)
    statistics_options(verb, permutations=100)
    model_options(verb)


def _analyze(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..analysis.stage import analyze
    from ..report.summary import analyzed

    analyze(run, permutations=arguments.permutations, folds=arguments.folds, seed=arguments.seed, progress=progress)
    say("analyze", analyzed(run))


def _probe(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..probes.stage import probe
    from ..report.summary import probed

    model = model_of(run, arguments)
    probe(
        run, model, permutations=arguments.permutations, folds=arguments.folds, seed=arguments.seed, progress=progress
    )
    say("probe", probed(run))
