"""Reading stores: the same numbers by cell, sample, row, chunk and batch, and no more of a file than was asked for."""

import pickle
import re
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.store.bits import count_not_finite, to_float32
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.shard import shards
from handscope.extract.store.store import ActivationStore
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from made_stores import PLAN, WIDTH, floats, make_folder, make_shard
from numpy.lib import recfunctions as structured
from torch.utils.data import DataLoader, Subset

DOCUMENT = Path(__file__).parents[3] / "docs" / "store.md"
FORMS = ("shards", "store.h5", "compressed", "list")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same twelve samples as shards, as a consolidated store, compressed, and apart in two folders."""
    folder = tmp_path_factory.mktemp("activations")
    make_folder(folder, range(12))
    consolidate(folder)
    make_folder(folder / "compressed", range(12), compression="lossless")
    make_folder(folder / "first", range(5))
    make_folder(folder / "second", range(5, 12))
    consolidate(folder / "second")
    return folder


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return make_folder(tmp_path_factory.mktemp("bits"), range(12))


@pytest.fixture(params=FORMS)
def store(request: pytest.FixtureRequest, folder: Path) -> ActivationStore:
    if request.param == "list":
        return ActivationStore([folder / "first", folder / "second"])
    return ActivationStore(folder / request.param)


def same_bits(x: np.ndarray, expected: np.ndarray) -> bool:
    return x.dtype == np.float32 and np.array_equal(x.view(np.uint32), floats(expected).view(np.uint32))


def cell_bits(bits: dict[str, np.ndarray], number: int) -> np.ndarray:
    return np.concatenate([own[number] for own in bits.values()])


def test_every_form_reads_as_what_was_written(store: ActivationStore, bits: dict[str, np.ndarray]) -> None:
    assert store.samples == list(bits) and store.plan == PLAN and store.width == WIDTH
    assert list(store.tokens["sample"]) == [name for name, own in bits.items() for _ in range(own.shape[1])]
    assert list(store.steps["step"]) == [4, 2] and store.attrs["model"] == "tiny" and store.attrs["revision"] == ""
    assert "batch_size" not in store.attrs
    for number, cell in enumerate(PLAN.cells):
        expected = cell_bits(bits, number)
        x, tokens = store.read(cell.block, cell.step)
        assert same_bits(x, expected) and tokens.equals(store.tokens)
        tensor, tokens = store.read_tensor(cell.block, cell.step)
        assert tensor.dtype == torch.bfloat16 and tokens.equals(store.tokens)
        assert np.array_equal(tensor.view(torch.int16).numpy().view(np.uint16), expected)
    for name, own in bits.items():
        x, tokens = store.sample(name)
        assert same_bits(x, own) and set(tokens["sample"]) <= {name} and len(tokens) == own.shape[1]


@given(data=st.data())
def test_any_rows_in_any_order(folder: Path, bits: dict[str, np.ndarray], data: st.DataObject) -> None:
    store = ActivationStore(folder / data.draw(st.sampled_from(FORMS[:3])))
    rows = data.draw(st.lists(st.integers(0, len(store.tokens) - 1), max_size=80))
    number = data.draw(st.integers(0, len(PLAN.cells) - 1))
    cell, expected = PLAN.cells[number], cell_bits(bits, number)
    x, tokens = store.read(cell.block, cell.step, rows=rows)
    assert same_bits(x, expected[rows]) and tokens.equals(store.tokens.iloc[rows].reset_index(drop=True))
    tensor, _ = store.read_tensor(cell.block, cell.step, rows=rows)
    assert np.array_equal(tensor.view(torch.int16).numpy().view(np.uint16), expected[rows])
    size = data.draw(st.integers(1, 20))
    chunks = list(store.chunks(cell.block, cell.step, rows=size, where=rows))
    assert all(len(x) == size for x, _ in chunks[:-1])
    assert [row for _, index in chunks for row in index] == rows
    assert all(same_bits(x, expected[index]) for x, index in chunks)


def test_files_from_before_checksums_still_read(tmp_path: Path) -> None:
    bits = make_folder(tmp_path, range(4))
    for path in shards(tmp_path):
        with h5py.File(path, "r+") as file:
            del file.attrs["checksum"]
    path = consolidate(tmp_path)
    with h5py.File(path, "r+") as file:
        samples = file["samples"][:][["sample", "image_sha256", "noise_sha256"]]
        del file["samples"], file["sample_attrs"]
        file["samples"] = structured.repack_fields(samples)
    for store in (ActivationStore(path), ActivationStore(tmp_path / "shards")):
        assert store.samples == list(bits)
        assert same_bits(store.read("single.0", 2)[0], cell_bits(bits, 3))
        assert same_bits(store.sample("s01")[0], bits["s01"])


def test_rows_far_apart_and_in_large_files(tmp_path: Path) -> None:
    # More rows than are decoded at once, and gaps longer than what is read for nothing.
    width, tokens = 512, 10_000
    own = make_shard(tmp_path, "s", 0, tokens, width)
    packed = make_shard(tmp_path / "packed", "s", 0, tokens, width, compression="lossless")
    consolidate(tmp_path)
    rng = np.random.default_rng(0)
    for path in (tmp_path / "store.h5", tmp_path / "shards", tmp_path / "packed"):
        store = ActivationStore(path)
        for rows in (
            np.arange(tokens),
            np.sort(rng.choice(tokens, 40, replace=False)),
            np.flatnonzero(rng.random(tokens) < 0.3),
            np.array([tokens - 1, 0, 4095, 4096]),
        ):
            assert same_bits(store.read("single.0", 2, rows=rows)[0], own[3, rows])
    assert np.array_equal(own, packed)


def test_bool_masks_samples_and_out(store: ActivationStore, bits: dict[str, np.ndarray]) -> None:
    expected = cell_bits(bits, 1)
    mask = store.records["label"] > 1
    assert same_bits(store.read("double.1", 2, rows=mask)[0], expected[mask])
    chosen = store.samples[6:2:-2]
    x, tokens = store.read("double.1", 2, samples=chosen)
    assert same_bits(x, expected[store.tokens["sample"].isin(chosen)]) and set(tokens["sample"]) == set(chosen)
    out = np.empty(expected.shape, np.float32)
    x, _ = store.read("double.1", 2, out=out)
    assert x is out and same_bits(out, expected)
    assert sum(len(x) for x, _ in store.chunks("double.1", 2, where=mask)) == mask.sum()


def test_what_cannot_be_read_is_said(folder: Path) -> None:
    store = ActivationStore(folder)
    with pytest.raises(HandscopeError, match="found both"):
        store.read("double.1", 4, samples=["s00"], rows=[0])
    with pytest.raises(HandscopeError, match="whole numbers from 0 to 4[0-9]"):
        store.read("double.1", 4, rows=[len(store.tokens)])
    with pytest.raises(HandscopeError, match="rows as a bool array"):
        store.read("double.1", 4, rows=[True, False])
    with pytest.raises(HandscopeError, match=r"contiguous float32 array of shape \(4[0-9], 16\), found float64"):
        store.read("double.1", 4, out=np.empty((len(store.tokens), WIDTH)))
    with pytest.raises(HandscopeError, match="nobody among them"):
        store.sample("nobody")
    with pytest.raises(HandscopeError, match="double.0/4 is not in the store"):
        store.dataset([("double.0", 4)])
    with pytest.raises(HandscopeError, match="empty list"):
        ActivationStore([])


def test_a_shard_that_was_written_again_is_not_mixed_in(tmp_path: Path) -> None:
    make_folder(tmp_path, range(3))
    store = ActivationStore(tmp_path)
    make_shard(tmp_path, "s01", 11)
    with pytest.raises(HandscopeError, match=r"s01\.h5 was written again since it was opened: open it anew"):
        store.read("double.1", 4)


@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_bits_come_back(bits: np.ndarray) -> None:
    # NaN payloads, infinities and denormals among them: every one of the 65,536 is an exact float32.
    out = np.empty(bits.shape, np.float32)
    to_float32(bits, out)
    assert np.array_equal(out.view(np.uint32), bits.astype(np.uint32) << 16)
    assert count_not_finite(bits) == (np.isnan(floats(bits)).sum(), np.isinf(floats(bits)).sum())


def test_all_bits_survive_the_disk(tmp_path: Path) -> None:
    every = np.arange(2**16, dtype=np.uint16).reshape(1, 4096, 16).repeat(len(PLAN.cells), axis=0)
    for compression in (None, "lossless"):
        make_shard(tmp_path, "s", 0, 4096, bits=every, compression=compression)
        consolidate(tmp_path)
        for path in (tmp_path / "shards", tmp_path / "store.h5"):
            assert same_bits(ActivationStore(path).read("single.2", 4)[0], every[0])


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    width, tokens = 1024, 500
    for number in range(8):
        make_shard(tmp_path, f"s{number}", number, tokens, width)
    consolidate(tmp_path)
    cell_bytes = 8 * tokens * width * 2
    for path in (tmp_path / "shards", tmp_path / "store.h5"):
        store = ActivationStore(path)
        store.read("single.0", 4, samples=["s5"])
        before = _bytes_read()
        store.read("single.0", 4, samples=["s5"])
        part = _bytes_read() - before
        store.read("single.0", 4, rows=[17, 3000])
        few = _bytes_read() - before - part
        # HDF5 reads 64 KB at least.
        assert part < cell_bytes / 8 + 100_000 and few < 200_000
        whole = _bytes_read()
        store.read("single.0", 4)
        assert _bytes_read() - whole >= cell_bytes


def _bytes_read() -> int:
    """Bytes that this process has asked the system for."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


