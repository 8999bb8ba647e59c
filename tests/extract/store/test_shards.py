"""Writing shards: whole or not there, beside the work, whatever happens to the disk or the process."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from handscope.errors import HandscopeError
from handscope.extract.store.check import check
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.contents import parts
from handscope.extract.store.shard import SCHEMA, TOKEN, shards, write_shard
from handscope.extract.store.store import ActivationStore
from handscope.extract.store.writer import ShardWriter
from made_stores import PLAN, WIDTH, attrs_of, make_folder, make_shard, random_bits, step_table, token_table


def test_a_shard_holds_what_it_was_given(tmp_path: Path) -> None:
    bits = make_shard(tmp_path, "s", 4, extras={"arm": [1, 2]}, seconds=0.5)
    with h5py.File(tmp_path / "shards" / "s.h5") as file:
        attrs = dict(file.attrs)
        assert np.array_equal(file["activations"][:], bits) and file["activations"].chunks is None
        assert np.array_equal(file["tokens"][:], token_table(7, 4)) and np.array_equal(file["steps"][:], step_table())
    assert attrs["schema"] == SCHEMA and attrs["dtype"] == "bfloat16" and attrs["width"] == WIDTH
    assert attrs["checksum"] == f"xxh3-128:{xxhash.xxh3_128(bits.tobytes()).hexdigest()}"
    assert (attrs["revision"], attrs["seconds"], json.loads(attrs["extras"])) == ("", 0.5, {"arm": [1, 2]})
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["s.h5"]


def test_a_view_is_written_as_it_looks(tmp_path: Path) -> None:
    # A batch is cut by sample: the cut is not contiguous.
    batch = random_bits(20, 0)
    make_shard(tmp_path, "s", 0, 6, bits=batch[:, 3:9])
    assert np.array_equal(ActivationStore(tmp_path).sample_bits(parts(tmp_path / "shards" / "s.h5")[0]), batch[:, 3:9])
    assert check(tmp_path) == []


def test_a_shard_that_is_cut_off_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = h5py.File.close

    def cut(file: h5py.File) -> None:
        [path] = (tmp_path / "shards").glob(".s.*.tmp.h5")
        closed(file)
        os.truncate(path, 400)

    monkeypatch.setattr(h5py.File, "close", cut)
    with pytest.raises(HandscopeError, match=r"s\.h5 was not written whole .400 bytes, of which 768 should be"):
        make_shard(tmp_path, "s", 4, 4)
    assert list((tmp_path / "shards").iterdir()) == []


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, bits = tmp_path / "s.h5", random_bits(5, 0)
    good = (bits, step_table(), token_table(5, 0), attrs_of("s"))
    for place, wrong, said in (
        (0, bits[:-1], r"uint16 of shape \(6 cells, 5 tokens, width\), found uint16 of shape \(5, 5, 16\)"),
        (0, bits.astype(np.float32), "found float32"),
        (1, step_table()[:1], r"each of the steps \(4, 2\)"),
        (2, token_table(4, 0), r"\(6 cells, 4 tokens"),
        (2, np.zeros(5, [*TOKEN.descr, ("label", "u1")]), "tokens of .*s.h5 to be of dtype"),
    ):
        with pytest.raises(HandscopeError, match=said):
            write_shard(path, *good[:place], wrong, *good[place + 1 :])
    with pytest.raises(HandscopeError, match="None or 'lossless', found 'gzip'"):
        write_shard(path, *good, compression="gzip")
    assert list(tmp_path.iterdir()) == []


def test_compression_is_lossless_and_smaller(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(PLAN.cells), 600, 256)).astype(np.float32)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    for name, compression in (("plain", None), ("packed", "lossless")):
        make_shard(tmp_path, name, 1, 600, 256, bits=bits, compression=compression)
    store = ActivationStore(tmp_path)
    packed, plain = (store.sample_bits(part) for part in store.parts)
    assert np.array_equal(packed, bits) and np.array_equal(plain, bits)
    sizes = {path.stem: path.stat().st_size for path in shards(tmp_path)}
    assert sizes["packed"] < 0.9 * sizes["plain"]


WITHOUT_PLUGIN = """
import sys
sys.modules["hdf5plugin"] = None
from handscope.errors import HandscopeError
from handscope.extract.store.check import check, info
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.store import ActivationStore
from made_stores import make_shard
from pathlib import Path
folder = Path(sys.argv[1])
assert info(folder).samples == 1
store = ActivationStore(folder)
for call in (lambda: store.read("single.0", 2), lambda: store.sample("s"), lambda: check(folder),
             lambda: consolidate(folder), lambda: make_shard(folder, "t", 1, compression="lossless")):
    try:
        call()
    except HandscopeError as error:
        print(error)
