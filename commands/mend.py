"""``handscope triage`` and ``handscope mend``: whether what is known of a hand can be used to mend it."""

import argparse
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import at_least, model_of, model_options, names, numbers
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``triage`` and ``mend``."""
    verb = add_verb(verbs, "triage", _triage, "what early looks would have saved on a labelled run", run=True)
    looks = [19, 18, 16, 14, 12, 10]
    verb.add_argument("--steps", type=numbers, default=looks, metavar="LIST", help="19,16,12: where to look")
    verb.add_argument("--blocks", type=names, default=[], metavar="LIST", help="single.1,single.3: read them too")
    verb.add_argument("--cost", type=float, default=2.0, help="of a picture, in plain generations (default 2)")
    model_options(verb)

    verb = add_verb(verbs, "mend", _mend, "the experiment on the organism: every arm, paired and controlled", run=True)
    verb.add_argument("--seeds", type=at_least(1), default=13, help="new ones for each prompt of the run (default 13)")
    verb.add_argument("--arms", type=names, metavar="LIST", help="only arms whose names begin so, and their controls")
    verb.add_argument("--pilot-seeds", type=at_least(1), default=3, help="for choosing ways and strengths (default 3)")
    blocks = "where to steer and to probe: the first, and all (default single.3,single.1,double.1)"
    verb.add_argument("--blocks", type=names, metavar="LIST", help=blocks)
    verb.add_argument("--window", type=numbers, metavar="LIST",
                      help="steps to work in (default: until half of the hands are decided, see commit)")  # fmt: skip
    verb.add_argument("--blind", type=names, metavar="LIST", help="make a blind look at these arms and the baseline")
    verb.add_argument("--unblind", action="store_true", help="what the labels of the blind look say")
    model_options(verb)


def _triage(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..evaluation.early_looks import early_looks

    model = model_of(run, arguments)
    table, _ = early_looks(model, run, arguments.steps, arguments.blocks, arguments.cost, progress=progress)
    plain = table.iloc[0]
    say("triage", f"plain: {plain.rate:.1%} malformed ({plain.lo:.1%} to {plain.hi:.1%})")
    for _, row in table[table["way"] == "threshold"].sort_values("rate").head(5).iterrows():
        say(
            "triage",
            f"{row.feature} at step {row.step:g}: {row.rate:.1%} ({row.lo:.1%} to {row.hi:.1%}) at {row.cost:.2f} "
            f"times the cost, {row.calls_per_good:.1f} calls for a good hand (AUC {row.within_auc:.2f})",
        )
    say("triage", f"all looks in {run.analysis_dir / 'triage.csv'}; the best of many looks flatters itself")


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

    from ..figures import save
    from ..organism.study.mend import BLOCKS, mend
    from ..report.experiment_plate import doses_plate, forest_plate, pairs_plate

    table = mend(
        model_of(run, arguments), run, arguments.seeds, arguments.pilot_seeds, arguments.blocks or BLOCKS,
        arguments.window, names=arguments.arms, progress=progress,
    )  # fmt: skip
    if len(table) < 2:
        raise HandscopeError("Only the baseline was drawn: there is nothing to compare it with.")
    path = save(forest_plate(table), run.figures_dir, "mend")
    leading = table[table["family"] != "control"].iloc[1:].sort_values("after").head(5)["arm"].tolist()
    save(pairs_plate(folder, ["baseline", *leading]), run.figures_dir, "mend_pairs")
    if (folder / "pilot" / "doses.csv").exists():
        save(doses_plate(read_csv(folder / "pilot" / "doses.csv")), run.figures_dir, "mend_doses")
    base = table.iloc[0]
    say("mend", f"baseline: {base['before']:.1%} malformed of {base['n']}")
    for row in table[table["arm"].isin(leading)].sort_values("after").itertuples():
        controls = f", p = {row.control_p:.3g} against its best control" if row.control_p == row.control_p else ""
        cost = f"{row.calls / base['calls']:.2f} times the calls"
        say("mend", f"{row.arm}: {row.after:.1%} ({cost}; q = {row.q:.3g}){controls}")
    say("mend", f"{folder / 'arms.csv'}, {path} and mend_pairs; judged by the organism's judge: a blind look decides")
