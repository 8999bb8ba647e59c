"""Where a cluster stops getting faster: head node, file system or merge, simulated with 1 to 1,024 workers.

A simulation of discrete events: each worker does one batch at a time; the driver answers one message at a time; all
files go through one file system with a rate and a cost a file; moments are merged in the end, in one file after the
other or as a tree. The organism's step and the driver's message are measured (docs/scale.md); those of FLUX.1, of the
file system and of losses are assumed.

    python bench/validity/scale_simulation.py [--samples 100000] [--step 0.2] [--flux-step 4] [--out FILE.csv]
"""

import argparse
import heapq
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Setting:
    """What is simulated; seconds and bytes.

    Attributes
    ----------
    calls, step : of the transformer in a batch, and seconds of each
    message : of the driver, for a result and the next batch: Ray's round trip, and the line that is appended
    bytes_ : that a batch writes, each sample in `files` files
    rate, per_file : of the file system, in all; seconds that its server spends on each file
    start : of a worker, until the model is loaded; the file system reads `weights` bytes for each machine of 8
    spread : standard deviation of the logarithm of a worker's speed; one in `slow` is 5 times as slow
    lost : mean seconds until a worker is lost, and done again
    merge : bytes of moments that a sample adds to the merge
    """

    samples: int
    workers: int
    batch: int = 16
    calls: int = 20
    step: float = 0.2
    message: float = 0.003
    bytes_: float = 16 * 12.5e6
    files: int = 2
    rate: float = 5e9
    per_file: float = 0.0005
    start: float = 60.0
    weights: float = 24e9
    spread: float = 0.05
    slow: int = 64
    lost: float = 86_400.0
    merge: float = 56e6
    seed: int = 0


class Server:
    """Something that does one thing at a time: when it is done with what comes now, and how long it was busy."""

    def __init__(self) -> None:
        self.free = self.busy = 0.0

    def take(self, now: float, seconds: float) -> float:
        self.free = max(self.free, now) + seconds
        self.busy += seconds
        return self.free


def simulate(one: Setting) -> dict[str, float]:
    """How long it takes, and what each part was busy."""
    rng = random.Random(one.seed)
    driver, disk = Server(), Server()
    left, batches, again = -(-one.samples // one.batch), -(-one.samples // one.batch), 0
    speed = [rng.lognormvariate(0, one.spread) * (5 if rng.randrange(one.slow) == 0 else 1) for _ in range(one.workers)]
    events: list[tuple[float, int, str]] = []
    for worker in range(one.workers):
        if worker % 8 == 0:
            loaded = disk.take(0.0, one.weights / one.rate)
        heapq.heappush(events, (loaded + one.start, worker, "idle"))
    ended, done = [0.0] * one.workers, 0
    while events:
        now, worker, what = heapq.heappop(events)
        ended[worker] = now
        if what == "computed":
            written = disk.take(now, one.bytes_ / one.rate + one.batch * one.files * one.per_file)
            heapq.heappush(events, (written, worker, "written"))
            continue
        done += what == "written"
        if what == "lost":
            left, again = left + 1, again + 1
        if not left:
            continue
        left -= 1
        begun = driver.take(now, one.message)
        takes = one.calls * one.step * speed[worker]
        if rng.random() < takes / one.lost:  # in the midst of it: a new worker begins, and the batch is done again
            heapq.heappush(events, (begun + rng.random() * takes + one.start, worker, "lost"))
        else:
            heapq.heappush(events, (begun + takes, worker, "computed"))
    assert done == batches
    wall, ideal = max(ended), batches * one.calls * one.step / one.workers
    levels = (one.workers - 1).bit_length()
    share = one.merge * one.samples / min(one.workers * 1e9, one.rate)  # the first level reads all, then pairs a map
    return {
        "workers": one.workers,
        "hours": wall / 3600,
        "efficiency": ideal / wall,
        "driver": driver.busy / wall,
        "disk": disk.busy / wall,
        "last": wall - sorted(ended)[len(ended) // 2],
        "again": again,
        "merge_one": one.merge * one.samples / min(1e9, one.rate),
        "merge_tree": share + 2 * levels * one.merge / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--step", type=float, default=0.2, help="seconds of a step of 16 of the organism's pictures")
    parser.add_argument("--flux-step", type=float, default=4.0, help="of 16 of FLUX.1's; assumed, not measured")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    small = Setting(arguments.samples, 1, step=arguments.step, start=15.0, weights=5e6, bytes_=16 * 4e5, merge=2.5e5)
    flux = Setting(arguments.samples, 1, step=arguments.flux_step)
    kinds = {
        "organism, generate": small,
        "organism, survey": replace(small, files=1, bytes_=16 * 2.5e5),
        "FLUX, generate": flux,
        "FLUX, generate, 1 a batch": replace(flux, batch=1, step=flux.step / 16, bytes_=12.5e6),
        "FLUX, survey": replace(flux, bytes_=16 * 56e6, files=1),
        "FLUX, extract 48 cells, 80 tokens": replace(flux, calls=8, bytes_=16 * 24e6, files=1),
        "FLUX, extract 1,140 cells, 80 tokens": replace(flux, bytes_=16 * 560e6, files=1),
        "FLUX, survey, 0.5 GB/s": replace(flux, bytes_=16 * 56e6, files=1, rate=5e8),
    }
    rows = [
        {"what": what} | simulate(replace(kind, workers=workers))
        for what, kind in kinds.items()
        for workers in (1, 8, 64, 256, 1024)
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3g}".format))
    if arguments.out is not None:
        table.to_csv(arguments.out, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
