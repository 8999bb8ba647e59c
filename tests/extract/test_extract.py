"""Extraction by both roads, in parts, and with the proof that labels belong to what is read."""

import fcntl
import hashlib
import json
import os
import sys
import time
import weakref
from pathlib import Path

import h5py
import numpy as np
import pytest
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.extract.regenerate import psnr
from handscope.extract.replay import batch_difference
from handscope.extract.store import writer
from handscope.extract.store.aside import set_aside
from handscope.extract.store.store import ActivationStore
from handscope.extract.worklist import in_part
from handscope.labeling.database.labels import Annotation, Labels
from handscope.models.model import Model, load
from handscope.run.folder import Run
from hypothesis import given
from hypothesis import strategies as st
from made_tiny import PROMPTS, SEEDS, STEPS, hand_made_labels
from PIL import Image
from torch import nn

PLAN = Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS)  # of `extracted_run`


def without_trajectories(run: Run, samples: list[str] | None = None) -> Run:
    for sample in run.samples()["sample"] if samples is None else samples:
        run.trajectory_path(sample).unlink()
    return run


def assert_same(store: ActivationStore, expected: ActivationStore) -> None:
    assert store.cells == expected.cells and store.samples == expected.samples
    assert store.tokens.equals(expected.tokens) and store.steps.equals(expected.steps)
    for cell in expected.cells:
        np.testing.assert_array_equal(store.read(cell.block, cell.step)[0], expected.read(cell.block, cell.step)[0])


def attributes(run: Run, sample: str) -> dict:
    with h5py.File(run.activations_dir / "shards" / f"{sample}.h5") as file:
        return dict(file.attrs)


# Without trajectories


@pytest.mark.parametrize("some", [False, True])
def test_generating_again_gives_the_bits_of_the_replay(
    some: bool, tiny_model, finished_run, extracted_run, run_copy
) -> None:
    run = run_copy(finished_run)
    without_trajectories(run, list(run.samples()["sample"][10:31]) if some else None)
    store = extract(tiny_model, run, PLAN, batch_size=1 if not some else None)  # which is for replays only
    assert_same(store, ActivationStore(extracted_run.activations_dir))
    assert set_aside(run.activations_dir).empty and not list(run.activations_dir.glob("*.csv"))


def repaint(run: Run, sample: str) -> np.ndarray:
    """Make of a sample's image, as it was looked at and labelled, one that the model does not draw."""
    image = np.clip(run.image(sample).astype(int) + 9, 0, 255).astype(np.uint8)
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    Image.fromarray(image).save(run.image_path(sample))
    change(run, sample, image_sha256=digest)
    old = Labels(run.labels_path).current()[sample]
    Labels(run.labels_path).add([Annotation(sample, digest, old.labels, old.instances, old.verdict, old.kinds)])
    return image


def change(run: Run, sample: str, **values: object) -> None:
    rows = run.metadata()
    rows[sample] = rows[sample] | values
    run.write_metadata(rows)


def test_a_sample_that_comes_out_otherwise_is_set_aside_by_name(
    tiny_model, finished_run, extracted_run, run_copy, capfd: pytest.CaptureFixture[str]
) -> None:
    run = without_trajectories(run_copy(finished_run))
    names = list(run.samples()["sample"])
    other, reseeded, lost = names[5], names[20], names[40]
    drawn, painted = run.image(other), repaint(run, other)
    change(run, reseeded, seed=99)
    repaint(run, lost)
    run.image_path(lost).unlink()

    assert main(["extract", str(run.path), "--blocks", "double.1,single.0,single.2", "--steps", "4,2,1"]) == 0
    said = capfd.readouterr().out
    error = np.mean((drawn.astype(float) - painted) ** 2)
    table = set_aside(run.activations_dir).set_index("sample")
    assert set(table.index) == {other, reseeded, lost}
    assert table["psnr"][other] == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
    assert table["reason"][other] == "another image"
    assert table["reason"][reseeded] == "another noise and another image" and 0 < table["psnr"][reseeded] < 40
    assert np.isnan(table["psnr"][lost]) and "cannot be read" in table["reason"][lost]
    for name in table.index:
        assert name in said and name in (run.activations_dir / "set_aside.csv").read_text()
    assert f"{table['psnr'][other]:.1f} dB" in said and "labels are not used" in said

    store, whole = ActivationStore(run.activations_dir), ActivationStore(extracted_run.activations_dir)
    assert store.samples == [name for name in whole.samples if name not in table.index]
    for cell in PLAN.cells:
        np.testing.assert_array_equal(
            store.read(cell.block, cell.step)[0], whole.read(cell.block, cell.step, samples=store.samples)[0]
        )

    # What is set aside is tried again, and no longer listed once it comes out.
    change(run, reseeded, seed=int(finished_run.metadata()[reseeded]["seed"]))
    assert reseeded in extract(tiny_model, run, PLAN).samples
    assert set(set_aside(run.activations_dir)["sample"]) == {other, lost}


