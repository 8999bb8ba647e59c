"""``handscope import``: pictures that the model did not draw, as samples of a run."""

import argparse
from typing import Any

from ..progress import Progress
from .options import at_least, load_model, model_options, names, number, whole
from .verb import add_verb, open_run, say


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
        help="what is labelled: a subject that handscope brings, or the path of its YAML file",
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