"""


@pytest.mark.process
def test_without_the_plugin_the_extra_is_named(tmp_path: Path) -> None:
    make_shard(tmp_path, "s", 1, compression="lossless")
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PATH"}
    support = str(Path(__file__).parents[2] / "support")
    environment["PYTHONPATH"] = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PLUGIN, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()
    shard = tmp_path / "shards" / "s.h5"
    install = "pip install 'handscope[compression]', or pip install hdf5plugin."
    assert said[:4] == [f"hdf5plugin is needed to read {shard}, which is compressed: {install}"] * 4
    assert said[4:] == [f"hdf5plugin is needed to write compressed activations: {install}"]
    assert shards(tmp_path) == [shard]


def test_the_writer_writes_beside_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, running = threading.Event(), []

    def slow(path: Path, *rest: object) -> None:
        running.append(threading.current_thread().name)
        assert released.wait(20)
        write_shard(path, *rest)

    monkeypatch.setattr("handscope.extract.store.writer.write_shard", slow)
    arguments = [
        (tmp_path / f"s{k}.h5", random_bits(3, k), step_table(), token_table(3, k), attrs_of(f"s{k}")) for k in range(4)
    ]
    with ShardWriter(depth=2) as writer:
        for shard in arguments[:3]:  # one is being written and two wait: none of these calls waits for the disk
            writer.put(*shard)
        blocked = threading.Thread(target=writer.put, args=arguments[3])
        blocked.start()
        blocked.join(0.2)
        assert blocked.is_alive() and shards(tmp_path) == []
        released.set()
        blocked.join(20)
    assert running == ["shard writer"] * 4
    assert [path.stem for path in shards(tmp_path)] == ["s0", "s1", "s2", "s3"]
    assert "shard writer" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("late", [False, True])
def test_an_error_of_the_writer_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    def full(path: Path, *rest: object) -> None:
        if path.stem == "s1":
            raise OSError(errno.EIO, "Input/output error")
        write_shard(path, *rest)

    monkeypatch.setattr("handscope.extract.store.writer.write_shard", full)
    put = []
    with pytest.raises(OSError, match="Input/output error"), ShardWriter() as writer:
        for number in range(2 if late else 50):
            writer.put(tmp_path / f"s{number}.h5", random_bits(3, 0), step_table(), token_table(3, 0), attrs_of("s"))
            put.append(number)
            time.sleep(0.01)
    assert len(put) == 2 if late else 2 <= len(put) < 50
    assert [path.stem for path in shards(tmp_path)] == ["s0"]


def test_what_was_put_is_written_when_the_work_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(depth=3) as writer:
        for number in range(3):
            writer.put(
                tmp_path / f"s{number}.h5",
                random_bits(3, 0),
                step_table(),
                token_table(3, 0),
                attrs_of(f"s{number}"),
            )
        raise KeyboardInterrupt
    assert check(tmp_path) == [] and len(shards(tmp_path)) == 3


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from handscope.extract.store.writer import ShardWriter
from made_stores import attrs_of, random_bits, step_table, token_table
folder = Path(sys.argv[1])
bits, tokens = random_bits(400, 0, 512), token_table(400, 0)
random.seed(0)
for death in range(10):
    child = os.fork()
    if child == 0:
        with ShardWriter() as writer:
            for number in range(10_000):
                name = f"d{death}n{number}"
                writer.put(folder / f"{name}.h5", bits, step_table(), tokens, attrs_of(name))
        os._exit(1)
    while not (folder / f"d{death}n1.h5").exists():
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.process
def test_killed_in_mid_write_leaves_whole_shards_only(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "support"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    found = shards(tmp_path)
    assert found and left, "no kill came in mid-write: the test shows nothing"
    problems = check(tmp_path)
    assert {problem.path for problem in problems} == set(left)
    assert all("temporary file" in problem.what for problem in problems)
    assert len(ActivationStore(tmp_path).samples) == len(found)


def test_names_of_any_length_are_kept(tmp_path: Path) -> None:
    name = "hånd-" + "x" * 80
    bits = make_shard(tmp_path, name, 1)
    make_folder(tmp_path, range(2))
    store = ActivationStore(consolidate(tmp_path))
    assert store.samples == [name, "s00", "s01"] and np.array_equal(store.sample_bits(store.parts[0]), bits)