def test_an_old_shard_of_a_sample_that_is_set_aside_goes(tiny_model, extracted_run, run_copy) -> None:
    run = without_trajectories(run_copy(extracted_run))
    sample = run.samples()["sample"][7]
    repaint(run, sample)
    assert sample not in extract(tiny_model, run, PLAN).samples
    assert len(list((run.activations_dir / "shards").glob("*.h5"))) == 47


def test_nothing_that_comes_out_as_it_was_is_an_error(tiny_model, finished_run, run_copy) -> None:
    run = without_trajectories(run_copy(finished_run))
    rows = {sample: row | {"seed": row["seed"] + 50} for sample, row in list(run.metadata().items())[:3]}
    run.write_metadata(rows)
    with pytest.raises(HandscopeError, match=r"All 3 samples came out otherwise.* dB\)"):
        extract(tiny_model, run, PLAN)
    assert len(set_aside(run.activations_dir)) == 3


def test_psnr() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(image, image) == np.inf
    assert psnr(image, image + np.uint8(5)) == pytest.approx(20 * np.log10(255 / 5))
    assert psnr(image + np.uint8(5), image) == psnr(image, image + np.uint8(5))


# In parts


@given(st.text(min_size=1), st.integers(1, 12))
def test_a_division_has_each_sample_in_one_part(sample: str, parts: int) -> None:
    assert sum(in_part(sample, (i, parts)) for i in range(1, parts + 1)) == 1


def test_a_division_is_even_and_does_not_change() -> None:
    names = [f"{hashlib.md5(str(i).encode()).hexdigest()[:8]}-{i % 50:05d}" for i in range(2000)]
    counts = [sum(in_part(name, (i, 4)) for name in names) for i in (1, 2, 3, 4)]
    assert min(counts) > 440
    assert [in_part("1379ff25-00007", (i, 3)) for i in (1, 2, 3)] == [True, False, False]


def test_an_empty_part_is_no_error(tiny_model, finished_run, run_copy, capfd: pytest.CaptureFixture[str]) -> None:
    run = run_copy(finished_run)
    used = {i for i in range(1, 500) for sample in run.samples()["sample"] if in_part(sample, (i, 499))}
    empty = next(i for i in range(1, 500) if i not in used)
    assert extract(tiny_model, run, PLAN, shard=(empty, 499)) is None
    assert main(["extract", str(run.path), "--blocks", "double.1", "--steps", "4", "--shard", f"{empty}/499"]) == 0
    assert "has no samples" in capfd.readouterr().out


def test_parts_of_one_folder_are_consolidated_by_the_last(tiny_model, finished_run, extracted_run, run_copy) -> None:
    run = run_copy(finished_run)
    for i in (3, 1, 2):
        store = extract(tiny_model, run, PLAN, shard=(i, 3))
        assert (run.activations_dir / "store.h5").exists() == (i == 2)
        assert all(in_part(sample, (i, 3)) for sample in store.samples) == (i == 3)
    assert_same(store, ActivationStore(extracted_run.activations_dir))


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(shard: str, finished_run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["extract", str(finished_run.path), "--shard", shard])
    assert ended.value.code == 2 and "1/8" in capsys.readouterr().err


def test_temporary_files_of_killed_processes_go_and_others_stay(tiny_model, extracted_run, run_copy) -> None:
    run = run_copy(extracted_run)
    folder = run.activations_dir / "shards"
    mine = next(sample for sample in run.samples()["sample"] if in_part(sample, (1, 2)))
    theirs = next(sample for sample in run.samples()["sample"] if in_part(sample, (2, 2)))
    files = {name: folder / f".{name}.0a1b2c3d.tmp.h5" for name in (mine, theirs, "old")}
    for path in files.values():
        path.touch()
    os.utime(files["old"], (time.time() - 7200,) * 2)
    with open(files[theirs]) as being_written:
        fcntl.flock(being_written, fcntl.LOCK_SH)  # as its writer holds it
        extract(tiny_model, run, PLAN, shard=(1, 2))
    assert [path.exists() for path in files.values()] == [False, True, False]
    extract(tiny_model, run, PLAN)
    assert not files[theirs].exists()


