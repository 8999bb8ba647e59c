"""What an extraction would cost, before it is paid: its size from the labels, its time from one step really run."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..models.model import Model
from ..run.folder import Run
from .address import Plan
from .capture import capture
from .generate import draw
from .given import read_given
from .replay import replay
from .worklist import Batch, WorkList, batches, work_list

SHARD_BYTES = 9_000
"""What a shard takes beside activations and tokens: attributes, steps and HDF5's own, as measured on shards."""
TOKEN_BYTES = 8
"""Row and column of a token in a shard."""
STORE_TOKEN_BYTES = 12
"""The same in the consolidated store, with the sample."""
STORE_SAMPLE_BYTES = 600
"""What the consolidated store keeps of each sample: names, hashes, attributes."""


@dataclass(frozen=True)
class Road:
    """The samples that are read in one way.

    Attributes
    ----------
    name : str
        ``replayed`` from trajectories, ``made again`` without, or ``noised`` from given pictures.
    samples, batches, calls : int
        Calls are those of the transformer in one batch.
    batch_size : int
        Of the batch that was measured.
    step_seconds : float
        One call of the transformer, as measured on it.
    seconds : float
        Of all batches.
    """

    name: str
    samples: int
    batches: int
    calls: int
    batch_size: int
    step_seconds: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What `extract` would do with the same arguments.

    Attributes
    ----------
    samples, missing : int
        Samples of this part, and those of them without a shard.
    cells, width : int
    tokens : int
        Of the missing samples.
    activations : int
        Bytes of the missing samples' activations: tokens × cells × width × 2.
    shards : int
        Bytes of their shards on disk; less where they are compressed.
    store : int
        Bytes of the consolidated store of this part's samples, those that are there already among them.
    device : str
    memory : int or None
        Peak bytes in the measured steps: of the GPU, or on a CPU of the process (None on Windows, which does not say).
    held : int
        Most bytes of selected tokens that the extraction holds at a time, in the memory of the CPU.
    encode_seconds : float
        For the prompts of the missing samples.
    roads : tuple of Road
        One for each way in which samples are read.
    """

    samples: int
    missing: int
    cells: int
    width: int
    tokens: int
    activations: int
    shards: int
    store: int
    device: str
    memory: int | None
    held: int
    encode_seconds: float
    roads: tuple[Road, ...]

    @property
    def seconds(self) -> float:
        """Of the whole extraction but for consolidating; shards are written while the next batch runs."""
        return self.encode_seconds + sum(road.seconds for road in self.roads)


def estimate(
    model: Model,
    run: Run,
    plan: Plan,
    tokens: str = "subject",
    batch_size: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Estimate:
    """Run one step of the first batch, of each road that the extraction would take, and say what the whole would cost.

    Nothing is written. Parameters and errors are those of `extract`.
    """
    plan = plan.on(model.blocks, model.carrying(plan.stream))
    work = work_list(model, run, plan, tokens, shard)
    counts = {sample: int(mask.sum()) for sample, mask in work.masks.items()}
    missing = sum(counts[sample] for sample in work.missing)
    cells, width = len(work.plan.cells), model.stream_width
    row_bytes = cells * width * 2
    reset_peak(model.device)
    encode_seconds = _time_encoding(model, work)
    todo = list(batches(model, run, work, batch_size))
    roads = tuple(
        _measure(model, run, work, [batch for batch in todo if batch.road == road])
        for road in ("replayed", "noised", "made again")
        if any(batch.road == road for batch in todo)
    )
    largest = max((sum(counts[sample] for sample in batch.samples) for batch in todo), default=0)
    return Estimate(
        samples=len(work.rows),
        missing=len(work.missing),
        cells=cells,
        width=width,
        tokens=missing,
        activations=missing * row_bytes,
        shards=missing * (row_bytes + TOKEN_BYTES) + len(work.missing) * SHARD_BYTES,
        store=sum(counts.values()) * (row_bytes + STORE_TOKEN_BYTES) + len(work.rows) * STORE_SAMPLE_BYTES,
        device=str(model.device),
        memory=peak(model.device),
        # One batch as the transformer gives it, and the bits of the one before, which are being written.
        held=largest * cells * width * (model.dtype.itemsize + 2),
        encode_seconds=encode_seconds,
        roads=roads,
    )


def _time_encoding(model: Model, work: WorkList) -> float:
    """Seconds for the prompts of the missing samples; the first two are encoded, the second is the measure."""
    prompts = list(dict.fromkeys(work.rows[sample]["prompt"] for sample in work.missing))
    seconds = 0.0
    for prompt in prompts[:2]:
        begun = time.perf_counter()
        model.encode([prompt])
        seconds = time.perf_counter() - begun
    return seconds * len(prompts)


def _measure(model: Model, run: Run, work: WorkList, todo: list[Batch]) -> Road:
    first = todo[0]
    plan = work.read(first.samples[0])
    times = {"replayed": _time_replay, "noised": _time_given, "made again": _time_again}[first.road]
    times(model, run, plan, work, first)  # once to warm up
    step, other = times(model, run, plan, work, first)
    calls = plan.of if first.road == "made again" else len(plan.steps)
    if first.road == "noised":
        calls *= first.rows[0]["given"]["noises"]
    # A batch of other images takes longer in proportion to its tokens, or nearly so.
    share = sum(_size(batch) for batch in todo) / _size(first)
    return Road(
        name=first.road,
        samples=sum(len(batch.rows) for batch in todo),
        batches=len(todo),
        calls=calls,
        batch_size=first.together,
        step_seconds=step,
        seconds=share * (calls * step + other),
    )


def _size(batch: Batch) -> int:
    return batch.together * batch.rows[0]["height"] * batch.rows[0]["width"]


def _time_replay(model: Model, run: Run, plan: Plan, work: WorkList, batch: Batch) -> tuple[float, float]:
    """Seconds of one call as deep as the plan goes, and of reading the batch's trajectories."""
    row = batch.rows[0]
    one = Plan(plan.blocks, plan.steps[:1], plan.of, plan.stream, plan.at)
    begun = time.perf_counter()
    trajectories = [run.trajectory(each["sample"]) for each in batch.filled()]
    read = time.perf_counter() - begun
    with timed(model) as seconds:
        prompts = [each["prompt"] for each in batch.filled()]
        masks = batch.masks(work)
        replay(model, one, prompts, trajectories, row["guidance"], row["height"], row["width"], masks)
    return seconds[0], read


