"""The ``handscope`` command: one verb a stage, and ``study`` for all of them.

Heavy libraries are imported inside the verbs, so that help and mistakes are answered at once.
"""

import argparse
import errno
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import HandscopeError
from .progress import Progress, quiet

if TYPE_CHECKING:
    from .extract.models import Model
    from .extract.run import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for what the user can mend, 130 when interrupted."""
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    # Threads that spin while they wait for each other all but stop a small model on a machine that has other work to do
    # (bench/bench_threads.py); torch is not imported yet, so this still reaches its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        arguments = _parser().parse_args(argv)
        with _drawn_progress() as progress:
            arguments.verb(arguments, progress)
    except KeyboardInterrupt:
        print("\nInterrupted; what was finished is kept. Run the same command again to go on.", file=sys.stderr)
        return 130
    except HandscopeError as error:
        return _refuse(str(error))
    except (OSError, sqlite3.OperationalError) as error:
        message = _system_message(error)
        if message is None:
            raise
        return _refuse(message)
    return 0


def _refuse(message: str) -> int:
    print(f"handscope: {message}", file=sys.stderr)
    return 2


def _system_message(error: Exception) -> str | None:
    """What the system refused, in words for the user; None for what is a fault of the program."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error):
        return "The disk is full; what was already written is whole. Free some space and run the same command again."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} could not be used ({error.strerror}): check the path and permissions, and try again."
    return None