# Batches, memory and what a shard says of itself


def test_another_batch_size_is_measured_and_recorded(tiny_model, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    extract(tiny_model, run, PLAN, tokens="all", batch_size=5)
    rows = list(run.metadata().values())
    found = [attributes(run, row["sample"]) for row in rows]
    assert {(int(attrs["batch_size"]), int(attrs["generation_batch_size"])) for attrs in found} == {(5, 16)}
    first = [*rows[:5], *[rows[4]] * 11]
    masks = np.zeros((16, 16), bool)
    masks[:5] = True
    expected = batch_difference(
        tiny_model,
        PLAN,
        [row["prompt"] for row in first],
        [run.trajectory(row["sample"]) for row in first],
        first[0]["guidance"],
        32,
        32,
        masks,
        size=5,
    )
    recorded = json.loads(found[-1]["batch_difference"])
    assert recorded == {
        "absolute": expected.absolute,
        "relative": expected.relative,
        "cell": str(expected.cell),
        "sizes": [5, 16],
    }


def test_a_shard_says_how_it_was_made(tiny_model, extracted_run) -> None:
    from handscope.models.condition import conditions

    attrs = attributes(extracted_run, extracted_run.samples()["sample"][0])
    assert "batch_difference" not in attrs
    assert int(attrs["batch_size"]) == int(attrs["generation_batch_size"]) == 16
    expected = conditions(tiny_model.transformer) | {"quantisation": "", "adapters": ""}
    assert {key: attrs[key] for key in expected} == expected
    assert attrs["weight_hash"] == tiny_model.weight_hash and attrs["model_dtype"] == "float32"
    assert Plan.from_json(attrs["plan"]) == PLAN


class Lora(nn.Linear):
    """What handscope looks at in a layer of PEFT with the adapter `style`."""

    def __init__(self, weight: float) -> None:
        super().__init__(2, 2)
        self.disable_adapters, self.active_adapters, self.scaling = False, ["style"], {"style": 1.0}
        self.lora_A = nn.ModuleDict({"style": nn.Linear(2, 2, bias=False)})
        nn.init.constant_(self.lora_A["style"].weight, weight)


def test_activations_with_and_without_an_adapter_are_not_mixed(
    tiny_model, extracted_run, run_copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_copy(extracted_run)
    plan = ActivationStore(run.activations_dir).plan
    monkeypatch.setitem(tiny_model.transformer._modules, "extra", Lora(1.0))
    run.settings_path.write_text(run.settings_path.read_text().replace("  state: plain\n", ""))  # as of 0.3
    with pytest.raises(HandscopeError, match="its adapters is , expected style [0-9a-f]{16}"):
        extract(tiny_model, run, plan)


def test_adapters_of_one_name_are_told_apart(tiny_model, monkeypatch: pytest.MonkeyPatch) -> None:
    from handscope.models.condition import conditions

    layers = [Lora(weight) for weight in (1.0, 1.0, 2.0, 1.0, 1.0)]
    layers[3].scaling["style"] = 0.5
    layers[4].disable_adapters = True
    found = []
    for layer in layers:
        monkeypatch.setitem(tiny_model.transformer._modules, "extra", layer)
        found.append(conditions(tiny_model.transformer)["adapters"])
    assert found[0] == found[1] and len(set(found)) == 4 and found[-1] == "none"


def test_two_batches_of_activations_are_held_and_no_more(
    tiny_model, finished_run, run_copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow, so that batches pile up if they can."""
    alive: set[int] = set()
    most = 0
    module = sys.modules["handscope.extract.extract"]  # its name in the package is that of the function
    make, write = module._bits, writer.write_shard

    def counted(*arguments: object) -> list[np.ndarray]:
        nonlocal most
        bits = make(*arguments)
        for part in bits:
            alive.add(id(part))
            weakref.finalize(part, alive.discard, id(part))
        most = max(most, len(alive))
        return bits

    def slow(*arguments: object, **options: object) -> None:
        time.sleep(0.02)
        write(*arguments, **options)

    monkeypatch.setattr(module, "_bits", counted)
    monkeypatch.setattr(writer, "write_shard", slow)
    extract(tiny_model, run_copy(finished_run), PLAN, batch_size=4)
    assert 4 < most <= 8


def test_prompts_are_encoded_before_the_transformer_runs(tiny_pipe_folder: Path, finished_run, run_copy) -> None:
    model = load(str(tiny_pipe_folder))
    order: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
        for name, module in (("text", model.pipe.text_encoder_2), ("transformer", model.transformer))
    ]
    extract(model, without_trajectories(run_copy(finished_run)), PLAN)
    for handle in handles:
        handle.remove()
    texts = 2 * len(PROMPTS)  # each may be cut, and is encoded without its last word too
    assert order[:texts] == ["text"] * texts and set(order[texts:]) == {"transformer"}


# Other sizes, streams and sides


def test_samples_of_two_sizes_in_one_run(tiny_model: Model, tmp_path: Path) -> None:
    plan = Plan(["double.1", "single.2"], [2, 1], of=2)
    parts, stores = [], []
    for name, (height, width) in {"square": (32, 32), "wide": (32, 48)}.items():
        part = Run(tmp_path / name)
        prompt = PROMPTS[len(parts)]
        generate(tiny_model, part, [prompt], SEEDS, steps=2, batch_size=3, height=height, width=width)
        parts.append(part)
        stores.append(extract(tiny_model, part, plan, tokens="all"))
    both = Run(tmp_path / "both")
    both.write_settings({key: parts[0].settings[key] for key in ("model", "generation", "provenance")})
    rows = [row for pair in zip(*(part.metadata().values() for part in parts)) for row in pair]
    for folder in ("samples", "trajectories"):
        (both.path / folder).mkdir()
        for part in parts:
            for path in (part.path / folder).glob("*-*"):
                (both.path / folder / path.name).write_bytes(path.read_bytes())
    both.write_metadata({row["sample"]: row for row in rows})
    store = extract(tiny_model, both, plan, tokens="all")
    assert len(store.samples) == 12
    assert {len(group) for _, group in store.tokens.groupby("sample")} == {16, 24}
    for part in stores:
        for cell in plan.cells:
            found, tokens = store.read(cell.block, cell.step, samples=part.samples)
            np.testing.assert_array_equal(found, part.read(cell.block, cell.step)[0])
            assert tokens["col"].max() == part.tokens["col"].max()


@pytest.mark.parametrize("replayed", [True, False])
def test_a_block_s_input_is_the_output_of_the_one_before(replayed: bool, tiny_model, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    if not replayed:
        without_trajectories(run)
    before = extract(tiny_model, run, Plan(["single.0"], [4, 1], of=STEPS))
    first = [before.read("single.0", step)[0] for step in (4, 1)]
    for path in run.activations_dir.rglob("*.h5"):
        path.unlink()
    after = extract(tiny_model, run, Plan(["single.1"], [4, 1], of=STEPS, at="input"))
    for step, expected in zip((4, 1), first):
        np.testing.assert_array_equal(after.read("single.1", step)[0], expected)


def test_text_tokens_have_the_label_of_their_sample(tiny_model, finished_run, run_copy) -> None:
    run = run_copy(finished_run)
    store = extract(tiny_model, run, Plan(["double.1"], [2], of=STEPS, stream="text"))
    x, tokens = store.read("double.1", 2)
    assert x.shape == (48 * 20, 32)  # 20 text tokens each
    labels = {annotation.sample: annotation for annotation in hand_made_labels(finished_run)}
    for sample, group in tokens.groupby("sample"):
        assert list(group["col"]) == list(range(20)) and set(group["row"]) == {0} and set(group["instance"]) == {1}
        assert set(group["label"]) == {{"g": 2, "b": 3, "u": 0}[labels[sample].verdict[0]]}


def test_unconditional_calls_are_refused(tiny_model, finished_run) -> None:
    with pytest.raises(HandscopeError, match="conditional side of a run"):
        extract(tiny_model, finished_run, Plan(["double.1"], [2], of=STEPS, call="uncond"))
    assert not finished_run.activations_dir.exists()
