"""What a model computes is what drew the pictures: what acted is on record, and one forward tells what is not."""

import re
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from flux_calls import PLAN, call
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.agreement import TOLERANCE, check_agreement, steps_off
from handscope.extract.capture import capture
from handscope.extract.extract import extract
from handscope.extract.generate import draw, generate
from handscope.extract.replay import replay
from handscope.extract.survey.survey import survey
from handscope.guidance import guide, steer
from handscope.models.families.flux import FAMILY
from handscope.models.model import Model, load
from handscope.run.folder import Run
from hypothesis import given
from hypothesis import strategies as st
from made_tiny import PROMPTS, STEPS
from peft import LoraConfig
from torch import Tensor

INNER = Plan(["double.1"], [4, 2], of=STEPS)
LAST = Plan(["single.2"], [4, 1], of=STEPS)


@pytest.fixture
def model(tiny_pipe_folder: Path) -> Model:
    """A model for one test, which may do to it what it likes."""
    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="module")
def drawn(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four samples of a model that nothing acts on, in batches of two."""
    run = Run(tmp_path_factory.mktemp("drawn"))
    generate(tiny_model, run, PROMPTS[:2], [0, 1], steps=STEPS, batch_size=2)
    return run


def hide_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be on record, as of what handscope does not know."""
    monkeypatch.setattr(Model, "state", "plain")


# What acts: something that is done to a model, for as long as the block lasts


@contextmanager
def lora(model: Model) -> Iterator[None]:
    add_lora(model.transformer)
    yield


def add_lora(transformer: Any) -> None:
    layers = ["to_q", "to_k", "to_v", "proj_out"]
    config = LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=layers)
    transformer.add_adapter(config, adapter_name="hands")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if "lora_" in name:
                weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))


@contextmanager
def fused(model: Model) -> Iterator[None]:
    add_lora(model.transformer)
    model.transformer.fuse_lora()
    model.transformer.unload_lora()
    yield


@contextmanager
def changed(model: Model) -> Iterator[None]:
    with torch.no_grad():
        for weight in model.transformer.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    yield


@contextmanager
def casting(model: Model) -> Iterator[None]:
    model.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    yield


@contextmanager
def autocast(model: Model) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@contextmanager
def teacache(model: Model) -> Iterator[None]:
    """Every second call returns what the one before it did."""
    plain, kept = type(model.transformer).forward, []

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kept and kept[0] is not None:
            return kept.pop()
        kept[:] = [plain(self, *args, **kwargs)]
        return kept[0]

    model.transformer.forward = types.MethodType(forward, model.transformer)
    yield


@contextmanager
def encoders(model: Model) -> Iterator[None]:
    with torch.no_grad():
        for name in ("text_encoder", "text_encoder_2"):
            for weight in getattr(model.pipe, name).parameters():
                weight *= 3
    yield


@contextmanager
def steered(model: Model, strength: float = 0.6) -> Iterator[None]:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(3))
    with steer(model.transformer, {"double.0": direction}, strength, range(STEPS, 0, -1), STEPS):
        yield


ACTS = {
    lora: "adapters hands",
    fused: "weights of transformer changed",
    changed: "weights of transformer changed",
    casting: "casting layerwise casting float8_e4m3fn",
    autocast: "autocast bfloat16",
    teacache: r"replaced FluxTransformer2DModel.forward by \S*test_agreement\.teacache",
    encoders: "weights of text_encoder changed",
    steered: "edits steer by 0.6",
}


