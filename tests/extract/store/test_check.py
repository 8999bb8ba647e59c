"""Every kind of damage is named by the check, and a sound folder has none."""

import errno
import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.store import consolidate as consolidation
from handscope.extract.store.check import Problem, check, info
from handscope.extract.store.consolidate import consolidate, merge
from handscope.extract.store.shard import shards, write_shard
from handscope.extract.store.store import ActivationStore
from made_stores import PLAN, attrs_of, floats, make_folder, make_shard, random_bits, step_table, token_table
from numpy.lib import recfunctions as structured


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    make_folder(folder, range(6))
    make_shard(folder, "s06", 6, compression="lossless")
    consolidate(folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "activations"))


def test_sound_activations_have_no_problem(sound: Path) -> None:
    stages = []
    assert check(sound, progress=lambda *at: stages.append(at)) == []
    assert stages[0] == ("check", 0, 8) and stages[-1] == ("check", 8, 8)
    assert check(sound / "shards") == check(sound / "store.h5") == []
    with pytest.raises(HandscopeError, match="Run extract first"):
        check(sound / "nothing")


def flip(path: Path, name: str = "activations") -> None:
    """Change one bit of the stored activations, behind HDF5's back."""
    with h5py.File(path) as file:
        data = file[name]
        offset = data.id.get_offset() if data.chunks is None else data.id.get_chunk_info(0).byte_offset + 40
    with open(path, "rb+") as raw:
        raw.seek(offset)
        byte = raw.read(1)[0]
        raw.seek(offset)
        raw.write(bytes([byte ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def not_finite(path: Path) -> None:
    folder, bits = path.parent.parent, random_bits(4, 4)
    bits[1, 2, 3], bits[1, 0, 0], bits[5, 3, 15] = 0x7FC1, 0xFF80, 0xFFFF
    make_shard(folder, path.stem, 4, 4, bits=bits)


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def put(name: str, values: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        old = file[name][:]
        del file[name]
        file[name] = values(old)

    return edit(change)


def with_row(tokens: np.ndarray, row: int) -> np.ndarray:
    tokens["row"][1] = row
    return tokens


def attr(**values: object) -> Callable[[Path], None]:
    return edit(lambda file: file.attrs.update(values))


def without(name: str) -> Callable[[Path], None]:
    return edit(lambda file: file.attrs.__delitem__(name))


def no_sample(tokens: np.ndarray) -> np.ndarray:
    tokens["sample"][-1] = 99
    return tokens


SHARD = {
    "a flipped bit": (
        flip,
        "holds other activations of sample s04 than were written: their checksum is xxh3-128:.*, expected xxh3-128:",
    ),
    "a truncated file": (cut, "is truncated or damaged: remove it .* run extract again"),
    "another kind of file": (lambda path: path.write_text("hello"), "is truncated or damaged"),
    "another schema": (attr(schema="other-2"), "schema handscope-activations-2 .* found other-2"),
    "no plan": (without("plan"), "is damaged .it names no plan of its cells.: remove it and run extract again"),
    "an impossible plan": (attr(plan='{"blocks": ["x"], "steps": [1], "of": 1}'), "not of the schema .Expected a bl"),
    "no tokens": (edit(lambda file: file.__delitem__("tokens")), "is truncated or damaged"),
    "fewer cells": (
        put("activations", lambda bits: bits[:-1]),
        r"activations as uint16 of shape \(5, 7, 16\), expected uint16 of \(6, 7, 16\)",
    ),
    "other numbers": (put("activations", lambda bits: bits.astype("f4")), "activations as float32"),
    "a token too many": (
        put("tokens", lambda tokens: tokens[[0, *range(7)]]),
        r"expected uint16 of \(6, 8, 16\)",
    ),
    "a token off the grid": (put("tokens", lambda tokens: with_row(tokens, 6)), "of sample s04 outside its grid"),
    "other token columns": (
        put("tokens", lambda tokens: structured.append_fields(tokens, "label", tokens["row"], "u1", usemask=False)),
        r"has tokens with the columns .*'label', '\|u1'\).*, expected .*'col', '<i4'\)\]: extract it again",
    ),
    "other steps": (put("steps", lambda steps: steps[::-1]), r"has steps .* and its plan the steps \[4, 2\]"),
    "NaN and infinity": (
        not_finite,
        r"holds 2 NaN and 1 infinities, in double.1/2 \(1 NaN, 1 infinite\), single.2/2 \(1 NaN, 0 infinite\): ",
    ),
    "another sample": (attr(sample="s99"), r"holds sample s99: name it s99\.h5"),
    "no hash": (without("checksum"), "carries no checksum of sample s04"),
    "another model": (attr(weight_hash="4" * 64), "its weight_hash is 444.*, theirs 333"),
    "another choice of tokens": (attr(selection="all"), "its selection is all, theirs subject"),
}


@pytest.mark.parametrize("kind", SHARD)
def test_a_damaged_shard_is_named(folder: Path, kind: str) -> None:
    damage, said = SHARD[kind]
    path = folder / "shards" / "s04.h5"
    damage(path)
    (folder / "store.h5").unlink()
    (problem,) = check(folder)
    assert problem.path == path and re.search(said, problem.what) and str(problem).startswith(f"{path}: ")


def test_text_tokens_have_no_place_on_the_grid(tmp_path: Path) -> None:
    tokens = token_table(20, 0)
    tokens["row"], tokens["col"] = 0, np.arange(20)
    plan = Plan(PLAN.blocks, PLAN.steps, PLAN.of, stream="text")
    write_shard(tmp_path / "s.h5", random_bits(20, 0), step_table(), tokens, attrs_of("s", plan))
    assert check(tmp_path) == []


def test_another_plan_or_width_is_named(folder: Path) -> None:
    (folder / "store.h5").unlink()
    make_shard(folder, "s07", 7, plan=Plan(["double.1"], [4], of=4))
    make_shard(folder, "s08", 8, width=8)
    problems = sorted(check(folder), key=str)
    assert [problem.path.stem for problem in problems] == ["s07", "s08"]
    assert "lacks 5 cells that others have" in problems[0].what and "its width is 8, theirs 16" in problems[1].what


def test_a_flipped_bit_in_a_compressed_shard_is_named(folder: Path) -> None:
    path = folder / "shards" / "s06.h5"
    flip(path)
    assert {problem.path for problem in check(folder)} == {path}


def test_what_does_not_belong_in_the_folder_is_named(folder: Path) -> None:
    (folder / "shards" / "notes.txt").write_text("hello")
    (folder / "shards" / ".s05.123.tmp.h5").write_text("hel")
    problems = check(folder)
    assert [problem.path.name for problem in problems] == [".s05.123.tmp.h5", "notes.txt"]
    assert "temporary file" in problems[0].what and "no shard" in problems[1].what


STORE = {
    "a flipped bit": (
        lambda path: flip(path, "activations/single.0/4"),
        "other activations of sample s00 .*consolidate again",
    ),
    "a truncated file": (cut, "is truncated or damaged"),
    "a missing cell": (edit(lambda file: file.__delitem__("activations/single.0/4")), "lacks activations/single.0/4"),
    "a cell of another shape": (put("activations/single.0/4", lambda bits: bits[1:]), "expected uint16 of"),
    "a token of no sample": (put("tokens", no_sample), "of no sample or out of order"),
}


@pytest.mark.parametrize("kind", STORE)
def test_a_damaged_store_is_named(folder: Path, kind: str) -> None:
    damage, said = STORE[kind]
    damage(folder / "store.h5")
    (problem,) = check(folder)
    assert problem.path == folder / "store.h5" and re.search(said, problem.what)


def test_a_store_that_is_not_of_its_shards_is_named(folder: Path) -> None:
    make_shard(folder, "s07", 7)
    make_shard(folder, "s03", 13)
    (folder / "shards" / "s01.h5").unlink()
    problems = check(folder)
    assert {problem.path for problem in problems} == {folder / "store.h5"}
    assert [problem.what for problem in problems] == [
        "lacks 1 samples, s07 among them: consolidate again.",
        "has no shard of 1 samples, s01 among them: consolidate again.",
        "holds other activations than the shards of 1 samples, s03 among them: consolidate again.",
    ]
    consolidate(folder)
    assert check(folder) == []
    shutil.rmtree(folder / "shards")
    assert check(folder) == []


def test_info_counts(sound: Path) -> None:
    found = info(sound)
    store = ActivationStore(sound)
    assert (found.plan, found.cells, found.width, found.samples, found.tokens) == (PLAN, 6, 16, 7, len(store.tokens))
    assert sum(found.labels.values()) == found.tokens
    assert found.labels["unlabelled"] == found.tokens
    assert (found.model, found.model_dtype, found.selection, found.revision) == ("tiny", "bfloat16", "subject", "")
    assert found.shards == 7 and found.store_bytes == (sound / "store.h5").stat().st_size
    assert found.shard_bytes == sum(path.stat().st_size for path in shards(sound))
    assert info(sound / "shards").store_bytes == 0 and info(sound / "store.h5").shards == 0


def test_a_damaged_shard_is_not_consolidated(folder: Path) -> None:
    before = (folder / "store.h5").read_bytes()
    flip(folder / "shards" / "s04.h5")
    with pytest.raises(HandscopeError, match=r"s04\.h5 is damaged: the activations of sample s04 are not those"):
        consolidate(folder)
    assert (folder / "store.h5").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["shards", "store.h5"]


def test_any_folder_of_shards_can_be_consolidated(folder: Path, tmp_path: Path) -> None:
    before = (folder / "store.h5").read_bytes()
    (folder / "store.h5").unlink()
    assert consolidate(folder / "shards") == folder / "store.h5"
    assert (folder / "store.h5").read_bytes() == before
    bare = Path(shutil.copytree(folder / "shards", tmp_path / "bare"))
    assert consolidate(bare).read_bytes() == consolidate(bare).read_bytes() == before
    assert check(bare) == []
    shutil.rmtree(folder / "shards")
    with pytest.raises(HandscopeError, match="There are no shards in"):
        consolidate(folder)


def test_consolidating_in_little_memory_gives_the_same_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    make_shard(folder, "s05", 5, 3000, 64, bits=(large := random_bits(3000, 5, 64)))
    for path in shards(folder):
        if path.stem != "s05":
            make_shard(folder, path.stem, int(path.stem[1:]), 100, 64)
    limit = 500_000
    assert large.nbytes > 4 * limit
    whole = consolidate(folder).read_bytes()
    monkeypatch.setattr(consolidation, "MEMORY_BYTES", limit)
    tracemalloc.start()
    consolidate(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (folder / "store.h5").read_bytes() == whole
    # A group of shards, or one cell of one shard where that is more, and that once more while it is joined.
    assert peak < 2 * limit + 600_000


def test_a_full_disk_leaves_the_old_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "store.h5").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("handscope.files.os.fsync", full)
    with pytest.raises(HandscopeError, match="disk is full"):
        consolidate(folder)
    assert (folder / "store.h5").read_bytes() == before and len(list(folder.iterdir())) == 2


def test_merging_machines_gives_the_store_of_one(tmp_path: Path) -> None:
    bits = make_folder(tmp_path / "one", range(10))
    consolidate(tmp_path / "one")
    make_folder(tmp_path / "a", range(6))
    make_folder(tmp_path / "b", range(4, 10), compression="lossless")
    consolidate(tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "shards")  # a store alone can be merged too
    target = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert target == tmp_path / "both" / "store.h5" and check(tmp_path / "both") == []
    one, both = ActivationStore(tmp_path / "one"), ActivationStore(tmp_path / "both")
    assert both.tokens.equals(one.tokens) and both.attrs == one.attrs
    for number, cell in enumerate(PLAN.cells):
        x, _ = both.read(cell.block, cell.step)
        assert np.array_equal(x, floats(np.concatenate([own[number] for own in bits.values()])))
    for ours, theirs in zip(both.parts, one.parts, strict=True):
        assert ours.head == theirs.head and ours.attrs == theirs.attrs
    for name in bits:  # shards made anew from a store hold what the lost ones held
        paths = [tmp_path / folder / "shards" / f"{name}.h5" for folder in ("one", "both")]
        with h5py.File(paths[0]) as old, h5py.File(paths[1]) as new:
            assert dict(old.attrs) == dict(new.attrs)
            assert all(np.array_equal(old[key][:], new[key][:]) for key in ("activations", "steps", "tokens"))


def test_a_merge_goes_on_where_it_stopped(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", range(3))
    make_folder(tmp_path / "b", range(3, 5))
    merge([tmp_path / "a"], tmp_path / "both")
    before = {path: path.stat().st_mtime_ns for path in shards(tmp_path / "both")}
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    after = {path: path.stat().st_mtime_ns for path in shards(tmp_path / "both")}
    assert len(after) == 5 and before.items() <= after.items()


def with_sha256(folder: Path) -> None:
    """Turn activations into what they were before XXH3: shards with the attribute `sha256`, a store with the column."""
    digests = {}
    for path in shards(folder):
        with h5py.File(path, "r+") as file:
            file.attrs["sha256"] = hashlib.sha256(file["activations"][:].tobytes()).hexdigest()
            digests[path.stem.encode()] = file.attrs["sha256"]
            del file.attrs["checksum"]
    with h5py.File(folder / "store.h5", "r+") as file:
        samples = structured.rename_fields(file["samples"][:], {"checksum": "sha256"})
        samples["sha256"] = [digests[sample] for sample in samples["sample"]]
        del file["samples"]
        file["samples"] = samples


def test_activations_with_sha256_are_compared_as_before(folder: Path, tmp_path: Path) -> None:
    with_sha256(folder)
    assert check(folder) == []
    shutil.copytree(folder, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "shards")
    for target in ("both", "both"):  # the second merge meets what the first has written
        merge([tmp_path / "store", folder], tmp_path / target)
    assert check(tmp_path / "both") == []
    assert {part.head["checksum"][:7] for part in ActivationStore(tmp_path / "both").parts} == {"sha256:"}
    flip(folder / "shards" / "s04.h5")
    flip(folder / "store.h5", "activations/double.1/4")
    shard, store = check(folder)
    assert "activations of sample s04 than were written: their checksum is sha256:" in shard.what
    assert "activations of sample s00 than were written: their checksum is sha256:" in store.what
    with pytest.raises(HandscopeError, match="s04.h5 is damaged"):
        consolidate(folder)


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", range(3))
    make_shard(tmp_path / "other", "s01", 9)
    make_shard(tmp_path / "image", "s01", 1, image_sha256="7" * 64)
    make_shard(tmp_path / "wide", "s09", 1, width=32)
    make_shard(tmp_path / "plan", "s09", 1, plan=Plan(["double.1"], [4], of=4))
    make_shard(tmp_path / "model", "s09", 1, weight_hash="9" * 64)
    for other, said in {
        "other": "Sample s01 is in .*a.*s01.h5 and in .*other.*s01.h5 with different activations: remove",
        "image": "Sample s01 is in",
        "wide": "its width is 32, the other's 16",
        "plan": "its plan is",
        "model": "its weight_hash is 999",
    }.items():
        with pytest.raises(HandscopeError, match=said):
            merge([tmp_path / "a", tmp_path / other], tmp_path / "both")
        with pytest.raises(HandscopeError, match=said):
            ActivationStore([tmp_path / "a", tmp_path / other])
    assert not (tmp_path / "both").exists()
    flip(tmp_path / "a" / "shards" / "s01.h5")
    with pytest.raises(HandscopeError, match=r"a.shards.s01\.h5 is damaged"):
        merge([tmp_path / "a"], tmp_path / "both")
    assert isinstance(check(tmp_path / "a")[0], Problem)
