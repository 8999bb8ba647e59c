"""A study whose workers, drivers and nodes are killed on a real Ray of this machine, beside one that nobody disturbs.

Generation, extraction and survey of a tiny model: workers are killed ten times in each stage, the driver five times in
all, the raylet of a node twice, each when a random number of samples is done. Then the files of both are compared.

    PYTHONPATH=tests/support python bench/validity/kill_ray.py [--folder DIR] [--seed 0]
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.extract.survey.survey import survey
from handscope.labeling.database.labels import Labels
from handscope.models.model import load
from handscope.run.folder import Run
from made_state import state
from made_tiny import PROMPTS, STEPS, hand_made_labels, make_pipe

SEEDS = range(42)
STAGES = {
    "generate": ("samples", "*.png"),
    "extract": ("activations/shards", "*.h5"),
    "survey": ("survey", "*.h5"),
}
DRIVER = """
import sys
from handscope import parallel
from handscope.cluster.on_ray import ray_cluster
sys.path.insert(0, sys.argv[1])
from kill_ray import do
with ray_cluster(sys.argv[2], 2) as cluster, parallel.workers(cluster):
    do(*sys.argv[3:])
"""


def do(model_folder: str, run_folder: str, stage: str) -> None:
    """One stage, whoever works."""
    model, run = load(model_folder), Run(run_folder)
    if stage == "generate":
        generate(model, run, PROMPTS, SEEDS, steps=STEPS, batch_size=4)
    elif stage == "extract":
        extract(model, run, Plan(["double.1", "single.2"], [4, 2, 1], of=STEPS))
    else:
        survey(model, run)


def label(run: Run) -> None:
    """Labels for the stages that need some."""
    Labels(run.labels_path).add(hand_made_labels(run))


def done(run: Path, stage: str) -> int:
    folder, pattern = STAGES[stage]
    return sum(1 for path in (run / folder).glob(pattern) if not path.name.startswith("."))


def children(pid: int) -> list[int]:
    """Processes of a raylet that work on something."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                busy = (entry / "cmdline").read_bytes().startswith(tuple(f"ray::{stage} ".encode() for stage in STAGES))
            except (OSError, ValueError):
                continue
            if parent == pid and busy:
                found.append(int(entry.name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=10, help="kills of workers in each stage")
    parser.add_argument("--drivers", type=int, default=5, help="kills of the driver in all")
    parser.add_argument("--raylets", type=int, default=2, help="kills of a node in all")
    arguments = parser.parse_args()
    from ray.cluster_utils import Cluster

    base = arguments.folder or Path(tempfile.mkdtemp(prefix="kill-ray-"))
    base.mkdir(exist_ok=True)
    rng, model = random.Random(arguments.seed), base / "pipe"
    make_pipe(model)
    for stage in STAGES:
        do(str(model), str(base / "whole"), stage)
        if stage == "generate":
            label(Run(base / "whole"))
    total = len(PROMPTS) * len(SEEDS)
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "200")  # a busy machine is slow, not broken
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    command = [sys.executable, "-c", DRIVER, str(Path(__file__).parent), cluster.address, str(model)]
    killed = {"worker": 0, "driver": 0, "raylet": 0}
    try:
        for number, stage in enumerate(STAGES):
            drivers = arguments.drivers // 3 + (number < arguments.drivers % 3)
            raylets = arguments.raylets // 3 + (number < arguments.raylets % 3)
            kinds = ["worker"] * arguments.workers + ["driver"] * drivers + ["raylet"] * raylets
            rng.shuffle(kinds)
            targets = sorted(rng.sample(range(1, total - 8), len(kinds)))
            driver = subprocess.Popen([*command, str(base / "killed"), stage])
            for kind, target in zip(kinds, targets):
                while done(base / "killed", stage) < target and driver.poll() is None:
                    time.sleep(0.01)
                if driver.poll() is not None:
                    break
                if kind == "driver":
                    driver.kill()
                    driver.wait()
                    driver = subprocess.Popen([*command, str(base / "killed"), stage])
                elif kind == "raylet":
                    node = nodes.pop(rng.randrange(len(nodes)))
                    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
                    nodes.append(cluster.add_node(num_cpus=1))
                else:
                    working: list[int] = []
                    while not working and driver.poll() is None:
                        raylets_ = [node.all_processes["raylet"][0].process.pid for node in nodes]
                        working = [pid for raylet in raylets_ for pid in children(raylet)]
                    if not working:
                        break
                    os.kill(rng.choice(working), signal.SIGKILL)
                killed[kind] += 1
                print(f"{time.strftime('%H:%M:%S')} {stage}: {kind} killed at {target} of {total}", flush=True)
            assert driver.wait() == 0, f"{stage} ended with {driver.returncode}"
            if stage == "generate":
                label(Run(base / "killed"))
    finally:
        cluster.shutdown()
    print(killed)
    for folder in ("samples", "trajectories", "activations", "analysis", "survey"):
        same = state(base / "killed" / folder) == state(base / "whole" / folder)
        print(f"{folder}: {len(state(base / 'whole' / folder))} files, {'the same' if same else 'ANOTHER'}")
    lines = (base / "killed" / "samples" / "metadata.jsonl").read_text().count("\n")
    print(f"{lines} lines of {total} samples")
    if arguments.folder is None:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
