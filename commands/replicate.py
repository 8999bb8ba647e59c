"""``handscope replicate``: one study on several models, and what of it holds in all."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..models.embedded import ORGANISMS
from ..progress import Progress
from .options import crew_options, names
from .verb import add_verb, say


def add(verbs: Any) -> None:
    """Add ``replicate``."""
    verb = add_verb(verbs, "replicate", _replicate, "one study on several models, and what of it holds in all of them")
    verb.add_argument("file", metavar="FILE.yaml", help="the study; its keys model and run are set for each model")
    verb.add_argument("--models", type=names, required=True, metavar="LIST", help="organism, folders, hub ids")
    place = "the folder that holds a run of each (default runs/replication)"
    verb.add_argument("--out", default="runs/replication", metavar="DIR", help=place)
    verb.add_argument("--also", type=names, default=[], metavar="LIST", help="stages to run too: triage,mend")
    crew_options(verb)


def _replicate(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..comparison.replicate import replicate
    from ..report.replicated import replicated_page
    from ..run.folder import Run
    from ..study import Study

    out = Path(arguments.out)
    studies = {}
    for model in arguments.models:
        name = Path(model).name
        if name in studies:
            raise HandscopeError(f"Two models are called {name}, and each has a run folder of its name: rename one.")
        given = model if model in ORGANISMS or not Path(model).exists() else str(Path(model).resolve())
        study = Study.from_yaml(arguments.file, {"model": given, "run": str(out / name)})
        asked = [*study.also, *(stage for stage in arguments.also if stage not in study.also)]
        studies[name] = Study.from_yaml(arguments.file, {"model": given, "run": str(out / name), "also": asked})
    if len(studies) < 2:
        raise HandscopeError("Expected at least two models, found one: a study of one model is handscope study.")
    done, left = [], []
    for name, study in studies.items():
        try:
            for result in study.stages(progress):
                say(name, f"{result.stage}: {result.summary if result.ran else f'complete: {result.summary}'}")
            done.append(name)
        except HandscopeError as error:  # one model that draws too few of a kind leaves the others to be looked at
            left.append(name)
            say(name, f"left out: {error}")
    if len(done) < 2:
        raise HandscopeError(
            f"Of {len(studies)} studies {len(done)} could be done, and it takes two to tell what holds: "
            f"{', '.join(left)} could not, for the reasons above."
        )
    found = replicate([Run(out / name) for name in done], out, progress=progress)
    say("replicate", str(replicated_page(found, out, left).resolve()))
