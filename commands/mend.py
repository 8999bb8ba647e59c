"""``handscope triage`` and ``handscope mend``: whether what is known of a sample can be used to mend it."""

import argparse
from functools import partial
from typing import Any

from ..progress import Progress
from ..run.part import PartsLeftError
from ..stages import MEND, TRIAGE
from .options import at_least, crew_options, model_of, model_options, names, number, numbers, part_option
from .verb import add_stage, open_run, perform, say


def add(verbs: Any) -> None:
    """Add ``triage`` and ``mend``."""
    verb = add_stage(verbs, TRIAGE, _triage)
    usual = TRIAGE.defaults
    verb.add_argument("--steps", type=numbers, default=usual["steps"], metavar="LIST", help="19,16,12: where to look")
    verb.add_argument("--blocks", type=names, default=[], metavar="LIST", help="single.1,single.3: read them too")
    verb.add_argument(
        "--cost", type=number, default=usual["cost"], help="of a picture, in plain generations (default 2)"
    )
    model_options(verb)

    verb = add_stage(verbs, MEND, _mend)
    verb.add_argument("--seeds", type=at_least(1), default=13, help="new ones for each prompt of the run (default 13)")
    verb.add_argument("--arms", type=names, metavar="LIST", help="only arms whose names begin so, and their controls")
    verb.add_argument("--pilot-seeds", type=at_least(1), default=3, help="for choosing ways and strengths (default 3)")
    blocks = "where to steer and to probe: the first, and all (default single.3,single.1,double.1)"
    verb.add_argument("--blocks", type=names, metavar="LIST", help=blocks)
    verb.add_argument("--window", type=numbers, metavar="LIST",
                      help="steps to work in (default: until half of the samples are decided, see commit)")  # fmt: skip
    verb.add_argument("--blind", type=names, metavar="LIST", help="make a blind look at these arms and the baseline")
    verb.add_argument("--unblind", action="store_true", help="what the labels of the blind look say")
    part_option(verb)
    crew_options(verb)
    model_options(verb)


def _triage(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from pandas import read_csv

    model = model_of(run, arguments)
    settings = {"steps": arguments.steps, "blocks": arguments.blocks, "cost": arguments.cost}
    perform(TRIAGE, run, settings, lambda: TRIAGE.do()(model, run, **settings, progress=progress))
    table = read_csv(run.analysis_dir / "triage.csv")
    for _, row in table[table["way"] == "threshold"].sort_values("rate").head(5).iterrows():
        say(
            "triage",
            f"{row.feature} at step {row.step:g}: {row.rate:.1%} ({row.lo:.1%} to {row.hi:.1%}) at {row.cost:.2f} "
            f"times the cost, {row.calls_per_good:.1f} calls for a good one (AUC {row.within_auc:.2f})",
        )
    say("triage", "the best of many looks flatters itself")


def _mend(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    folder = run.path / "mend"
    if arguments.unblind:
        from ..evaluation.blind import unblind

        for arm, found in unblind(folder).items():
            say("mend", f"{arm}: {found.after:.1%} bad beside {found.before:.1%}, {found.mended} mended and "
                        f"{found.broken} broken of {found.n} pairs (p = {found.p:.3g})")  # fmt: skip
        return
    if arguments.blind:
        from ..evaluation.blind import blind

        look = blind(folder, ["baseline", *arguments.blind])
        say("mend", f"{len(look.samples())} pictures in {look.path}: `handscope label {look.path}`, then --unblind")
        return
    from pandas import read_csv

    from ..report.experiment import leading

    model = model_of(run, arguments)
    given = {"seeds": arguments.seeds, "pilot_seeds": arguments.pilot_seeds, "blocks": arguments.blocks}
    settings = {**MEND.defaults, **{name: value for name, value in given.items() if value is not None}}
    settings |= {"window": arguments.window, "names": arguments.arms}
    try:
        do = partial(MEND.do(), model, run, **settings, shard=arguments.shard, progress=progress)
        perform(MEND, run, settings, do)
    except PartsLeftError as left:
        say("mend", str(left))
        return
    table = read_csv(folder / "arms.csv")
    base = table.iloc[0]
    for row in leading(table).itertuples():
        controls = f", p = {row.control_p:.3g} against its best control" if row.control_p == row.control_p else ""
        cost = f"{row.calls / base['calls']:.2f} times the calls"
        say("mend", f"{row.arm}: {row.after:.1%} ({cost}; q = {row.q:.3g}){controls}")
    say("mend", f"figures in {run.figures_dir}; judged by the organism's judge: a blind look decides")
