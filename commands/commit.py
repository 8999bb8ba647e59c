"""``handscope commit``: when each sample was decided."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import COMMIT
from .options import at_least, model_of, model_options, seed
from .verb import add_stage, open_run, perform, say


def add(verbs: Any) -> None:
    """Add ``commit``."""
    verb = add_stage(verbs, COMMIT, _commit)
    most = COMMIT.defaults["samples"]
    verb.add_argument("--samples", type=at_least(1), default=most, help=f"look at so many at most (default {most})")
    verb.add_argument("--seed", type=seed, default=0, help="of bootstrap and permutations (default 0)")
    model_options(verb)


def _commit(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..report.commitment import told

    model = model_of(run, arguments)
    settings = {"samples": arguments.samples, "seed": arguments.seed}
    perform(COMMIT, run, settings, lambda: COMMIT.do()(model, run, **settings, progress=progress))
    for sentence in told(run):
        say("commit", sentence)
