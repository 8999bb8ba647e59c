"""``handscope survey``: every block at every step, as moments; maps of them; and the plan of a closer look."""

import argparse
import json
from typing import Any

from ..progress import Progress
from .options import at_least, model_of, model_options, part, statistics_options
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``survey``."""
    text = "all blocks at all steps in one pass, with moments alone on disk, and maps of what they tell"
    verb = add_verb(verbs, "survey", _survey, text, run=True)
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
    verb.add_argument(
        "--shard",
        type=part,
        metavar="I/N",
        help="this machine's part, 1/8 to 8/8; maps are made once all parts are there",
    )
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
    from ..analysis.survey import map_survey
    from ..analysis.zoom import zoom
    from ..files import atomic

    table = map_survey(run, arguments.permutations, arguments.folds, arguments.seed, progress)
    say("survey", _summary(table, json.loads((run.analysis_dir / "survey.json").read_text(encoding="utf-8"))["best"]))
    if arguments.zoom is None:
        return
    plan = zoom(table, arguments.zoom)
    path = survey_folder(run) / "plan.json"
    with atomic(path) as temporary:
        temporary.write_text(plan.to_json() + "\n", encoding="utf-8")
    blocks, steps = ", ".join(map(str, plan.blocks)), ", ".join(map(str, plan.steps))
    say("zoom", f"{len(plan.cells)} cells chosen by the map, {blocks} at steps {steps}: to extract them, run")
    print(f"handscope extract {run.path} --plan {path}", flush=True)


def _summary(table: Any, best: dict[str, Any]) -> str:
    called = int((table["ridge_q"] <= 0.05).sum())
    counts = f"{table['n_bad'].iloc[0]} bad and {table['n_good'].iloc[0]} good samples"
    if not called:
        return f"no cell of {len(table)} is separable from chance (n = {counts}; false-discovery rate .05)"
    return (
        f"{called} of {len(table)} cells separable (n = {counts}; false-discovery rate .05); the best, {best['cell']}, "
        f"has an AUC of {best['auc_selected']:.2f} because it was selected (p = {best['p_of_the_largest']:.2g} for the "
        f"largest of all); cells chosen without the samples they are judged on have {best['auc_nested']:.2f} "
        f"({best['auc_nested_lo']:.2f} to {best['auc_nested_hi']:.2f}); at the first step, where pure noise goes in, "
        f"the largest is {best['auc_of_pure_noise']:.2f}, and the number of hand tokens alone has "
        f"{best['auc_of_hand_size']:.2f}"
    )
