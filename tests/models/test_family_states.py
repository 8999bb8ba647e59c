"""States of the families' models and pipelines in which nothing can be read: refused by name before a block runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handscope as hs
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FirstBlockCacheConfig
from handscope.errors import HandscopeError
from handscope.guidance import guide
from handscope.models.model import Model, load
from handscope.models.registry import check_kinds
from handscope.run.folder import Run
from made_families import TEXT, save
from PIL import Image
from torch import Tensor


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """The tiny model of a family, made once."""
    models: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in models:
            folder = tmp_path_factory.mktemp("states") / name
            save(name, folder)
            models[name] = load(str(folder))
        return models[name]

    return get


def call(model: Model, steps: int = 2, size: tuple[int, int] = (32, 48), scale: float = 2.5, **given: Any) -> Tensor:
    """Final latents of one sample."""
    arguments = model.family.generation(model, ["an open hand"], scale)
    more = {"height": size[0], "width": size[1], "num_inference_steps": steps, "output_type": "latent"}
    generator = torch.Generator().manual_seed(0)
    return model.pipe(**{**arguments, **more, **given}, generator=generator).images


def test_skip_layer_guidance_is_refused(of: Callable[[str], Model]) -> None:
    model = of("sd3")
    with (
        pytest.raises(HandscopeError, match="Skip-layer guidance.*SD3 cannot be read so.*without skip_layers"),
        hs.capture(model.transformer, hs.Plan(["transformer_blocks.0"], [1], of=4)),
    ):
        call(model, 4, skip_guidance_layers=[1], skip_layer_guidance_start=-0.1)


def test_the_last_text_of_stable_diffusion_3_is_refused_before_anything_runs(of: Callable[[str], Model]) -> None:
    model = of("sd3")
    ran: list[int] = []
    handle = model.transformer.register_forward_pre_hook(lambda *_: ran.append(1))
    with (
        pytest.raises(HandscopeError, match=r"output of transformer_blocks\.2 has no text stream; it has image"),
        hs.capture(model.transformer, hs.Plan(["transformer_blocks.2"], [1], of=1, stream="text")),
    ):
        call(model, 1)
    with hs.capture(model.transformer, hs.Plan(None, [1], of=1, stream="text")) as seen:
        call(model, 1)
    handle.remove()
    assert len(ran) == 1 and [block.index for block in seen.plan.blocks] == [0, 1]


def test_keys_and_values_that_are_kept_are_refused(of: Callable[[str], Model], tmp_path: Path) -> None:
    model = of("flux2-klein-distilled")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinKVPipeline"}))
    with pytest.raises(HandscopeError, match="Flux2KleinKVPipeline.*cannot be loaded: it keeps keys and values"):
        load(str(tmp_path))
    inputs = model.family.inputs(model, ["an open hand"], 1.0, 32, 48)["calls"]["cond"]
    with (
        pytest.raises(HandscopeError, match="kept from step to step, and FLUX.2 cannot be read so"),
        hs.capture(model.transformer, hs.Plan(["transformer_blocks.0"], [1], of=1)),
    ):
        given = {"hidden_states": model.noise(0, 32, 48)[None], "timestep": torch.ones(1)}
        model.transformer(**inputs, **given, kv_cache_mode="extract", num_ref_tokens=1)


def test_a_multistep_scheduler_is_refused_for_trajectories(of: Callable[[str], Model], tmp_path: Path) -> None:
    model = of("sana")
    published = model.pipe.scheduler
    model.pipe.scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction", algorithm_type="dpmsolver++"
    )
    try:
        with pytest.raises(HandscopeError, match="for Sana, found DPMSolverMultistepScheduler"):
            hs.generate(model, Run(tmp_path / "run"), ["an open hand"], [0], 2, 2.5, 32, 64)
        assert not (tmp_path / "run" / "samples").exists()
        with hs.capture(model.transformer, hs.Plan(None, [2, 1], of=2)) as seen:  # around one's own call it may be any
            call(model, 2, (32, 64))
        assert seen["transformer_blocks.1", 1].shape == (1, 128, 32)
    finally:
        model.pipe.scheduler = published


@pytest.mark.parametrize("name", ["qwen-image", "flux2-klein", "z-image", "sd3", "sana"])
def test_a_cache_and_a_whole_compile_are_refused(of: Callable[[str], Model], name: str) -> None:
    transformer = of(name).transformer
    plan = hs.Plan(None, [1], of=1)
    if hasattr(transformer, "enable_cache"):
        transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        with pytest.raises(HandscopeError, match="cache is enabled"), hs.capture(transformer, plan):
            pass
        transformer.disable_cache()
    with hs.capture(transformer, plan):
        assert call(of(name), 1, (32, 64)).isfinite().all()
    compiled = torch.compile(transformer, backend="eager")
    with pytest.raises(HandscopeError, match="whole transformer is compiled"), hs.capture(compiled, plan):
        pass


def test_single_blocks_that_return_two_streams_are_read_and_edited_too(of: Callable[[str], Model]) -> None:
    """As FLUX.2's may in another version of diffusers: a hook before ours parts the tensor, one behind joins it."""
    model = of("flux2-klein-distilled")
    blocks = model.transformer.single_transformer_blocks
    plan = hs.Plan(["single_transformer_blocks.0", "single_transformer_blocks.1"], [2, 1], of=2)

    def part(module: Any, args: Any, output: Tensor) -> tuple[Tensor, Tensor]:
        return output[:, :TEXT], output[:, TEXT:]

    def join(module: Any, args: Any, output: tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(output, 1)

    seen, pictures = [], []
    for parted in (False, True):
        parting = [block.register_forward_hook(part) for block in blocks if parted]
        pushed = hs.edit(model.transformer, plan, lambda values, cell: values + 0.1)
        with pushed, hs.capture(model.transformer, plan) as one:
            joining = [block.register_forward_hook(join) for block in blocks if parted]
            pictures.append(call(model))
        for handle in (*parting, *joining):
            handle.remove()
        seen.append(one)
    assert torch.equal(*pictures) and not torch.equal(pictures[0], call(model))
    for cell in plan.cells:
        assert torch.equal(*(one[cell.block, cell.step] for one in seen))


def test_reference_pictures_of_flux2_are_told_from_the_image(of: Callable[[str], Model]) -> None:
    model = of("flux2-klein")
    plan = hs.Plan(["transformer_blocks.1", "single_transformer_blocks.1"], [2, 1], of=2)
    found: list[Tensor] = []
    module = model.transformer.single_transformer_blocks[1]
    handle = module.register_forward_hook(lambda *given: found.append(given[2]))
    picture = Image.new("RGB", (64, 64), (255, 90, 0))
    with hs.capture(model.transformer, plan, tokens=np.ones((8, 12), bool)) as seen:
        call(model, image=[picture])
    handle.remove()
    assert len(found) == 4 and found[0].shape[1] == TEXT + 96 + 256
    assert torch.equal(seen["single_transformer_blocks.1", 1], found[2][:, TEXT : TEXT + 96])

    def loss(latents: Tensor) -> Tensor:
        return latents.square().mean((1, 2))

    with guide(model.pipe, loss, 0.1, steps=[1], of=2, relative=True) as trace:
        call(model, image=[picture])
    assert len(trace) == 1 and trace[0].share[0] == pytest.approx(0.1, rel=1e-4)


def test_prompts_share_a_batch_only_with_those_of_their_length(of: Callable[[str], Model], tmp_path: Path) -> None:
    """So that a sample's bits depend on the size of its batch and not on its company."""
    model, run = of("qwen-image"), Run(tmp_path / "run")
    short, long = ["an open hand", "a left hand"], ["a right hand palm view five fingers raised"]
    hs.generate(model, run, [short[0], *long, short[1]], [0], 2, 2.5, 32, 48, batch_size=2)
    other = Run(tmp_path / "other")
    hs.generate(model, other, [short[1], short[0]], [0], 2, 2.5, 32, 48, batch_size=2)
    images = {row["prompt"]: row["image_sha256"] for row in run.metadata().values()}
    assert all(images[row["prompt"]] == row["image_sha256"] for row in other.metadata().values())
    assert model.text_tokens([*short, *long])[long[0]] > model.text_tokens(short)[short[0]]


@pytest.mark.parametrize("name", ["qwen-image", "z-image"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_text_of_several_lengths_is_stored(
    of: Callable[[str], Model], tmp_path: Path, name: str, guidance: float
) -> None:
    """Each sample with the text tokens of its prompt, with one value whether it is replayed or made again."""
    model, run = of(name), Run(tmp_path / "run")
    prompts = ["an open hand", "a right hand palm view five fingers raised on red background " * 4, "a left hand"]
    hs.generate(model, run, prompts, [0], 2, guidance, 32, 48, batch_size=2)
    block = list(hs.blocks(model.transformer))[-1 if name == "z-image" else -2]
    plan, lengths = hs.Plan([block], [2, 1], of=2, stream="text"), model.text_tokens(prompts)
    assert len(set(lengths.values())) > 1
    replayed = hs.extract(model, run, plan, tokens="all")
    again = Run(tmp_path / "again")
    hs.generate(model, again, prompts, [0], 2, guidance, 32, 48, batch_size=2, trajectories=False)
    made = hs.extract(model, again, plan, tokens="all")
    for step in (2, 1):
        values, tokens = replayed.read(block, step)
        np.testing.assert_array_equal(values, made.read(block, step)[0])
        stored = tokens.groupby("sample").size()
        assert {row["prompt"]: stored[sample] for sample, row in run.metadata().items()} == lengths


def test_prompts_of_several_lengths_in_a_call_of_ones_own(of: Callable[[str], Model]) -> None:
    """Qwen-Image's shorter text is filled up and masked, Z-Image's padded: the picture is as it is alone, or nearly."""
    prompts = ["an open hand", "a right hand palm view five fingers raised on red background " * 4]
    for name, block in (("qwen-image", "transformer_blocks.2"), ("z-image", "layers.1")):
        model = of(name)
        alone = []
        for some in ([prompts[0]], [prompts[1]], prompts):
            inputs = model.family.inputs(model, some, 2.5, 32, 48)
            latents = torch.stack([model.noise(0, 32, 48)] * len(some))
            with torch.no_grad(), hs.capture(model.transformer, hs.Plan([block], [1], of=1)) as seen:
                model.family.call(model.transformer, latents, torch.tensor(500.0), inputs)
            alone.append(seen[block, 1])
        torch.testing.assert_close(torch.cat(alone[:2]), alone[2], rtol=1e-4, atol=1e-4)


def test_a_misspelt_kind_of_block_is_told_with_those_that_there_are() -> None:
    check_kinds(["double.0", "layers.3", "single_transformer_blocks.7"])
    with pytest.raises(HandscopeError, match=r"layers\.0 … \(Z-Image\)"):
        check_kinds(["duoble.0"])
