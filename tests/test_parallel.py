"""Work on several cores: the same results in order, errors as they are, and no worker that outlives its parent."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from handscope import parallel
from handscope.errors import HandscopeError
from handscope.parallel import cores, each, processes
from handscope.probes import RidgeProbe, cross_validate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are threads elsewhere")


@pytest.fixture(params=["1", "3"])
def workers(request, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", request.param)
    return int(request.param)


def test_results_come_in_order_and_progress_counts_them(workers):
    seen = []
    found = each(lambda n: n**2, range(7), lambda *told: seen.append(told), "squares", done=2, total=9)
    assert found == [n**2 for n in range(7)] and cores() == workers
    assert seen == [("squares", n, 9) for n in range(2, 10)]
    assert each(lambda n: n, []) == []


def test_a_probe_is_the_same_at_any_number_of_workers(monkeypatch):
    rng = np.random.default_rng(0)
    y, groups = np.arange(80) % 2, np.arange(80) // 4
    cells = [rng.normal(size=(80, 6)) + y[:, None] * 0.3 for _ in range(4)]

    def judge(x):
        return cross_validate(RidgeProbe(), x, y, groups, l2=(1.0, 100.0), permutations=20, bootstraps=20)

    found = []
    for number in ("1", "2", "4"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        found.append([(one.auc, *one.null, *one.within_null, *one.interval) for one in each(judge, cells)])
    assert found[0] == found[1] == found[2]


def test_an_error_is_raised_as_it_is(workers):
    def refuse(n):
        if n == 2:
            raise HandscopeError("No.")
        return n

    with pytest.raises(HandscopeError, match="No\\."):
        each(refuse, range(5))


def test_work_within_work_forks_no_further(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = each(lambda n: each(lambda _: os.getpid(), range(3)), range(4))
    assert all(len(set(inner)) == 1 for inner in found) and os.getpid() not in {inner[0] for inner in found}


def test_a_worker_that_is_killed_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(HandscopeError, match="worked on squares was killed"):
        each(lambda n: os.kill(os.getpid(), signal.SIGKILL), range(3), stage="squares")


def test_workers_go_with_their_parent(tmp_path):
    code = (
        "import os, pathlib, sys, time; from handscope.parallel import each; folder = pathlib.Path(sys.argv[1])\n"
        "each(lambda n: ((folder / str(os.getpid())).touch(), time.sleep(60)), range(2))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"OMP_NUM_THREADS": "2"}
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = [int(path.name) for path in tmp_path.iterdir()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children))


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and that nobody has asked after does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_model_is_worked_with_by_forked_processes_or_by_one(monkeypatch):
    class Model:
        shared = True

        class device:
            type = "cpu"

    model = Model()
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [processes(20), processes(20, model), processes(3, model)] == [8, 8, 3]
    with parallel.workers(5):
        assert [processes(20), processes(20, model)] == [5, 5]
    model.shared = False  # too large, unless somebody wants it so
    assert processes(20, model) == 1
    with parallel.workers(5):
        assert processes(20, model) == 5
        model.device.type = "cuda"
        assert processes(20, model) == 1
    model.device.type = "cpu"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert processes(20, model) == 1 and processes(20) == 8
    with pytest.raises(HandscopeError, match="at least one worker, found 0"), parallel.workers(0):
        pass
