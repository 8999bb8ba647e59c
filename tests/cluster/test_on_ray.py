"""Work on a real Ray of this machine: the files of one process, whoever was killed, and a poison sample set aside.

Workers import this file: what takes long to import is imported where it is needed.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from handscope import parallel
from handscope.cluster.on_ray import RayCluster, ray_cluster
from handscope.errors import HandscopeError, HandscopeWarning, Unusable
from handscope.parallel import Failed, each, finished

if TYPE_CHECKING:
    from handscope.evaluation.arms import DrawnBatch
    from handscope.models.model import Model
    from handscope.run.folder import Run

pytestmark = [pytest.mark.process, pytest.mark.slow]
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    support = Path(__file__).parents[1] / "support"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(support), prepend=os.pathsep)  # workers import this file
        with ray_cluster("local", 2) as made, parallel.workers(made):
            yield made


@dataclass(frozen=True)
class Some:
    samples: tuple[int, ...]

    def parts(self) -> list[Some]:
        return [Some((one,)) for one in self.samples]


def test_results_come_in_order_and_progress_counts_them(cluster: RayCluster) -> None:
    seen = []
    found = each(lambda n: (n**2, os.getpid()), range(9), lambda *told: seen.append(told), "squares")
    assert [square for square, _ in found] == [n**2 for n in range(9)]
    assert os.getpid() not in {pid for _, pid in found}
    assert [told for told in seen if told[0] == "squares"] == [("squares", n, 9) for n in range(10)]


def test_what_fails_twice_is_taken_apart_and_set_aside(cluster: RayCluster, tmp_path: Path) -> None:
    def work(some: Some) -> tuple[int, ...]:
        for one in some.samples:
            with open(tmp_path / str(one), "a") as file:
                file.write(".")
        if 5 in some.samples:
            raise ValueError("poison")
        if 2 in some.samples:
            os._exit(1)
        return some.samples

    found = list(finished(work, [Some((0, 1)), Some((2, 3)), Some((4, 5, 6)), Some((7,))]))
    done = sorted(result for _, result in found if not isinstance(result, Failed))
    assert done == [(0, 1), (3,), (4,), (6,), (7,)]
    failed = {result.item.samples: str(result.error) for _, result in found if isinstance(result, Failed)}
    assert failed.keys() == {(2,), (5,)} and "was lost" in failed[(2,)] and "poison" in failed[(5,)]
    tries = {one: len((tmp_path / str(one)).read_text()) for one in range(8)}
    assert tries == {0: 1, 1: 1, 2: 4, 3: 3, 4: 2, 5: 2, 6: 2, 7: 1}


def test_what_is_nobodys_fault_ends_the_work(cluster: RayCluster) -> None:
    def full(_: int) -> None:
        raise Unusable("The disk is full.")

    with pytest.raises(Unusable, match="disk is full"):
        each(full, range(4))

    def wrong(_: Some) -> None:
        raise HandscopeError("Another model.")

    with pytest.raises(HandscopeError, match="Another model"):
        list(finished(wrong, [Some((n, -n)) for n in range(40)]))


def test_a_slow_worker_holds_up_no_more_than_one_item(cluster: RayCluster, tmp_path: Path) -> None:
    def work(n: int) -> int:
        """The first to come is not done before the others have done all else."""
        if n == 0:
            deadline = time.monotonic() + 200
            while len(list(tmp_path.iterdir())) < 23 and time.monotonic() < deadline:
                time.sleep(0.02)
        (tmp_path / str(n)).touch()
        return os.getpid()

    found = each(work, range(24))
    assert found.count(found[0]) == 1 and len(list(tmp_path.iterdir())) == 24


def test_stages_with_killed_workers_make_the_files_of_one_process(
    cluster: RayCluster, tiny_model: Model, finished_run: Run, extracted_run: Run, run_copy: Callable, tmp_path: Path
) -> None:
    import ray
    from handscope.extract.address import Plan
    from handscope.extract.extract import extract
    from handscope.extract.generate import generate
    from handscope.extract.survey.survey import survey
    from handscope.run.folder import Run
    from made_state import state
    from made_tiny import PROMPTS, SEEDS, STEPS

    killed = []

    def kill(stage: str, done: int, total: int) -> None:
        """A worker of each stage, when some of it is done."""
        if stage in ("generate", "extract", "survey") and 0 < done < total and stage not in killed:
            killed.append(stage)
            actor = cluster._workers[False][0].actor
            os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)

    made = Run(tmp_path / "made")
    samples = generate(tiny_model, made, PROMPTS, SEEDS, steps=STEPS, progress=kill)
    assert list(samples["sample"]) == list(finished_run.samples()["sample"])
    for name in ("samples", "trajectories"):
        assert state(made.path / name) == state(finished_run.path / name)
    run = run_copy(finished_run)
    extract(tiny_model, run, Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS), progress=kill)
    for name in ("activations", "analysis"):
        assert state(run.path / name) == state(extracted_run.path / name)
    survey(tiny_model, run, progress=kill)
    assert len(list((run.path / "survey").glob("*.h5"))) == 48
    assert killed == ["generate", "extract", "survey"]


def test_a_sample_that_cannot_be_read_is_named(
    cluster: RayCluster, tiny_model: Model, finished_run: Run, run_copy: Callable
) -> None:
    from handscope.extract.address import Plan
    from handscope.extract.extract import extract
    from handscope.extract.store.aside import set_aside
    from made_tiny import STEPS

    run = run_copy(finished_run)
    poison = finished_run.samples()["sample"][17]
    path = run.trajectory_path(poison)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(HandscopeWarning, match=f"1 samples were tried twice and set aside: {poison}.*is damaged"):
        store = extract(tiny_model, run, Plan(["double.1"], [2], of=STEPS))
    assert len(store.samples) == 47 and list(set_aside(run.activations_dir)["sample"]) == [poison]
    path.write_bytes(finished_run.trajectory_path(poison).read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error", HandscopeWarning)
        assert len(extract(tiny_model, run, Plan(["double.1"], [2], of=STEPS)).samples) == 48
    assert set_aside(run.activations_dir).empty


def test_an_arm_is_drawn_by_workers(cluster: RayCluster, tiny_model: Model, finished_run: Run, tmp_path: Path) -> None:
    import numpy as np
    from handscope.evaluation.arms import Arm, DrawnBatch, draw_arm
    from handscope.extract.generate import draw
    from handscope.run.folder import Run
    from made_tiny import STEPS

    settings = {"steps": STEPS, "guidance": 3.5, "height": 32, "width": 32}

    def plain(prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        drawn = draw(tiny_model, list(zip(prompts, seeds)), **settings, trajectories=False)
        return DrawnBatch(drawn.images, np.full(len(seeds), float(STEPS)))

    rows = finished_run.metadata()
    pairs = [(row["prompt"], row["seed"]) for row in rows.values()][:32]
    run = Run(tmp_path)
    draw_arm(tiny_model, Arm("plain", "plain", plain), run, pairs, batch_size=16)
    assert {row["sample"]: row["image_sha256"] for row in run.metadata().values()} == {
        sample: rows[sample]["image_sha256"] for sample in list(rows)[:32]
    }


def test_numbers_are_those_of_one_process(cluster: RayCluster, studied_run: Run, run_copy: Callable) -> None:
    from made_tiny import make_studied

    run = run_copy(studied_run)
    kept = {path.name: path.read_text() for path in run.analysis_dir.glob("*.csv")}
    for path in [*run.analysis_dir.glob("*.csv"), *run.analysis_dir.glob("*.safetensors"), run.path / "record.json"]:
        if path.name != "image_statistics.csv":
            path.unlink()
    make_studied(run)
    assert {path.name: path.read_text() for path in run.analysis_dir.glob("*.csv")} == kept
