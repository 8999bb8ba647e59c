"""Cells added to a run's activations: the same union and the same bits in whichever order, killed or not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.address import Block, Cell, Plan
from handscope.extract.estimate import estimate
from handscope.extract.extract import extract
from handscope.extract.store.check import check
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.shard import DamagedError
from handscope.extract.store.store import ActivationStore
from handscope.extract.store.writer import ShardWriter
from handscope.labeling.exchange.pictures import import_pictures
from handscope.run.folder import Run
from handscope.run.noised import Noised
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tiny import STEPS

BLOCKS = ("double.0", "double.1", "single.0", "double.1:attn", "single.2")
ORDER = ("double.0", "double.1", "single.0", "single.1", "single.2")
"""The blocks of the tiny model."""


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    blocks = draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3, unique=True))
    return Plan(blocks, draw(st.lists(st.integers(1, STEPS), min_size=1, max_size=3, unique=True)), of=STEPS)


@given(st.lists(plans(), min_size=1, max_size=5), st.randoms())
def test_joined_plans_have_the_cells_of_all_in_one_order(some: list[Plan], random) -> None:
    def whole(of: list[Plan]) -> Plan:
        joined = of[0]
        for plan in of[1:]:
            joined = joined.joined(plan, ORDER)
        return joined

    joined, shuffled = whole(some), whole(random.sample(some, len(some)))
    cells = {cell for plan in some for cell in plan.cells}
    assert set(joined.cells) == set(shuffled.cells) == cells and len(joined.cells) == len(cells)
    assert Plan.from_json(joined.to_json()) == joined
    assert all(joined.joined(plan, ORDER) is joined for plan in some)
    if not any(set(plan.cells) == cells for plan in some):
        assert joined == shuffled
    for cell in joined.cells:
        assert joined.cell(str(cell)) == cell
    kept = set(random.sample(joined.cells, random.randint(1, len(joined.cells))))
    assert set(joined.reading(kept).cells) == kept


def test_a_plan_of_some_cells_has_one_of_each_block_and_step() -> None:
    plan = Plan(["double.0", "single.0"], [2, 1], of=4, only=["double.0/2", "single.0/1"])
    assert list(map(str, plan.cells)) == ["double.0/2", "single.0/1"] and "only 2 cells" in repr(plan)
    with pytest.raises(HandscopeError, match="No cell single.0/2"):
        plan.cell("single.0/2")
    with pytest.raises(HandscopeError, match="one at least of each, found single.0 otherwise"):
        Plan(["double.0", "single.0"], [2], of=4, only=["double.0/2"])
    assert Plan(["double.0"], [2, 1], of=4, only=["double.0/1", "double.0/2"]) == Plan(["double.0"], [2, 1], of=4)


@pytest.fixture(scope="module")
def few(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Six samples of a finished run."""
    run = Run(shutil.copytree(finished_run.path, tmp_path_factory.mktemp("few") / "run"))
    run.write_metadata(dict(list(run.metadata().items())[:6]))
    return run


@pytest.fixture(scope="module")
def everything(tiny_model, few: Run) -> ActivationStore:
    """Every cell of them, read at once."""
    run = Run(shutil.copytree(few.path, few.path.with_name("everything")))
    return extract(tiny_model, run, Plan(BLOCKS, range(STEPS, 0, -1), of=STEPS))


def assert_part_of(store: ActivationStore, whole: ActivationStore) -> None:
    """Every cell of a store has the bits that it has where all were read at once."""
    assert store.samples == whole.samples and store.tokens.equals(whole.tokens)
    for cell in store.cells:
        found, expected = (one.read_tensor(cell.block, cell.step)[0] for one in (store, whole))
        assert torch.equal(found, expected), cell
    for part, other in zip(store.parts, whole.parts, strict=True):
        assert set(store.plan.steps) <= set(part.steps["step"].tolist())
        assert set(part.steps.tolist()) <= set(other.steps.tolist())


@settings(max_examples=5)
@given(some=st.lists(plans(), min_size=2, max_size=3))
def test_any_order_of_additions_gives_the_same_union_and_bits(
    some: list[Plan], tiny_model, few: Run, everything: ActivationStore, tmp_path_factory
) -> None:
    run = Run(shutil.copytree(few.path, tmp_path_factory.mktemp("added") / "run"))
    read: dict[Cell, Plan] = {}
    for plan in some:
        store = extract(tiny_model, run, plan)
        for cell in plan.cells:
            read.setdefault(cell, plan)
        assert set(store.cells) == set(read) and (run.activations_dir / "store.h5").exists()
        assert_part_of(store, everything)
        assert_part_of(ActivationStore(run.activations_dir / "shards"), everything)
        assert check(run.activations_dir) == []
    for cell, plan in read.items():
        by = store.read_by(cell.block, cell.step, store.samples[0])
        assert cell in by.cells and set(by.cells) <= set(plan.cells)
    before = {path: path.stat().st_mtime_ns for path in run.activations_dir.rglob("*.h5")}
    extract(tiny_model, run, some[0])
    assert {path: path.stat().st_mtime_ns for path in run.activations_dir.rglob("*.h5")} == before


FIRST, SECOND = Plan(["single.0"], [4, 2], of=STEPS), Plan(["single.0", "double.1"], [2, 1], of=STEPS)
UNION = {"single.0/4", "single.0/2", "single.0/1", "double.1/2", "double.1/1"}


