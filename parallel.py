"""The same work for many items on all cores: results in their order, and the same ones at any number of workers."""

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .errors import HandscopeError
from .progress import Progress, quiet

Item = TypeVar("Item")
Result = TypeVar("Result")

_tasks: dict[int, tuple[Callable[[Any], Any], Sequence[Any]]] = {}
"""What is being worked on: a forked worker has it from the start, so that it is told numbers only."""

_number = itertools.count()
_worker = False


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
        is made anew for each. What it returns can be pickled
    progress, stage : called as ``progress(stage, done, total)`` before the first result and after each, by this process
    done, total : where to begin counting, and of how many, where these items are part of something larger

    Raises
    ------
    HandscopeError
        A worker was killed; whatever `work` raises is raised here too.

    Notes
    -----
    On Linux workers are forked, so that nothing is copied or imported and what they took goes back to the system when
    they end. Elsewhere they are threads, which wait for each other in Python: 1.3 times as fast on two cores, where
    forked ones are 1.8 times.
    """
    total = done + len(items) if total is None else total
    progress(stage, done, total)
    workers = 1 if _worker else min(cores(), len(items))
    if workers < 2:
        results = []
        for item in items:
            results.append(work(item))
            progress(stage, done + len(results), total)
        return results
    task = next(_number)
    _tasks[task] = work, items
    try:
        with _pool(workers) as pool, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            waiting = [pool.submit(_do, task, place) for place in range(len(items))]
            try:
                results = []
                for one in waiting:
                    results.append(one.result())
                    progress(stage, done + len(results), total)
                return results
            except BrokenProcessPool as error:
                raise HandscopeError(
                    f"A process that worked on {stage or 'this'} was killed, probably for want of memory: "
                    "OMP_NUM_THREADS=1 works with one process."
                ) from error
            finally:
                for one in waiting:  # after an error or Ctrl-C, what has not begun is not begun
                    one.cancel()
    finally:
        del _tasks[task]


def _pool(workers: int) -> Executor:
    if sys.platform != "linux":
        return ThreadPoolExecutor(workers)
    # What earlier work has freed goes back to the system, where the allocator would keep it beside what workers take.
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin)


def _do(task: int, place: int) -> Any:
    work, items = _tasks[task]
    return work(items[place])


def _begin() -> None:
    """Make a forked process a worker: one thread, no forks of its own, Ctrl-C left to the parent, gone when that is."""
    global _worker
    _worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # A pool of threads does not outlive a fork, and OpenMP would wait for it.
    threadpool_limits(limits=1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
