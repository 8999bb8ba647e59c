"""Activations of 0.3 brought into the form of now: the same bits, no labels, whenever it is killed."""

import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.store.check import check
from handscope.extract.store.consolidate import consolidate, is_consolidated
from handscope.extract.store.shard import shards
from handscope.extract.store.store import ActivationStore
from handscope.extract.store.upgrade import upgrade
from handscope.labeling.database.labels import Labels
from made_stores import make_folder, make_old, make_shard

EVERY = ("shards/s00.h5", "shards/s01.h5", "shards/s02.h5", "shards/s03.h5", "store.h5")


@pytest.fixture
def now(tmp_path: Path) -> Path:
    """Activations as they are written now, a compressed shard among them."""
    folder = tmp_path / "now" / "activations"
    make_folder(folder, range(3))
    make_shard(folder, "s03", 3, compression="lossless")
    consolidate(folder)
    return folder


@pytest.fixture
def old(now: Path, tmp_path: Path) -> Path:
    """The same as 0.3 wrote them, with labels beside them."""
    folder = tmp_path / "old" / "activations"
    shutil.copytree(now, folder)
    for name in EVERY:
        make_old(folder / name)
    with Labels(folder.parent / "labels.sqlite").kept_open():
        pass
    return folder


def contents(path: Path) -> dict[str, object]:
    """All that is in an HDF5 file: its attributes, and the bytes and dtypes of its datasets."""
    with h5py.File(path) as file:
        found: dict[str, object] = {f"@{name}": value for name, value in file.attrs.items()}
        file.visititems(
            lambda name, item: (
                found.update({name: (str(item.dtype), item.chunks, np.asarray(item[:]).tolist())})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def state(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_what_0_3_wrote_becomes_what_is_written_now(now: Path, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(old) == [] and contents(old / "store.h5") != contents(now / "store.h5")
    said: list[tuple[str, int, int]] = []
    assert upgrade(old, lambda *step: said.append(step)) == 5
    assert said == [("upgrade", done, 5) for done in range(6)]
    for name in EVERY:
        assert contents(old / name) == contents(now / name)
    assert check(old) == [] and is_consolidated(old)
    before = state(old)
    assert upgrade(old) == 0 and state(old) == before
    assert main(["store", "upgrade", str(old)]) == 0
    assert "nothing to do" in capsys.readouterr().out and state(old) == before


@pytest.mark.parametrize("part", ["store.h5", "shards", "shards/s03.h5"])
def test_a_part_can_be_brought_alone_and_reads_with_the_rest(now: Path, old: Path, part: str) -> None:
    changed = upgrade(old / part)
    assert changed == {"store.h5": 1, "shards": 4, "shards/s03.h5": 1}[part]
    assert check(old) == []
    expected = ActivationStore(now)
    for form in ("shards", "store.h5"):
        store = ActivationStore(old / form)
        assert store.attrs == {**expected.attrs} and store.tokens.equals(expected.tokens)
        for cell in store.cells:
            found, wanted = (one.read(cell.block, cell.step)[0] for one in (store, expected))
            assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


def test_a_folder_that_is_part_old_and_part_new_is_consolidated_as_one(now: Path, old: Path) -> None:
    upgrade(old / "shards" / "s01.h5")
    (old / "store.h5").unlink()
    consolidate(old)
    assert contents(old / "store.h5") == contents(now / "store.h5")


def test_labels_that_are_nowhere_else_are_not_lost(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (old.parent / "labels.sqlite").unlink()
    before = state(old)
    assert main(["store", "upgrade", str(old)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "has labels with its tokens, as 0.3 wrote them, which would be lost" in said
    assert state(old) == before and ActivationStore(old).tokens["label"].any()


@pytest.mark.parametrize("name", ["shards/s01.h5", "store.h5"])
def test_a_damaged_file_is_named_and_stays_as_it_was(old: Path, name: str) -> None:
    with h5py.File(old / name, "r+") as file:
        cells = file["activations"] if "samples" not in file else file["activations/double.1/4"]
        cells[0] = cells[0] ^ 1
    before = (old / name).read_bytes()
    with pytest.raises(HandscopeError, match=rf"{Path(name).name} is damaged: the activations of sample s0"):
        upgrade(old)
    assert (old / name).read_bytes() == before
    assert not [path for path in old.rglob(".*") if ".tmp" in path.name]


KILLED = """
import os, signal, sys
from pathlib import Path
import handscope.files as files
from handscope.extract.store.upgrade import upgrade
left, replace = int(sys.argv[2]), os.replace
def dies(source, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = dies
upgrade(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_killed_upgrade_goes_on(now: Path, old: Path, after: int) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED, str(old), str(after)], env=os.environ, check=False)
    assert result.returncode == -9
    assert len([path for path in old.rglob(".*") if ".tmp" in path.name]) == 1
    assert len(ActivationStore(old).samples) == 4  # it reads, half of it changed
    assert upgrade(old) == 5 - (after - 1)
    for name in EVERY:
        assert contents(old / name) == contents(now / name)
    assert check(old) == []


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "activations"
    make_shard(folder, "big", 0, 20_000, 512)  # 123 MB
    make_old(folder / "shards" / "big.h5")
    with Labels(tmp_path / "labels.sqlite").kept_open():
        pass
    tracemalloc.start()
    upgrade(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6


def test_nothing_to_upgrade_is_said(tmp_path: Path) -> None:
    with pytest.raises(HandscopeError, match="There are no activations in"):
        upgrade(tmp_path)
    assert shards(tmp_path) == []
