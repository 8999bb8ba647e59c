"""An extraction that is killed at any moment, or divided between machines, ends with the store of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from handscope.extract.store.check import check
from handscope.extract.store.store import ActivationStore
from handscope.run.folder import Run
from made_tiny import STEPS

pytestmark = [pytest.mark.process, pytest.mark.slow]

KILLS = 20

# Loads the model once; every extraction is a fork of this process.
SCRIPT = """
import json, os, pathlib, random, shutil, signal, sys, time, traceback
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.models.model import load
from handscope.run.folder import Run

model, source, base = load(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
steps, kills = int(sys.argv[4]), int(sys.argv[5])
plan = Plan(model.blocks, range(steps, 0, -1), of=steps)
rng = random.Random(0)

def begin(folder, shard=None):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            extract(model, Run(folder), plan, shard=shard)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child

def end(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def shards(folder):
    return len([path for path in (folder / "activations").glob("shards/*.h5") if path.name[0] != "."])

def copy(name):
    shutil.copytree(source, base / name)
    return base / name

begun = time.monotonic()
end(begin(copy("whole")))
length = time.monotonic() - begun

hits, rounds = [], 0
while len(hits) < kills:
    folder = copy(f"killed{rounds}")
    rounds += 1
    while True:
        child = begin(folder)
        # By what is done, not by the clock alone: on a busy machine a moment may fall before or after all of the work.
        target = shards(folder) + rng.randint(1, 16)
        moment = time.monotonic() + (rng.uniform(0, length) if target > 48 else 60)
        while len(hits) < kills and time.monotonic() < moment and shards(folder) < target and not os.waitid(
            os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.001)
        if len(hits) == kills or os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            end(child)
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        activations = folder / "activations"
        hits.append([shards(folder), len(list(activations.glob("**/.*.tmp.h5")))])

together = copy("together")
parts = [begin(together, (i, 2)) for i in (1, 2)]
for part in parts:
    end(part)
for i in (1, 2, 3):
    end(begin(copy(f"part{i}"), (i, 3)))
print(json.dumps({"rounds": rounds, "hits": hits}))
"""


@pytest.fixture(scope="module")
def done(tiny_pipe_folder: Path, finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A folder of run folders, and what the script says of its kills."""
    base = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", SCRIPT, tiny_pipe_folder, finished_run.path, base, str(STEPS), str(KILLS)]
    result = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stderr
    return base, json.loads(result.stdout)


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file but the attributes of its samples, which name the batch they were read in."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
    found.pop("sample_attrs", None)
    return found


def assert_same_store(one: Path, other: Path) -> None:
    names = sorted(path.relative_to(one) for path in one.rglob("*.h5"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("*.h5"))
    assert len(names) == 49
    for name in names:
        expected, found = contents(one / name), contents(other / name)
        assert expected.keys() == found.keys()
        for dataset, values in expected.items():
            np.testing.assert_array_equal(found[dataset], values, err_msg=f"{name} {dataset}")


def test_twenty_kills_end_with_the_store_of_an_undisturbed_run(done: tuple[Path, dict]) -> None:
    base, said = done
    assert len(said["hits"]) == KILLS
    shards = [count for count, _ in said["hits"]]
    assert sum(0 < count < 48 for count in shards) >= 5, shards  # in mid-work, not before the first or after the last
    assert len(set(shards)) >= 5, shards
    for number in range(said["rounds"]):
        killed = base / f"killed{number}" / "activations"
        assert_same_store(base / "whole" / "activations", killed)
        assert check(killed) == []
        assert not [path for path in killed.rglob(".*") if ".tmp" in path.name]


def test_parts_extracted_at_the_same_time_are_one_extraction(done: tuple[Path, dict]) -> None:
    base, _ = done
    assert_same_store(base / "whole" / "activations", base / "together" / "activations")
    assert check(base / "together" / "activations") == []


def test_parts_on_several_machines_read_as_one_store(done: tuple[Path, dict]) -> None:
    base, _ = done
    whole = ActivationStore(base / "whole" / "activations")
    parts = [base / f"part{i}" / "activations" for i in (1, 2, 3)]
    assert not any((part / "store.h5").exists() for part in parts)  # no machine has all of the samples
    joined = ActivationStore(parts)
    assert sorted(joined.samples) == sorted(whole.samples)
    assert all(len(ActivationStore(part).samples) < 48 for part in parts)
    for cell in whole.cells:
        for sample in whole.samples[::7]:
            expected, found = (store.read(cell.block, cell.step, samples=[sample]) for store in (whole, joined))
            np.testing.assert_array_equal(found[0], expected[0])
            assert found[1].equals(expected[1])
