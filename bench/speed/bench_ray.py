"""What a Ray cluster of one worker adds to the plain loop, at steps of 0.2 s, and what 100,000 samples take to list.

A step is a sleep, so that other work on the machine does not count; both sides in turn, medians.

    python bench/speed/bench_ray.py [--repeats 5] [--steps 20]
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from handscope import parallel
from handscope.cluster.on_ray import ray_cluster
from handscope.files import listed

STEP = 0.2


def step(payload: bytes, number: int) -> dict[str, int]:
    """As a batch of one step: a small result, the files being elsewhere."""
    time.sleep(STEP)
    return {"sample": number, "bytes": len(payload)}


def timed(steps: int) -> float:
    """Seconds of so many items, with the first not counted: it brings over what is worked with."""
    begun = 0.0
    for done, _ in enumerate(parallel.finished(partial(step, bytes(10**6)), range(steps + 1))):
        begun = begun or time.perf_counter()
        last = done
    assert last == steps
    return time.perf_counter() - begun


def cpu(items: int) -> float:
    """CPU seconds an item of driver and worker together, where nothing is to do: what other work does not change."""
    begun = time.process_time()
    seen = [seen for _, seen in parallel.finished(_nothing, range(items))]
    return (time.process_time() - begun + max(seen) - min(seen)) / items


def _nothing(_: int) -> float:
    return time.process_time()


def listing(samples: int) -> tuple[float, float]:
    """Seconds to list a folder of so many files, and to ask the system after each of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [f"{number:08x}-00000.png" for number in range(samples)]
        for one in names:
            (folder / one).touch()
        begun = time.perf_counter()
        there = listed(folder)
        missing = [one for one in names if one not in there]
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        assert missing == [one for one in names if not (folder / one).exists()]
        return first, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    plain, ray = [], []
    with ray_cluster("local", 1) as cluster:
        for _ in range(arguments.repeats):
            with parallel.workers(1):
                plain.append(timed(arguments.steps))
            with parallel.workers(cluster):
                ray.append(timed(arguments.steps))
        with parallel.workers(cluster):
            spent = [cpu(200) for _ in range(arguments.repeats)]
    ratios = [other / one for one, other in zip(plain, ray)]
    each = 1000 * statistics.median((b - a) / arguments.steps for a, b in zip(plain, ray))
    print(f"CPU time of a batch's way there and back: {1000 * statistics.median(spent):.2f} ms")
    print(f"plain {statistics.median(plain):.3f} s, Ray {statistics.median(ray):.3f} s for {arguments.steps} steps")
    print(f"ratio {statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f}), {each:.2f} ms a step")
    first, second = listing(100_000)
    print(f"100,000 samples: listed in {first:.3f} s, asked for one by one in {second:.3f} s")


if __name__ == "__main__":
    main()
