"""How long work says how far it is: one callback, which knows nothing of terminals, and bars drawn from it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``; the command line and notebooks draw it with `bars`."""


def quiet(stage: str, done: int, total: int) -> None:
    """Report nothing: the default of every function that takes a ``progress``."""


@contextmanager
def bars() -> Iterator[Progress]:
    """Bars with the rate and the time left, on a terminal (on stderr) or in a Jupyter notebook; elsewhere nothing.

    >>> with bars() as progress:                                        # doctest: +SKIP
    ...     store = handscope.extract(model, run, plan, progress=progress)

    One bar a stage. On a terminal they go when the block ends, however it ends; in a notebook they stay.
    """
    notebook = _in_notebook()
    if not notebook and not sys.stderr.isatty():
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
    drawn = Bars(*columns, console=Console(stderr=not notebook), transient=True)
    tasks: dict[str, TaskID] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = drawn.add_task(stage, total=total)
        drawn.update(tasks[stage], completed=done, total=total)

    if notebook:
        with _shown_in_notebook(drawn) as redraw:

            def progress_redrawn(stage: str, done: int, total: int) -> None:
                progress(stage, done, total)
                redraw()

            yield progress_redrawn
    else:
        with drawn:
            yield progress


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


@contextmanager
def _shown_in_notebook(drawn: "Bars") -> Iterator[Callable[[], None]]:
    """An output of the cell that is written over, a few times a second.

    rich's own live display needs ipywidgets; its HTML does not.
    """
    from IPython.display import display

    handle = display(drawn, display_id=True)
    last = time.monotonic()

    def redraw() -> None:
        nonlocal last
        if time.monotonic() - last > 0.2:
            last = time.monotonic()
            handle.update(drawn)

    try:
        yield redraw
    finally:
        handle.update(drawn)