@contextmanager
def _drawn_progress() -> Iterator[Progress]:
    """Bars with rate and time left on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield quiet
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")

    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield progress


# The verbs


def _generate(arguments: argparse.Namespace, progress: Progress) -> None:
    from .extract.prompts import check_seeds, read_prompts

    prompts = [*(arguments.prompt or []), *(read_prompts(arguments.prompts) if arguments.prompts else [])]
    if not prompts:
        raise HandscopeError("Expected at least one prompt: give --prompts FILE or --prompt TEXT.")
    check_seeds(seed for span in arguments.seeds for seed in (span[0], span[-1]))
    seeds = [seed for span in arguments.seeds for seed in span]
    from .extract.generate import generate
    from .extract.models import load
    from .summary import generated

    model = load(arguments.model, arguments.device, arguments.dtype, arguments.revision)
    run = _run(arguments)
    generate(
        model,
        run,
        prompts,
        seeds,
        steps=arguments.steps,
        guidance=arguments.guidance,
        height=arguments.height,
        width=arguments.width,
        batch_size=arguments.batch_size,
        progress=progress,
    )
    _say("generate", generated(run))


def _label(arguments: argparse.Namespace, progress: Progress) -> None:
    run = _run(arguments, begun=True)
    from .labeling.auto import label_auto
    from .summary import labelled

    label_auto(run, progress=progress)
    _say("label", labelled(run))


def _extract(arguments: argparse.Namespace, progress: Progress) -> None:
    run = _run(arguments, begun=True)
    samples = run.samples()
    if samples.empty:
        raise HandscopeError(f"There are no samples in {run.samples_dir}: run generate first.")
    from .extract.address import Plan

    of = int(samples["steps"].iloc[0])
    steps = arguments.steps or range(of, 0, -1)
    Plan(arguments.blocks or ["double.0"], steps, of=of)  # what is misspelt is refused before the model is loaded
    from .extract.extract import extract
    from .summary import extracted

    model = _model_of(run, arguments)
    extract(
        model,
        run,
        Plan(arguments.blocks or model.blocks, steps, of=of),
        tokens=arguments.tokens,
        batch_size=arguments.batch_size,
        progress=progress,
    )
    _say("extract", extracted(run))


def _analyze(arguments: argparse.Namespace, progress: Progress) -> None:
    run = _run(arguments, begun=True)
    from .analysis.stage import analyze
    from .summary import analyzed

    analyze(run, permutations=arguments.permutations, folds=arguments.folds, seed=arguments.seed, progress=progress)
    _say("analyze", analyzed(run))


def _probe(arguments: argparse.Namespace, progress: Progress) -> None:
    run = _run(arguments, begun=True)
    from .probes.stage import probe
    from .summary import probed

    model = _model_of(run, arguments)
    probe(
        run, model, permutations=arguments.permutations, folds=arguments.folds, seed=arguments.seed, progress=progress
    )
    _say("probe", probed(run))


def _report(arguments: argparse.Namespace, progress: Progress) -> None:
    run = _run(arguments, begun=True)
    from .report import report
    from .summary import reported

    report(run, progress=progress)
    _say("report", reported(run))


def _study(arguments: argparse.Namespace, progress: Progress) -> None:
    from .study import Study

    study = Study.from_yaml(arguments.file)
    ran = []
    for result in study.stages(progress):
        ran.append(result.ran)
        _say(result.stage, result.summary if result.ran else f"complete: {result.summary}")
    if not any(ran):
        print(f"Nothing to do: every stage of {study.folder} is complete.")
    print(f"The report is {(study.folder / 'report.html').resolve()}")


def _say(stage: str, summary: str) -> None:
    print(f"{stage:9} {summary}", flush=True)


def _run(arguments: argparse.Namespace, begun: bool = False) -> "Run":
    """The run folder of a verb; one that reads what others wrote does not make an empty folder of a misspelt name."""
    if begun and not os.path.isdir(arguments.run):
        raise HandscopeError(f"There is no run folder {arguments.run}: check its name, or begin one with generate.")
    from .extract.run import Run

    return Run(arguments.run)


def _model_of(run: "Run", arguments: argparse.Namespace) -> "Model":
    """The model that the run was begun with, or the one that was named."""
    provenance = run.settings.get("provenance", {})
    name = arguments.model or provenance.get("name")
    if name is None:
        raise HandscopeError(f"{run.path / 'run.yaml'} does not say which model made the run: name it with --model.")
    from .extract.models import load

    device = arguments.device or provenance.get("device", "cpu")
    dtype = run.settings.get("model", {}).get("dtype")
    return load(name, device, dtype, arguments.revision or provenance.get("revision"))


# The parser


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="handscope",
        description="Where and when does a diffusion transformer know that the hand it draws is wrong?",
        epilog="Every stage can be killed at any point: the same command again goes on where it stopped.",
    )
    parser.add_argument("--version", action="version", version=f"handscope {__version__}")
    verbs = parser.add_subparsers(title="stages", metavar="STAGE", required=True)

    verb = _verb(verbs, "study", _study, "run every stage of a study, and only what is missing of it")
    verb.add_argument("file", metavar="FILE.yaml", help="the study; datasets/demo.yaml is one")

    verb = _verb(verbs, "generate", _generate, "prompts and seeds to images and trajectories", run=True)
    verb.add_argument("--prompts", metavar="FILE", help="a text file with one prompt a line")
    verb.add_argument("--prompt", action="append", metavar="TEXT", help="one prompt; may be given more than once")
    verb.add_argument(
        "--seeds",
        type=_seeds,
        default=[range(4)],
        metavar="LIST",
        help="0,1,2 or 0-11; every prompt is drawn with every seed (default 0-3)",
    )
    verb.add_argument("--steps", type=int, default=20, help="steps of the generation (default 20)")
    verb.add_argument("--guidance", type=float, default=3.5, help="FLUX's embedded guidance (default 3.5)")
    verb.add_argument("--height", type=int, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--width", type=int, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--batch-size", type=int, default=16, help="samples in one call of the pipeline (default 16)")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 elsewhere")
    _model_options(verb, model="organism", device="cpu")

    verb = _verb(verbs, "label", _label, "token labels and verdicts without looking", run=True)
    verb.add_argument(
        "--auto",
        action="store_true",
        required=True,
        help="hand tokens from the silhouette; verdicts from shipped hand labels, else from the judge",
    )

    verb = _verb(verbs, "extract", _extract, "residual streams at labelled tokens, from the trajectories", run=True)
    verb.add_argument("--blocks", type=_names, metavar="LIST", help="double.1,single.3 (default: all blocks)")
    verb.add_argument(
        "--steps",
        type=_numbers,
        metavar="LIST",
        help="steps that remain, 20,12,3: of 20, step 20 is the first and noisiest (default: all)",
    )
    verb.add_argument(
        "--tokens",
        choices=("hand", "labelled", "all"),
        default="hand",
        help="which tokens of a sample are kept (default hand)",
    )
    verb.add_argument(
        "--batch-size",
        type=int,
        help="samples in one forward (default: as in the generation, which gives the same bits)",
    )
    _model_options(verb)

    verb = _verb(verbs, "analyze", _analyze, "directions, distances and components of every cell, with nulls", run=True)
    _statistics_options(verb, permutations=1000)

    verb = _verb(verbs, "probe", _probe, "linear probes of every cell, beside their baselines", run=True)
    _statistics_options(verb, permutations=100)
    _model_options(verb)

    _verb(verbs, "report", _report, "figures, and one HTML page with what was found", run=True)
    return parser


def _verb(
    verbs: Any, name: str, function: Callable[[argparse.Namespace, Progress], None], text: str, run: bool = False
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=f"{name}: {text}.")
    verb.set_defaults(verb=function)
    if run:
        verb.add_argument("run", metavar="RUN", help="the run folder, for example runs/demo")
    return verb


def _model_options(verb: argparse.ArgumentParser, model: str | None = None, device: str | None = None) -> None:
    verb.add_argument(
        "--model", default=model, help=f"organism, a FluxPipeline folder, or a hub id ({_default(model)})"
    )
    verb.add_argument("--revision", help="a commit, tag or branch of the hub")
    verb.add_argument("--device", default=device, help=f"cpu, cuda or cuda:1 ({_default(device)})")


def _default(value: str | None) -> str:
    return "default: as the run was begun" if value is None else f"default {value}"


def _statistics_options(verb: argparse.ArgumentParser, permutations: int) -> None:
    verb.add_argument(
        "--permutations",
        type=_at_least(1),
        default=permutations,
        help=f"label permutations behind each null (default {permutations})",
    )
    verb.add_argument(
        "--folds", type=_at_least(2), default=5, help="folds of the cross-validation, grouped by prompt (default 5)"
    )
    verb.add_argument("--seed", type=_at_least(0), default=0, help="of folds, permutations and bootstrap (default 0)")


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
        return int(text)

    return whole


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, found {text!r}")
    return names


def _numbers(text: str) -> list[int]:
    try:
        return [int(name) for name in _names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 20,12,3, found {text!r}") from None


def _seeds(text: str) -> list[range]:
    spans = [re.fullmatch(r"(-?\d+)(?:-(\d+))?", part) for part in _names(text)]
    ranges = [range(int(span[1]), int(span[2] or span[1]) + 1) for span in spans if span]
    if not spans or None in spans or not all(ranges):
        raise argparse.ArgumentTypeError(f"expected seeds such as 0,1,2 or 0-11, found {text!r}")
    return ranges
