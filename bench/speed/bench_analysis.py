"""Seconds and peak memory of the analyze and probe stages, on a synthetic run of the demo's size or of FLUX's width.

    python bench/speed/bench_analysis.py [--samples 600] [--blocks 6] [--repeats 3]
    python bench/speed/bench_analysis.py --samples 200 --width 3072 --share 0.1 --repeats 1

Wall time, and CPU time of this process and of the workers that it forks. The peaks are of this process and of the
largest worker, which shares what this one had read.

Decoding predicted clean images is left out: that is the autoencoder's time, not the statistics'.
"""

import argparse
import hashlib
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from handscope.analysis import analyze
from handscope.extract.address import Plan
from handscope.extract.picture_statistics import STATISTICS
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.shard import STEP, TOKEN, write_shard
from handscope.labeling.database.labels import Annotation, Labels
from handscope.parallel import cores
from handscope.probes import probe
from handscope.run.folder import Run, sample_id
from handscope.run.trajectory import Trajectory
from PIL import Image

GRID, STEPS, WIDTH = 12, 20, 128
SELF, CHILDREN = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
READ = [20, 19, 18, 17, 15, 12, 8, 3]


def synthetic_run(
    folder: Path, samples: int, blocks: int, seed: int = 0, width: int = WIDTH, hand_share: float = 0.35
) -> Run:
    """A run whose hands are noise with a faint direction in it, ten seeds a prompt, about 50 hand tokens a sample."""
    rng = np.random.default_rng(seed)
    run = Run(folder)
    plan = Plan([f"double.{k}" for k in range(blocks)], READ, of=STEPS)
    sigmas = np.linspace(1, 0, STEPS + 1, dtype=np.float32)
    steps = np.array([(s, STEPS - s, sigmas[STEPS - s], 0, 0) for s in READ], STEP)
    rows, annotations, image_statistics = {}, [], []
    run.samples_dir.mkdir()
    for number in range(samples):
        prompt = f"a hand with the words w{number // 10} v{number // 50}"
        sample, bad = sample_id(prompt, number), number % 3 == 0
        image = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(image).save(run.image_path(sample))
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        rows[sample] = {
            "sample": sample,
            "prompt": prompt,
            "seed": number,
            "file_name": f"{sample}.png",
            "image_sha256": digest,
            "noise_sha256": digest,
            "height": 96,
            "width": 96,
            "steps": STEPS,
            "guidance": 3.5,
            "batch_size": 16,
        }
        hands = (rng.random((GRID, GRID)) < hand_share).astype(np.uint8)
        label = 3 if bad else 2
        verdict = ("bad" if bad else "good") + ("?" if number % 7 == 0 else "")
        annotations.append(Annotation(sample, digest, np.where(hands > 0, label, 1), hands, verdict))
        where = np.argwhere(hands > 0)
        tokens = np.array([(r, c) for r, c in where], TOKEN)
        own = rng.normal(size=(len(plan.cells), 1, width)) + 0.3 * bad * (np.arange(width) == 0)
        x = rng.standard_normal((len(plan.cells), len(where), width), np.float32) + own.astype(np.float32)
        bits = torch.from_numpy(x).to(torch.bfloat16).view(torch.uint16).numpy()
        attrs = {
            "plan": plan.to_json(),
            "sample": sample,
            "image_sha256": digest,
            "noise_sha256": digest,
            "rows": GRID,
            "columns": GRID,
        }
        write_shard(run.activations_dir / "shards" / f"{sample}.h5", bits, steps, tokens, attrs)
        latents = torch.tensor(rng.normal(size=(STEPS + 1, GRID * GRID, 32)), dtype=torch.float32)
        times = torch.tensor(sigmas[:-1])
        Trajectory(latents, torch.tensor(sigmas), times, times.clone()).save(
            run.trajectory_path(sample), {"sample": sample, "noise_sha256": digest}
        )
        image_statistics += [[sample, digest, step, *rng.random(len(STATISTICS))] for step in READ]
    run.write_metadata(rows)
    Labels(run.labels_path).add(annotations)
    consolidate(run.activations_dir)
    run.analysis_dir.mkdir()
    pd.DataFrame(image_statistics, columns=["sample", "image_sha256", "step", *STATISTICS]).to_csv(
        run.analysis_dir / "image_statistics.csv", index=False
    )
    return run


def cpu_seconds() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (SELF, CHILDREN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--share", type=float, default=0.35, help="of the tokens that are the subject's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        run = synthetic_run(path, options.samples, options.blocks, width=options.width, hand_share=options.share)
        wall: dict[str, list[float]] = {"analyze": [], "probe": []}
        processor: dict[str, list[float]] = {"analyze": [], "probe": []}
        for seed in range(options.repeats):  # another seed makes the stages stale
            for name, stage in (("analyze", analyze), ("probe", probe)):
                begin, used = time.perf_counter(), cpu_seconds()
                stage(run, seed=seed)
                wall[name].append(time.perf_counter() - begin)
                processor[name].append(cpu_seconds() - used)
        size = f"{options.samples} samples, {options.blocks * len(READ)} cells, width {options.width}, {cores()} cores"
        print(f"{size}: medians of {options.repeats}")
        for name in wall:
            print(f"  {name}: {statistics.median(wall[name]):.1f} s, CPU {statistics.median(processor[name]):.1f} s")
        own, worker = (resource.getrusage(who).ru_maxrss / 2**20 for who in (SELF, CHILDREN))
        print(f"  peak {own:.2f} GB, of the largest worker {worker:.2f} GB")
        shutil.rmtree(run.path)


if __name__ == "__main__":
    main()
