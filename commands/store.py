"""``handscope store``: look after activations on disk."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from .verb import add_verb, say, show


def add(verbs: Any) -> None:
    """Add ``store check``, ``info``, ``consolidate``, ``merge`` and ``upgrade``."""
    text = "check, describe, consolidate, merge or upgrade activations on disk"
    store = verbs.add_parser("store", help=text, description=f"store: {text}.")
    verbs = store.add_subparsers(title="what to do", metavar="WHAT", required=True)

    verb = add_verb(verbs, "check", _check, "read everything, and name every shard that is wrong; status 1 if any is")
    _path(verb)
    _path(add_verb(verbs, "info", _info, "which cells, how many tokens, how many bytes"))
    _path(add_verb(verbs, "consolidate", _consolidate, "write store.h5, which reads fast by cell, from the shards"))

    text = "bring activations of 0.3, which carry labels, into the form of now, which does not"
    _path(add_verb(verbs, "upgrade", _upgrade, text))

    verb = add_verb(verbs, "merge", _merge, "join activations of several machines or runs, one shard a sample")
    verb.add_argument("target", metavar="TARGET", help="the folder that is written, a run or its activations/")
    verb.add_argument("sources", metavar="SOURCE", nargs="+", help="a run, its activations/, or a store.h5")


def _check(arguments: argparse.Namespace, progress: Progress) -> int:
    path = _activations(arguments.path)
    from ..extract.store.check import check

    problems = check(path, progress)
    for problem in problems:
        show(str(problem), path=problem.path, what=problem.what)
    if not problems:
        say("check", f"nothing is wrong in {path}")
        return 0
    say("check", f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {path}")
    return 1


def _info(arguments: argparse.Namespace, progress: Progress) -> None:
    path = _activations(arguments.path)
    from ..extract.store.check import info
    from ..report.summary import stored

    found = info(path)
    show(stored(found), **asdict(found))


def _consolidate(arguments: argparse.Namespace, progress: Progress) -> None:
    path = _activations(arguments.path)
    from ..extract.store.consolidate import consolidate
    from ..extract.store.shard import shards

    say("store", f"{consolidate(path, progress)} of {len(shards(path))} shards")


def _upgrade(arguments: argparse.Namespace, progress: Progress) -> None:
    path = _activations(arguments.path)
    from ..extract.store.upgrade import upgrade

    changed = upgrade(path, progress)
    said = f"{changed} files brought into the form of now" if changed else "nothing to do, all is in the form of now"
    say("store", f"{said} in {path}")


def _merge(arguments: argparse.Namespace, progress: Progress) -> None:
    sources = [_activations(source) for source in arguments.sources]
    target = Path(arguments.target)
    if (target / "run.yaml").is_file():
        target = target / "activations"
    from ..extract.store.consolidate import merge
    from ..extract.store.store import ActivationStore

    path = merge(sources, target, progress)
    say("store", f"{path}: {len(ActivationStore(path, labels={}).samples)} samples of {len(sources)} sources")


def _path(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("path", metavar="PATH", help="a run, its activations/, a folder of shards, or a store.h5")


def _activations(text: str) -> Path:
    """What was named; of a run folder, its activations."""
    path = Path(text)
    if not path.exists():
        raise HandscopeError(f"There is nothing at {path}: give a run, its activations/, or a store.h5.")
    return path / "activations" if (path / "run.yaml").is_file() else path
