"""Rates of the activation store beside plain files of the same bytes: writing, reading, compressing, consolidating.

    python bench/speed/bench_store.py [--samples 200] [--cells 4] [--repeats 9] [--folder /tmp]

Variants run in turn within each repeat; the table has medians, and each one's time over that of the first of its group.
A cell has 80 tokens a sample of width 3,072, as six blocks of FLUX.1 at hand tokens would: random normal numbers in
bfloat16. Reads are from the page cache unless they are called cold, where the files were dropped from it before.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from handscope.extract.address import Plan
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.shard import STEP, TOKEN, write_shard
from handscope.extract.store.store import ActivationStore
from handscope.extract.store.writer import ShardWriter

TOKENS, WIDTH, SHARD_CELLS = 80, 3072, 48
Variant = Callable[[], object]


def bits_of(cells: int, seed: int) -> np.ndarray:
    """Random normal bfloat16 as its bits, of shape (cells, tokens, width)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(cells, TOKENS, WIDTH, generator=generator, dtype=torch.float32)
    return x.bfloat16().view(torch.int16).numpy().view(np.uint16)


def tables(cells: int, sample: str) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Steps, tokens and attributes of a shard."""
    plan = Plan([f"single.{k}" for k in range(cells)], [1], of=1)
    steps = np.zeros(1, STEP)
    steps["step"] = 1
    return steps, np.zeros(TOKENS, TOKEN), {"plan": plan.to_json(), "sample": sample}


def compare(title: str, megabytes: float, repeats: int, variants: dict[str, Variant], before: Variant = tuple) -> None:
    """Print median times, rates and ratios to the first variant; the best of each are less moved by other work."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, variant in variants.items():
            before()
            start = time.perf_counter()
            variant()
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    print(f"\n{title}, {megabytes:.0f} MB, {repeats} repeats")
    for name, found in times.items():
        median = statistics.median(found)
        ratios = f"{median / statistics.median(first):5.2f} x the first (best of each {min(found) / min(first):5.2f})"
        print(f"  {name:44s} {1e3 * median:8.1f} ms  {megabytes / median:7.0f} MB/s  {ratios}")


def write_plain(path: Path, arrays: list[np.ndarray]) -> None:
    """One file, one fsync."""
    with open(path, "wb") as file:
        for array in arrays:
            file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def writing(folder: Path, repeats: int) -> None:
    """Eight shards of 48 cells against the same bytes in plain files; all files are new ones."""

    def empty() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.sync()

    arrays = [bits_of(SHARD_CELLS, seed) for seed in range(8)]
    steps, tokens, attrs = tables(SHARD_CELLS, "s")

    def plain_each() -> None:
        for number, bits in enumerate(arrays):
            write_plain(folder / f"plain{number}", [bits])

    def shards(compression: str | None = None) -> None:
        for number, bits in enumerate(arrays):
            write_shard(folder / f"{number}.h5", bits, steps, tokens, attrs, compression)

    def threaded() -> None:
        with ShardWriter() as writer:
            for number, bits in enumerate(arrays):
                writer.put(folder / f"{number}.h5", bits, steps, tokens, attrs)

    variants: dict[str, Variant] = {
        "plain, one file, one fsync": lambda: write_plain(folder / "plain", arrays),
        "plain, a file and an fsync a sample": plain_each,
        "write_shard": shards,
        "ShardWriter": threaded,
        "write_shard, lossless compression": lambda: shards("lossless"),
    }
    size = sum(bits.nbytes for bits in arrays)
    compare("Writing 8 shards of 48 cells", size / 1e6, repeats, variants, empty)
    print(f"  compressed to 1/{arrays[0].nbytes / (folder / '0.h5').stat().st_size:.2f} of its size")
    bits = np.empty_like(arrays[0])

    def read_whole(name: str) -> None:
        store = ActivationStore(folder / name)
        bits[:] = store.sample_bits(store.parts[0])

    write_shard(folder / "plain.h5", arrays[0], steps, tokens, attrs)
    compare(
        "Reading one shard of 48 cells",
        bits.nbytes / 1e6,
        repeats,
        {"shard": lambda: read_whole("plain.h5"), "shard, lossless compression": lambda: read_whole("0.h5")},
    )


def reading(folder: Path, samples: int, cells: int, repeats: int) -> None:
    """One cell of the consolidated store against a flat file of the same bits, and the store's own making."""
    folder.mkdir()
    flat = folder / "flat"
    with open(flat, "wb") as file:
        for number in range(samples):
            bits = bits_of(cells, number)
            steps, tokens, attrs = tables(cells, f"s{number:05d}")
            write_shard(folder / "shards" / f"s{number:05d}.h5", bits, steps, tokens, attrs)
            file.write(bits[0].data)
    os.sync()
    shards = sorted((folder / "shards").iterdir())

    def copy_shards() -> None:
        with open(folder / "copy", "wb") as file:
            for shard in shards:
                file.write(shard.read_bytes())
            file.flush()
            os.fsync(file.fileno())

    compare(
        "Consolidating",
        samples * cells * TOKENS * WIDTH * 2 / 1e6,
        max(3, repeats // 3),
        {"plain copy of the shards into one file, fsync": copy_shards, "consolidate": lambda: consolidate(folder)},
        lambda: [(folder / name).unlink(missing_ok=True) for name in ("copy", "store.h5")],
    )
    consolidate(folder)

    store, shape = ActivationStore(folder), (samples * TOKENS, WIDTH)
    bits, out = np.empty(shape, np.uint16), np.empty(shape, np.float32)
    bits[:], out[:] = 0, 0

    def flat_new() -> np.ndarray:
        found = np.fromfile(flat, np.uint16).reshape(shape)
        return torch.from_numpy(found.view(np.int16)).view(torch.bfloat16).float().numpy()

    def flat_again() -> None:
        with open(flat, "rb") as file:
            file.readinto(bits.data)
        torch.from_numpy(out).copy_(torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16))

    if not np.array_equal(flat_new(), store.read("single.0", 1)[0]):
        raise SystemExit("The store and the flat file differ.")
    megabytes = bits.nbytes / 1e6
    again: dict[str, Variant] = {
        "flat file, memory used again": flat_again,
        "store.read, out=": lambda: store.read("single.0", 1, out=out),
    }
    new: dict[str, Variant] = {
        "flat file, new memory": flat_new,
        "store.read": lambda: store.read("single.0", 1),
        "store.read_tensor (bfloat16)": lambda: store.read_tensor("single.0", 1),
        "store.chunks, all": lambda: [None for _ in store.chunks("single.0", 1)],
    }
    apart = ActivationStore(folder / "shards")
    few = store.samples[:: max(1, samples // 4)]
    compare(f"Reading a cell of {shape[0]} x {WIDTH} as float32", megabytes, repeats, again)
    compare("The same into new memory", megabytes, repeats, new)
    compare(
        "The same, other roads",
        megabytes,
        repeats,
        {
            "store.read, out=": again["store.read, out="],
            "the shards, not consolidated, out=": lambda: apart.read("single.0", 1, out=out),
            f"store.read of {len(few)} samples": lambda: store.read("single.0", 1, samples=few),
        },
    )
    compare("The same, cold", megabytes, repeats, again, lambda: _drop([flat, folder / "store.h5"]))


def _drop(paths: list[Path]) -> None:
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Make the files, compare, and remove them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--cells", type=int, default=4, help="cells of the consolidated store")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_store_", dir=given.folder))
    try:
        writing(folder / "shards", given.repeats)
        reading(folder / "activations", given.samples, given.cells, given.repeats)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
