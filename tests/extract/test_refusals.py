"""Features of diffusers and torch switched on for real: what is refused, what is warned of, what changes no value."""

import warnings
from collections.abc import Callable
from typing import Any

import accelerate
import diffusers
import handscope as hs
import pytest
import torch
from diffusers import (
    ContextParallelConfig,
    FasterCacheConfig,
    FirstBlockCacheConfig,
    FluxTransformer2DModel,
    LayerSkipConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
    apply_layer_skip,
)
from diffusers.hooks import (
    HookRegistry,
    ModelHook,
    SeaCacheConfig,
    TextKVCacheConfig,
    apply_first_block_cache,
    apply_group_offloading,
)
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from flux_calls import PLAN, bare_inputs, call, hooks
from handscope.errors import HandscopeError, HandscopeWarning
from handscope.extract.address import SIDES, Plan
from handscope.extract.capture import capture
from handscope.models.condition import CACHES, HARMLESS, conditions
from handscope.models.model import Model, load
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torchao.quantization import Int8WeightOnlyConfig, quantize_


@pytest.fixture
def model(tiny_pipe_folder) -> Model:
    """A model for one test, which may do to it what it likes."""
    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="module")
def untouched(tiny_pipe_folder) -> dict[str, Tensor]:
    """Every block's output in one call of the model as it is loaded."""
    return outputs(load(str(tiny_pipe_folder)))


def outputs(model: Model, at: str = "output") -> dict[str, Tensor]:
    with torch.no_grad(), capture(model.transformer, Plan(model.blocks, [1], of=1, at=at)) as seen:
        model.transformer(**bare_inputs(model))
    return {str(cell.block): rows for cell, rows in seen.take().items()}


def refused(model: Model, message: str) -> None:
    """A capture is refused before it begins, and leaves no hook."""
    before = hooks(model.transformer)
    with pytest.raises(HandscopeError, match=message), capture(model.transformer, PLAN):
        pytest.fail("the capture began")
    assert hooks(model.transformer) == before


@pytest.mark.parametrize(
    "config",
    [
        FirstBlockCacheConfig(threshold=0.1),
        PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500),
        FasterCacheConfig(current_timestep_callback=lambda: 500, attention_weight_callback=lambda module: 0.5),
        MagCacheConfig(num_inference_steps=4, calibrate=True),
        TaylorSeerCacheConfig(),
        SeaCacheConfig(),
        TextKVCacheConfig(),
    ],
    ids=lambda config: type(config).__name__,
)
def test_an_enabled_cache_is_refused_by_name(model: Model, config: object) -> None:
    model.transformer.enable_cache(config)
    refused(model, type(config).__name__)
    # Its hooks are known too, as of a cache that was applied without enable_cache.
    model.transformer._cache_config = None
    refused(model, "diffusers cache is set on")


def test_a_cache_that_was_disabled_again_is_forgotten(model: Model, untouched: dict[str, Tensor]) -> None:
    model.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    model.transformer.disable_cache()
    assert all(torch.equal(rows, untouched[block]) for block, rows in outputs(model).items())


