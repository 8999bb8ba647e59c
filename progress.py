"""How long work says how far it is: one callback, which knows nothing of terminals."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``; the command line draws it with rich, a notebook may draw it otherwise."""


def quiet(stage: str, done: int, total: int) -> None:
    """Report nothing: the default of every function that takes a ``progress``."""
