"""What a study would cost before it is paid: calls, hours, bytes, files, memory and time, from one step really run."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..extract.estimate import (
    SHARD_BYTES,
    STORE_SAMPLE_BYTES,
    STORE_TOKEN_BYTES,
    TOKEN_BYTES,
    peak,
    reset_peak,
    timed,
)
from ..extract.generate import draw
from ..report.summary import duration, size
from ..study import Study

PIXEL_BYTES = 1.5
"""Of a PNG, a pixel: pictures at 1,024 pixels have about so many, flat ones fewer."""
LINE_BYTES = 700
"""Of a line of `samples/metadata.jsonl`."""
SURVEY_BYTES = 12_000
"""What a sample's file of moments has beside them."""
CHUNK = 32 * 2**20
NO_HOURS = "not estimated: on cores, of one machine"


@dataclass(frozen=True)
class Measured:
    """What one step, one batch and one file took on this machine.

    Attributes
    ----------
    device : str
    batch : int, samples in the call that was measured
    step : float, seconds of one call of the transformer on them
    other : float, seconds of a batch beside its calls: noise, decoding
    encode, load : float, seconds for a prompt, and for the model
    memory, memory_there : int or None, most bytes taken, and those that the device has
    write : float, bytes a second, with fsync, where the run folder lies or will
    disk : int, bytes that are free there
    blocks, width, tokens : int, of the residual stream
    channels, itemsize : int, of packed latents, and bytes of a number in them
    height, width_pixels : int
    """

    device: str
    batch: int
    step: float
    other: float
    encode: float
    load: float
    memory: int | None
    memory_there: int | None
    write: float
    disk: int
    blocks: int
    width: int
    tokens: int
    channels: int
    itemsize: int
    height: int
    width_pixels: int


def measure(study: Study) -> Measured:
    """Load the model of a study and run one step of one batch of it; nothing is written into the run folder."""
    from ..models.model import load

    began = time.perf_counter()
    model = load(
        study.model, study.device, study.dtype, study.revision,
        offload=study.offload, quantisation=study.quantisation, base=study.base,
    )  # fmt: skip
    loaded = time.perf_counter() - began
    height, width = study.height or model.height, study.width or model.width
    prompts = list(dict.fromkeys(study.prompts))
    began = time.perf_counter()
    model.encode(prompts[:2])
    encode = (time.perf_counter() - began) / min(2, len(prompts))
    batch = min(study.batch_size, len(prompts) * len(set(study.seeds)))
    pairs = [(prompts[0], seed) for seed in range(batch)]
    reset_peak(model.device)
    for _ in range(2):  # once to warm up
        began = time.perf_counter()
        with timed(model) as seconds:
            draw(model, pairs, 1, study.guidance, height, width)
        other = time.perf_counter() - began - sum(seconds)
    rows, columns = model.grid(height, width)
    channels = model.family.channels(model.transformer) * model.family.patch**2
    place = next(path for path in (study.folder.absolute(), *study.folder.absolute().parents) if path.is_dir())
    return Measured(
        str(model.device), batch, sum(seconds), other, encode, loaded, peak(model.device), _memory(model.device),
        write_rate(place), shutil.disk_usage(place).free, len(model.carrying(study.stream)), model.stream_width,
        rows * columns, channels, model.dtype.itemsize, height, width,
    )  # fmt: skip


def write_rate(folder: Path) -> float:
    """Bytes a second that a file in a folder takes until it is on the disk."""
    data = os.urandom(CHUNK)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".handscope-rate-") as file:
        began = time.perf_counter()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return len(data) / (time.perf_counter() - began)


def _memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return None