def test_what_a_cache_does_to_a_capture_that_does_not_refuse_it(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for refusing: blocks that are skipped return what they were given, and nothing else tells."""
    apply_first_block_cache(model.transformer, FirstBlockCacheConfig(threshold=1e9))
    monkeypatch.setattr("handscope.models.condition.check_readable", lambda *_: None)
    with capture(model.transformer, PLAN) as seen:
        call(model)
    assert torch.equal(seen["single.0", 1], seen["double.1", 1])


def test_a_skipped_layer_is_refused(model: Model) -> None:
    apply_layer_skip(model.transformer, LayerSkipConfig(indices=[1], fqn="single_transformer_blocks"))
    refused(model, r"layer skip is set on single\.1, which then swaps")


def test_a_skipped_part_of_a_layer_is_refused(model: Model) -> None:
    apply_layer_skip(
        model.transformer, LayerSkipConfig(indices=[1], fqn="transformer_blocks", skip_attention=False)
    )
    refused(model, r"layer skip is set on transformer_blocks\.1\.ff, which is then not computed")


def test_a_transformer_compiled_as_a_whole_is_refused(model: Model) -> None:
    wrapped = torch.compile(model.transformer)
    with pytest.raises(HandscopeError, match="compiled"), capture(wrapped, PLAN):
        pass
    model.transformer.compile()
    refused(model, "compiled")
    model.transformer._compiled_call_impl = None
    model.transformer.forward = torch.compile(model.transformer.forward, backend="eager")
    refused(model, "compiled")


def test_blocks_that_are_computed_without_being_called_are_missed(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Around(nn.Module):
        def forward(self, **kwargs: Any) -> Any:
            return first.forward(**kwargs)

    first, *others = model.transformer.single_transformer_blocks
    inputs = bare_inputs(model)
    with (
        torch.no_grad(),
        pytest.raises(HandscopeError, match=r"1 cells were not read, single\.0/1 among them"),
        capture(model.transformer, Plan(["single.0", "single.1"], [1], of=1)),
    ):
        monkeypatch.setattr(model.transformer, "single_transformer_blocks", nn.ModuleList([Around(), *others]))
        model.transformer(**inputs)


@pytest.mark.parametrize(("first", "at"), [("compiled", "input"), ("hooked", "output")])
def test_compiled_blocks_are_read(model: Model, at: str, first: str) -> None:
    """By torch.compile with the eager backend, which changes no bit; hooks are set after or before the first run."""
    torch._dynamo.reset()
    expected = outputs(model, at)
    model.transformer.compile_repeated_blocks(backend="eager", fullgraph=True)
    if first == "compiled":
        with torch.no_grad():
            model.transformer(**bare_inputs(model))
    seen = outputs(model, at)
    assert all(torch.equal(rows, expected[block]) for block, rows in seen.items())
    counters.clear()
    for _ in range(10):  # more than torch compiles one function anew
        outputs(model, at)
    assert counters["stats"]["unique_graphs"] == 0


def test_context_parallelism_is_refused(model: Model) -> None:
    """The hooks are diffusers' own; the devices that they would split the tokens over are not there."""
    plan = FluxTransformer2DModel._cp_plan
    apply_context_parallel(model.transformer, ContextParallelConfig(ulysses_degree=2), plan)
    refused(model, "Context parallelism is set on")


def test_a_transformer_in_parallel_is_refused(model: Model) -> None:
    """Its config is set by hand: enable_parallelism wants several processes."""
    model.transformer._parallel_config = diffusers.ParallelConfig(
        context_parallel_config=ContextParallelConfig(ulysses_degree=2)
    )
    refused(model, "in parallel over several devices")


def group(transformer: Any) -> None:
    cpu = torch.device("cpu")
    apply_group_offloading(
        transformer, onload_device=cpu, offload_device=cpu, offload_type="block_level", num_blocks_per_group=1
    )


@pytest.mark.parametrize(
    ("offload", "name"),
    [
        (group, "group"),
        (lambda transformer: accelerate.cpu_offload(transformer, torch.device("cpu")), "sequential"),
        (lambda transformer: accelerate.cpu_offload_with_hook(transformer, torch.device("cpu")), "model"),
    ],
)
def test_offloading_changes_no_value_and_is_recorded(
    model: Model, untouched: dict[str, Tensor], offload: Callable[[Any], None], name: str
) -> None:
    assert conditions(model.transformer)["offload"] == "none"
    offload(model.transformer)
    assert conditions(model.transformer) | {"device": "cpu", "offload": name} == conditions(model.transformer)
    for at in SIDES:
        seen = outputs(model, at)
        assert set(seen) == set(untouched)
    assert all(torch.equal(rows, untouched[block]) for block, rows in outputs(model).items())


def test_hooks_survive_that_accelerates_are_added_and_removed(model: Model, untouched: dict[str, Tensor]) -> None:
    with torch.no_grad(), capture(model.transformer, Plan(["single.0"], [2, 1], of=2)) as seen:
        accelerate.cpu_offload(model.transformer, torch.device("cpu"))
        model.transformer(**bare_inputs(model))
        accelerate.hooks.remove_hook_from_submodules(model.transformer)
        model.transformer(**bare_inputs(model))
    assert torch.equal(seen["single.0", 2], untouched["single.0"])
    assert torch.equal(seen["single.0", 1], untouched["single.0"])


def test_layerwise_casting_is_no_matter_for_a_warning(model: Model) -> None:
    model.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", HandscopeWarning)
        assert set(outputs(model)) == set(model.blocks)


def test_a_hook_of_diffusers_that_is_not_known_is_warned_of(model: Model) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(model.transformer.transformer_blocks[0])
    registry.register_hook(ModelHook(), "a_new_feature")
    with pytest.warns(HandscopeWarning, match=r"a_new_feature, is set on transformer_blocks\.0"):
        outputs(model)


def test_float16_is_warned_of(model: Model) -> None:
    model.transformer.half()
    with pytest.warns(HandscopeWarning, match="clips"), pytest.raises(HandscopeError), capture(model.transformer, PLAN):
        pass


def test_every_hook_that_diffusers_names_is_known() -> None:
    """A name that is neither refused nor harmless is warned of; a new version's names are looked at here first."""
    named = {
        value
        for module in vars(diffusers.hooks).values()
        if getattr(module, "__name__", "").startswith("diffusers.hooks.")
        for name, value in vars(module).items()
        if name.isupper() and name.startswith("_") and isinstance(value, str) and value.islower()
    }
    assert {"fbc_block_hook", "sea_cache_block", "taylorseer_cache", "layer_skip_hook"} <= named
    unknown = {name for name in named if not name.startswith(CACHES) and name not in HARMLESS}
    others = {"cp_input---{}", "cp_output---{}", "lazy_leafs"}  # beginnings of names, and no hook's name
    assert unknown - others == {"layer_skip_hook", "smoothed_energy_guidance_hook"}


def test_what_is_recorded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # set_attention_backend sets it for every model of the process, whose images would then differ in their last bits.
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", _AttentionBackendRegistry._active_backend)
    recorded = conditions(model.transformer)
    assert recorded == {
        "device": "cpu",
        "attention_backend": "native",
        "quantisation": "none",
        "offload": "none",
        "compiled_blocks": "no",
        "adapters": "none",
        "autocast": "none",
        "replaced": "none",
    }
    model.transformer.set_attention_backend("_native_math")
    model.transformer.compile_repeated_blocks(backend="eager")
    quantize_(model.transformer, Int8WeightOnlyConfig(version=2))
    recorded = conditions(model.transformer)
    assert (recorded["attention_backend"], recorded["compiled_blocks"]) == ("_native_math", "yes")
    assert "Int8" in recorded["quantisation"]
    with capture(model.transformer, PLAN) as seen:
        assert seen.conditions == {}
        call(model)
    assert seen.conditions == recorded | {"batch_size": "2"}


def test_blocks_that_were_wrapped_by_torch_compile_are_recorded(model: Model) -> None:
    blocks = model.transformer.transformer_blocks
    blocks[0] = torch.compile(blocks[0], backend="eager")
    assert conditions(model.transformer)["compiled_blocks"] == "yes"


def test_an_unknown_transformer_is_told_with_what_is_in_it() -> None:
    class OwnTransformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Module()
            self.encoder.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()])
            self.blocks = nn.ModuleList([nn.Sequential(nn.ModuleList([nn.Tanh()]))])

    other = OwnTransformer()
    found = r"found a OwnTransformer with the lists encoder.layers \(3 of Linear, ReLU\), blocks \(1 of Sequential\)\."
    with pytest.raises(HandscopeError, match=f"{found} Describe its blocks in a Family and register it"):
        hs.blocks(other)
    with pytest.raises(HandscopeError, match="OwnTransformer"), capture(other, PLAN):
        pass
