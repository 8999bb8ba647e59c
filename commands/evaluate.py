"""``handscope evaluate``: which model, which mitigation: arms of any kind on the same prompts, compared."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import Progress
from ..run.part import PartsLeftError
from .options import crew_options, part_option
from .verb import add_verb, remark, say, show

if TYPE_CHECKING:
    import pandas as pd

    from ..evaluation.evaluate import Outcome, Plan


def add(verbs: Any) -> None:
    """Add ``evaluate``."""
    verb = add_verb(verbs, "evaluate", _evaluate, "draw arms on the same prompts, score and compare them")
    verb.add_argument("file", type=Path, metavar="FILE.yaml", help="the arms; datasets/evaluate.yaml is one")
    verb.add_argument("--dry-run", action="store_true", help="check the file and all it names, and draw nothing")
    part_option(verb)
    crew_options(verb, ray=False)


def _evaluate(arguments: argparse.Namespace, progress: Progress) -> int | None:
    from ..evaluation_file import read_evaluation

    plan = read_evaluation(arguments.file)
    if arguments.dry_run:
        from ..evaluation.evaluate import check

        check(plan)
        remark(f"{len(plan.arms)} arms on {len(plan.pairs)} pairs of prompt and seed: {', '.join(plan.arms)}")
        return None
    from ..evaluation.evaluate import evaluate
    from ..organism.study.ways import mend_arm

    try:
        outcome = evaluate(plan, mend_arm, shard=arguments.shard, progress=progress)
    except PartsLeftError as left:
        say("evaluate", str(left))
        return None
    from ..report.evaluation import evaluation_page

    page = evaluation_page(plan, outcome, progress)
    if arguments.json:
        show("", page=str(page), rates=outcome.rates.to_dict("records"), contrasts=outcome.contrasts.to_dict("records"),
             failed=dict(outcome.failed))  # fmt: skip
    else:
        _say_rates(plan, outcome)
    for name, why in outcome.failed.items():
        say("failed", f"{name}: {why}")
    return 1 if outcome.failed else None


def _say_rates(plan: "Plan", outcome: "Outcome") -> None:
    """A line an arm: its rate, and how far it is from the baseline's."""
    from ..evaluation.rates import MAIN, PICTURE

    rows = _of(outcome.rates, PICTURE, MAIN).set_index("arm")
    apart = _of(outcome.contrasts, PICTURE, MAIN).set_index("arm") if len(outcome.contrasts) else None
    for arm, row in rows.iterrows():
        if not row["n"]:
            say("rate", f"{arm}: nothing could be told of any picture")
            continue
        text = f"{arm}: {row['rate']:.1%} ({row['lo']:.1%} to {row['hi']:.1%}) of {row['n']} pictures"
        if apart is not None and arm in apart.index and apart.loc[arm, "difference"] == apart.loc[arm, "difference"]:
            one = apart.loc[arm]
            ends = f"{100 * one['low']:.1f} to {100 * one['high']:.1f}"
            text += f"; {100 * one['difference']:+.1f} points ({ends}) from {plan.baseline}, {one['design']}, "
            text += f"p {one['holm']:.3g} (Holm)"
        say("rate", text)
    say("", f"tables are in {plan.folder}, and the page is {plan.folder / 'report.html'}")


def _of(table: "pd.DataFrame", unit: str, measure: str) -> "pd.DataFrame":
    return table[(table["unit"] == unit) & (table["measure"] == measure)]
