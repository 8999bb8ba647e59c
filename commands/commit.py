"""``handscope commit``: when the hand of each sample was decided."""

import argparse
from typing import Any

from ..progress import Progress
from .options import at_least, model_of, model_options
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``commit``."""
    text = "when the hand of each sample was decided, from its trajectory"
    verb = add_verb(verbs, "commit", _commit, text, run=True)
    verb.add_argument("--samples", type=at_least(1), default=200, help="look at so many at most (default 200)")
    verb.add_argument("--seed", type=at_least(0), default=0, help="of bootstrap and permutations (default 0)")
    model_options(verb)


def _commit(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..evaluation.commitment import commit
    from ..figures import save
    from ..organism.study.regions import regions_of
    from ..report.commitment_plate import commitment_plate, sentences

    model = model_of(run, arguments)
    regions = regions_of(run)
    rows, summary = commit(model, run, regions, arguments.samples, arguments.seed, progress)
    path = save(commitment_plate(model, run, rows, regions), run.figures_dir, "commitment")
    for sentence in sentences(run, summary, regions):
        say("commit", sentence)
    say("commit", f"analysis/commitment.csv, commitment_summary.csv and {path}")
