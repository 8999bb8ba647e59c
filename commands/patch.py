"""``handscope patch``: activations exchanged between samples, cell by cell, with controls."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import PATCH
from .options import at_least, crew_options, model_of, model_options, names, numbers, part, seed
from .verb import add_stage, open_run, perform, say


def add(verbs: Any) -> None:
    """Add ``patch``."""
    verb = add_stage(verbs, PATCH, _patch)
    usual = PATCH.defaults
    pairs = f"pairs at most, half of them each way (default {usual['pairs']})"
    verb.add_argument("--pairs", type=at_least(1), default=usual["pairs"], help=pairs)
    controls = f"of these, how many get the controls (default {usual['controls']})"
    verb.add_argument("--controls", type=at_least(0), default=usual["controls"], help=controls)
    windows = "of these, how many get windows: this block and all later ones, this step and all later ones (default 0)"
    verb.add_argument("--windows", type=at_least(0), default=usual["windows"], help=windows)
    kinds = "donors: of another noise (in the run); or drawn, with another noise inside the tokens, or another prompt"
    verb.add_argument("--kind", choices=("noise", "inside", "prompt"), default="noise", help=f"{kinds} (default noise)")
    blocks = "blocks or sites, double.1,single.3:q (default: those that were extracted)"
    verb.add_argument("--blocks", type=names, metavar="LIST", help=blocks)
    verb.add_argument("--steps", type=numbers, metavar="LIST", help="20,12,3 (default: those that were extracted)")
    verb.add_argument("--batch-size", type=at_least(1), default=20, help="pairs in one forward (default 20)")
    verb.add_argument("--seed", type=seed, default=0, help="of pairs, tokens elsewhere and tests (default 0)")
    shard = "this machine's part, 1/8 to 8/8; tables are made once all parts are there"
    verb.add_argument("--shard", type=part, metavar="I/N", help=shard)
    crew_options(verb)
    model_options(verb)


def _patch(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    model = model_of(run, arguments)
    settings = {name: getattr(arguments, name) for name in ("pairs", "controls", "windows", "seed")}
    more = {"blocks": arguments.blocks, "steps": arguments.steps, "batch_size": arguments.batch_size}
    more |= {"kind": arguments.kind, "shard": arguments.shard}
    # A part is not the stage, nor are other donors, and neither is entered as one.
    if arguments.shard is not None or arguments.kind != "noise":
        PATCH.do()(model, run, **settings, **more, progress=progress)
        say("patch", PATCH.describe(run) if arguments.kind == "noise" else f"in {run.path / 'patch' / arguments.kind}")
        return
    perform(PATCH, run, settings, lambda: PATCH.do()(model, run, **settings, **more, progress=progress))
    say("patch", f"figures in {run.figures_dir}; judged by the organism's judge")
