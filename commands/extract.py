"""``handscope extract``: activations of the labelled samples of a run."""

import argparse
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import model_of, model_options, names, numbers
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``extract``."""
    verb = add_verb(verbs, "extract", _extract, "residual streams at labelled tokens, from the trajectories", run=True)
    verb.add_argument("--blocks", type=names, metavar="LIST", help="double.1,single.3 (default: all blocks)")
    verb.add_argument(
        "--steps",
        type=numbers,
        metavar="LIST",
        help="steps that remain, 20,12,3: of 20, step 20 is the first and noisiest (default: all)",
    )
    verb.add_argument(
        "--tokens",
        choices=("hand", "labelled", "all"),
        default="hand",
        help="which tokens of a sample are kept (default hand)",
    )
    verb.add_argument(
        "--batch-size",
        type=int,
        help="samples in one forward (default: as in the generation, which gives the same bits)",
    )
    model_options(verb)


def _extract(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    samples = run.samples()
    if samples.empty:
        raise HandscopeError(f"There are no samples in {run.samples_dir}: run generate first.")
    from ..extract.address import Plan

    of = int(samples["steps"].iloc[0])
    steps = arguments.steps or range(of, 0, -1)
    Plan(arguments.blocks or ["double.0"], steps, of=of)  # what is misspelt is refused before the model is loaded
    from ..extract.extract import extract
    from ..summary import extracted

    model = model_of(run, arguments)
    extract(
        model,
        run,
        Plan(arguments.blocks or model.blocks, steps, of=of),
        tokens=arguments.tokens,
        batch_size=arguments.batch_size,
        progress=progress,
    )
    say("extract", extracted(run))
