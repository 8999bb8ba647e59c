"""The ``handscope`` command: one verb a stage, and ``study`` for all of them. The verbs live in ``commands/``."""

import argparse
import errno
import os
import sqlite3
import sys
from collections.abc import Sequence

from .commands import (
    anatomy,
    commit,
    extract,
    generate,
    label,
    labels,
    mend,
    power,
    report,
    statistics,
    store,
    study,
    survey,
    watch,
)
from .errors import HandscopeError
from .progress import bars
from .stages import STAGES

GROUPS = (
    study,
    generate,
    label,
    labels,
    extract,
    store,
    survey,
    statistics,
    report,
    power,
    watch,
    commit,
    mend,
    anatomy,
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
    try:
        arguments = _parser().parse_args(argv)
        with bars() as progress:
            return arguments.verb(arguments, progress) or 0
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


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="handscope",
        description="Where and when does a diffusion transformer know that the hand it draws is wrong?",
        epilog=f"study runs {_names(always=True)}, and {_names(always=False)} when its file asks for them. Every stage "
        "can be killed at any point: the same command again goes on where it stopped.",
    )
    parser.add_argument("--version", action="version", version=f"handscope {__version__}")
    verbs = parser.add_subparsers(title="stages", metavar="STAGE", required=True)
    for group in GROUPS:
        group.add(verbs)
    return parser


def _names(always: bool) -> str:
    return ", ".join(stage.name for stage in STAGES if stage.always is always)


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
