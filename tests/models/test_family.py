"""Families: a second one goes through the whole toolkit without a line of it that knows it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import handscope as hs
import numpy as np
import pytest
import torch
from fake_family import FAKE, FakeTransformer, packed, save_fake
from flux_calls import PROMPTS
from handscope.errors import HandscopeError
from handscope.guidance import LatentLoss, guide, steer
from handscope.labeling.database.labels import Annotation, Labels
from handscope.labeling.grid import grid
from handscope.models import registry
from handscope.models.model import Model, load
from handscope.models.registry import family_in, family_of, register
from handscope.models.sampling import Sampling
from handscope.run.folder import Run
from torch import Tensor

STEPS, GUIDANCE = 4, 3.0
DRAWN = {"steps": STEPS, "guidance": GUIDANCE, "batch_size": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """The fake pipeline from its folder; its family is known while this file runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_families", dict(registry._families))
        register(FAKE)
        folder = tmp_path_factory.mktemp("fake") / "pipe"
        save_fake(folder)
        yield load(str(folder))


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two samples of the fake model, 32 by 48 pixels, with a mask on each."""
    run = Run(tmp_path_factory.mktemp("runs") / "fake")
    samples = hs.generate(model, run, PROMPTS, [0], height=32, width=48, **DRAWN)
    instances = np.zeros((4, 6), np.uint8)
    instances[1, 2:4] = 1
    Labels(run.labels_path).add(
        [
            Annotation(row.sample, row.image_sha256, np.where(instances, 2, 1), instances, "good")
            for row in samples.itertuples()
        ]
    )
    return run


def drawn(model: Model, run: Run) -> Tensor:
    """The pictures of the run's samples, drawn again."""
    from handscope.extract.generate import draw

    pairs = [(row["prompt"], row["seed"]) for row in run.metadata().values()]
    return torch.from_numpy(draw(model, pairs, STEPS, GUIDANCE, 32, 48, trajectories=False).images)


def test_it_is_found_by_its_classes(model: Model, tiny_model: Model, tiny_pipe_folder: Path, tmp_path: Path) -> None:
    assert family_of(model.transformer) is family_of(model.pipe) is family_in(model.folder) is model.family is FAKE
    assert family_of(tiny_model.pipe) is family_in(tiny_pipe_folder) is tiny_model.family is not FAKE
    assert list(hs.blocks(model.transformer).items()) == [
        (f"layers.{i}", layer) for i, layer in enumerate(model.transformer.layers)
    ]
    assert list(hs.blocks(tiny_model.transformer)) == ["double.0", "double.1", "single.0", "single.1", "single.2"]
    assert model.stream_width == 16 and model.provenance["family"] == "Fake"
    with pytest.raises(HandscopeError, match="FakeTransformer, found a Linear without lists of modules. Describe"):
        hs.blocks(torch.nn.Linear(1, 1))
    (tmp_path / "model_index.json").write_text('{"_class_name": "AnotherPipeline"}')
    with pytest.raises(HandscopeError, match="FakePipeline, found a AnotherPipeline in"):
        load(str(tmp_path))


def test_its_generation_is_replayed_with_the_same_bits(model: Model, run: Run) -> None:
    """Masks are of image tokens, which come first in each block's one tensor, in the second half of the batch."""
    plan = hs.Plan(None, [4, 2, 1], of=STEPS)
    every: list[Tensor] = []
    with hs.capture(model.transformer, plan) as whole:
        handle = model.transformer.layers[1].register_forward_hook(lambda *given: every.append(given[2]))
        pictures = drawn(model, run)
        handle.remove()
    assert np.array_equal(pictures, np.stack([run.image(sample) for sample in run.metadata()]))
    store = hs.extract(model, run, plan)
    for block in model.blocks:
        for step in plan.steps:
            x, tokens = store.read(block, step)
            assert list(zip(tokens["row"], tokens["col"])) == [(1, 2), (1, 3)] * 2
            expected = whole[block, step][:, [8, 9]].flatten(0, 1).bfloat16().float()
            assert np.array_equal(x, expected.numpy())
    assert len(every) == STEPS and every[0].shape == (4, 29, 16)
    assert torch.equal(whole["layers.1", 2], every[2][2:, :24])


@pytest.mark.parametrize("call", ["cond", "uncond"])
@pytest.mark.parametrize("stream", ["image", "text"])
def test_an_edit_reaches_its_half_of_the_batch_and_its_stream(model: Model, run: Run, call: str, stream: str) -> None:
    plan = hs.Plan(["layers.1"], [3], of=STEPS, stream=stream, call=call)
    seen: dict[str, list[Tensor]] = {"before": [], "after": []}
    for name, change in (("before", lambda values, cell: values), ("after", lambda values, cell: values + 1)):
        with hs.edit(model.transformer, plan, change, tokens=np.arange(24 if stream == "image" else 5) == 3):
            handle = model.transformer.layers[1].register_forward_hook(
                lambda *given, name=name: seen[name].append(given[2])
            )
            pictures = drawn(model, run)
            handle.remove()
        assert torch.equal(pictures, drawn(model, run)) == (name == "before")
    changed = (seen["after"][1] != seen["before"][1]).any(-1)
    expected = torch.zeros(4, 29, dtype=torch.bool)
    expected[slice(2, 4) if call == "cond" else slice(0, 2), 3 + (24 if stream == "text" else 0)] = True
    assert torch.equal(changed, expected)
    assert torch.equal(seen["after"][0], seen["before"][0])


