"""``handscope extract``: activations of the labelled samples of a run."""

import argparse
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import model_of, model_options, names, numbers, part
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``extract``."""
    text = "residual streams at labelled tokens, by replaying trajectories or generating again"
    verb = add_verb(verbs, "extract", _extract, text, run=True)
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
        "--stream", choices=("image", "text"), default="image", help="whose tokens are read (default image)"
    )
    verb.add_argument(
        "--at", choices=("output", "input"), default="output", help="which side of each block is read (default output)"
    )
    verb.add_argument(
        "--batch-size",
        type=int,
        help="samples in one forward (default: as in the generation, which gives the same bits)",
    )
    verb.add_argument(
        "--shard",
        type=part,
        metavar="I/N",
        help="this machine's part, 1/8 to 8/8: every machine divides the samples alike, by their names",
    )
    verb.add_argument(
        "--compression", choices=("lossless",), help="about a sixth less on disk; needs hdf5plugin (default: none)"
    )
    verb.add_argument(
        "--dry-run", action="store_true", help="say what it would cost, from one measured step; write nothing"
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
    read = {"of": of, "stream": arguments.stream, "at": arguments.at}
    Plan(arguments.blocks or ["double.0"], steps, **read)  # what is misspelt is refused before the model is loaded
    from ..extract.estimate import estimate
    from ..extract.extract import extract
    from ..report.summary import estimated, extracted

    model = model_of(run, arguments)
    plan = Plan(arguments.blocks or model.blocks, steps, **read)
    options = {"tokens": arguments.tokens, "batch_size": arguments.batch_size, "shard": arguments.shard}
    if arguments.dry_run:
        print(estimated(estimate(model, run, plan, **options), arguments.compression))
        return
    store = extract(model, run, plan, **options, compression=arguments.compression, progress=progress)
    if store is None:
        i, n = arguments.shard
        say("extract", f"nothing yet in {run.activations_dir}: part {i} of {n} has no samples, or all were set aside")
    else:
        say("extract", extracted(run))
