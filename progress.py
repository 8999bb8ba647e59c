"""How long work says how far it is: one callback, which knows nothing of terminals, and bars drawn from it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``; the command line and notebooks draw it with `bars`."""


def quiet(stage: str, done: int, total: int) -> None:
    """Report nothing: the default of every function that takes a ``progress``."""


@contextmanager
def bars() -> Iterator[Progress]:
    """Bars with the rate and the time left, on a terminal (on stderr) or in a Jupyter notebook; elsewhere nothing.

    >>> with bars() as progress:                                        # doctest: +SKIP
    ...     store = handscope.extract(model, run, plan, progress=progress)

    One bar a stage; they go when the block ends, however it ends.
    """
    notebook = "ipykernel" in sys.modules
    if not (notebook or sys.stderr.isatty()):
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
    console = Console(force_jupyter=True) if notebook else Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console, transient=True) as drawn:

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = drawn.add_task(stage, total=total)
            drawn.update(tasks[stage], completed=done, total=total)

        yield progress
