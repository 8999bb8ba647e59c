"""The ``handscope`` command: one verb a stage, and ``study`` for all of them. The verbs live in ``commands/``."""

import argparse
import io
import os
import signal
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

from .commands import (
    anatomy,
    claims,
    commit,
    compare,
    evaluate,
    extract,
    features,
    generate,
    given,
    heads,
    lab,
    label,
    labels,
    lens,
    mend,
    metrics,
    models,
    patch,
    power,
    ratings,
    repair,
    replicate,
    report,
    statistics,
    store,
    study,
    submit,
    survey,
    train,
    watch,
)
from .commands.options import crew_of
from .commands.verb import speak
from .errors import HandscopeError, HandscopeWarning
from .files import FULL, system_number
from .progress import bars, quiet
from .stages import STAGES

GROUPS = (
    study,
    submit,
    generate,
    given,
    label,
    labels,
    extract,
    store,
    survey,
    statistics,
    report,
    power,
    watch,
    lab,
    patch,
    lens,
    heads,
    features,
    commit,
    mend,
    anatomy,
    metrics,
    ratings,
    evaluate,
    train,
    repair,
    compare,
    replicate,
    claims,
    models,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0, or 1 where a check found something wrong, 2 for what the user can mend, 130 when interrupted.
    """
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    # Threads that spin while they wait for each other all but stop a small model on a machine that has other work to do
    # (bench/speed/bench_threads.py); torch is not imported yet, so this still reaches its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal lacks is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_say, warnings.showwarning)
            warnings.simplefilter("always", HandscopeWarning)
            return _status(argv)
    except BrokenPipeError:  # who reads what is printed, as head does, has seen enough
        with suppress(OSError, ValueError, AttributeError):  # nor is the rest written when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)


def _status(argv: Sequence[str] | None) -> int:
    arguments = argparse.Namespace(verbose=False)
    try:
        arguments = _parser().parse_args(argv)
        if "" in (sys.argv[1:] if argv is None else argv):
            raise HandscopeError("One of the arguments is empty: give a name or a value in its place.")
        speak(arguments)
        with nullcontext(quiet) if arguments.quiet else bars() as progress, crew_of(arguments):
            return arguments.verb(arguments, progress) or 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print("\nInterrupted; what was finished is kept. Run the same command again to go on.", file=sys.stderr)
        return 130
    except HandscopeError as error:
        if arguments.verbose:
            traceback.print_exc()
        return _refuse(str(error))
    except (OSError, sqlite3.OperationalError) as error:
        return _refuse(_system_message(error))
    finally:
        sys.stdout.flush()  # now, where a closed pipe is still answered for


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="handscope",
        description="Where and when does a diffusion transformer know that the hand it draws is wrong?",
        epilog=f"study runs {_names(always=True)}, and {_names(always=False)} when its file asks for them. Every stage "
        "can be killed at any point: the same command again goes on where it stopped.",
    )
    parser.add_argument("--version", action="version", version=f"handscope {__version__}")
    parser.add_argument(
        "--completion",
        action=_Completion,
        metavar="SHELL",
        help="print what lets a shell complete commands, as in eval \"$(handscope --completion bash)\"",
    )
    verbs = parser.add_subparsers(title="stages", metavar="STAGE", required=True)
    for group in GROUPS:
        group.add(verbs)
    return parser


class _Completion(argparse.Action):
    """Prints the completions of a shell, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None) -> None:
        try:
            import shtab
        except ImportError:
            parser.exit(_refuse("Completions need shtab: pip install 'handscope[completion]'."))
        if values not in shtab.SUPPORTED_SHELLS:
            parser.exit(_refuse(f"Expected one of {', '.join(shtab.SUPPORTED_SHELLS)}, found {values!r}."))
        _complete_paths(parser, shtab.FILE)
        parser.exit(print(shtab.complete(parser, values)) or 0)


def _complete_paths(parser: argparse.ArgumentParser, how: Any) -> None:
    """Let every argument that is no choice be completed as a path, in all verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_paths(inner, how)
        elif action.nargs != 0 and not action.choices:
            action.complete = how  # type: ignore[attr-defined]


def _names(always: bool) -> str:
    return ", ".join(stage.name for stage in STAGES if stage.always is always)


def _say(otherwise: Callable[..., None], message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    """What is worth knowing, without where in the program it was said."""
    if issubclass(category, HandscopeWarning):
        print(f"handscope: {message}", file=sys.stderr)
    else:
        otherwise(message, category, *where, **more)


def _refuse(message: str) -> int:
    print(f"handscope: {message}", file=sys.stderr)
    return 2


def _system_message(error: Exception) -> str:
    """What the system refused, in words for the user."""
    if system_number(error) in FULL or "disk is full" in str(error):
        return "The disk is full; what was already written is whole. Free some space and run the same command again."
    what = getattr(error, "filename", None) or "A file"
    reason = getattr(error, "strerror", None) or str(error)
    return f"{what} could not be used ({reason}): check the path and permissions, and try again."
