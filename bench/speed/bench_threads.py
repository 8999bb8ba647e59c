"""Seconds to draw pictures with the organism, by how its threads wait for each other, alone and beside other work.

    python bench/speed/bench_threads.py [--pictures 32] [--repeats 3]

Each variant runs in a process of its own, in turn within each repeat; the other work is one process of the same kind,
with as many spinning threads as there are cores. The command line sets the passive policy unless the environment says
otherwise.
"""

import argparse
import os
import statistics
import subprocess
import sys

DRAW = """
import tempfile, time, sys
import handscope as hs
from handscope.organism.captions import CAPTIONS
model, pictures = hs.load("organism"), int(sys.argv[1])
while True:
    start = time.perf_counter()
    hs.generate(model, hs.Run(tempfile.mkdtemp()), [str(CAPTIONS[0])], range(pictures))
    print(time.perf_counter() - start, flush=True)
    if len(sys.argv) < 3:
        break
"""
VARIANTS = {"default": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}, "one thread": {"OMP_NUM_THREADS": "1"}}


def seconds(pictures: int, variant: dict[str, str]) -> float:
    """Time of one call of generate, the model's loading left out."""
    command = [sys.executable, "-c", DRAW, str(pictures)]
    return float(subprocess.run(command, env=os.environ | variant, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print medians over repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    for busy in (False, True):
        other = (
            subprocess.Popen([sys.executable, "-c", DRAW, "8", "forever"], stdout=subprocess.DEVNULL) if busy else None
        )
        try:
            times: dict[str, list[float]] = {name: [] for name in VARIANTS}
            for _ in range(given.repeats):
                for name, variant in VARIANTS.items():
                    times[name].append(seconds(given.pictures, variant))
        finally:
            if other:
                other.kill()
        for name, found in times.items():
            where = "busy" if busy else "alone"
            print(f"{where}  {name:10s}  {statistics.median(found):6.1f} s  of {[round(t, 1) for t in found]}")


if __name__ == "__main__":
    main()
