"""Peak memory of the analyses over a store of 48 cells that is larger than it: each in a process of its own.

    python bench/speed/bench_memory.py [--samples 200] [--tokens 80] [--width 3072] [--blocks 6] [--permutations 20]

The store has 8 steps a block, samples with about so many hand tokens, and twice its size is needed on disk while it is
made (9.4 GB as given). `components` goes through the cells as a notebook would: direction, plane, PCA and contrastive
PCA of all hand tokens of each. Permutations cost time and next to no memory. Peaks are of resident memory as Linux says
it, imports included; pages of files that the system keeps are not in them.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_analysis import GRID, READ, synthetic_run
from handscope.analysis import PCA, analyze, contrastive_sweep, difference_of_means, plane
from handscope.analysis.class_parts import ClassParts
from handscope.analysis.statistics.folds import grouped_folds
from handscope.analysis.subject_tokens import instance_table
from handscope.extract.store.store import ActivationStore
from handscope.labeling.table import labelled, sample_table
from handscope.probes import probe
from handscope.run.folder import Run

ALPHAS = np.logspace(-1, 3, 6)


def components(run: Run, permutations: int) -> None:
    store = ActivationStore(run.activations_dir)
    table = instance_table(store, labelled(sample_table(run), "sure", 5, run.path))
    table["fold"] = grouped_folds(table["prompt"].to_numpy(), 5, 0)
    hands = ClassParts(store, table)
    for cell in store.cells:
        scatter = hands.read(cell).scatter
        difference_of_means(scatter[0], scatter[1])
        plane(scatter[0], scatter[1])
        PCA(2).fit_scatter(scatter[0] + scatter[1])
        contrastive_sweep(scatter[1], scatter[0], ALPHAS)


STAGES: dict[str, Callable[[Run, int], object]] = {
    "imports alone": lambda run, permutations: None,
    "analyze": lambda run, permutations: analyze(run, permutations),
    "components": components,
    "probe": lambda run, permutations: probe(run, permutations),
}


def peak() -> float:
    """MB of this process at its largest; what getrusage says is at least what the process had that started it."""
    return int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--permutations", type=int, default=20)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on a disk with room")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        begin = time.perf_counter()
        STAGES[given.stages[0]](Run(given.run), given.permutations)
        print(json.dumps({"seconds": time.perf_counter() - begin, "peak": peak()}))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench_memory_", dir=given.folder))
    try:
        share = given.tokens / GRID**2
        run = synthetic_run(folder / "run", given.samples, given.blocks, width=given.width, hand_share=share)
        shutil.rmtree(run.activations_dir / "shards")
        size = (run.activations_dir / "store.h5").stat().st_size / 1e9
        of = f"{given.samples} samples of about {given.tokens} tokens of width {given.width}"
        print(f"{given.blocks * len(READ)} cells, {of}: {size:.2f} GB", flush=True)
        for stage in given.stages:
            more = ["--stages", stage, "--permutations", str(given.permutations), "--run", str(run.path)]
            done = subprocess.run([sys.executable, __file__, *more], check=True, stdout=subprocess.PIPE, text=True)
            told = json.loads(done.stdout)
            print(f"  {stage:14s} peak {told['peak']:6.0f} MB  {told['seconds']:6.0f} s", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
