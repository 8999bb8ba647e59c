"""``handscope features``: what the streams of a block are made of."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import FEATURES
from .options import at_least, model_of, model_options, numbers, seed
from .verb import add_stage, open_run, perform, say


def add(verbs: Any) -> None:
    """Add ``features``."""
    verb = add_stage(verbs, FEATURES, _features)
    verb.add_argument("--block", help="the block (default: the middle one of those that were extracted)")
    verb.add_argument("--steps", type=numbers, default=[], help="its steps (default: those that were extracted)")
    for name, text in (
        ("wide", "features, in widths of the stream"),
        ("k", "active features of a token"),
        ("passes", "passes over the tokens in training"),
        ("samples", "held-out samples that are steered at most"),
    ):
        most = FEATURES.defaults[name]
        verb.add_argument(f"--{name}", type=at_least(1), default=most, help=f"{text} (default {most})")
    verb.add_argument(
        "--permutations", type=at_least(1), default=1000, help="at least; 20 for each feature (default 1000)"
    )
    verb.add_argument("--seed", type=seed, default=0, help="of halves, weights, permutations and controls (default 0)")
    model_options(verb)


def _features(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..report.inside import feature_sentences, run_tables

    model = model_of(run, arguments)
    settings = {name: getattr(arguments, name) for name in (*FEATURES.settings, *FEATURES.defaults)}
    perform(FEATURES, run, settings, lambda: FEATURES.do()(model, run, **settings, progress=progress))
    for sentence in feature_sentences(run_tables(run, FEATURES)):
        say("features", sentence)
