"""One arm of an experiment: a way to draw the same prompts and seeds, kept as a run folder of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import HandscopeError
from ..files import atomic, listed, sha256
from ..models.model import Model
from ..parallel import Failed, finished, workers
from ..progress import Progress, quiet
from ..run.folder import Run, check_name, sample_id
from ..run.part import Part, in_part
from .memory import peak_memory

FAMILIES = ("plain", "weights", "condition", "triage", "steering", "guidance", "repair", "given", "control")
"""What an arm is: settings alone; other weights; a picture beside the prompt; more seeds; a push or a pull on the way;
what is done to finished pictures; pictures that were made elsewhere; and what must not look as if it helped."""


@dataclass(frozen=True, eq=False)
class DrawnBatch:
    """What an arm made of a batch.

    Attributes
    ----------
    images : n uint8 arrays of shape (height, width, 3), or one of shape (n, height, width, 3)
    calls : float array of shape (n,), calls of the transformer for each picture
    share : float, mean length of what was added, over what it was added to (velocity, or token); NaN where nothing was
    seeds : int array of shape (n,), of the samples that were taken; the ones asked for unless seeds were tried
    noises : n hashes of initial noises, "" where there was none that is known; by default the model's of the seeds
    """

    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
    calls: NDArray[np.float64]
    share: float = float("nan")
    seeds: NDArray[np.int64] | None = None
    noises: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Arm:
    """A way to draw.

    Attributes
    ----------
    name : str, also of its folder
    family : str, one of `FAMILIES`
    draw : function from prompts and seeds of one batch to `DrawnBatch`
    alike : function from a prompt to a key: a batch holds prompts of one key, for what is used was fitted without them
    controls : names of the arms that it has to beat
    settings : what decides its pictures beside the baseline's settings, in words of YAML
    alone : whether it draws in this process, since workers could not share what it holds
    """

    name: str
    family: str
    draw: Callable[[Sequence[str], Sequence[int]], DrawnBatch]
    alike: Callable[[str], Any] = field(default=lambda prompt: None)
    controls: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise HandscopeError(f"Expected a family of {', '.join(FAMILIES)}, found {self.family!r}.")


def arm_run(folder: Path, name: str) -> Run:
    """The run folder of an arm in that of its experiment."""
    return Run(folder / name.replace(" ", "_"))


def begin_arm(arm: Arm, run: Run, common: Mapping[str, Any]) -> None:
    """Note what decides an arm's pictures, and refuse to go on with pictures that were drawn with something else.

    Parameters
    ----------
    common : what decides the pictures of all arms, such as the baseline's steps

    Raises
    ------
    HandscopeError
        The message names the settings that differ.
    """
    now = {**common, **arm.settings}
    before = run.settings.get("drawn_with", now)
    if before != now and run.metadata():
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        raise HandscopeError(
            f"The pictures in {run.path} were drawn with another {', '.join(changed)}: move the folder away, or give "
            "the settings of then."
        )
    run.write_settings({"drawn_with": now})


def draw_arm(
    model: Model | None,
    arm: Arm,
    run: Run,
    pairs: Sequence[tuple[str, int]],
    batch_size: int = 16,
    shard: Part | None = None,
    progress: Progress = quiet,
) -> None:
    """Draw what the arm's run does not have yet: samples, named by prompt and seed, and what each took.

    A picture's line in ``samples/metadata.jsonl`` has `calls`, `seconds` (its part of its batch's), `memory` (MB that
    its batch took above what was held before, at its highest), `share` and `seed_taken` beside what every run's has;
    `steps` and `guidance` there are the baseline's. An arm without a model makes its pictures of others. It can be
    killed at any moment: a batch that was begun is drawn again. `shard` is this machine's part of the pictures.
    """
    rows, images = run.metadata(), listed(run.samples_dir)
    pairs = [(prompt, seed) for prompt, seed in pairs if in_part(sample_id(prompt, seed), shard)]
    keyed: dict[Any, list[tuple[str, int]]] = {}
    for prompt, seed in pairs:
        name = sample_id(prompt, seed)
        check_name(name, prompt, rows.get(name, {"prompt": prompt})["prompt"])
        if name not in rows or run.image_path(name).name not in images:
            keyed.setdefault(arm.alike(prompt), []).append((prompt, seed))
    left = sum(map(len, keyed.values()))
    provenance = {} if model is None else {"provenance": model.provenance}
    run.write_settings({"arm": {"name": arm.name, "family": arm.family}, **provenance})
    done = len(pairs) - left
    progress(arm.name, done, len(pairs))
    some = [rest[first : first + batch_size] for rest in keyed.values() for first in range(0, len(rest), batch_size)]
    with run.writing_samples(among_others=shard is not None), workers(1) if arm.alone else nullcontext():
        for _, drawn in finished(partial(_draw_batch, model, arm, run), some, arm.name, model):
            if isinstance(drawn, Failed):  # an arm lacks none of its pairs
                raise drawn.error
            run.append_metadata(drawn)
            done += len(drawn)
            progress(arm.name, done, len(pairs))


def _draw_batch(model: Model | None, arm: Arm, run: Run, batch: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """The lines of a batch's samples, whose pictures are written."""
    prompts, seeds = [prompt for prompt, _ in batch], [seed for _, seed in batch]
    began = time.perf_counter()
    with peak_memory("cpu" if model is None else model.device) as memory:
        drawn = arm.draw(prompts, seeds)
    seconds = (time.perf_counter() - began) / len(batch)
    encoded = None if model is None else model.encode(prompts)
    rows = []
    for i, (prompt, seed) in enumerate(batch):
        name = sample_id(prompt, seed)
        height, width = drawn.images[i].shape[:2]
        if drawn.noises is not None or model is None:
            noise = "" if drawn.noises is None else drawn.noises[i]
        else:
            noise = sha256(model.noise(seed, height, width).numpy().tobytes())
        rows.append(
            {
                "sample": name,
                "prompt": prompt,
                "seed": seed,
                "file_name": f"{name}.png",
                "image_sha256": sha256(drawn.images[i].tobytes()),
                "noise_sha256": noise,
                "height": height,
                "width": width,
                "steps": run.settings.get("drawn_with", {}).get("steps", 0),
                "guidance": run.settings.get("drawn_with", {}).get("guidance", 0.0),
                "batch_size": len(batch),
                "calls": float(drawn.calls[i]),
                "seconds": seconds,
                "memory": memory.megabytes if np.isfinite(memory.megabytes) else None,
                "share": drawn.share if np.isfinite(drawn.share) else None,
                **({} if encoded is None else {"embedding": encoded.digest(prompt)}),
                "seed_taken": int(seed if drawn.seeds is None else drawn.seeds[i]),
            }
        )
        with atomic(run.image_path(name)) as temporary:
            Image.fromarray(drawn.images[i]).save(temporary)
    return rows