def plan(study: Study, measured: Measured, workers: int = 1, kept: float | None = None) -> pd.DataFrame:
    """A row for each stage of a study.

    Parameters
    ----------
    workers : GPUs, or processes that each are as fast as the one that was measured
    kept : share of a picture's tokens that is stored; all, where it is not said

    Returns
    -------
    DataFrame with the columns stage, samples, calls (of the transformer, for one sample each), hours (of all workers
    together), bytes and files (that stay on disk), memory (bytes, of a worker), wall (seconds), note. NaN where a stage
    has no such number, or none that one step tells.

    Notes
    -----
    Batches are divided evenly, so that `wall` is that of the worker with the most. Writing goes to one file system
    whatever the number of workers, and a stage takes at least as long as that. Replays end at the deepest block that
    is read; the plan counts whole calls.
    """
    samples = len(set(study.prompts)) * len(set(study.seeds))
    steps = len(study.read_steps) or study.steps
    cells = (len(study.blocks) or measured.blocks) * steps
    pixels = measured.height * measured.width_pixels
    share = 1.0 if kept is None or study.tokens == "all" else kept
    stored = max(1, round(share * measured.tokens))
    paths = (study.steps + 1) * measured.tokens * measured.channels * measured.itemsize
    token = cells * measured.width * 2
    shard = stored * (token + TOKEN_BYTES) + SHARD_BYTES
    store = stored * (token + STORE_TOKEN_BYTES) + STORE_SAMPLE_BYTES
    moments = measured.blocks * study.steps * 2 * 2 * measured.width * 4 + SURVEY_BYTES
    held = stored * measured.batch * cells * measured.width * (measured.itemsize + 2)
    wanted = {
        "generate": (study.steps, measured.other, pixels * PIXEL_BYTES + paths + LINE_BYTES, 2, 0),
        "extract": (steps, 0.0, shard + store, 1, held),
        "survey": (study.steps, 0.0, moments, 1, 0),
    }
    rows = []
    for stage in study.chosen:
        row: dict[str, Any] = {"stage": stage.name, "samples": samples, "note": NO_HOURS}
        if stage.name in wanted:
            calls, other, size_, files, more = wanted[stage.name]
            batches = -(-samples // measured.batch)
            seconds = calls * measured.step + other
            prompts = len(set(study.prompts)) * measured.encode
            compute = -(-batches // workers) * seconds + measured.load + prompts / min(workers, batches)
            row |= {
                "calls": samples * calls,
                "hours": (batches * seconds + prompts + workers * measured.load) / 3600,
                "bytes": samples * size_,
                "files": samples * files,
                "memory": measured.memory and measured.memory + more,
                "wall": max(compute, samples * size_ / measured.write),
                "note": "the file system is the limit" if samples * size_ / measured.write > compute else "",
            }
        elif stage.name in ("analyze", "probe"):
            row["memory"] = 3 * samples * cells * measured.width * 4
        elif stage.name in ("label", "report"):
            row["note"] = "minutes, on one machine"
        rows.append(row)
    columns = ["stage", "samples", "calls", "hours", "bytes", "files", "memory", "wall", "note"]
    return pd.DataFrame(rows).reindex(columns=columns)


def shown(table: pd.DataFrame, measured: Measured, workers: int) -> str:
    """The table for a terminal."""
    lines = [f"{'stage':9}{'calls':>12}{'hours':>9}{'disk':>10}{'files':>10}{'memory':>10}   time on {workers}"]
    for row in table.to_dict("records"):
        known = {name: value for name, value in row.items() if value == value and value is not None}
        cells = (
            f"{known['calls']:,.0f}" if "calls" in known else "–",
            f"{known['hours']:.3g}" if "hours" in known else "–",
            size(known["bytes"]) if "bytes" in known else "–",
            f"{known['files']:,.0f}" if "files" in known else "–",
            size(known["memory"]) if "memory" in known else "–",
        )
        wall = duration(known["wall"]) if "wall" in known else "–"
        widths = (12, 9, 10, 10, 10)
        text = "".join(f"{cell:>{wide}}" for cell, wide in zip(cells, widths))
        lines.append(f"{row['stage']:9}{text}   {wall}{', ' + row['note'] if row['note'] else ''}")
    hours = table["hours"].sum()
    lines.append(
        f"In all {hours:.3g} hours of {measured.device} and {size(table['bytes'].sum())}; measured: "
        f"{measured.step:.3g} s a step of {measured.batch}, {size(measured.write)} a second to disk."
    )
    return "\n".join(lines)


def warnings_of(study: Study, table: pd.DataFrame, measured: Measured) -> Iterator[str]:
    """What would go wrong, in sentences."""
    need = float(table["bytes"].sum())
    if need > measured.disk:
        yield (
            f"The disk would run out: {size(need)} are needed where {study.folder} lies, and {size(measured.disk)} are "
            "free. Read fewer blocks, steps or tokens, or free some."
        )
    there = measured.memory_there
    for row in table.to_dict("records"):
        if there is not None and row["memory"] == row["memory"] and (row["memory"] or 0) > there:
            yield (
                f"Memory would run out in {row['stage']}: {size(row['memory'])} are needed, and {measured.device} has "
                f"{size(there)}. Take a smaller batch_size, or offload or quantise the model."
            )
    if measured.memory and there and measured.device.startswith("cuda"):
        fit = int(0.9 * there // measured.memory)
        if fit > 1:
            yield f"{fit} workers fit into the memory of one GPU (--per-gpu {fit})."
