"""Work on a Ray cluster: workers that load a model once, and what a lost one leaves is done again by another.

A worker has one item at a time, so that a slow machine holds up nothing but that one. Results are small (names, rows of
a table); pictures and activations are files, written where this process would have written them.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .. import parallel
from ..errors import HandscopeError, Unusable
from ..parallel import Failed
from ..progress import Progress

TRIES = 2
"""How often an item is tried before it is left out. A batch of samples is taken apart before, at the first error or the
second loss of a worker."""
HOPELESS = 6
"""Tries that failed before any succeeded, after which it is not the items' fault."""
PATIENCE = 120.0
"""Seconds to wait for a first worker."""
SHOWN = 16
"""Workers that have a line of their own on the terminal."""


@contextmanager
def ray_cluster(address: str = "auto", workers: int | None = None, per_gpu: int = 1) -> Iterator[RayCluster]:
    """A cluster to give to `handscope.parallel.workers`.

    >>> with ray_cluster("auto") as cluster, parallel.workers(cluster):          # doctest: +SKIP
    ...     handscope.extract(model, run, plan)

    Parameters
    ----------
    address : str
        ``auto``: the cluster that this machine belongs to, or one of this machine alone where there is none;
        ``local``: one of this machine alone; else the address of the head node, ``10.0.0.1:6379``.
    workers : int, optional
        By default as many as the cluster has GPUs, or cores for what needs none.
    per_gpu : int
        Workers that share a GPU; `handscope plan` says how many fit into its memory.

    Raises
    ------
    HandscopeError
        Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise HandscopeError("Ray is not installed: pip install 'handscope[ray]', on every machine.") from error
    begun = not ray.is_initialized()
    if begun:
        _join(ray, address, workers)
    cluster = RayCluster(ray, workers, per_gpu)
    try:
        yield cluster
    finally:
        cluster.dismiss()
        if begun:
            ray.shutdown()


def _join(ray: Any, address: str, workers: int | None) -> None:
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address != "local":
            ray.init(address=address, **quiet)
            return
    except ConnectionError as error:
        if address != "auto":
            raise HandscopeError(
                f"There is no Ray cluster at {address}: start one with `ray start --head`, and name the address that "
                "it prints."
            ) from error
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine is slow, not broken
    ray.init(address="local", num_cpus=max(parallel.cores(), workers or 1), include_dashboard=False, **quiet)


@dataclass(eq=False)
class _Worker:
    """An actor, as the driver sees it."""

    number: int
    actor: Any
    done: int = 0
    """Samples."""


@dataclass(eq=False)
class _Try:
    """An item that is still to do."""

    place: int
    item: Any
    failures: int = 0
    by: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Samples in it."""
        return len(getattr(self.item, "samples", (0,)))

    @property
    def name(self) -> str:
        """For the dashboard."""
        samples = getattr(self.item, "samples", None)
        return f"{samples[0]} and {len(samples) - 1} more" if samples else str(self.place)

    def again(self, error: Exception, lost: bool) -> list[_Try] | Failed:
        """What is to be done after a failure: the same again, its parts, or nothing.

        A sample is left out after two errors, one of them alone, or after two workers were lost that had it alone.
        """
        self.failures += 1
        if lost and self.failures < TRIES:  # which is often not its fault
            return [self]
        parts = self.item.parts() if hasattr(self.item, "parts") else []
        if len(parts) > 1:
            return [_Try(self.place, part, 0 if lost else TRIES - 1, set(self.by)) for part in parts]
        return [self] if self.failures < TRIES else Failed(self.item, error)


