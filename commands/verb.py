"""What every verb has: a place in the parser, a run folder, a line that says what became of it."""

import argparse
import json
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError
from ..progress import Progress

if TYPE_CHECKING:
    from ..run.folder import Run
    from ..stages import Stage

Function = Callable[[argparse.Namespace, Progress], int | None]
"""What a verb does; it returns the exit status where that is not 0."""


def add_verb(verbs: Any, name: str, function: Function, text: str, run: bool = False) -> argparse.ArgumentParser:
    """Add a verb to a parser's `verbs`, with a RUN argument where it works on a run folder."""
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=f"{name}: {text}.")
    verb.set_defaults(verb=function)
    voice = verb.add_argument_group("what is said")
    voice.add_argument("-q", "--quiet", action="store_true", help="only what was asked for, and what went wrong")
    voice.add_argument("-v", "--verbose", action="store_true", help="with where in the program something went wrong")
    voice.add_argument("--json", action="store_true", help="a JSON object a line, for scripts")
    if run:
        verb.add_argument("run", metavar="RUN", help="the run folder, for example runs/demo")
    return verb


def add_stage(verbs: Any, stage: "Stage", function: Function) -> argparse.ArgumentParser:
    """Add the verb of a stage, with a RUN argument."""
    return add_verb(verbs, stage.name, function, stage.help, run=True)


def perform(stage: "Stage", run: "Run", settings: dict[str, Any], do: Callable[[], object], model: Any = None) -> None:
    """Do a stage, enter it in the run's record, and print one line on what the folder now holds.

    Parameters
    ----------
    settings : the arguments that decide its result
    model : has the settings of the model as attributes, where the stage is the one that begins the run with it
    """
    from ..study import noted_settings, perform

    say(stage.name, perform(stage, run.path, noted_settings(settings, model), do))


def open_run(arguments: argparse.Namespace, begun: bool = False) -> "Run":
    """The run folder of a verb; one that reads what others wrote does not make an empty folder of a misspelt name."""
    if begun and not os.path.isdir(arguments.run):
        raise HandscopeError(f"There is no run folder {arguments.run}: check its name, or begin one with generate.")
    from ..run.folder import Run

    return Run(arguments.run)


_voice = {"quiet": False, "json": False}
"""How the command that is running speaks."""


def speak(arguments: argparse.Namespace) -> None:
    """Let `say`, `remark` and `show` speak as the options of a verb say."""
    _voice.update(quiet=arguments.quiet, json=arguments.json)


def say(stage: str, summary: str) -> None:
    """One line on what a stage did; paths below the current directory from there."""
    summary = summary.replace(os.path.join(os.getcwd(), ""), "")
    if not _voice["quiet"]:
        show(f"{stage:9} {summary}", stage=stage, summary=summary)


def remark(text: str) -> None:
    """A line that nobody asked for."""
    if not _voice["quiet"]:
        show(text, remark=text)


def show(text: str, **data: Any) -> None:
    """What a verb was asked for: `text`, or for scripts `data`, of which numbers that are not finite are null."""
    print(json.dumps(_plain(data), ensure_ascii=False) if _voice["json"] else text, flush=True)


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