def _time_given(model: Model, run: Run, plan: Plan, work: WorkList, batch: Batch) -> tuple[float, float]:
    """Seconds of one whole call, and of encoding the batch's pictures."""
    one = Plan(plan.blocks, plan.steps[:1], plan.of, plan.stream, plan.at)
    begun = time.perf_counter()
    with timed(model) as seconds:
        read_given(model, run, one, batch.filled(), batch.masks(work))
    return seconds[0], time.perf_counter() - begun - sum(seconds)


def _time_again(model: Model, run: Run, plan: Plan, work: WorkList, batch: Batch) -> tuple[float, float]:
    """Seconds of one whole call, and of decoding the images and all else that a generation does once."""
    row = batch.rows[0]
    one = Plan(plan.blocks, [1], 1, plan.stream, plan.at)
    pairs = [(each["prompt"], each["seed"]) for each in batch.filled()]
    begun = time.perf_counter()
    with capture(model.transformer, one, batch.masks(work)), timed(model) as seconds:
        draw(model, pairs, 1, row["guidance"], row["height"], row["width"])
    return seconds[0], time.perf_counter() - begun - seconds[0]


@contextmanager
def timed(model: Model) -> Iterator[list[float]]:
    """Seconds of each call of the transformer in the block."""
    seconds: list[float] = []
    begun = 0.0

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter()

    def before(*_: Any) -> None:
        nonlocal begun
        begun = now()

    def after(*_: Any) -> None:
        seconds.append(now() - begun)

    # A replay leaves the call as soon as the deepest block is read.
    handles = [
        model.transformer.register_forward_pre_hook(before),
        model.transformer.register_forward_hook(after, always_call=True),
    ]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def reset_peak(device: torch.device) -> None:
    """Begin to measure `peak` anew; on a CPU the peak is the process's from its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024