def test_an_addition_that_is_killed_shows_what_all_samples_have_and_goes_on(
    tiny_model, few: Run, everything: ActivationStore, run_copy: Callable[[Run], Run], monkeypatch
) -> None:
    run = run_copy(few)
    extract(tiny_model, run, FIRST)
    put, calls = ShardWriter.put, []

    def dies(*args: object) -> None:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        put(*args)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "put", lambda writer, **shard: dies(writer, *shard.values()))
        with pytest.raises(KeyboardInterrupt):
            extract(tiny_model, run, SECOND)
    cells = [len(ActivationStore(path).cells) for path in (run.activations_dir / "shards").glob("*.h5")]
    assert sorted(cells) == [2, 2, 2, 5, 5, 5]
    store = ActivationStore(run.activations_dir)
    assert set(map(str, store.cells)) == {"single.0/4", "single.0/2"}
    assert_part_of(store, everything)
    assert set(map(str, extract(tiny_model, run, SECOND).cells)) == UNION
    assert_part_of(ActivationStore(run.activations_dir), everything)


def test_samples_of_which_some_have_more_cells(
    tiny_model, few: Run, everything: ActivationStore, run_copy: Callable[[Run], Run]
) -> None:
    """Readers take the cells that all have; what writes says that an extraction has not ended."""
    run = run_copy(few)
    extract(tiny_model, run, FIRST)
    sample = ActivationStore(run.activations_dir).samples[0]
    before = (run.activations_dir / "shards" / f"{sample}.h5").read_bytes()
    assert estimate(tiny_model, run, SECOND).roads[0].calls == 2, "step 4 is read already"
    extract(tiny_model, run, SECOND)
    (run.activations_dir / "shards" / f"{sample}.h5").write_bytes(before)
    (run.activations_dir / "store.h5").unlink()
    store = ActivationStore(run.activations_dir)
    assert set(map(str, store.cells)) == {"single.0/4", "single.0/2"}
    assert_part_of(store, everything)
    assert store.sample(store.samples[1])[0].shape[0] == 2
    with pytest.raises(HandscopeError, match="once an extraction that adds cells has ended"):
        consolidate(run.activations_dir)
    (problem,) = check(run.activations_dir)
    assert problem.path.stem == sample and "lacks 3 cells that others have, double.1/1 among them" in problem.what
    assert set(map(str, extract(tiny_model, run, FIRST).cells)) == UNION, "what was begun is ended"
    assert_part_of(ActivationStore(run.activations_dir), everything)
    assert (run.activations_dir / "store.h5").exists()


def test_cells_are_added_where_no_trajectory_was_kept(
    tiny_model, few: Run, everything: ActivationStore, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(few)
    for path in run.trajectories_dir.iterdir():
        path.unlink()
    extract(tiny_model, run, FIRST)
    assert set(map(str, extract(tiny_model, run, SECOND).cells)) == UNION
    assert_part_of(ActivationStore(run.activations_dir), everything)


def test_a_shard_that_is_not_what_was_written_gets_no_cells(tiny_model, few: Run, run_copy) -> None:
    run = run_copy(few)
    store = extract(tiny_model, run, FIRST)
    path = run.activations_dir / "shards" / f"{store.samples[0]}.h5"
    with h5py.File(path, "r+") as file:
        file["activations"][0, 0, 0] ^= 1
    with pytest.raises(DamagedError, match="not those that were written"):
        extract(tiny_model, run, SECOND)
    path.unlink()
    assert set(map(str, extract(tiny_model, run, SECOND).cells)) == UNION


@pytest.mark.parametrize(("changed", "words"), [
    ({"stream": "text"}, "its kind of plan is 4 steps, expected 4 steps, stream text"),
    ({"at": "input"}, "its kind of plan is 4 steps, expected 4 steps, at input"),
])  # fmt: skip
def test_cells_that_do_not_lie_beside_these_are_refused(tiny_model, few: Run, run_copy, changed, words) -> None:
    run = run_copy(few)
    extract(tiny_model, run, FIRST)
    with pytest.raises(HandscopeError, match=words):
        extract(tiny_model, run, Plan(["double.0"], [4], of=STEPS, **changed))


def test_steps_are_added_to_given_pictures(tiny_model, few: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(few.samples_dir, folder)
    (folder / "metadata.jsonl").unlink()
    runs = [Run(tmp_path / name) for name in ("once", "later")]
    for run in runs:
        import_pictures(tiny_model, run, folder, steps=STEPS, batch_size=8)
    once = extract(tiny_model, runs[0], Plan(["double.1", "single.0"], [4, 2, 1], of=STEPS), tokens="all")
    for plan in (FIRST, SECOND, Plan(["double.1"], [4], of=STEPS)):
        later = extract(tiny_model, runs[1], plan, tokens="all")
    assert_part_of(later, once)
    assert set(later.cells) == set(once.cells)
    for sample in once.samples:
        one, other = (run.latents(sample) for run in runs)
        assert isinstance(other, Noised) and other.indices.tolist() == [0, 2, 3]
        for name in ("noise", "indices", "latents", "clean", "sigmas", "timesteps"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert torch.equal(one.model_timesteps.nan_to_num(-1), other.model_timesteps.nan_to_num(-1))


def test_a_cell_that_is_not_there_has_no_plan(everything: ActivationStore) -> None:
    assert everything.read_by(Block("double", 1, "attn"), 4).cells == everything.cells
    with pytest.raises(HandscopeError, match="not in the store"):
        everything.read_by("single.1", 4)
    with pytest.raises(HandscopeError, match="not in the store"):
        everything.read_by("single.2", 4, "nothing")
