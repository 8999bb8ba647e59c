"""``handscope extract``: activations of the labelled samples of a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError
from ..extract.address import Plan
from ..files import refuse_unusable
from ..models.registry import check_kinds
from ..progress import Progress
from ..stages import EXTRACT
from .options import crew_options, model_of, model_options, names, numbers, part_option, whole
from .verb import add_stage, open_run, perform, say

if TYPE_CHECKING:
    from ..models.model import Model
    from ..run.folder import Run

READ = ("blocks", "steps", "stream", "at")
"""Options that say what is read, unless a plan does."""


def add(verbs: Any) -> None:
    """Add ``extract``."""
    verb = add_stage(verbs, EXTRACT, _extract)
    verb.add_argument(
        "--plan", type=Path, metavar="FILE", help="what to read, as survey --zoom writes it, in place of the four below"
    )
    verb.add_argument("--blocks", type=names, metavar="LIST", help="double.1,single.3 (default: all blocks)")
    verb.add_argument(
        "--steps",
        type=numbers,
        metavar="LIST",
        help="steps that remain, 20,12,3: of 20, step 20 is the first and noisiest (default: all)",
    )
    verb.add_argument(
        "--tokens",
        default="subject",
        metavar="WHICH",
        help="which tokens of a sample are kept: subject (the default; its noun says the same), labelled or all",
    )
    verb.add_argument("--stream", choices=("image", "text"), help="whose tokens are read (default image)")
    verb.add_argument("--at", choices=("output", "input"), help="which side of each block is read (default output)")
    verb.add_argument(
        "--batch-size",
        type=whole,
        help="samples in one forward (default: as in the generation, which gives the same bits)",
    )
    part_option(verb)
    crew_options(verb)
    verb.add_argument(
        "--compression", choices=("lossless",), help="about a sixth less on disk; needs hdf5plugin (default: none)"
    )
    verb.add_argument(
        "--dry-run", action="store_true", help="say what it would cost, from one measured step; write nothing"
    )
    model_options(verb)


def _extract(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    samples = run.samples()
    if samples.empty:
        raise HandscopeError(f"There are no samples in {run.samples_dir}: run generate first.")
    from ..labeling.subject import subject_of

    tokens = subject_of(run).selection(arguments.tokens)
    given = {name: getattr(arguments, name) for name in READ if getattr(arguments, name) is not None}
    plan = _plan_of(arguments.plan, given) if arguments.plan is not None else None
    of = int(samples["steps"].iloc[0])
    plan = plan or Plan(**{"blocks": None, "steps": range(of, 0, -1), **given, "of": of})
    check_kinds(plan.blocks)  # what is misspelt is refused before the model is loaded
    from ..extract.estimate import estimate
    from ..report.summary import estimated

    model = model_of(run, arguments)
    plan = plan.on(model.blocks, model.carrying(plan.stream))
    options = {"tokens": tokens, "batch_size": arguments.batch_size, "shard": arguments.shard}
    if arguments.dry_run:
        print(estimated(estimate(model, run, plan, **options), arguments.compression))
        return
    options |= {"compression": arguments.compression}
    if arguments.shard is not None:  # a part is not the stage, and is not entered as one
        _extract_part(model, run, plan, options, progress)
        return
    read = {"blocks": given.get("blocks", ()), "steps": given.get("steps", ())}
    if arguments.plan is not None:
        read = {"blocks": list(map(str, plan.blocks)), "steps": plan.steps}
    settings = {**read, "tokens": tokens, "compression": arguments.compression}
    settings |= {"stream": plan.stream, "at": plan.at}
    perform(EXTRACT, run, settings, lambda: EXTRACT.do()(model, run, plan, **options, progress=progress))


def _extract_part(model: "Model", run: "Run", plan: Plan, options: dict[str, Any], progress: Progress) -> None:
    from ..report.summary import extracted

    i, n = options["shard"]
    if EXTRACT.do()(model, run, plan, **options, progress=progress) is None:
        say("extract", f"nothing yet in {run.activations_dir}: part {i} of {n} has no samples, or all were set aside")
    else:
        say("extract", extracted(run))


def _plan_of(path: Path, given: dict[str, Any]) -> Plan:
    if given:
        raise HandscopeError(
            f"Expected either --plan or {', '.join(f'--{name}' for name in given)}, found both: the plan in {path} "
            "says what is read."
        )
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        refuse_unusable(error, path)
        raise HandscopeError(
            f"There is no plan in {path} ({error}): expected the file that survey --zoom writes, RUN/survey/plan.json."
        ) from error
