"""Replay, extraction and the store: the bits of the generation, whole or not there, never of something else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.extract.replay import replay
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.store import ActivationStore
from handscope.labeling.database.labels import Annotation, Labels
from handscope.models.model import Model, load
from handscope.run.folder import Run
from made_tiny import PROMPTS, SEEDS, STEPS, hand_made_labels, named

PLAN = Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_replay_has_the_bits_of_the_generation(tiny_pipe_folder: Path, tmp_path: Path, dtype: str) -> None:
    model, run = load(str(tiny_pipe_folder), dtype=dtype), Run(tmp_path)
    with capture(model.transformer, PLAN) as seen:
        samples = generate(model, run, PROMPTS[:2], range(4), steps=STEPS, batch_size=8)
    again = replay(
        model, PLAN, list(samples["prompt"]), [run.trajectory(sample) for sample in samples["sample"]], 3.5, 32, 32
    )
    for cell in PLAN.cells:
        assert again[cell.block, cell.step].dtype == model.dtype
        assert torch.equal(again[cell.block, cell.step], seen[cell.block, cell.step])


def test_replay_stops_after_the_deepest_wanted_block(tiny_model: Model, finished_run: Run) -> None:
    ran = []
    handles = [
        block.register_forward_hook(lambda module, args, output, name=name: ran.append(name))
        for name, block in tiny_model.family.blocks(tiny_model.transformer).items()
    ]
    replay(
        tiny_model,
        Plan(["single.0", "double.0"], [2], of=STEPS),
        PROMPTS[:1],
        [finished_run.trajectory(named(PROMPTS[0], 0))],
        3.5,
        32,
        32,
    )
    for handle in handles:
        handle.remove()
    assert ran == ["double.0", "double.1", "single.0"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_model.transformer.modules())


def test_the_store_holds_the_hand_tokens_of_the_replayed_stream(
    tiny_model: Model, finished_run: Run, extracted_run: Run
) -> None:
    store = ActivationStore(extracted_run.activations_dir)
    assert (store.plan, store.width, store.samples) == (PLAN, 32, sorted(finished_run.samples()["sample"]))
    labels = Labels(finished_run.labels_path).current()
    together = list(finished_run.samples()["sample"][:16])
    rows = finished_run.samples().set_index("sample")
    seen = replay(
        tiny_model,
        PLAN,
        list(rows.loc[together, "prompt"]),
        [finished_run.trajectory(sample) for sample in together],
        3.5,
        32,
        32,
    )
    for cell in PLAN.cells:
        x, tokens = store.read(cell.block, cell.step)
        assert x.dtype == np.float32 and x.shape == (len(tokens), 32)
        for number, sample in enumerate(together):
            hand = labels[sample].instances > 0
            mine = (tokens["sample"] == sample).to_numpy()
            assert np.array_equal(x[mine], seen[cell.block, cell.step][number, hand.ravel()].bfloat16().float().numpy())
            assert np.array_equal(tokens[mine][["row", "col"]].to_numpy(), np.argwhere(hand))
            assert np.array_equal(tokens[mine]["label"], labels[sample].labels[hand])
            assert np.array_equal(tokens[mine]["instance"], labels[sample].instances[hand])


def test_steps_carry_their_noise_level(finished_run: Run, extracted_run: Run) -> None:
    steps = ActivationStore(extracted_run.activations_dir).steps
    path = finished_run.trajectory(named(PROMPTS[0], 0))
    assert list(steps["step"]) == [4, 2, 1] and list(steps["index"]) == [0, 2, 3]
    assert np.array_equal(steps["sigma"], path.sigmas[[0, 2, 3]])
    assert np.array_equal(steps["model_timestep"], path.model_timesteps[[0, 2, 3]])


def test_shards_and_consolidated_store_are_the_same(extracted_run: Run) -> None:
    shards, store = (
        ActivationStore(extracted_run.activations_dir / "shards"),
        ActivationStore(extracted_run.activations_dir / "store.h5"),
    )
    assert (
        shards.samples == store.samples
        and shards.plan == store.plan
        and shards.width == store.width
        and shards.steps.equals(store.steps)
    )
    for cell in store.cells:
        for a, b in zip(shards.read(cell.block, cell.step), store.read(cell.block, cell.step), strict=True):
            assert a.equals(b) if hasattr(a, "equals") else np.array_equal(a, b)


def test_some_samples_can_be_read_alone(extracted_run: Run) -> None:
    store = ActivationStore(extracted_run.activations_dir)
    x, tokens = store.read("single.0", 2)
    chosen = store.samples[5:9]
    part, rows = store.read("single.0", 2, samples=chosen)
    assert np.array_equal(part, x[tokens["sample"].isin(chosen)]) and len(rows) == len(part) == 36


def test_the_layout_is_readable_with_h5py_alone(extracted_run: Run) -> None:
    store = ActivationStore(extracted_run.activations_dir)
    x, _ = store.read("single.2", 2)
    with h5py.File(extracted_run.activations_dir / "store.h5") as file:
        bits = file["activations/single.2/2"][:]
        assert file.attrs["dtype"] == "bfloat16" and bits.dtype == np.uint16
        assert file["activations/single.2/2"].chunks is None
        assert [name.decode() for name in file["samples"]["sample"][file["tokens"]["sample"]]] == list(
            store.tokens["sample"]
        )
    assert np.array_equal(torch.from_numpy(bits).view(torch.bfloat16).float().numpy(), x)
    with h5py.File(extracted_run.activations_dir / "shards" / f"{store.samples[3]}.h5") as file:
        assert file["activations"].shape == (9, 9, 32)
        assert np.array_equal(file["activations"][PLAN.cells.index(PLAN.cells[7])], bits[27:36])
        assert set(file["tokens"].dtype.names) == {"row", "col"}


@pytest.mark.parametrize(("selection", "count"), [("labelled", None), ("all", 48 * 16)])
def test_other_choices_of_tokens(
    tiny_model: Model, finished_run: Run, run_copy: Callable[[Run], Run], selection: str, count: int | None
) -> None:
    run = run_copy(finished_run)
    store = extract(tiny_model, run, Plan(["single.0"], [2], of=STEPS), tokens=selection)
    labelled = sum(int((annotation.labels > 0).sum()) for annotation in Labels(run.labels_path).current().values())
    assert len(store.tokens) == (count or labelled)
    assert labelled < 48 * 16


def test_a_second_extraction_does_nothing(
    tiny_model: Model, extracted_run: Run, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(extracted_run)
    before = {path: path.stat().st_mtime_ns for path in run.activations_dir.rglob("*.h5")}
    made: list[int] = []
    extract(tiny_model, run, PLAN, progress=lambda stage, done, total: made.append(done))
    assert made == [48]
    assert {path: path.stat().st_mtime_ns for path in run.activations_dir.rglob("*.h5")} == before


def test_lost_or_damaged_shards_are_extracted_again_and_others_stay(
    tiny_model: Model, extracted_run: Run, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(extracted_run)
    shards = sorted((run.activations_dir / "shards").iterdir())
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:3000])
    grown = Labels(run.labels_path).current()[shards[2].stem]
    Labels(run.labels_path).add([replace(grown, labels=np.full((4, 4), 2), instances=np.ones((4, 4)), kinds=())])
    before = ActivationStore(extracted_run.activations_dir)
    stale = ActivationStore(run.activations_dir)
    made: list[int] = []
    store = extract(tiny_model, run, PLAN, progress=lambda stage, done, total: stage == "extract" and made.append(done))
    assert made == [45, 48]
    rest = [path.stem for path in shards if path != shards[2]]
    assert len(store.sample(grown.sample)[1]) == 16
    for cell in PLAN.cells:
        found, expected = (one.read(cell.block, cell.step, samples=rest)[0] for one in (store, before))
        assert np.array_equal(found, expected)
    with pytest.raises(HandscopeError, match="open it anew"):
        stale.read("single.0", 2)


def test_what_does_not_belong_together_is_refused(
    tiny_model: Model, extracted_run: Run, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(extracted_run)
    with pytest.raises(HandscopeError, match="its kind of plan is 4 steps, expected 4 steps, at input"):
        extract(tiny_model, run, Plan(["single.0"], [2], of=STEPS, at="input"))
    with pytest.raises(HandscopeError, match="its selection is subject, expected all"):
        extract(tiny_model, run, PLAN, tokens="all")
    with pytest.raises(HandscopeError, match="make the plan's `of` 4"):
        extract(tiny_model, run, Plan(["single.0"], [2], of=20))
    with pytest.raises(HandscopeError, match=r"no block single\.7"):
        extract(tiny_model, run, Plan(["single.7"], [2], of=STEPS))
    with pytest.raises(HandscopeError, match="not in the store"):
        ActivationStore(run.activations_dir).read("single.0", 3)
    sample = ActivationStore(run.activations_dir).samples[0]
    hand = np.ones((5, 4))
    Labels(run.labels_path).add([Annotation(sample, run.metadata()[sample]["image_sha256"], 2 * hand, hand, "good")])
    with pytest.raises(HandscopeError, match="grid of 5 by 4 tokens, and the sample has 4 by 4"):
        extract(tiny_model, run, PLAN)
    Labels(run.labels_path).add([Annotation(sample, "0" * 64, 2 * hand[:4], hand[:4], "good")])
    with pytest.raises(HandscopeError, match="another image"):
        extract(tiny_model, run, PLAN)


def test_nothing_to_extract_is_said(
    tiny_model: Model, finished_run: Run, run_copy: Callable[[Run], Run], tmp_path: Path
) -> None:
    with pytest.raises(HandscopeError, match="run generate first"):
        extract(tiny_model, Run(tmp_path / "empty"), PLAN)
    run = run_copy(finished_run)
    run.labels_path.unlink()
    with pytest.raises(HandscopeError, match="run label first"):
        extract(tiny_model, run, PLAN)
    with pytest.raises(HandscopeError, match="Run extract first"):
        ActivationStore(run.activations_dir)


def test_a_truncated_store_is_named_with_the_mend(extracted_run: Run, run_copy: Callable[[Run], Run]) -> None:
    run = run_copy(extracted_run)
    path = run.activations_dir / "store.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(HandscopeError, match=r"store\.h5 is truncated or damaged: remove it"):
        ActivationStore(run.activations_dir)
    path.unlink()
    consolidate(run.activations_dir)
    assert len(ActivationStore(run.activations_dir).samples) == 48


KILLED = """
import json, os, signal, sys
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.models.model import load
from handscope.run.folder import Run
pipe, prompts, scenarios = sys.argv[1], *map(json.loads, sys.argv[2:])
model = load(pipe)
replace = os.replace
def die_at(left):
    def dies(source, target):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    os.replace = dies