class RayCluster:
    """Workers of a cluster; see `ray_cluster`."""

    def __init__(self, ray: Any, workers: int | None, per_gpu: int) -> None:
        self._ray, self._asked, self._per_gpu = ray, workers, per_gpu
        self._workers: dict[bool, list[_Worker]] = {True: [], False: []}
        self._numbers, self._tasks = itertools.count(1), itertools.count()
        self._actor = ray.remote(_Actor)

    def finished(
        self, work: Callable[[Any], Any], items: Sequence[Any], stage: str, progress: Progress, gpu: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """As `handscope.parallel.finished`; `gpu` says whether each worker needs one, or its part of one."""
        if not items:
            return
        ray, task, sent = self._ray, next(self._tasks), self._ray.put(work)
        waiting = deque(_Try(place, item) for place, item in enumerate(items))
        left, number = sum(one.size for one in waiting), self._number(len(items), gpu)
        begun, succeeded, failures = time.monotonic(), False, 0
        idle, busy, starting = list[_Worker](), dict[Any, tuple[_Worker, _Try]](), dict[Any, _Worker]()
        for worker in self._workers[gpu]:  # of an earlier stage, with its model
            starting[worker.actor.ready.remote()] = worker
        try:
            while waiting or busy:
                while len(idle) + len(busy) + len(starting) < min(number, len(waiting) + len(busy)):
                    worker = self._begin(gpu)
                    starting[worker.actor.ready.remote()] = worker
                while idle and waiting:
                    worker = idle.pop(0)
                    one = next((other for other in waiting if worker.number not in other.by), waiting[0])
                    waiting.remove(one)
                    call = worker.actor.do.options(name=f"{stage} {one.name}")
                    busy[call.remote(task, [sent], one.item)] = worker, one
                for call in ray.wait([*busy, *starting], num_returns=1, timeout=1.0)[0]:
                    if call in starting:
                        worker = starting.pop(call)
                        if self._lives(call):
                            idle.append(worker)
                        else:
                            self._forget(worker, gpu)
                        continue
                    worker, one = busy.pop(call)
                    try:
                        result = ray.get(call)
                    except ray.exceptions.RayTaskError as error:
                        idle.append(worker)
                        lost, failure = False, error.cause if isinstance(error.cause, Exception) else error
                    except ray.exceptions.RayError as error:  # the worker is gone, or its machine
                        self._forget(worker, gpu)
                        lost, failure = True, HandscopeError(f"The worker was lost ({type(error).__name__})")
                    else:
                        succeeded = True
                        idle.append(worker)
                        left -= one.size
                        worker.done += one.size
                        if number <= SHOWN:
                            share = math.ceil(left / number)
                            progress(f"worker {worker.number}", worker.done, worker.done + share)
                        yield one.place, result
                        continue
                    failures += 1
                    if isinstance(failure, Unusable) or (not succeeded and failures >= HOPELESS):
                        raise failure
                    one.by.add(worker.number)
                    more = one.again(failure, lost)
                    if isinstance(more, Failed):
                        left -= one.size
                        yield one.place, more
                    else:
                        waiting.extend(more)
                if not (idle or busy or succeeded) and time.monotonic() - begun > PATIENCE:
                    raise HandscopeError(
                        f"No worker began within {PATIENCE:.0f} seconds: the cluster has {ray.available_resources()}, "
                        f"and one needs {self._needs(gpu)}. Wait for other work to end, or ask for fewer --workers."
                    )
        finally:
            for worker, _ in busy.values():  # of an error or Ctrl-C; what it writes is whole or not there
                self._forget(worker, gpu)
            for worker in starting.values():
                self._forget(worker, gpu)

    def dismiss(self) -> None:
        """Let all workers go."""
        for gpu, workers in self._workers.items():
            for worker in list(workers):
                self._forget(worker, gpu)

    def _number(self, items: int, gpu: bool) -> int:
        there = self._ray.cluster_resources()
        possible = there.get("GPU", 0) * self._per_gpu if gpu else there.get("CPU", 1)
        return max(1, min(items, self._asked or int(possible)))

    def _needs(self, gpu: bool) -> dict[str, float]:
        return {"num_cpus": 1, "num_gpus": 1 / self._per_gpu} if gpu else {"num_cpus": 1}

    def _begin(self, gpu: bool) -> _Worker:
        number = next(self._numbers)
        actor = self._actor.options(name=f"handscope worker {number}", **self._needs(gpu)).remote()
        worker = _Worker(number, actor)
        self._workers[gpu].append(worker)
        return worker

    def _forget(self, worker: _Worker, gpu: bool) -> None:
        self._workers[gpu].remove(worker)
        self._ray.kill(worker.actor)

    def _lives(self, call: Any) -> bool:
        try:
            self._ray.get(call)
        except self._ray.exceptions.RayError:
            return False
        return True


class _Actor:
    """What runs on the cluster: it has what it works with from the first item of a stage on."""

    def __init__(self) -> None:
        parallel.become_worker()
        self._task, self._work = -1, None

    def ready(self) -> None:
        """Answer."""

    def do(self, task: int, sent: list[Any], item: Any) -> Any:
        """Work on an item; `sent` has a reference to what does it, so that it comes over once."""
        import ray

        if task != self._task:
            self._work, self._task = None, -1  # before the next comes
            self._work, self._task = ray.get(sent[0]), task
        assert self._work is not None
        return self._work(item)
