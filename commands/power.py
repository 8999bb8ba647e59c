"""``handscope power``: what a run could have seen, and how many labelled samples would be needed."""

import argparse
from typing import Any

from ..progress import Progress
from .options import number
from .verb import add_verb, open_run, show


def add(verbs: Any) -> None:
    """Add ``power``."""
    verb = add_verb(verbs, "power", _power, "how many labelled samples it would take to see an AUC", run=True)
    verb.add_argument("--auc", type=number, default=0.6, help="the held-out AUC to be seen (default 0.6)")
    verb.add_argument("--power", type=number, default=0.8, help="the chance of seeing it (default 0.8)")


def _power(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..analysis.statistics.power import power_table
    from ..report.results import Results

    results = Results.read(run)
    plural = results.subject.plural
    table = power_table(results.tested, arguments.auc, arguments.power)
    lines = [f"To see a held-out AUC of {arguments.auc:g} (p ≤ 0.05) with a chance of {arguments.power:.0%}:"]
    lines += [
        f"  {row.test}: {row.needed:,} labelled {plural} for one cell, {row.needed_first:,} for the first of "
        f"{row.cells} cells (n = {row.n_good + row.n_bad} gives {row.power:.0%} and {row.power_first:.0%}; "
        f"design effect {row.design_effect:.2f})"
        for row in table.itertuples()
    ]
    show("\n".join(lines), auc=arguments.auc, power=arguments.power, tests=table.to_dict("records"))
