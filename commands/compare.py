"""``handscope compare``: several models beside each other, from their runs."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import at_least, crew_options, seed
from .verb import add_verb, say


def add(verbs: Any) -> None:
    """Add ``compare``."""
    verb = add_verb(
        verbs, "compare", _compare, "several models beside each other: maps, streams on shared noises, carried probes"
    )
    verb.add_argument("runs", nargs="+", metavar="RUN", help="run folders, analysed and probed")
    verb.add_argument("--out", default="comparison", metavar="DIR", help="the folder to write (default comparison)")
    verb.add_argument(
        "--like", nargs=2, action="append", default=[], metavar="RUN",
        help="two of the runs whose models differ by their training seed alone (organism and organism-1 are known)",
    )  # fmt: skip
    verb.add_argument(
        "--samples", type=at_least(8), default=128, metavar="N", help="shared ones to compare streams on (default 128)"
    )
    verb.add_argument(
        "--permutations", type=at_least(1), default=1000, help="of verdicts, behind carried probes (default 1000)"
    )
    verb.add_argument("--seed", type=seed, default=0, help="of draws, shuffles and permutations (default 0)")
    crew_options(verb, ray=False)


def _compare(arguments: argparse.Namespace, progress: Progress) -> None:
    missing = next((run for run in arguments.runs if not Path(run).is_dir()), None)
    if missing is not None:
        raise HandscopeError(f"There is no run folder {missing}: check its name, or begin one with generate.")
    from ..comparison.compare import compare
    from ..report.compared import compared_page
    from ..run.folder import Run

    runs, out = [Run(path) for path in arguments.runs], Path(arguments.out)
    like = [(Path(a), Path(b)) for a, b in arguments.like]
    found = compare(
        runs, out, like, samples=arguments.samples, permutations=arguments.permutations, seed=arguments.seed,
        progress=progress,
    )  # fmt: skip
    for (a, b), why in found.missing.items():
        say("compare", f"the streams of {a} and {b} were not compared: {why}")
    say("compare", f"{len(found.runs)} runs in {out}: {compared_page(found, out).resolve()}")
