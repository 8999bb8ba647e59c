"""What it costs to compare the hashes on record when pictures and trajectories are read.

``python bench/speed/bench_hashes.py [FOLDER]``: a picture of 1024² pixels and a trajectory of 20 steps of FLUX.1 at
that size, in bfloat16. Each is read as `Run.image` and `Trajectory.load` do, with and without the comparison, in turn.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from handscope.run import trajectory as module
from handscope.run.folder import COLUMNS, Run
from handscope.run.trajectory import Trajectory
from PIL import Image

REPEATS = 31


def picture() -> np.ndarray:
    """Smooth shapes under a little noise, uint8 of shape (1024, 1024, 3): it compresses as a drawn picture does."""
    x = np.linspace(0, 1, 1024)
    smooth = np.sin(np.outer(x, x) * 40)[..., None] * 90 + 128
    return (smooth + np.random.default_rng(0).normal(0, 4, (1024, 1024, 3))).clip(0, 255).astype(np.uint8)


def run_with_a_picture(folder: Path) -> Run:
    run, pixels = Run(folder), picture()
    run.samples_dir.mkdir(exist_ok=True)
    known = {"sample": "a", "file_name": "a.png", "image_sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
    run.write_metadata({"a": {name: known.get(name, 1) for name in COLUMNS}})
    Image.fromarray(pixels).save(run.image_path("a"))
    return run


def seconds(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main(folder: Path) -> None:
    run = run_with_a_picture(folder / "run")
    path = folder / "a.safetensors"
    latents = torch.randn(21, 4096, 64).bfloat16()
    Trajectory(latents, torch.rand(21), torch.rand(20), torch.rand(20)).save(path, {"sample": "a"})
    compare, times = module._noted_otherwise, {name: [] for name in ("picture", "again", "trajectory", "unchecked")}
    pixels = picture()
    hashed = [seconds(lambda: hashlib.sha256(pixels).hexdigest()) for _ in range(REPEATS)]
    for _ in range(REPEATS):
        run._compared.clear()
        times["picture"].append(seconds(lambda: run.image("a")))
        times["again"].append(seconds(lambda: run.image("a")))
        module._noted_otherwise = compare
        times["trajectory"].append(seconds(lambda: Trajectory.load(path, {})))
        module._noted_otherwise = lambda found, tensors: ""
        times["unchecked"].append(seconds(lambda: Trajectory.load(path, {})))
    module._noted_otherwise = compare
    ms = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    sha = 1e3 * float(np.median(hashed))
    print(f"a picture of {run.image_path('a').stat().st_size / 1e6:.1f} MB, first read: {ms['picture']:.1f} ms")
    print(f"  read again {ms['again']:.1f} ms; SHA-256 of its pixels alone {sha:.2f} ms, {sha / ms['again']:.1%}")
    print(f"a trajectory of {path.stat().st_size / 1e6:.1f} MB from memory: {ms['trajectory']:.2f} ms")
    print(f"  without its checksum {ms['unchecked']:.2f} ms, ratio {ms['trajectory'] / ms['unchecked']:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        main(given or Path(temporary))