def test_steering_pushes_both_halves(model: Model, run: Run) -> None:
    unit = torch.arange(16.0)
    outputs: list[Tensor] = []
    for strength in (0.0, 0.5):
        with steer(model.transformer, {"layers.0": unit}, strength, steps=[4], of=STEPS):
            handle = model.transformer.layers[0].register_forward_hook(lambda *given: outputs.append(given[2]))
            drawn(model, run)
            handle.remove()
    changed = (outputs[STEPS] != outputs[0]).any(-1)
    assert changed[:, :24].all() and not changed[:, 24:].any()


def test_predicted_clean_latents_are_its_schedulers(model: Model, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the stored path, and step by step: both are what DDIM says that it predicted."""
    clean: list[Tensor] = []
    step = model.pipe.scheduler.step

    def keep(*given: object) -> object:
        made = step(*given)
        clean.append(packed(made.pred_original_sample))
        return made

    monkeypatch.setattr(model.pipe.scheduler, "step", keep)
    drawn(model, run)
    prompts = [row["prompt"] for row in run.metadata().values()]
    sampling = Sampling(model, STEPS, GUIDANCE, 32, 48)
    x = sampling.noise([row["seed"] for row in run.metadata().values()])
    for index in range(STEPS):
        for i, sample in enumerate(run.metadata()):
            path = run.trajectory(sample)
            assert path.prediction == "v"
            torch.testing.assert_close(path.x0(index), clean[index][i], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(path.latents[index], x[i], rtol=1e-4, atol=1e-4)
        later, output = sampling.step(x, prompts, index)
        torch.testing.assert_close(sampling.clean(x, output, index), clean[index], rtol=1e-3, atol=1e-3)
        x = later
    assert sampling.calls == 2 * 2 * STEPS
    pictures = model.decode(torch.stack([run.trajectory(sample).latents[-1] for sample in run.metadata()]), 32, 48)
    stored = np.stack([run.image(sample) for sample in run.metadata()])
    assert np.array_equal((pictures.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8), stored)


def test_the_grid_of_a_sample_is_found_without_its_model(model: Model, run: Run, tmp_path: Path) -> None:
    """From its trajectories; without them from its model's folder; without that as its family is published."""
    sample = next(iter(run.metadata()))
    assert grid(run, sample) == (4, 6)
    other = Run(tmp_path / "other")
    other.samples_dir.mkdir()
    other.append_metadata(list(run.metadata().values()))
    other.write_settings({"provenance": {"name": str(model.folder), "family": "Fake"}})
    assert grid(other, sample) == (4, 6)
    other.write_settings({"provenance": {"name": "some/hub-id", "family": "Fake"}})
    assert grid(other, sample) == (2, 3)


def test_probes_watch_it(model: Model) -> None:
    from handscope.probes.watch import watch

    probe = SimpleNamespace(coef_=np.ones(16), intercept_=0.0, metadata_={"block": "layers.2", "step": 1})
    found = watch(model, probe, PROMPTS[0], 1, STEPS, GUIDANCE)
    assert found.scores.shape == (1, STEPS, 4, 4) and np.isfinite(found.scores).all()
    assert np.array_equal(found.x0[-1], found.image)


def test_guidance_refuses_what_its_correction_is_not_derived_for(model: Model) -> None:
    loss = LatentLoss(SimpleNamespace(coef_=np.ones(256), intercept_=0.0))
    with (
        pytest.raises(HandscopeError, match="velocity of flow matching, and Fake predicts v"),
        guide(model.pipe, loss, 1.0, steps=[2], of=STEPS),
    ):
        pass


@pytest.mark.parametrize("name", ["fake", "flux"])
def test_a_token_is_where_its_family_says(model: Model, tiny_model: Model, name: str) -> None:
    """In the blocks, in the latents and in the picture: only there, or there the most, does a change of it show."""
    one = model if name == "fake" else tiny_model
    rows, columns = one.grid(32, 48)
    inputs = one.family.inputs(one, PROMPTS[:1], GUIDANCE, 32, 48)
    timestep = one.family.schedule(one.pipe, STEPS, 32, 48).timesteps[1]
    latents, patch = one.noise(0, 32, 48)[None], one.family.patch
    assert latents.shape == (1, rows * columns, one.family.channels(one.transformer) * patch**2)
    row, column = 2, 4
    changed = latents.clone()
    changed[0, row * columns + column] += 1
    seen = []
    for x in (latents, changed):
        with torch.no_grad(), hs.capture(one.transformer, hs.Plan(one.blocks[:1], [1], 1, at="input")) as found:
            one.family.call(one.transformer, x, timestep, inputs)
        seen.append(found[one.blocks[0], 1][0])
    difference = (seen[1] - seen[0]).abs().amax(-1).reshape(rows, columns)
    assert difference[row, column] > 0 and int((difference > 0).sum()) == 1
    cells = (one.family.unpack(one.pipe, changed, 32, 48) != one.family.unpack(one.pipe, latents, 32, 48)).any(1)[0]
    inside = cells[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    assert cells.sum() == patch**2 and inside.all()
    shown = (one.decode(changed, 32, 48) - one.decode(latents, 32, 48)).abs().sum((0, 1))
    by_token = shown.reshape(rows, 32 // rows, columns, 48 // columns).sum((1, 3))
    assert int(by_token.argmax()) == row * columns + column


def test_copies_in_a_batch_are_not_taken_for_the_halves_of_guidance() -> None:
    transformer, x, text = FakeTransformer(), torch.randn(1, 4, 8, 8), torch.randn(1, 5, 8)
    with hs.capture(transformer, hs.Plan(["layers.0"], [1], of=1)) as seen, torch.no_grad():
        transformer(torch.cat([x, x]), torch.ones(2), torch.cat([text, text]))
    assert seen["layers.0", 1].shape == (2, 16, 16)
