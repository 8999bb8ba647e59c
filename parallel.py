"""The same work for many items on all cores, or on a cluster: the same results at any number of workers."""

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .errors import HandscopeError, HandscopeWarning
from .progress import Progress, quiet

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Failed:
    """An item that a cluster has tried twice, and that is left out so that the rest can go on.

    Attributes
    ----------
    item : as it was given, or a part of it (see `Cluster`)
    error : what became of it the last time
    """

    item: Any
    error: Exception


def warn_of_failed(stage: str, failed: Sequence[Failed]) -> None:
    """Name the samples that a cluster left out."""
    if failed:
        names = [sample for one in failed for sample in one.item.samples]
        warnings.warn(
            f"{stage}: {len(names)} samples were tried twice and set aside: {', '.join(names)}. The first said: "
            f"{failed[0].error}. The same command tries them again.",
            HandscopeWarning,
            stacklevel=4,
        )


class Cluster(Protocol):
    """Workers on other machines. An item with a method ``parts`` is tried in parts before it is left out."""

    def finished(
        self, work: Callable[[Any], Any], items: Sequence[Any], stage: str, progress: Progress, gpu: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """As the function `finished`."""


_crew: ContextVar[int | Cluster | None] = ContextVar("crew", default=None)
_tasks: dict[int, tuple[Callable[[Any], Any], Sequence[Any]]] = {}
"""What is being worked on: a forked worker has it from the start, so that it is told numbers only."""

_number = itertools.count()
_worker = False


@contextmanager
def workers(crew: int | Cluster) -> Iterator[None]:
    """Who does the work of the block: so many processes of this machine, or a cluster.

    >>> with workers(4):                                                 # doctest: +SKIP
    ...     handscope.extract(model, run, plan)

    Results are the same whoever does it. Without it, one process a core; a model on a GPU, and one of more than
    `models.model.LARGE` bytes, stays in this process, and torch takes the cores.
    """
    if isinstance(crew, int) and crew < 1:
        raise HandscopeError(f"Expected at least one worker, found {crew}.")
    before = _crew.set(crew)
    try:
        yield
    finally:
        _crew.reset(before)


def on_cluster() -> bool:
    """Whether a cluster does the work."""
    return not _worker and not isinstance(_crew.get(), int | None)


def cores() -> int:
    """Cores that this process may use: OMP_NUM_THREADS where that is set, as for what numpy and torch start."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(items: int, model: Any = None) -> int:
    """How many processes work on so many items here.

    One with a model that is on a GPU, or too large to share unless that is asked for, or where workers would be
    threads: a model's calls are counted, by one thread at a time.
    """
    crew = _crew.get()
    if _worker or (model is not None and (model.device.type != "cpu" or sys.platform != "linux")):
        return 1
    asked = crew if isinstance(crew, int) else cores() if model is None or model.shared else 1
    return min(asked, items)


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Progress = quiet,
    stage: str = "",
    done: int = 0,
    total: int | None = None,
    near: bool = False,
) -> list[Result]:
    """``[work(item) for item in items]``, some of them at a time.

    Parameters
    ----------
    work, items : as in `finished`
    progress, stage : called as ``progress(stage, done, total)`` before the first result and after each, by this process
    done, total : where to begin counting, and of how many, where these items are part of something larger
    near : not worth sending to a cluster

    Raises
    ------
    HandscopeError
        A worker was killed; whatever `work` raises is raised here too.
    """
    total = done + len(items) if total is None else total
    progress(stage, done, total)
    results: dict[int, Result] = {}
    for place, result in finished(work, items, stage, progress=progress, near=near):
        if isinstance(result, Failed):
            raise result.error
        results[place] = result
        progress(stage, done + len(results), total)
    return [results[place] for place in range(len(items))]


def finished(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    stage: str = "",
    model: Any = None,
    progress: Progress = quiet,
    near: bool = False,
) -> Iterator[tuple[int, Result | Failed]]:
    """Results as they are done, each with the place of its item in `items`.

    Parameters
    ----------
    work : must depend on its item alone, so that the order in which items are done changes nothing: a random generator
        is made anew for each. What it returns can be pickled; for a cluster, it itself and the items too
    model : the model that `work` has, if any: not every one is `shared` by forked processes
    progress : told what each worker of a cluster has done
    near : not worth sending to a cluster

    Raises
    ------
    HandscopeError
        A worker was killed; whatever `work` raises is raised here too. A cluster yields `Failed` instead where it is an
        item's fault.

    Notes
    -----
    On Linux workers are forked, so that nothing is copied or imported and what they took goes back to the system when
    they end. Elsewhere they are threads, which wait for each other in Python: 1.3 times as fast on two cores, where
    forked ones are 1.8 times. Each has one thread, so that there are never more of them than cores.
    """
    crew = _crew.get()
    if not (_worker or near or crew is None or isinstance(crew, int)):
        yield from crew.finished(work, items, stage, progress, model is not None and model.device.type != "cpu")
        return
    number = processes(len(items), model)
    if number < 2:
        for place, item in enumerate(items):
            yield place, work(item)
        return
    task = next(_number)
    _tasks[task] = work, items
    try:
        with _pool(number) as pool:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                waiting = {pool.submit(_do, task, place): place for place in range(len(items))}  # all are forked here
            try:
                for one in as_completed(waiting):
                    yield waiting[one], one.result()
            except BrokenProcessPool as error:
                raise HandscopeError(
                    f"A process that worked on {stage or 'this'} was killed, probably for want of memory: "
                    "--workers 1 works with one process."
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


def become_worker() -> None:
    """Make this process one of many: it does by itself what it is given, and forks no others."""
    global _worker
    _worker = True


def _begin() -> None:
    """Make a forked process a worker: one thread, no forks of its own, Ctrl-C left to the parent, gone when that is."""
    become_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # A pool of threads does not outlive a fork, and OpenMP would wait for it.
    threadpool_limits(limits=1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