def test_chunks_hold_a_chunk_in_memory(tmp_path: Path) -> None:
    width, tokens = 256, 20_000
    make_shard(tmp_path, "s", 0, tokens, width)
    store = ActivationStore(tmp_path)
    next(store.chunks("single.0", 2))
    tracemalloc.start()
    seen = 0
    for x, _ in store.chunks("single.0", 2, rows=500):
        seen += len(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Two chunks of float32, a buffer of 4 MB, and change; the cell is 20 MB.
    assert seen == tokens and peak < 2 * 500 * width * 4 + 6e6


@pytest.mark.process
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("form", ["shards", "store.h5"])
def test_a_data_loader_gives_every_token_once(
    folder: Path, bits: dict[str, np.ndarray], form: str, workers: int
) -> None:
    store = ActivationStore(folder / form)
    data = store.dataset([("single.0", 2), PLAN.cells[0]])
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(data, batch_size=7, shuffle=True, num_workers=workers, generator=generator)
    batches = list(loader)
    assert len(data) == len(store.tokens) == sum(len(batch["x"]) for batch in batches)
    assert batches[0]["x"].shape == (7, 2, WIDTH)
    found = np.concatenate([batch["x"].numpy() for batch in batches])
    expected = floats(np.stack([cell_bits(bits, 3), cell_bits(bits, 0)], axis=1))
    order = [sorted(map(bytes, x.reshape(len(x), -1))) for x in (found, expected)]
    assert order[0] == order[1]
    columns = {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in store.records.dtype.names}
    place = {bytes(x): number for number, x in enumerate(expected)}
    numbers = [place[bytes(x)] for x in found]
    for name, values in columns.items():
        assert np.array_equal(values, store.records[name][numbers])


def test_a_dataset_is_a_sequence_of_tokens(folder: Path, bits: dict[str, np.ndarray]) -> None:
    store = ActivationStore(folder)
    data = store.dataset()
    assert same_bits(data[-1]["x"].numpy(), np.stack([cell_bits(bits, n)[-1] for n in range(6)]))
    with pytest.raises(IndexError):
        data[len(data)]
    third = np.flatnonzero(store.records["row"] == 3)
    rows = [batch["row"] for batch in DataLoader(Subset(data, third.tolist()), batch_size=4)]
    assert torch.cat(rows).tolist() == [3] * len(third) and len(third)
    again = pickle.loads(pickle.dumps(data))  # as a spawned worker gets it
    assert torch.equal(again[4]["x"], data[4]["x"])


def test_the_documented_examples_read_the_same_with_h5py_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(["double.1", "single.3"], [20, 12], of=20)
    activations = tmp_path / "runs" / "demo" / "activations"
    names = ["1379ff25-00006", "1379ff25-00007", "1379ff25-00008"]
    bits = [make_shard(activations, name, seed, plan=plan) for seed, name in enumerate(names)]
    store = ActivationStore(consolidate(activations))
    codes = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    by_cell, by_sample, ours = codes
    assert "handscope" not in by_cell + by_sample and "h5py" not in ours
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(by_cell, found)
    assert same_bits(found["x"], np.concatenate([own[3] for own in bits], axis=0))
    assert list(found["sample"]) == list(store.tokens["sample"])
    assert found["checksums"] == {part.sample: part.head["checksum"] for part in store.parts}
    found = {}
    exec(by_sample, found)
    assert same_bits(found["x"], bits[1][3]) and found["sigma"] == np.float32(3.0)
    exec(ours, found)
    assert same_bits(found["x"], np.concatenate([own[3] for own in bits], axis=0))
