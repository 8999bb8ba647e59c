"""``handscope import``: pictures that the model did not draw, as samples of a run."""

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import at_least, load_model, model_options, names, number, whole
from .verb import add_verb, open_run, remark, say

if TYPE_CHECKING:
    from ..run.folder import Run

FOLDS = 5
"""Of an analysis, unless it is told otherwise."""


def add(verbs: Any) -> None:
    """Add ``import``."""
    verb = add_verb(verbs, "import", _import, "samples of pictures that the model did not draw, with their labels")
    verb.add_argument(
        "folder",
        metavar="FOLDER",
        help="an imagefolder (metadata.jsonl or .csv), COCO, a CSV, or pictures alone; or the table itself",
    )
    verb.add_argument("run", metavar="RUN", help="the run folder, for example runs/given")
    verb.add_argument(
        "--fit",
        choices=("crop", "pad", "stretch"),
        help="how pictures of another aspect are brought to size (default: they are refused)",
    )
    verb.add_argument("--height", type=whole, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--width", type=whole, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--prompt", default="", metavar="TEXT", help="of pictures that come without (default: empty)")
    verb.add_argument(
        "--group", metavar="COLUMN", help="which pictures stay together in a fold (default: those of one prompt)"
    )
    verb.add_argument("--good", type=names, default=[], metavar="LIST", help="labels or categories that mean good")
    verb.add_argument("--bad", type=names, default=[], metavar="LIST", help="labels or categories that mean bad")
    verb.add_argument(
        "--noises", type=at_least(1), default=1, help="noises that each picture is read with, and averaged (default 1)"
    )
    verb.add_argument("--seed", type=at_least(0), default=0, help="of the noises (default 0)")
    verb.add_argument("--steps", type=whole, default=20, help="steps of the schedule that is read (default 20)")
    verb.add_argument("--guidance", type=number, default=3.5, help="FLUX's embedded guidance (default 3.5)")
    verb.add_argument("--batch-size", type=whole, default=16, help="pictures in one forward of extract (default 16)")
    verb.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be used, and name them")
    verb.add_argument(
        "--subject",
        metavar="NAME",
        help="what is labelled: a subject that handscope brings, or its YAML file, which init --subject begins",
    )
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 elsewhere")
    model_options(verb, model="organism", device="cpu")


def _import(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..labeling.exchange.pictures import LEFT_OUT, import_pictures
    from ..labeling.subject import load_subject, set_subject

    subject = load_subject(arguments.subject) if arguments.subject else None
    model = load_model(arguments)
    run = open_run(arguments)
    if subject is not None:
        set_subject(run, subject)
    said = ("steps", "guidance", "height", "width", "fit", "noises", "seed", "prompt", "group", "good", "bad")
    settings = {name: getattr(arguments, name) for name in (*said, "batch_size", "skip_bad")}
    done = import_pictures(model, run, arguments.folder, **settings, progress=progress)
    parts = [f"{len(done.samples)} given pictures in {run.samples_dir}, {done.added} of them new"]
    parts += [f"{done.labels} labels"] if done.labels else []
    parts += [f"{len(done.left_out)} left out, see {run.samples_dir / LEFT_OUT}"] if done.left_out else []
    say("import", "; ".join(parts))
    if done.passed_over:
        passed = ", ".join(map(repr, done.passed_over))
        remark(f"{passed} is neither in --good nor in --bad: such pictures stay unlabelled")
    _say_what_next(run)


def _say_what_next(run: "Run") -> None:
    """What is being labelled, what of it there is, and whether that is enough, before hours go into reading it."""
    from ..labeling.subject import subject_of
    from ..labeling.table import labelled, sample_table
    from ..report.summary import labelled as said

    remark(f"What is labelled: {subject_of(run).one}. Another subject is another run, begun with --subject FILE.yaml")
    if not run.labels_path.exists():
        remark(f"Next: handscope labels import {run.path} FILE, or handscope label {run.path}")
        return
    say("label", said(run))
    try:
        labelled(sample_table(run), "sure", FOLDS, run.path)
    except HandscopeError as error:
        remark(f"Not enough yet: {error}")
        return
    remark(f"Next: handscope extract, then analyze, probe and report, each of {run.path}")
