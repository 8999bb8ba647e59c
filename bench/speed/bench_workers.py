"""How much faster two workers of this machine are than one: generation, extraction and probes of the organism.

Both numbers of workers in turn, medians over repeats, wall time; on a machine with other work the ratio says little,
and the load is printed beside it.

    OMP_NUM_THREADS=2 python bench/speed/bench_workers.py [--repeats 3] [--prompts 8]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import handscope as hs
from handscope import parallel
from handscope.analysis import analyze
from handscope.organism.study.auto import label_auto
from handscope.probes import probe
from handscope.run.prompts import read_prompts
from handscope.study_file import STUDY_PROMPTS


def timed(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def stages(run: hs.Run, model: object, prompts: list[str]) -> dict[str, float]:
    """Seconds of each stage."""
    plan = hs.Plan(None, [20, 12, 4], of=20)
    found = {"generate": timed(lambda: hs.generate(model, run, prompts, range(16)))}
    label_auto(run)
    found["extract"] = timed(lambda: hs.extract(model, run, plan))
    found["analyze"] = timed(lambda: analyze(run, permutations=1000))
    found["probe"] = timed(lambda: probe(run, permutations=1000))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=8)
    options = parser.parse_args()
    model, prompts = hs.load("organism"), read_prompts(STUDY_PROMPTS)[: options.prompts]
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for number, rows in found.items():
            with tempfile.TemporaryDirectory() as folder, parallel.workers(number):
                rows.append(stages(hs.Run(Path(folder) / "run"), model, prompts))
    print(f"{options.prompts * 16} pictures, medians of {options.repeats}, load {os.getloadavg()[0]:.1f}")
    print("| stage | one worker | two | ratio |\n|---|---|---|---|")
    for stage in found[1][0]:
        one, two = (statistics.median(row[stage] for row in found[number]) for number in (1, 2))
        ratio = statistics.median(a[stage] / b[stage] for a, b in zip(found[1], found[2]))
        print(f"| {stage} | {one:.1f} s | {two:.1f} s | {ratio:.2f} |")


if __name__ == "__main__":
    main()
