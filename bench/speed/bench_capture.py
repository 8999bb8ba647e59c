"""Seconds a sample to capture activations at hand tokens, by the way they are read, and the memory that takes.

    python bench/speed/bench_capture.py [--model organism|scaled|full] [--family NAME] [--steps 20] [--repeats 5]
        [--threads 1] [--size 64]

Each repeat runs every variant in turn on the same sample; medians, and medians of the ratios within a repeat, are
printed for wall time and for CPU time of the process, which a busy machine disturbs less.
`--model organism --repeats 1` takes some seconds; `full` needs a GPU of 80 GB and was not run yet. With `--family`
(sd3, flux2-klein, flux2-dev, qwen-image, z-image or sana) the model is of another family, 6 or 7 blocks of width 256
and 256 image tokens (1,024 with `--size 128`), the last block and every second step are read, and of the rest only
the floor of a replay is printed: the wanted ones of all steps of a drawing, without its decoding.

bare      drawing the sample again
capture   the same with handscope's hooks: 6 blocks x 8 steps at about 80 tokens, written to disk as shards
nnsight   the same cells, read by nnsight's tracing of the whole run, selected inside the trace, not written
replay    the same shard from the saved trajectory
replay x4 the same, four samples in a forward (all with the latents of the one, which changes no time)

Drawing ends with the decoded picture, since a second drawing counts only when its picture is the labelled one.
Writing is inside the time of its variant, to the last fsync. Values of capture, nnsight and replay are compared bit for
bit; the difference that a batch of four makes is printed.

Memory: the highest resident memory of the process (VmHWM, set back before each run; on a GPU, torch's own count) above
that of drawing alone, against the selected rows of two samples: one that is written and one that is read.
"""

import argparse
import copy
import ctypes
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from handscope.extract.address import Plan
from handscope.extract.capture import Seen, capture
from handscope.extract.generate import draw
from handscope.extract.replay import batch_difference, replay
from handscope.extract.store.shard import STEP, TOKEN
from handscope.extract.store.writer import ShardWriter
from handscope.models.model import Model
from handscope.run.trajectory import Trajectory
from nnsight import NNsight
from scaled_families import WIDER, build_family, evenly
from scaled_flux import SOURCE_STEPS, build, in_proportion
from torch import Tensor, nn

GUIDANCE = 3.5
PROMPTS = [
    f"a {side} hand, palm view, five fingers raised, {skin} skin, blue background"
    for side in ("left", "right")
    for skin in ("light", "brown")
]
Values = list[Tensor]
Variant = Callable[[Path], Values]


