"""What a dry run says, held to what the extraction then takes."""

from pathlib import Path

import h5py
import pytest
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.estimate import estimate
from handscope.extract.extract import extract
from handscope.extract.worklist import in_part
from handscope.report.summary import duration, size
from made_tiny import STEPS

PLAN = Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS)


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@pytest.mark.parametrize(("tokens", "shard"), [("hand", None), ("all", (1, 2))])
def test_tokens_and_bytes_are_those_of_the_extraction(
    tokens: str, shard: tuple[int, int] | None, tiny_model, finished_run, run_copy
) -> None:
    run = run_copy(finished_run)
    before = state(run.path)
    said = estimate(tiny_model, run, PLAN, tokens=tokens, shard=shard)
    assert state(run.path) == before and not run.activations_dir.exists()

    store = extract(tiny_model, run, PLAN, tokens=tokens, shard=shard)
    assert (said.samples, said.missing) == (len(store.samples), len(store.samples))
    assert (said.tokens, said.cells, said.width) == (len(store.tokens), 9, 32)
    shards = list((run.activations_dir / "shards").glob("*.h5"))
    bits = 0
    for path in shards:
        with h5py.File(path) as file:
            bits += file["activations"].nbytes
    assert said.activations == bits
    assert said.shards == pytest.approx(sum(path.stat().st_size for path in shards), rel=0.1)
    if shard is None:
        assert said.store == pytest.approx((run.activations_dir / "store.h5").stat().st_size, rel=0.1)
    largest = max(store.tokens.groupby("sample").size()) * 16
    assert 0 < said.held <= largest * 9 * 32 * 6  # a batch in float32, and one as bits


def test_both_roads_are_measured_and_counted(tiny_model, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    for sample in run.samples()["sample"][:20]:
        run.trajectory_path(sample).unlink()
    said = estimate(tiny_model, run, PLAN, batch_size=8)
    replayed, again = said.roads
    assert (replayed.samples, replayed.batches, replayed.calls, replayed.batch_size) == (28, 4, 3, 8)
    assert (again.samples, again.batches, again.calls, again.batch_size) == (20, 2, STEPS, 16)
    for road in said.roads:
        assert road.step_seconds > 0 and road.seconds >= road.batches * road.calls * road.step_seconds * 0.99
    assert said.seconds >= replayed.seconds + again.seconds
    assert said.memory is None or said.memory > 10**8  # a process that has torch


def test_what_is_there_costs_nothing_more(tiny_model, extracted_run) -> None:
    said = estimate(tiny_model, extracted_run, PLAN)
    assert (said.samples, said.missing, said.tokens, said.shards, said.roads, said.seconds) == (48, 0, 0, 0, (), 0)


def test_the_transformer_runs_one_step_of_one_batch(tiny_model, finished_run) -> None:
    calls: list[tuple[int, ...]] = []
    handle = tiny_model.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(tuple(kwargs["hidden_states"].shape)), with_kwargs=True
    )
    try:
        estimate(tiny_model, finished_run, PLAN)
    finally:
        handle.remove()
    assert calls == [(16, 16, 16)] * 2  # to warm up, and to measure


def test_a_misfit_is_refused_as_in_the_extraction(tiny_model, finished_run) -> None:
    with pytest.raises(HandscopeError, match=r"double\.9"):
        estimate(tiny_model, finished_run, Plan(["double.9"], [1], of=STEPS))
    with pytest.raises(HandscopeError, match="batch_size"):
        estimate(tiny_model, finished_run, PLAN, batch_size=0)


def test_dry_run_prints_a_short_table_and_writes_nothing(
    finished_run, capfd: pytest.CaptureFixture[str]
) -> None:
    before = state(finished_run.path)
    part = sum(in_part(sample, (1, 2)) for sample in finished_run.samples()["sample"])
    options = ["--blocks", "double.1,single.2", "--steps", "4,1", "--dry-run", "--shard", "1/2"]
    assert main(["extract", str(finished_run.path), *options]) == 0
    out, err = capfd.readouterr()
    assert err == "" and state(finished_run.path) == before
    lines = out.splitlines()
    assert len(lines) <= 9 and max(map(len, lines)) <= 110
    rows = {line.split()[0]: line for line in lines}
    assert f"{part} to extract ({part} replayed)" in rows["samples"]
    assert "4 of width 32" in rows["cells"]
    assert f"{part * 9}, " in rows["tokens"] and size(part * 9 * 4 * 32 * 2) in rows["tokens"]
    assert " s (replayed: " in rows["step"] and "about" in rows["time"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_900, "1 MB"), (2_530_000, "2.53 MB"), (4.2e12, "4.2 TB")],
)
def test_sizes_are_readable(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 seconds"), (80, "80 seconds"), (200, "3.3 minutes"), (8000, "2.2 hours")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
