"""How far steps are off under what leaves a model's weight hash alone: ``python bench/validity/agreement.py [DTYPE]``.

The organism draws two pictures in 20 steps; `steps_off` then compares each step with what the model says under other
kernels and under changes. The limits of `handscope.extract.agreement` stand between the two. About four minutes of a
core. Measured on a CPU, largest and median of all steps:

====================  ================  ================
.                     float32           bfloat16
====================  ================  ================
the same              0       0         0       0
one at a time         0       0         0       0
another attention     <.00001 <.00001   .010    .0024
**allowed**           .002              .05
autocast to bfloat16  .025    .0091
layerwise, float8     .15     .037      .13     .024
LoRA of .02           .045    .015      .038    .0079
LoRA of .05           .28     .096      .26     .074
LoRA of .1            .99     .39       .97     .37
text encoders × 1.3   .27     .18       .23     .15
====================  ================  ================

In bfloat16 the weakest of these adapters is below what is allowed, and is told by the record of what acted alone.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from handscope.extract.agreement import TOLERANCE, steps_off
from handscope.extract.generate import draw
from handscope.models.model import Model, load
from handscope.run.prompts import own_seed, read_prompts
from handscope.run.trajectory import Trajectory
from handscope.study_file import STUDY_PROMPTS
from peft import LoraConfig
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

STEPS, GUIDANCE = 20, 3.5


def off(model: Model, prompts: list[str], paths: list[Trajectory]) -> Tensor:
    """Of each step and sample, (steps, samples)."""
    model.check()
    family, first, found = model.family, paths[0], []
    inputs = family.inputs(model, prompts, GUIDANCE, model.height, model.width)
    for i in range(STEPS):
        noisy, less = (torch.stack([path.latents[place] for path in paths]) for place in (i, i + 1))
        with torch.no_grad():
            output = family.predicted(family.call(model.transformer, noisy, first.timesteps[i], inputs), GUIDANCE)
        found.append(steps_off(family, noisy, less, output, first.sigmas[i], first.sigmas[i + 1]))
    return torch.stack(found)


def add_lora(model: Model, scale: float) -> None:
    """Random weights of this standard deviation, of rank 4, in every attention."""
    layers = ["to_q", "to_k", "to_v", "proj_out"]
    config = LoraConfig(r=4, lora_alpha=4, init_lora_weights=False, target_modules=layers)
    model.transformer.add_adapter(config, adapter_name="random")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.transformer.named_parameters():
            if "lora_" in name:
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))


def cast(model: Model) -> None:
    """Weights are kept in float8 between calls."""
    model.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=model.dtype)


def enlarge(model: Model) -> None:
    """Text encoders of another size."""
    with torch.no_grad():
        for name in model.family.encoders:
            for weight in getattr(model.pipe, name).parameters():
                weight *= 1.3


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dtype", nargs="?", default="float32", choices=["float32", "bfloat16"])
    dtype = parser.parse_args().dtype
    model, prompts = load(dtype=dtype), read_prompts(STUDY_PROMPTS)[:2]
    pairs = [(prompt, own_seed(prompt, 0)) for prompt in prompts]
    paths = draw(model, pairs, STEPS, GUIDANCE, model.height, model.width).trajectories or []

    def show(name: str, found: Tensor) -> None:
        print(f"{name:22s} largest {float(found.max()):.5f}  median {float(found.median()):.5f}", flush=True)

    print(f"{dtype}: {TOLERANCE[model.dtype]} is allowed")
    show("the same", off(model, prompts, paths))
    show("one at a time", torch.cat([off(model, [prompts[k]], [paths[k]]) for k in range(2)], 1))
    with sdpa_kernel(SDPBackend.MATH):
        show("another attention", off(model, prompts, paths))
    autocast: AbstractContextManager = torch.autocast("cpu") if dtype == "float32" else nullcontext()
    with autocast:
        show("autocast to bfloat16", off(model, prompts, paths))
    changes: dict[str, Callable[[Model], None]] = {"layerwise, float8": cast, "text encoders x 1.3": enlarge}
    changes |= {f"LoRA of {scale}": lambda other, scale=scale: add_lora(other, scale) for scale in (0.02, 0.05, 0.1)}
    for name, change in changes.items():
        other = load(dtype=dtype)
        change(other)
        show(name, off(other, prompts, paths))


if __name__ == "__main__":
    main()