class Pipeline(nn.Module):
    """A pipeline as the module that nnsight traces."""

    def __init__(self, model: Model, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self._draw = draw, model

    def forward(self, pair: tuple[str, int], steps: int, size: int) -> Tensor:
        function, model = self._draw
        return torch.from_numpy(function(model, [pair], steps, GUIDANCE, size, size, trajectories=False).images)


class Bench:
    """The variants, over the same samples, plan and tokens."""

    def __init__(self, model: Model, size: int, steps: int, blocks: list[str], of_family: bool) -> None:
        self.model, self.size, self.steps = model, size, steps
        wanted = [max(1, round(step * steps / 20)) for step in SOURCE_STEPS]
        wanted = list(range(steps, 0, -2)) if of_family else list(dict.fromkeys(wanted))
        self.plan = Plan(blocks, wanted, of=steps)
        self.pairs = [(prompt, seed) for seed, prompt in enumerate(PROMPTS)]
        model.encode(PROMPTS)
        self.trajectory: Trajectory = draw(model, self.pairs[:1], steps, GUIDANCE, size, size).trajectories[0]
        rows, columns = model.grid(size, size)
        self.mask = np.zeros((rows, columns), bool)
        side = min(9, rows // 2 + 1)
        self.mask[2 : 2 + side, 1 : 1 + side] = True
        if not of_family:
            self.copy = copy.deepcopy(model.transformer)
            self.traced = NNsight(Pipeline(model, self.copy))
        self.samples = 1  # two while memory is measured, and then no values are kept to be compared

    def bare(self, folder: Path) -> Values:
        for pair in self.pairs[: self.samples]:
            self._draw(pair)
        return []

    def decode(self, folder: Path) -> Values:
        self.model.decode(self.trajectory.latents[-1:], self.size, self.size)
        return []

    def capture(self, folder: Path) -> Values:
        values: Values = []
        with ShardWriter() as writer:
            for number, pair in enumerate(self.pairs[: self.samples]):
                with capture(self.model.transformer, self.plan, self.mask) as seen:
                    self._draw(pair)
                values += self._put(writer, folder, [number], seen)
        return values

    def replay(self, folder: Path) -> Values:
        return self._replay(folder, [0])

    def replay_by_four(self, folder: Path) -> Values:
        return self._replay(folder, [0, 1, 2, 3])

    def nnsight(self, folder: Path) -> Values:
        kept = torch.from_numpy(self.mask.ravel().nonzero()[0]).to(self.model.device)
        blocks, steps, wanted = self.plan.blocks, self.steps, self.plan.steps
        kinds = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
        # A transformer of its own, since nnsight stays on every module that it has wrapped.
        transformer, traced = self.model.transformer, self.traced
        self.model.pipe.register_modules(transformer=self.copy)
        with traced.trace(self.pairs[0], steps, self.size) as tracer:
            found = dict().save()  # noqa: C408 - nnsight saves an object, and a literal is none of its own
            for index in tracer.iter[:steps]:
                if steps - index in wanted:
                    for block in blocks:
                        image = getattr(traced.transformer, kinds[block.kind])[block.index].output[1]
                        found[str(block), steps - index] = image[:, kept].cpu()
        self.model.pipe.register_modules(transformer=transformer)
        return [torch.stack([found[str(cell.block), cell.step] for cell in self.plan.cells], dim=1)]

    def _draw(self, pair: tuple[str, int]) -> None:
        draw(self.model, [pair], self.steps, GUIDANCE, self.size, self.size, trajectories=False)

    def _replay(self, folder: Path, batch: list[int]) -> Values:
        with ShardWriter() as writer:
            seen = replay(self.model, self.plan, *self.batch(batch))
            return self._put(writer, folder, batch, seen)

    def batch(self, numbers: list[int]) -> tuple[Any, ...]:
        """What `replay` takes of these samples."""
        prompts, paths = [self.pairs[number][0] for number in numbers], [self.trajectory] * len(numbers)
        return prompts, paths, GUIDANCE, self.size, self.size, self.mask

    def _put(self, writer: ShardWriter, folder: Path, batch: list[int], seen: Seen) -> Values:
        """Have each sample's cells written as `extract` does; what was read, (samples, cells, tokens, width)."""
        cells = seen.take()
        values = torch.stack([cells.pop(cell) for cell in self.plan.cells], dim=1)
        bits = values.to(torch.bfloat16)
        steps, tokens = np.zeros(len(self.plan.steps), STEP), np.zeros(int(self.mask.sum()), TOKEN)
        steps["step"] = self.plan.steps
        for number, one in zip(batch, bits):
            attrs = {"plan": self.plan.to_json(), "sample": str(number)}
            writer.put(folder / f"{number}.h5", one.view(torch.uint16).numpy(), steps, tokens, attrs)
        return [values] if self.samples == 1 else []


def timed(variant: Variant, device: torch.device) -> tuple[float, float, Values]:
    """Wall seconds, CPU seconds and values of one run."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        values = variant(Path(folder))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu, values


def peak(variant: Variant, device: torch.device) -> int:
    """Highest memory in use during one run, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            variant(Path(folder))
            return torch.cuda.max_memory_allocated()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or memory that an earlier run left would hide this one's need
        Path("/proc/self/clear_refs").write_text("5")
        variant(Path(folder))
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024


def main() -> None:
    """Print medians over repeats, and what the values and the memory were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["organism", "scaled", "full"], default="scaled")
    parser.add_argument("--family", choices=list(WIDER))
    parser.add_argument("--size", type=int, default=64, help="pixels a side of a family's pictures")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", help="float32 or bfloat16; by default as handscope.load chooses it")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.family:
        model, size = build_family(given.family, device, given.dtype), given.size
        blocks = evenly(model)
    else:
        model, size = build(given.model, device, given.dtype)
        blocks = in_proportion(model)
    bench = Bench(model, size, given.steps, blocks, of_family=bool(given.family))
    print(
        f"{given.family or given.model} on {device}, {model.dtype}, {given.threads} threads: {len(model.blocks)} "
        f"blocks, width {model.stream_width}, {bench.mask.size} image and {model.max_sequence_length} text tokens, "
        f"{int(bench.mask.sum())} of them read in {', '.join(map(str, bench.plan.blocks))} at steps "
        f"{', '.join(map(str, bench.plan.steps))} of {given.steps}\n"
    )
    variants: dict[str, tuple[Variant, int]] = {
        "bare": (bench.bare, 1),
        "capture": (bench.capture, 1),
        "nnsight": (bench.nnsight, 1),
        "replay": (bench.replay, 1),
        "replay x4": (bench.replay_by_four, 4),
        "decode": (bench.decode, 1),
    }
    if given.family:
        del variants["nnsight"], variants["replay x4"]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    values: dict[str, Values] = {}
    for _ in range(given.repeats):
        for name, (variant, samples) in variants.items():
            wall, cpu, values[name] = timed(variant, model.device)
            times[name].append((wall / samples, cpu / samples))
    _print_times(times)
    share = len(bench.plan.steps) / given.steps
    floor = [(bare[1] - decode[1]) * share for bare, decode in zip(times["bare"], times["decode"])]
    over = statistics.median(replay[1] / least for replay, least in zip(times["replay"], floor))
    print(f"CPU time of a replay over that of the wanted steps of a drawing: {over:.3f}\n")
    for name in ("nnsight", "replay") if "nnsight" in variants else ("replay",):
        same = all(torch.equal(a, b) for a, b in zip(values["capture"], values[name], strict=True))
        print(f"values of {name} and capture: {'the same bits' if same else 'NOT THE SAME'}")
    if given.family:
        return
    difference = batch_difference(model, bench.plan, *bench.batch([0, 1, 2, 3]))
    print(
        f"replay x4 against x1: largest difference {difference.absolute:.2g}, or {difference.relative:.2g} of the "
        f"cell's rms in {difference.cell}\n"
    )
    rows = 2 * values["capture"][0].nbytes
    values.clear()
    _print_memory(bench, rows, given.repeats)


def _print_times(times: dict[str, list[tuple[float, float]]]) -> None:
    """Medians a sample, and medians over repeats of the ratio to bare and of capture's and nnsight's time to this."""
    heads = ("s a sample", "over bare", "capture / this", "nnsight / this")
    for clock, title in enumerate(("wall time", "CPU time")):
        print(f"{title:12s}" + "".join(f"{head:>16s}" for head in heads))
        seconds = {name: np.array(found)[:, clock] for name, found in times.items()}
        for name, own in seconds.items():
            ratios = [own / seconds["bare"], seconds["capture"] / own]
            ratios += [seconds["nnsight"] / own] if "nnsight" in seconds else []
            numbers = [statistics.median(own), *(statistics.median(ratio) for ratio in ratios)]
            print(f"{name:12s}" + "".join(f"{number:16.3f}" for number in numbers))
        print()


def _print_memory(bench: Bench, rows: int, repeats: int) -> None:
    bench.samples = 2
    device = bench.model.device
    peak(bench.capture, device)  # what is loaded at the first use stays
    above = [peak(bench.capture, device) - peak(bench.bare, device) for _ in range(repeats)]
    print(
        f"peak memory of capture above bare: {statistics.median(above) / 1e6:.1f} MB (from {min(above) / 1e6:.1f} to "
        f"{max(above) / 1e6:.1f}); the selected rows of two samples are {rows / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
