"""CPU seconds and peak memory of the analyze and probe stages, on a synthetic run of the demo's size.

    python bench/speed/bench_analysis.py [--samples 600] [--blocks 6] [--repeats 3]

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
from handscope.probes import probe
from handscope.run.folder import Run, sample_id
from handscope.run.trajectory import Trajectory
from PIL import Image

GRID, STEPS, WIDTH = 12, 20, 128
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = synthetic_run(Path(folder) / "run", options.samples, options.blocks)
        seconds: dict[str, list[float]] = {"analyze": [], "probe": []}
        for _ in range(options.repeats):
            for path in [*run.analysis_dir.glob("*.json"), *run.probes_dir.glob("*.json")]:
                path.unlink()
            for name, stage in (("analyze", lambda: analyze(run)), ("probe", lambda: probe(run))):
                begin = time.process_time()
                stage()
                seconds[name].append(time.process_time() - begin)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        size = f"{options.samples} samples, {options.blocks * len(READ)} cells, width {WIDTH}"
        medians = {name: round(statistics.median(values), 1) for name, values in seconds.items()}
        print(f"{size}: median CPU seconds {medians} of {options.repeats} repeats, peak {peak:.2f} GB")
        shutil.rmtree(run.path)


if __name__ == "__main__":
    main()
