"""What steering and guidance cost beside bare generation, all in turn in one process.

    python bench/speed/bench_guidance.py [--model organism|scaled] [--batch 4] [--repeats 7] [--threads 1]

Medians of wall time, and medians of the ratios within a repeat. "a step" is the cost of a guided step over that of a
bare one: steps outside the window are taken to cost what bare ones do. Memory is the highest resident memory of the
process (VmHWM, set back before each variant) above that of bare generation.

bare            drawing, with the decoded picture
steering        one block, all image tokens, every step
random          the same along a random direction gated by a probe
latents frozen  guidance by a probe of the predicted clean latents, the velocity taken as constant
latents exact   the same, through the transformer
  recomputed    the same, blocks recomputed in the backward pass
probe           guidance by a probe on the block in the middle, through the blocks up to it
picture frozen  the contrast of the decoded picture
picture exact   the same, through the transformer
small frozen    the same through a small decoder that was fitted to the model's own
small exact     the same, through the transformer
anatomy frozen  HandAnat's soft loss: decoder, both landmark networks, finger-count head
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from handscope.extract.generate import draw
from handscope.guidance import LatentLoss, PictureLoss, ProbeLoss, guide, probe_gate, random_directions, steer
from handscope.models.decoder import SmallDecoder, fit_decoder
from handscope.organism.study.interventions import anatomy_loss, lack_of_contrast
from scaled_flux import build

STEPS, WINDOW = 20, tuple(range(18, 9, -1))
PROMPT = "a left hand, palm view, five fingers raised, light skin, blue background"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("organism", "scaled"), default="organism")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, size = build(arguments.model, "cpu")
    pairs = [(PROMPT, seed) for seed in range(arguments.batch)]
    ways = variants(model, size)
    draw(model, pairs, STEPS, 3.5, size, size, trajectories=False)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, float] = {}
    for _ in range(arguments.repeats):
        for name, around in ways.items():
            reset_peak()
            began = time.perf_counter()
            with around():
                draw(model, pairs, STEPS, 3.5, size, size, trajectories=False)
            seconds[name].append(time.perf_counter() - began)
            memory[name] = max(memory.get(name, 0.0), peak())
    print(f"{arguments.model}, {size} pixels, batch {arguments.batch}, {STEPS} steps, guided {len(WINDOW)}")
    print(f"{'':16}{'seconds':>9}{'ratio':>8}{'a step':>8}{'MB above bare':>15}")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["bare"]))
        within = (ratio - 1) * STEPS / len(WINDOW) + 1
        a_step = f"{within:8.2f}" if name not in ("bare", "steering", "random") else " " * 8
        above = memory[name] - memory["bare"]
        print(f"{name:16}{statistics.median(times):9.3f}{ratio:8.3f}{a_step}{above:15.1f}")


def variants(model: Any, size: int) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """What is held around the drawing, by name."""
    transformer, every = model.transformer, range(STEPS, 0, -1)
    rows, columns = model.grid(size, size)
    tokens, channels, width = rows * columns, transformer.config.in_channels, model.stream_width
    random = np.random.default_rng(0)
    direction = {model.blocks[len(model.blocks) // 2]: random.normal(size=width)}
    block = next(iter(direction))
    along = random_directions(direction, 0)
    gate = probe_gate(SimpleNamespace(coef_=random.normal(size=width), intercept_=0.0))
    latents = LatentLoss(SimpleNamespace(coef_=random.normal(size=tokens * channels), intercept_=0.0))
    probe = ProbeLoss({block: SimpleNamespace(coef_=random.normal(size=tokens * width), intercept_=0.0)})
    decoders = {"picture": None, "small": fitted(model, size)}
    pictures = {name: PictureLoss(model, lack_of_contrast, size, size, some) for name, some in decoders.items()}

    def guided(loss: Any, form: str, checkpoint: bool = False) -> Callable[[], AbstractContextManager[Any]]:
        return lambda: guide(model.pipe, loss, 0.05, WINDOW, STEPS, form, relative=True, checkpoint=checkpoint)

    return {
        "bare": nullcontext,
        "steering": lambda: steer(transformer, direction, 0.05, every, STEPS),
        "random": lambda: steer(transformer, along, 0.05, every, STEPS, gate=gate),
        "latents frozen": guided(latents, "frozen"),
        "latents exact": guided(latents, "exact"),
        "  recomputed": guided(latents, "exact", checkpoint=True),
        "probe": guided(probe, "exact"),
        "picture frozen": guided(pictures["picture"], "frozen"),
        "picture exact": guided(pictures["picture"], "exact"),
        "small frozen": guided(pictures["small"], "frozen"),
        "small exact": guided(pictures["small"], "exact"),
        "anatomy frozen": guided(PictureLoss(model, anatomy_loss(), size, size), "frozen"),
    }


def fitted(model: Any, size: int) -> SmallDecoder:
    """A small decoder fitted to a few pictures, in few updates: what it costs to use does not depend on either."""
    drawn = draw(model, [(PROMPT, seed) for seed in range(2)], STEPS, 3.5, size, size)
    clean = torch.stack([path.x0(i) for path in drawn.trajectories or () for i in range(0, STEPS, 5)])
    return fit_decoder(model, clean, size, size, updates=50)


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The highest resident memory since it was set back, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