@pytest.mark.parametrize("acts", [way for way in ACTS if way is not steered])
def test_what_acts_on_the_model_that_reads_is_refused_by_name_and_else_by_one_forward(
    model: Model, drawn: Run, run_copy: Callable[[Run], Run], acts: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_copy(drawn)
    with acts(model):
        with pytest.raises(HandscopeError, match=rf"model\.state = plain, and now it is .*{ACTS[acts]}"):
            extract(model, run, INNER, tokens="all")
        hide_state(monkeypatch)
        if acts is not teacache:  # which has nothing to skip in a first call
            with pytest.raises(HandscopeError, match="computes something else than what drew the picture of 'a "):
                extract(model, run, INNER, tokens="all")
    assert not run.activations_dir.exists()


@pytest.mark.parametrize("acts", ACTS)
def test_a_run_says_what_its_pictures_were_drawn_under_and_a_plain_model_does_not_join_it(
    model: Model, tiny_model: Model, tmp_path: Path, acts: Callable
) -> None:
    run = Run(tmp_path)
    with acts(model):
        generate(model, run, PROMPTS[:1], [0, 1], steps=STEPS, batch_size=2)
    said = run.settings["model"]["state"]
    assert re.search(ACTS[acts], said)
    for join in (
        lambda: generate(tiny_model, run, PROMPTS[1:2], [0], steps=STEPS, batch_size=2),
        lambda: extract(tiny_model, run, INNER, tokens="all"),
    ):
        with pytest.raises(HandscopeError, match="and now it is plain: one run holds one model"):
            join()
    without_state(run)
    with pytest.raises(HandscopeError, match=r"computes something else than .* step [1-4] of 4 is"):
        extract(tiny_model, run, INNER, tokens="all")
    assert set(run.samples()["prompt"]) == {PROMPTS[0]}


def without_state(run: Run) -> None:
    """As 0.3 began a run."""
    settings = run.settings
    del settings["model"]["state"]
    run.settings_path.write_text(yaml.safe_dump(settings))


def test_a_refusal_leaves_what_was_stored(
    model: Model, tiny_model: Model, drawn: Run, run_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_copy(drawn)
    extract(tiny_model, run, INNER, tokens="all")
    (run.activations_dir / "shards" / f"{run.samples()['sample'][0]}.h5").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in run.activations_dir.rglob("*.h5")}
    hide_state(monkeypatch)
    with fused(model), pytest.raises(HandscopeError, match="computes something else"):
        extract(model, run, INNER, tokens="all")
    assert {path.name: path.stat().st_mtime_ns for path in run.activations_dir.rglob("*.h5")} == before


def test_what_is_done_again_alike_joins(model: Model, tmp_path: Path) -> None:
    run = Run(tmp_path)
    for seed, prompt in enumerate(PROMPTS[:2]):
        with steered(model):
            generate(model, run, [prompt], [seed], steps=STEPS, batch_size=1)
    with steered(model, 0.5), pytest.raises(HandscopeError, match=r"steer by 0\.6.*and now it is edits steer by 0\.5"):
        generate(model, run, [PROMPTS[2]], [0], steps=STEPS, batch_size=1)
    add_lora(model.transformer)
    lorad = Run(tmp_path / "lora")
    generate(model, lorad, PROMPTS[:1], [0], steps=STEPS)
    other = load(model.name)
    add_lora(other.transformer)
    assert extract(other, lorad, INNER, tokens="all").attrs["state"] == lorad.settings["model"]["state"]


def test_guidance_is_on_record(model: Model, tmp_path: Path) -> None:
    with guide(model.pipe, lambda clean: clean.square().mean((1, 2)), 0.1, [3], STEPS, form="frozen"):
        generate(model, Run(tmp_path), PROMPTS[:1], [0], steps=STEPS)
    assert "edits guide by" in Run(tmp_path).settings["model"]["state"]
    assert model.state == "plain"


def test_a_run_of_0_3_goes_on_without_a_state_and_is_compared_all_the_same(
    model: Model, tiny_model: Model, drawn: Run, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(drawn)
    without_state(run)
    generate(model, run, PROMPTS[2:3], [0, 1], steps=STEPS, batch_size=2)
    assert "state" not in run.settings["model"]
    with lora(model), pytest.raises(HandscopeError, match=r"computes something else .*now there acts adapters hands"):
        extract(model, run, INNER, tokens="all")
    assert extract(tiny_model, run, INNER, tokens="all").samples == list(run.samples()["sample"])


# What it costs, and where it looks


def test_it_costs_one_forward_an_extraction(model: Model, drawn: Run, run_copy: Callable[[Run], Run]) -> None:
    run, calls = run_copy(drawn), []
    model.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    extract(model, run, INNER, tokens="all")
    assert len(calls) == 2 * len(INNER.steps) + 1
    extract(model, run, INNER, tokens="all")
    assert len(calls) == 2 * len(INNER.steps) + 1


def test_one_forward_looks_at_as_many_steps_as_it_has_rows(model: Model, drawn: Run) -> None:
    rows = list(drawn.metadata().values())
    paths, prompts = [drawn.trajectory(row["sample"]) for row in rows], [row["prompt"] for row in rows]
    seen: list[float] = []
    handle = model.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.extend(kwargs["timestep"].tolist()), with_kwargs=True
    )
    check_agreement(model, prompts, paths, 3.5, 32, 32)
    handle.remove()
    assert seen == pytest.approx((paths[0].timesteps / 1000).tolist())
    for place in range(STEPS):
        check_agreement(model, prompts, paths, 3.5, 32, 32)
        broken = drawn.trajectory(rows[place]["sample"])
        broken.latents[place + 1] += 0.01 * torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
        with pytest.raises(HandscopeError, match=f"step {STEPS - place} of 4 is"):
            check_agreement(model, prompts, [*paths[:place], broken, *paths[place + 1 :]], 3.5, 32, 32)


@pytest.mark.parametrize("masked", [False, True])
def test_every_step_is_compared_where_the_last_block_is_read(tiny_model: Model, masked: bool) -> None:
    model, prompts = tiny_model, PROMPTS[:4]
    mask = torch.zeros(4, 16, dtype=torch.bool)
    mask[0, 3], mask[1, 5:9], mask[3] = True, True, True
    tokens = mask if masked else None
    with capture(model.transformer, LAST, tokens) as expected:
        paths = draw(model, [(prompt, 7) for prompt in prompts], STEPS, 3.5, 32, 32).trajectories
    seen = replay(model, LAST, prompts, paths, 3.5, 32, 32, tokens)
    for cell in LAST.cells:
        assert torch.equal(seen[cell.block, cell.step], expected[cell.block, cell.step])
    paths[1].latents[STEPS, 6] += 0.05
    with pytest.raises(HandscopeError, match=f"drew the picture of '{prompts[1]}': its step 1 of 4"):
        replay(model, LAST, prompts, paths, 3.5, 32, 32, tokens)
    replay(model, INNER, prompts, paths, 3.5, 32, 32, tokens)  # ends before the model has said anything
    if masked:
        mask[1] = False
        replay(model, LAST, prompts, paths, 3.5, 32, 32, mask)  # nothing is read of it


def test_a_survey_is_compared(model: Model, finished_run: Run, run_copy: Callable[[Run], Run], monkeypatch) -> None:
    run = run_copy(finished_run)
    hide_state(monkeypatch)
    with lora(model), pytest.raises(HandscopeError, match="computes something else"):
        survey(model, run)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_model_is_off_by_nothing_at_its_batch_size_and_by_little_at_another(
    tiny_pipe_folder: Path, dtype: str
) -> None:
    model = load(str(tiny_pipe_folder), dtype=dtype)
    pairs = [(prompt, 7) for prompt in PROMPTS[:4]]
    paths = draw(model, pairs, 8, 3.5, 32, 32).trajectories
    prompts = [prompt for prompt, _ in pairs]
    assert float(off(model, prompts, paths).max()) == 0
    alone = torch.cat([off(model, [prompt], [path]) for prompt, path in zip(prompts, paths)], 1)
    assert float(alone.max()) < TOLERANCE[model.dtype] / 2
    with encoders(model):
        model.check()
        assert float(off(model, prompts, paths).max()) > 2 * TOLERANCE[model.dtype]


def off(model: Model, prompts: list[str], paths: list) -> Tensor:
    """`steps_off` of every step, (steps, samples), by calls that are written out."""
    inputs, found = model.family.inputs(model, prompts, 3.5, 32, 32), []
    for i, timestep in enumerate(paths[0].timesteps):
        noisy, less = (torch.stack([path.latents[place] for path in paths]) for place in (i, i + 1))
        with torch.no_grad():
            (output,) = model.family.call(model.transformer, noisy, timestep, inputs)
        found.append(steps_off(model.family, noisy, less, output[0], *paths[0].sigmas[i : i + 2]))
    return torch.stack(found)


@given(st.integers(0, 2**16), st.floats(0.02, 0.98), st.floats(0, 0.99), st.floats(0, 1), st.booleans())
def test_what_rounding_explains_is_left_out_and_never_more_is_found_than_there_is(
    seed: int, sigma: float, share: float, wrong: float, half: bool
) -> None:
    generator, dtype = torch.Generator().manual_seed(seed), torch.bfloat16 if half else torch.float32
    noisy, velocity, error = (torch.randn(2, 5, 7, generator=generator) for _ in range(3))
    noisy, error = noisy.to(dtype), wrong * error * (velocity.norm() / error.norm())
    times = torch.tensor(sigma), torch.tensor(sigma * share)
    less = (noisy.float() + (times[1] - times[0]) * velocity).to(dtype)
    assert float(steps_off(FAMILY, noisy, less, velocity, *times).max()) < 1e-5
    found = steps_off(FAMILY, noisy, less, velocity + error, *times)
    step = (less.float() - noisy.float()).flatten(1).norm(dim=1).clamp(min=1e-12)
    there = ((times[0] - times[1]) * error).flatten(1).norm(dim=1) / step
    assert bool((found <= there * 1.001 + 1e-5).all())
    if not half:
        torch.testing.assert_close(found, there, rtol=1e-3, atol=1e-3)


# Adapters, casts and encoders


def test_the_scale_that_a_call_gives_an_adapter_is_on_record(model: Model) -> None:
    add_lora(model.transformer)
    found = []
    for said in ({}, {"joint_attention_kwargs": {"scale": 1.0}}, {"joint_attention_kwargs": {"scale": 0.25}}):
        with capture(model.transformer, PLAN) as seen:
            call(model, **said)
        found.append(seen.conditions["adapters"])
    assert found[0] == found[1] and found[2] == f"{found[0]} at scale 0.25"


def test_an_adapter_that_does_not_act_is_nothing(model: Model) -> None:
    add_lora(model.transformer)
    assert model.state.startswith("adapters hands ") and "weights" not in model.state
    model.transformer.disable_adapters()
    assert model.state == "plain"
    model.transformer.delete_adapters("hands")
    assert model.state == "plain"


@pytest.mark.parametrize(("where", "dtype"), [("pipe", torch.bfloat16), ("transformer", torch.float64)])
def test_a_model_that_was_cast_after_loading_is_refused(
    model: Model, tmp_path: Path, where: str, dtype: torch.dtype
) -> None:
    getattr(model, where).to(dtype)
    with pytest.raises(HandscopeError, match=rf"loaded in torch\.float32 and is in {dtype} now: load the model with"):
        generate(model, Run(tmp_path), PROMPTS[:1], [0], steps=2)


def test_embeddings_of_other_text_encoders_are_forgotten(model: Model, tmp_path: Path) -> None:
    encoded = model.encode(PROMPTS[:1])
    model.check()
    assert PROMPTS[0] in encoded
    first = generate(model, Run(tmp_path / "a"), PROMPTS[:1], [0], steps=2)
    fresh = load(model.name)
    with encoders(model), encoders(fresh):
        again = generate(model, Run(tmp_path / "b"), PROMPTS[:1], [0], steps=2)
        assert generate(fresh, Run(tmp_path / "c"), PROMPTS[:1], [0], steps=2).equals(again)
    assert again.image_sha256[0] != first.image_sha256[0]


def test_a_wrapped_forward_is_looked_through_and_a_replaced_class_is_not(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    import accelerate

    accelerate.cpu_offload_with_hook(model.transformer, torch.device("cpu"))
    model.transformer.transformer_blocks[0].compile(backend="eager")
    assert model.state == "plain"
    kind = type(model.transformer)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    original = kind.forward
    monkeypatch.setattr(kind, "forward", forward)
    assert "test_agreement.test_a_wrapped" in load(model.name).state