for folder, stage, after in scenarios:
    child = os.fork()
    if child == 0:
        die_at(after)
        if stage == "generate":
            generate(model, Run(folder), prompts, range(6), steps=4, batch_size=16)
        else:
            extract(model, Run(folder), Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=4))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, stage
"""


@pytest.mark.process
@pytest.mark.slow
def test_killed_stages_go_on_to_the_same_bits(
    tiny_model: Model, tiny_pipe_folder: Path, extracted_run: Run, tmp_path: Path
) -> None:
    # Each is killed when one file has been written but not yet renamed: an image, a shard, the consolidated store.
    scenarios = [
        (str(tmp_path / "image"), "generate", 46),
        (str(tmp_path / "shard"), "extract", 23),
        (str(tmp_path / "store"), "extract", 49),
    ]
    for folder, stage, _ in scenarios:
        if stage == "extract":
            shutil.copytree(extracted_run.path, folder, ignore=shutil.ignore_patterns("activations"))
    command = [sys.executable, "-c", KILLED, str(tiny_pipe_folder), json.dumps(PROMPTS), json.dumps(scenarios)]
    killed = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert killed.returncode == 0, killed.stderr

    whole = ActivationStore(extracted_run.activations_dir)
    for (folder, stage, _), generated, extracted in zip(scenarios, (16, 48, 48), (0, 22, 48), strict=True):
        run, made = Run(folder), []
        generate(
            tiny_model,
            run,
            PROMPTS,
            SEEDS,
            steps=STEPS,
            batch_size=16,
            progress=lambda stage, done, total, made=made: made.append(done),
        )
        assert made[0] == generated
        if stage == "generate":
            Labels(run.labels_path).add(hand_made_labels(run))
        made.clear()
        store = extract(tiny_model, run, PLAN, progress=lambda stage, done, total, made=made: made.append(done))
        assert made[0] == extracted
        assert run.samples().equals(extracted_run.samples())
        assert store.tokens.equals(whole.tokens)
        for cell in PLAN.cells:
            assert np.array_equal(store.read(cell.block, cell.step)[0], whole.read(cell.block, cell.step)[0])


def test_a_full_disk_is_said_and_loses_nothing(
    tiny_model: Model, extracted_run: Run, run_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    run = run_copy(extracted_run)
    shards = sorted((run.activations_dir / "shards").iterdir())
    shards[0].unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("handscope.extract.store.shard.h5py.File.__setitem__", full)
        with pytest.raises(HandscopeError, match="disk is full"):
            extract(tiny_model, run, PLAN)
    assert sorted(path.name for path in (run.activations_dir / "shards").iterdir()) == [
        path.name for path in shards[1:]
    ]
    assert len(extract(tiny_model, run, PLAN).samples) == 48
