"""``handscope label``: which tokens are a hand's, and whether it is well made."""

import argparse
from typing import Any

from ..progress import Progress
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``label``."""
    verb = add_verb(verbs, "label", _label, "token labels and verdicts without looking", run=True)
    verb.add_argument(
        "--auto",
        action="store_true",
        required=True,
        help="hand tokens from the silhouette; verdicts from shipped hand labels, else from the judge",
    )


def _label(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..labeling.auto import label_auto
    from ..summary import labelled

    label_auto(run, progress=progress)
    say("label", labelled(run))
