"""The same work for many items on all cores: results in their order, and the same ones at any number of threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .progress import Progress, quiet

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use: OMP_NUM_THREADS where that is set, as for what numpy and torch start."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Progress = quiet,
    stage: str = "",
    done: int = 0,
    total: int | None = None,
) -> list[Result]:
    """``[work(item) for item in items]``, some of them at a time.

    Parameters
    ----------
    work : must depend on its item alone, so that the order in which items are done changes nothing: a random generator
        is made anew for each
    progress, stage : called as ``progress(stage, done, total)`` before the first result and after each, by this thread
    done, total : where to begin counting, and of how many, where these items are part of something larger

    Notes
    -----
    Threads and not processes: nothing is copied, nothing is started anew, and numpy, scipy and h5py let other threads
    run while they work. They must not start threads of their own beside these: the caller limits BLAS to one.
    """
    total = done + len(items) if total is None else total
    progress(stage, done, total)
    workers = min(cores(), len(items))
    results: list[Result] = []
    if workers < 2:
        for item in items:
            results.append(work(item))
            progress(stage, done + len(results), total)
        return results
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(work, item) for item in items]
        try:
            for one in waiting:
                results.append(one.result())
                progress(stage, done + len(results), total)
        finally:
            for one in waiting:  # after an error or Ctrl-C, what has not begun is not begun
                one.cancel()
    return results
