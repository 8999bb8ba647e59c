"""The streaming pass over a cell beside plain numpy, and how far each is from what the machine can do.

    python bench/speed/bench_moments.py [--tokens 16000] [--width 3072] [--samples 200] [--repeats 3]

The cell is read from a file of bfloat16 bits, as a consolidated store keeps it. Each repeat runs every way once, in
turn. The floor of the moments is reading the bits once from memory; that of the covariances is one float32 matrix
product (half of it, since it is symmetric). Peaks are of a fresh process each, with what imports take named beside.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROWS = 4096


def decoded(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def chunks(path: Path, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of a cell as a store gives them."""
    rows = path.stat().st_size // (2 * width)
    with open(path, "rb") as file:
        for start in range(0, rows, ROWS):
            bits = np.fromfile(file, np.uint16, ROWS * width).reshape(-1, width)
            yield decoded(bits), np.arange(start, start + len(bits))


def stream(path: Path, width: int, index: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, ...]:
    from handscope.analysis.scatter import stream_moments

    moments, scatters = stream_moments(chunks(path, width), index, int(index.max()) + 1, classes)
    return (moments.mean, moments.variance, *([] if scatters is None else [scatters.covariance]))


def plain(path: Path, width: int, index: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """The cell in memory, a mean and a variance of each sample's rows, numpy.cov of each class."""
    x = decoded(np.fromfile(path, np.uint16).reshape(-1, width))
    own = [x[index == one] for one in range(int(index.max()) + 1)]
    found = (
        np.stack([rows.mean(0, dtype=float) for rows in own]),
        np.stack([rows.var(0, dtype=float) for rows in own]),
    )
    del own
    if classes is None:
        return found
    return (*found, np.stack([np.cov(x[classes == one], rowvar=False) for one in (0, 1)]))


WAYS: dict[str, tuple[Callable, bool]] = {
    "moments, plain": (plain, False),
    "moments, streaming": (stream, False),
    "with covariances, plain": (plain, True),
    "with covariances, streaming": (stream, True),
}


def sets(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    index = np.arange(options.tokens) * options.samples // options.tokens
    return index, index % 2


def run(name: str, path: Path, options: argparse.Namespace) -> tuple[np.ndarray, ...]:
    way, covariances = WAYS[name]
    index, classes = sets(options)
    return way(path, options.width, index, classes if covariances else None)


def write_cell(path: Path, options: argparse.Namespace) -> None:
    """Rows with something of their sample in them, a channel of 6000 ± 10 and some a thousand times the others."""
    rng = np.random.default_rng(0)
    index, _ = sets(options)
    own = rng.standard_normal((options.samples, options.width), dtype=np.float32)
    scale = np.ones(options.width, np.float32)
    scale[::500] = 1000
    with open(path, "wb") as file:
        for start in range(0, options.tokens, ROWS):
            rows = own[index[start : start + ROWS]]
            rows = (rows + rng.standard_normal(rows.shape, dtype=np.float32)) * scale
            rows[:, 7] = 6000 + 10 * rows[:, 7]
            (rows.view(np.uint32) >> 16).astype(np.uint16).tofile(file)


def rates(options: argparse.Namespace, path: Path) -> dict[str, float]:
    """Bytes read a second, and float32 operations a second of a product with itself (each of its halves counted)."""
    bits, x = np.fromfile(path, np.uint16), np.random.default_rng(0).standard_normal((2048, options.width), np.float32)
    seconds: dict[str, list[float]] = {"bytes": [], "operations": []}
    for _ in range(3):
        begin = time.process_time()
        bits.view(np.uint64).max()
        seconds["bytes"].append(time.process_time() - begin)
        begin = time.process_time()
        x.T @ x
        seconds["operations"].append(time.process_time() - begin)
    return {
        "bytes": bits.nbytes / min(seconds["bytes"]),
        "operations": 2 * 2048 * options.width**2 / min(seconds["operations"]),
    }


def peak(name: str, path: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Largest memory of a process that does this once, and what it had after its imports, in MB."""
    # VmHWM, since ru_maxrss of a new process begins with its parent's.
    code = (
        "import json, re, sys, argparse; from pathlib import Path; import bench_moments as bench\n"
        "import handscope.analysis.scatter\n"
        "high = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024\n"
        "begin = high(); bench.run(sys.argv[1], Path(sys.argv[2]), argparse.Namespace(**json.loads(sys.argv[3])))\n"
        "print(json.dumps([high(), begin]))"
    )
    command = [sys.executable, "-c", code, name, str(path), json.dumps(vars(options))]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    high, begin = json.loads(done.stdout)
    return high, begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_000)
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cell"
        write_cell(path, options)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        found = {}
        for _ in range(options.repeats):
            for name in WAYS:
                begin = time.process_time()
                found[name] = run(name, path, options)
                seconds[name].append(time.process_time() - begin)
                if "covariances" in name:
                    found[name] = tuple(part[..., :64] for part in found[name])
        machine = rates(options, path)
        print(f"{options.tokens} tokens of width {options.width}, {options.samples} samples; CPU seconds, one thread")
        print(f"machine: {machine['bytes'] / 1e9:.1f} GB/s read, {machine['operations'] / 1e9:.0f} GFLOP/s")
        read = options.tokens * options.width * 2 / machine["bytes"]
        floors = {False: read, True: read + 2 * options.tokens * options.width**2 / machine["operations"]}
        for name, (_, covariances) in WAYS.items():
            median, best = statistics.median(seconds[name]), min(seconds[name])
            high, begin = peak(name, path, options)
            floor = floors[covariances]
            print(
                f"{name:28} median {median:7.3f}  best {best:7.3f}  {median / floor:5.1f} x the floor of {floor:.3f}  "
                f"peak {high:5.0f} MB, of these {begin:.0f} imports"
            )
        for kind in ("moments", "with covariances"):
            slow, fast = (found[f"{kind}, {way}"] for way in ("plain", "streaming"))
            ratio = statistics.median(a / b for a, b in zip(seconds[f"{kind}, plain"], seconds[f"{kind}, streaming"]))
            error = max(float(np.abs(a / np.where(b == 0, 1, b) - 1)[b != 0].max()) for a, b in zip(fast[:2], slow))
            print(f"{kind}: {ratio:.1f} times as fast; largest relative difference of a mean or variance {error:.1e}")


if __name__ == "__main__":
    main()
