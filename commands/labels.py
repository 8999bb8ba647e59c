"""``handscope labels``: take labels elsewhere, bring them back, and see how far annotators agree."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import names
from .verb import add_verb, open_run, remark, say, show

if TYPE_CHECKING:
    from ..run.folder import Run

SHOWN = 5
"""Matched labels that an import shows before it writes."""


def add(verbs: Any) -> None:
    """Add ``labels export``, ``labels import`` and ``labels agreement``."""
    text = "export, import and compare the labels of a run"
    labels = verbs.add_parser("labels", help=text, description=f"labels: {text}.")
    verbs = labels.add_subparsers(title="what to do", metavar="WHAT", required=True)

    verb = add_verb(verbs, "export", _export, "write labels for other tools, in the format that the name ends in", True)
    verb.add_argument(
        "path",
        metavar="PATH",
        help=".npz (grids), .json (COCO), .csv, .csv.gz or .parquet (tokens), or a folder (indexed PNG)",
    )
    verb.add_argument(
        "--everyone", action="store_true", help="every annotator's labels, not only those that count for the run"
    )

    verb = add_verb(verbs, "import", _import, "append labels of the run's pictures, from handscope or elsewhere", True)
    verb.add_argument(
        "path",
        metavar="PATH",
        help="what labels export wrote; or a CSV, JSONL, Parquet, COCO, FiftyOne's or Label Studio's JSON, .npz or a "
        "folder of masks",
    )
    verb.add_argument("--good", type=names, default=[], metavar="LIST", help="what these labels call good")
    verb.add_argument("--bad", type=names, default=[], metavar="LIST", help="what they call bad")
    verb.add_argument("--author", default="imported", help="whose they are, where they do not say (default imported)")
    verb.add_argument(
        "--values", metavar="COLUMN", help="take the subject's label of several values from this column alone"
    )
    verb.add_argument(
        "--classes", metavar="COLUMN", help="take classes of single tokens, a row a token, from this column alone"
    )
    verb.add_argument("--skip-unknown", action="store_true", help="pass over pictures that are no samples of the run")
    verb.add_argument("--dry-run", action="store_true", help="show what would be added, and add nothing")

    add_verb(verbs, "agreement", _agreement, "how far annotators agree, and on which samples they do not", True)


def _export(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..labeling.exchange.export import export_labels

    found = export_labels(run, arguments.path, arguments.everyone)
    authors = sorted({annotation.author for annotation in found})
    say("labels", f"{_counted(len(found), 'annotation')} by {', '.join(authors)} in {arguments.path}")


def _import(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    if arguments.values or arguments.classes:
        _import_column(run, arguments)
        return
    from ..labeling.exchange.elsewhere import match_labels
    from ..labeling.exchange.importing import import_labels, ours

    how = {name: getattr(arguments, name) for name in ("good", "bad", "author", "skip_unknown")}
    if not ours(Path(arguments.path)):
        matched = match_labels(run, arguments.path, **how)
        for one in matched[:SHOWN]:
            remark(f"  {one}")
        if arguments.dry_run:
            say("labels", f"{_counted(len(matched), 'label')} of {arguments.path} would be added; nothing was")
            return
    elif arguments.dry_run:
        raise HandscopeError(f"{arguments.path} is what labels export wrote, which needs no look: leave out --dry-run.")
    done = import_labels(run, arguments.path, **how)
    left = [f"{done.known} were here already"] if done.known else []
    left += [f"{done.older} were left, since their authors have labelled them here since"] if done.older else []
    say("labels", "; ".join([f"{_counted(done.added, 'annotation')} of {arguments.path} added", *left]))


def _import_column(run: "Run", arguments: argparse.Namespace) -> None:
    """What is no verdict: a label of several values, or classes of single tokens."""
    if arguments.good or arguments.bad or arguments.dry_run or (arguments.values and arguments.classes):
        raise HandscopeError(
            "Expected --values or --classes alone, found other options with it: import these by themselves."
        )
    if arguments.values:
        from ..labeling.exchange.values import import_values as take

        column, path, what = arguments.values, run.values_path, "value"
    else:
        from ..labeling.exchange.token_classes import import_classes as take

        column, path, what = arguments.classes, run.classes_path, "token"
    counts = take(run, arguments.path, column, arguments.skip_unknown)
    said = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
    say("labels", f"{_counted(sum(counts.values()), what)} of {arguments.path} in {path}: {said}")


def _agreement(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..files import write_csv
    from ..labeling.agreement import agreement, review_queue

    table, queue = agreement(run), review_queue(run)
    if table.empty:
        say("labels", f"no sample in {run.path} was labelled or rated by two annotators, so nothing can be compared")
        return
    lines = []
    for row in table.itertuples():
        of = f"(n = {row.samples}, {_counted(row.prompts, 'prompt')})"
        value = f"{row.value:.2f}" if row.value == row.value else row.note
        bounds = f" ({row.low:.2f} to {row.high:.2f})" if row.low == row.low else ""
        lines.append(f"{row.measure:13} {row.of:24} {value}{bounds} {of}")
    show("\n".join(lines), agreement=table.to_dict("records"))
    paths = [run.analysis_dir / name for name in ("agreement.csv", "to_review.csv")]
    for path, written in zip(paths, (table, queue)):
        write_csv(path, written)
    open_ = int((~queue["reviewed"]).sum())
    say("labels", f"{_counted(open_, 'sample')} to review in {paths[1]}; the table above in {paths[0]}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
