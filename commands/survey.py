"""``handscope survey``: every block at every step, as moments; maps of them; and the plan of a closer look."""

import argparse
from typing import Any

from ..progress import Progress
from ..stages import SURVEY
from .options import at_least, crew_options, model_of, model_options, part_option, statistics_options
from .verb import add_stage, open_run, perform, remark, say


def add(verbs: Any) -> None:
    """Add ``survey``."""
    verb = add_stage(verbs, SURVEY, _survey)
    verb.add_argument(
        "--zoom",
        type=at_least(1),
        metavar="N",
        help="write survey/plan.json for an extraction of at most N cells, where a probe separates",
    )
    verb.add_argument(
        "--batch-size",
        type=at_least(1),
        help="samples in one forward (default: as in the generation, which gives the same bits)",
    )
    part_option(verb)
    crew_options(verb)
    statistics_options(verb, permutations=1000)
    model_options(verb)


def _survey(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..extract.survey.survey import survey, unsurveyed
    from ..extract.survey.surveyed import survey_folder

    # What is there needs no model, which may be large or on another machine.
    if arguments.model is not None or unsurveyed(run) or not survey_folder(run).exists():
        survey(model_of(run, arguments), run, arguments.batch_size, arguments.shard, progress)
    left = unsurveyed(run)
    if left:
        say("survey", f"{len(left)} samples are left for other parts, {left[0]} among them: no maps yet")
        return
    from ..analysis.zoom import zoom
    from ..files import atomic

    settings = {name: getattr(arguments, name) for name in SURVEY.settings}
    perform(SURVEY, run, settings, lambda: SURVEY.do()(run, **settings, progress=progress))
    if arguments.zoom is None:
        return
    plan = zoom(SURVEY.do()(run, **settings), arguments.zoom)  # the map that was just written, read back
    path = survey_folder(run) / "plan.json"
    with atomic(path) as temporary:
        temporary.write_text(plan.to_json() + "\n", encoding="utf-8")
    blocks, steps = ", ".join(map(str, plan.blocks)), ", ".join(map(str, plan.steps))
    say("zoom", f"{len(plan.cells)} cells chosen by the map, {blocks} at steps {steps}: to extract them, run")
    remark(f"handscope extract {run.path} --plan {path}")
