"""Loading: folders, the hub, single files, quantised weights, offload; prompts encoded once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import bitsandbytes
import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.extract.seen import Seen
from handscope.models import encode, quantise
from handscope.models.condition import conditions
from handscope.models.encode import Encoded
from handscope.models.model import Model, load
from handscope.models.placement import bring_when_called, place, release
from made_tiny import PROMPTS
from safetensors.torch import load_file, save_file

CALL = {"num_inference_steps": 2, "height": 32, "width": 32, "max_sequence_length": 20, "output_type": "np"}
PLAN = Plan(["double.0", "double.1", "single.0", "single.2"], [2, 1], of=2)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")
ENCODERS = ("text_encoder", "text_encoder_2")


@pytest.fixture
def folder(tiny_pipe_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may change."""
    return Path(shutil.copytree(tiny_pipe_folder, tmp_path / "copy"))


def image(model: Model, prompt: str = PROMPTS[0]) -> np.ndarray:
    return model.pipe(prompt, generator=torch.Generator().manual_seed(0), **CALL).images[0]


def captured(model: Model) -> Seen:
    with capture(model.transformer, PLAN) as seen:
        image(model)
    return seen


def same(one: Seen, other: Seen) -> bool:
    return all(torch.equal(one[cell.block, cell.step], other[cell.block, cell.step]) for cell in PLAN.cells)


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- where the files are


