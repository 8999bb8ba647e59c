"""The most memory that something takes: of the device, or of the process on Linux."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Megabytes (2²⁰ bytes) above what was held before, at the highest; NaN where that cannot be measured."""

    megabytes: float = float("nan")


@contextmanager
def peak_memory(device: Any = "cpu") -> Iterator[Peak]:
    """Measure what is done within the block; what is given is filled in at its end.

    On a CUDA device it is what torch allocates there. On a CPU it is the resident memory of the whole process, which
    only Linux lets one set back: what was freed and not yet given back to the system counts as held before.
    """
    peak = Peak()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        yield peak
        peak.megabytes = (torch.cuda.max_memory_allocated(device) - held) / 2**20
        return
    before = _resident("VmRSS")
    try:
        CLEAR.write_text("5")
    except OSError:
        before = None
    yield peak
    highest = _resident("VmHWM")
    if before is not None and highest is not None:
        # The kernel counts pages in batches: the highest can lie a few below what was held before.
        peak.megabytes = max(0, highest - before) / 2**10


def _resident(name: str) -> int | None:
    """A line of the process's status, in kilobytes."""
    try:
        line = re.search(rf"{name}:\s*(\d+) kB", STATUS.read_text())
    except OSError:
        return None
    return int(line[1]) if line else None
