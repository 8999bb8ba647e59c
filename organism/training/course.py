"""One training among processes that train together: how far it is, its checkpoints, its random numbers, its average."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...errors import HandscopeError
from ...files import atomic


class Crew:
    """The processes that train together: one, or as many as torchrun started."""

    def __init__(self) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        else:
            self.device = torch.device("cpu")
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    def wait(self) -> None:
        """Let every process come to this line."""
        if self.world > 1:
            dist.barrier()

    def share(self, batch: int) -> slice:
        """This process's rows of a batch."""
        if batch % self.world:
            raise HandscopeError(
                f"Expected as many processes as share a batch of {batch} evenly, found {self.world}: start another "
                "number, or choose another batch."
            )
        return slice(self.rank, None, self.world)

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Mean of the gradients over the processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


class Course:
    """How far one training is, and when it is time to write; its checkpoint keeps the time spent over restarts."""

    def __init__(self, name: str, work: Path, steps: int, crew: Crew, save_every: float) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.checkpoint = work / f"{name}.pt"
        self.log = work / f"{name}.jsonl"
        self.steps, self.crew, self.save_every = steps, crew, save_every
        self.state: dict[str, Any] = {"step": 0, "elapsed": 0.0, "samples": 0}
        self._losses: list[float] = []
        self._started = self._logged = self._saved = time.monotonic()
        self._samples = 0

    def restore(self) -> dict[str, Any] | None:
        """The checkpoint to go on from, or None."""
        if not self.checkpoint.exists():
            return None
        checkpoint = torch.load(self.checkpoint, map_location=self.crew.device, weights_only=True)
        self.state = checkpoint["state"]
        self._started = time.monotonic() - self.state["elapsed"]
        self._samples = self.state["samples"]
        return checkpoint

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self.state["step"]

    def fraction(self) -> float:
        """Share of the way that is done; 1 ends the training."""
        return self.step / self.steps

    def advance(self, loss: Tensor, samples: int, every: float = 30.0) -> None:
        """Count a step, and every half minute write a line to the log."""
        now = time.monotonic()
        self.state = {
            "step": self.step + 1,
            "elapsed": now - self._started,
            "samples": self.state["samples"] + samples,
        }
        self._losses.append(float(loss))
        if self.crew.leads and now - self._logged > every:
            speed = (self.state["samples"] - self._samples) / (now - self._logged)
            self.write(loss=round(sum(self._losses) / len(self._losses), 4), samples_per_second=round(speed, 1))
            self._losses, self._logged, self._samples = [], now, self.state["samples"]

    def write(self, **values: float) -> None:
        """Append a line to the log and show it."""
        line = json.dumps({"step": self.step, "seconds": round(self.state["elapsed"]), **values})
        with open(self.log, "a") as file:
            file.write(line + "\n")
        print(self.checkpoint.stem, line, flush=True)

    def save(self, final: bool = False, **contents: Any) -> bool:
        """Write the checkpoint if it is time, or if `final`; says whether it did."""
        if not self.crew.leads or not (final or time.monotonic() - self._saved > self.save_every):
            return False
        with atomic(self.checkpoint) as path:
            torch.save({"state": self.state, **contents}, path)
        self._saved = time.monotonic()
        return True


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let an optimiser take its next steps at this rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def draws_of(seed: int, step: int) -> torch.Generator:
    """Random numbers of one step, which depend on nothing else: a restart, and every process, draws the same."""
    return torch.Generator().manual_seed((seed + 1) * 1_000_003 * 10_000_019 + step)


def follow(average: dict[str, Tensor], now: Iterable[tuple[str, Tensor]], step: int, limit: float) -> None:
    """Exponential moving average, quicker at the start so that the first weights are soon forgotten."""
    keep = min(limit, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in now:
            average[name].lerp_(value, 1 - keep)