def test_a_hub_id_is_read_from_the_cache(
    tiny_pipe_folder: Path, tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--some--flux"
    shutil.copytree(tiny_pipe_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = load("some/flux")
    assert model.revision == model.provenance["revision"] == commit
    assert model.weight_hash == tiny_model.weight_hash
    assert load("some/flux", revision=commit).revision == commit
    with pytest.raises(HandscopeError, match="There is no model 'some/flux'"):
        load("some/flux", revision="another")


def test_a_kontext_folder_is_loaded_as_text_to_image(folder: Path, tiny_model: Model) -> None:
    change_json(folder / "model_index.json", _class_name="FluxKontextPipeline")
    assert np.array_equal(image(load(str(folder))), image(tiny_model))


def test_schnell_has_no_guidance_and_half_the_text(tiny_pipe_folder: Path, folder: Path) -> None:
    change_json(folder / "transformer" / "config.json", guidance_embeds=False)
    change_json(folder / "scheduler" / "scheduler_config.json", use_dynamic_shifting=False, shift=1.0)
    change_json(folder / "tokenizer_2" / "tokenizer_config.json", model_max_length=512)
    weights = {name: part for name, part in load_file(folder / WEIGHTS).items() if "guidance" not in name}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    model = load(str(folder))
    assert model.max_sequence_length == 256
    assert model.family.inputs(model, PROMPTS[:2], 3.5, 32, 32)["calls"]["cond"]["guidance"] is None
    assert torch.allclose(model.family.schedule(model.pipe, 4, 32, 32)[0], torch.tensor([1, 0.75, 0.5, 0.25, 0]))
    dev = load(str(tiny_pipe_folder))
    dev.pipe.tokenizer_2.model_max_length = 4096
    assert dev.max_sequence_length == 512


def test_a_file_of_another_kind_is_refused(tmp_path: Path, tiny_pipe_folder: Path) -> None:
    path = tmp_path / "flux.gguf"
    path.touch()
    with pytest.raises(HandscopeError, match=r"Expected weights in a \.safetensors file, found .*flux\.gguf"):
        load(str(path), base=str(tiny_pipe_folder))
    folder = shutil.copytree(tiny_pipe_folder, tmp_path / "flux.bin")
    assert load(str(folder)).folder == folder


@pytest.mark.parametrize("name", ["flux.ckpt", "flux.PT", "some/where/model.bin", "model.pth"])
def test_pickles_are_refused_by_name(name: str, tiny_pipe_folder: Path) -> None:
    with pytest.raises(HandscopeError, match="is a pickle by its name.*safetensors"):
        load(name, base=str(tiny_pipe_folder))


def test_a_folder_of_pickles_is_refused(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), (folder / WEIGHTS).with_suffix(".bin"))
    (folder / WEIGHTS).unlink()
    with pytest.raises(HandscopeError, match="with safetensors weights"):
        load(str(folder))


def test_a_missing_tensor_is_named(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["single_transformer_blocks.0.attn.norm_q.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(HandscopeError, match=r"lacks 1 tensors of its transformer, single_transformer_blocks\.0"):
        load(str(folder))


# --- one file


@pytest.fixture
def single(tiny_pipe_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_pipe_folder / WEIGHTS, tmp_path / "finetune.safetensors"))


def test_a_single_file_takes_the_place_of_the_transformer(
    tiny_pipe_folder: Path, tiny_model: Model, folder: Path, single: Path
) -> None:
    with torch.no_grad():
        weights = {name: part + 0.01 for name, part in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    model = load(str(single), base=str(folder))  # its transformer is another, and must not be read
    assert np.array_equal(image(model), image(tiny_model))
    assert model.provenance["name"] == str(single) and model.provenance["base"] == str(folder)
    weight_hash = model.weight_hash
    renamed = single.rename(single.with_name("v2.safetensors"))
    assert load(str(renamed), base=str(folder)).weight_hash == weight_hash
    save_file(weights, single)
    assert load(str(single), base=str(folder)).weight_hash != weight_hash


def test_a_single_file_that_does_not_fit_is_refused(tiny_pipe_folder: Path, single: Path) -> None:
    base = str(tiny_pipe_folder)
    with pytest.raises(HandscopeError, match=r"holds a transformer only: say in base="):
        load(str(single))
    with pytest.raises(HandscopeError, match="leave base out"):
        load(base, base=base)
    with pytest.raises(HandscopeError, match="There is no file"):
        load(str(single.with_name("other.safetensors")), base=base)
    content = single.read_bytes()
    single.write_bytes(content[:1000])
    with pytest.raises(HandscopeError, match=r"finetune\.safetensors could not be loaded"):
        load(str(single), base=base)
    save_file({"lora.down.weight": torch.zeros(2, 2)}, single)
    with pytest.raises(HandscopeError, match="expected FLUX.1 transformer weights that fit the config"):
        load(str(single), base=base)


# --- fewer bits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_of_torchao_weights_are_read(tiny_pipe_folder: Path, dtype: str) -> None:
    plain = load(str(tiny_pipe_folder), dtype=dtype)
    model = load(str(tiny_pipe_folder), dtype=dtype, quantisation="torchao-int8")
    linear = [part for part in model.transformer.modules() if isinstance(part, torch.nn.Linear)]
    assert {type(part.weight.data).__name__ for part in linear} == {"Int8Tensor"}
    assert model.weight_hash != plain.weight_hash
    assert model.provenance["quantisation"] == "torchao-int8"
    seen, expected = captured(model), captured(plain)
    for cell in PLAN.cells:
        found, bare = seen[cell.block, cell.step], expected[cell.block, cell.step]
        assert found.dtype == bare.dtype and found.shape == bare.shape
        # The same stream, and not the same bits: eight of them make an error of some per cent.
        assert 0 < (found - bare).float().norm() < 0.1 * bare.float().norm()


def test_quantised_folders_and_files_load(tiny_pipe_folder: Path, single: Path, tmp_path: Path) -> None:
    model = load(str(tiny_pipe_folder), dtype="bfloat16", quantisation="torchao-int8")
    model.pipe.save_pretrained(tmp_path / "int8")
    saved = load(str(tmp_path / "int8"), dtype="bfloat16")
    alone = load(str(single), dtype="bfloat16", quantisation="torchao-int8", base=str(tiny_pipe_folder))
    assert saved.provenance["quantised_checkpoint"] == "torchao" and saved.provenance["quantisation"] is None
    assert len({model.weight_hash, saved.weight_hash, alone.weight_hash}) == 3
    expected = captured(model)
    assert same(captured(saved), expected) and same(captured(alone), expected)
    with pytest.raises(HandscopeError, match="is quantised already, by torchao"):
        load(str(tmp_path / "int8"), quantisation="torchao-int8")


def eight_bit(linear: torch.nn.Linear) -> torch.nn.Module:
    made = bitsandbytes.nn.Linear8bitLt(linear.in_features, linear.out_features, has_fp16_weights=False)
    made.weight = bitsandbytes.nn.Int8Params(linear.weight.data.clone(), requires_grad=False, has_fp16_weights=False)
    return made


def four_bit(linear: torch.nn.Linear) -> torch.nn.Module:
    made = bitsandbytes.nn.Linear4bit(
        linear.in_features, linear.out_features, compute_dtype=linear.weight.dtype, quant_type="nf4"
    )
    made.weight = bitsandbytes.nn.Params4bit(linear.weight.data.clone(), requires_grad=False, quant_type="nf4")
    return made


@pytest.mark.parametrize(("quantised", "error"), [(eight_bit, 0.1), (four_bit, 0.5)])
def test_blocks_of_bitsandbytes_layers_are_read(
    tiny_pipe_folder: Path, tiny_model: Model, quantised: Callable, error: float
) -> None:
    # diffusers refuses to load bitsandbytes weights on a CPU; its layers are put in by hand, and run there.
    model = load(str(tiny_pipe_folder))
    for parent in list(model.transformer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                layer = quantised(child)
                layer.bias = child.bias
                setattr(parent, name, layer.to("cpu"))
    assert quantise.is_quantised(model.transformer) and not quantise.is_quantised(tiny_model.transformer)
    seen, expected = captured(model), captured(tiny_model)
    for cell in PLAN.cells:
        found, bare = seen[cell.block, cell.step], expected[cell.block, cell.step]
        assert 0 < (found - bare).norm() < error * bare.norm()


@pytest.mark.parametrize("quantisation", ["bnb-4bit", "bnb-8bit", "torchao-int8"])
def test_a_package_that_is_not_installed_is_named(
    tiny_pipe_folder: Path, quantisation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    with pytest.raises(HandscopeError, match=r"not installed: pip install (bitsandbytes|torchao)\.$"):
        load(str(tiny_pipe_folder), quantisation=quantisation)


def test_bitsandbytes_is_refused_on_a_cpu(tiny_pipe_folder: Path, folder: Path) -> None:
    for quantisation in ("bnb-4bit", "bnb-8bit"):
        with pytest.raises(HandscopeError, match="need a GPU in diffusers.*torchao-int8"):
            load(str(tiny_pipe_folder), quantisation=quantisation)
    change_json(folder / "transformer" / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(HandscopeError, match="need a GPU in diffusers"):
        load(str(folder))
    with pytest.raises(HandscopeError, match="one of bnb-4bit, bnb-8bit, torchao-int8, found 'fp8'"):
        load(str(tiny_pipe_folder), quantisation="fp8")


# --- what is on the device


def test_offload_needs_a_gpu(tiny_pipe_folder: Path) -> None:
    for offload in ("model", "sequential"):
        with pytest.raises(HandscopeError, match="the device is cpu: leave it out"):
            load(str(tiny_pipe_folder), offload=offload)
    with pytest.raises(HandscopeError, match="model, sequential, found 'disk'"):
        load(str(tiny_pipe_folder), offload="disk")


@pytest.mark.parametrize(
    "placed",
    [lambda pipe: place(pipe, ENCODERS, CPU, "model"), lambda pipe: bring_when_called(pipe, ENCODERS, CPU)],
    ids=["model", "none"],
)
def test_parts_that_come_when_they_are_called(tiny_pipe_folder: Path, tiny_model: Model, placed: Callable) -> None:
    # With the CPU as the device: nothing moves, and the hooks that would move it run.
    model = load(str(tiny_pipe_folder))
    placed(model.pipe)
    for part in (model.pipe.text_encoder, model.pipe.text_encoder_2):
        assert part._hf_hook.execution_device.type == "cpu"
    release(model.pipe, ENCODERS)
    assert np.array_equal(image(model), image(tiny_model))
    assert same(captured(model), captured(tiny_model))
    latents = torch.zeros(1, 16, 16)
    assert torch.equal(model.decode(latents, 32, 32), tiny_model.decode(latents, 32, 32))
    calls = [one.family.inputs(one, PROMPTS, 3.5, 32, 32)["calls"]["cond"] for one in (model, tiny_model)]
    assert torch.equal(*(call["txt_ids"] for call in calls))


def test_encoders_and_transformer_come_each_at_its_first_call(tiny_pipe_folder: Path) -> None:
    def where(part: torch.nn.Module) -> str:
        return next(part.parameters()).device.type

    model = load(str(tiny_pipe_folder))
    inputs = model.family.inputs(model, PROMPTS[:1], 3.5, 32, 32)["calls"]["cond"]
    there = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    encoder, transformer = model.pipe.text_encoder_2, model.transformer
    # A device that every machine has, and that computes shapes.
    bring_when_called(model.pipe, ENCODERS, torch.device("meta"))
    assert where(encoder) == where(transformer) == "cpu"
    encoder(torch.zeros(1, 20, dtype=torch.long, device="meta"))
    assert (where(encoder), where(transformer)) == ("meta", "cpu")
    latents, timestep = torch.zeros(1, 16, 16, device="meta"), torch.ones(1, device="meta")
    assert transformer(hidden_states=latents, timestep=timestep, **there)[0].device.type == "meta"
    assert where(transformer) == "meta" and not transformer._forward_pre_hooks
    assert conditions(transformer)["offload"] == "none"


# --- prompts


def test_each_prompt_is_encoded_once(tiny_pipe_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(str(tiny_pipe_folder))
    asked: list[str] = []
    encode_prompt = model.pipe.encode_prompt

    def counted(**given: object) -> object:
        asked.extend(given["prompt"])
        return encode_prompt(**given)

    monkeypatch.setattr(model.pipe, "encode_prompt", counted)
    said: list[tuple] = []
    model.encode(PROMPTS[:3] * 2, lambda *progress: said.append(progress))
    model.encode(PROMPTS[1:4])
    # These are longer than what is read, and each is encoded without its last word too, to see whether it is cut.
    assert asked == [text for prompt in PROMPTS[:4] for text in (prompt, prompt.rsplit(None, 1)[0])]
    assert said == [("encode", 1, 3), ("encode", 2, 3), ("encode", 3, 3)]


@pytest.mark.parametrize("held", [2**30, 3000, 0])
def test_embeddings_have_the_pipelines_bits_in_memory_and_on_disk(
    tiny_pipe_folder: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "HELD", held)  # one prompt is 640 bytes in bfloat16
    model = load(str(tiny_pipe_folder), dtype="bfloat16")
    order = [3, 0, 3, 1, 2, 2]
    embeddings = model.encode(PROMPTS).batch([PROMPTS[i] for i in order], "cpu", torch.bfloat16)
    with torch.no_grad():
        expected = model.pipe.encode_prompt([PROMPTS[i] for i in order], max_sequence_length=20)
    for found, bare in zip((embeddings["text"], embeddings["pooled"]), expected):
        assert found.dtype == bare.dtype and torch.equal(found, bare)
    spilled = model.encode([])._folder
    assert (spilled is None) == (held == 2**30)
    if spilled is not None:
        assert len(list(Path(spilled.name).iterdir())) == len(PROMPTS) - held // 640


def test_the_inputs_of_a_call_are_the_pipelines(tiny_model: Model) -> None:
    given: list[dict] = []
    handle = tiny_model.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs), with_kwargs=True
    )
    try:
        tiny_model.pipe(PROMPTS[:3], **CALL | {"height": 24, "width": 40}, guidance_scale=2.5)
    finally:
        handle.remove()
    inputs = tiny_model.family.inputs(tiny_model, PROMPTS[:3], 2.5, 24, 40)["calls"]["cond"]
    assert inputs.keys() == given[0].keys() - {"hidden_states", "timestep"}
    for name, value in inputs.items():
        bare = given[0][name]
        assert torch.equal(value, bare) if isinstance(value, torch.Tensor) else value == bare, name


def test_a_prompt_that_was_not_encoded_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = Encoded()
    encoded.put("a fist", {"text": torch.zeros(4, 2)})
    with pytest.raises(HandscopeError, match="'a palm' is not among the 1 that were encoded"):
        encoded.batch(["a fist", "a palm"], "cpu", torch.float32)

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode, "HELD", 0)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(HandscopeError, match=r"2 prompts do not fit into .*No space left.*TMPDIR"):
        encoded.put("a palm", {"text": torch.zeros(4, 2)})


# --- the schedule


@pytest.mark.parametrize(
    ("scheduler", "steps", "height", "width"),
    [
        ({}, 4, 32, 32),
        ({}, 7, 24, 64),
        ({"use_dynamic_shifting": False}, 3, 32, 32),
        ({"shift_terminal": 0.1}, 5, 64, 32),
        ({"use_beta_sigmas": True}, 5, 32, 32),
    ],
)
def test_the_schedule_is_the_pipelines(
    tiny_pipe_folder: Path, scheduler: dict, steps: int, height: int, width: int
) -> None:
    model = load(str(tiny_pipe_folder))
    model.pipe.scheduler = type(model.pipe.scheduler).from_config(model.pipe.scheduler.config, **scheduler)
    sigmas, timesteps = model.family.schedule(model.pipe, steps, height, width)
    assert len(model.pipe.scheduler.timesteps) == 1000  # the pipeline's own was not touched
    model.pipe(PROMPTS[0], **CALL | {"num_inference_steps": steps, "height": height, "width": width})
    assert sigmas.dtype == timesteps.dtype == torch.float32
    assert torch.equal(sigmas, model.pipe.scheduler.sigmas)
    assert torch.equal(timesteps, model.pipe.scheduler.timesteps)


def test_a_scheduler_that_takes_no_euler_steps_is_refused(tiny_pipe_folder: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

    model = load(str(tiny_pipe_folder))
    for scheduler in (FlowMatchHeunDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)):
        model.pipe.scheduler = scheduler
        with pytest.raises(HandscopeError, match="FlowMatchEulerDiscreteScheduler without stochastic_sampling"):
            model.family.schedule(model.pipe, 4, 32, 32)


def test_the_schedulers_digest_is_of_what_is_switched_on(tiny_pipe_folder: Path) -> None:
    model = load(str(tiny_pipe_folder))
    before = model.scheduler
    assert before.startswith("FlowMatchEulerDiscreteScheduler ")
    change_to = model.pipe.scheduler.register_to_config
    change_to(a_new_switch=False, a_new_value=None)
    assert model.scheduler == before
    change_to(shift=2.0)
    assert model.scheduler != before


def test_set_shift_is_heard_by_schedule_and_digest(tiny_pipe_folder: Path) -> None:
    model = load(str(tiny_pipe_folder))
    model.pipe.scheduler = type(model.pipe.scheduler)(shift=1.0)
    before = model.scheduler
    model.pipe.scheduler.set_shift(3.0)
    assert model.scheduler != before
    sigmas, timesteps = model.family.schedule(model.pipe, 2, 32, 32)
    image(model)
    assert torch.equal(sigmas, model.pipe.scheduler.sigmas) and float(sigmas[1]) == 0.75
    model.pipe.scheduler.set_shift(1.0)
    assert model.scheduler == before


@pytest.mark.parametrize("wide", [2, 3])
def test_a_transformer_that_is_given_a_picture_too_is_refused(folder: Path, wide: int) -> None:
    """As those for Control (twice the channels) and Fill: in a folder that calls itself text to image."""
    change_json(folder / "transformer" / "config.json", in_channels=16 * wide, out_channels=16)
    weights = load_file(folder / WEIGHTS)
    weights["x_embedder.weight"] = weights["x_embedder.weight"].repeat(1, wide)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(HandscopeError, match=f"takes {4 * wide} channels and its VAE has 4: .*Control or Fill"):
        load(str(folder))
    for name in ("FluxControlPipeline", "FluxFillPipeline"):
        change_json(folder / "model_index.json", _class_name=name)
        with pytest.raises(HandscopeError, match=f"found a {name}"):
            load(str(folder))
