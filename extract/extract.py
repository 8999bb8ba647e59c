"""From labelled samples to activations on disk: replay, keep the wanted tokens, write one shard a sample."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import HandscopeError
from ..progress import Progress, quiet
from .address import Plan
from .consolidate import consolidate
from .labels import Annotation, Labels
from .models import Model
from .replay import replay
from .run import Run
from .shard import SCHEMA, STEP, TOKEN, check_same, fingerprint, heads, reading, write_shard
from .store import ActivationStore
from .trajectory import Trajectory

SELECTIONS = ("hand", "labelled", "all")


def extract(
    model: Model, run: Run, plan: Plan, tokens: str = "hand", batch_size: int | None = None, progress: Progress = quiet
) -> ActivationStore:
    """Extract the plan's cells of every labelled sample, or of those that have no shard yet, then consolidate.

    Parameters
    ----------
    plan : Plan
        `plan.of` is the number of steps of the run.
    tokens : str
        ``hand``: tokens with a hand number, whatever the verdict; ``labelled``: tokens whose label is not 0; ``all``:
        every token of every sample, labelled or not.
    batch_size : int, optional
        Samples in one forward. By default the batch size of the generation, which gives the same bits as the generation
        had.

    Raises
    ------
    HandscopeError
        The plan does not fit the model or the run; there are no samples or no labels; labels are of another token grid
        or of another image; activations of another plan, model or choice of tokens are there already; the disk is full.
    """
    if tokens not in SELECTIONS:
        raise HandscopeError(f"Expected tokens to be one of {', '.join(SELECTIONS)}, found {tokens!r}.")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise HandscopeError(f"Expected batch_size to be a whole number of at least 1, found {batch_size!r}.")
    plan.check(model.blocks)
    rows = _samples(model, run, plan)
    annotations = _annotations(model, run, rows, tokens)
    common = {
        "schema": SCHEMA,
        "plan": plan.to_json(),
        "model": model.name,
        "revision": model.revision or "",
        "weight_hash": model.weight_hash,
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "selection": tokens,
    }
    missing = _missing(run, rows, annotations, common)

    progress("extract", len(annotations) - len(missing), len(annotations))
    if missing:
        # What it was made from is about to change; it is written again from the shards below.
        (run.activations_dir / "store.h5").unlink(missing_ok=True)
    done = len(annotations) - len(missing)
    for batch, together in _batches([rows[sample] for sample in missing], batch_size):
        _extract_batch(model, run, plan, batch, together, annotations, tokens, common)
        done += len(batch)
        progress("extract", done, len(annotations))
    if not _consolidated(run):
        consolidate(run.activations_dir)
    return ActivationStore(run.activations_dir)


def _samples(model: Model, run: Run, plan: Plan) -> dict[str, dict[str, Any]]:
    rows = run.metadata()
    if not rows:
        raise HandscopeError(f"There are no samples in {run.samples_dir}: run generate first.")
    run.write_settings({"model": {"weight_hash": model.weight_hash, "dtype": str(model.dtype).removeprefix("torch.")}})
    steps = next(iter(rows.values()))["steps"]
    if plan.of != steps:
        raise HandscopeError(
            f"The plan is for a run of {plan.of} steps, and the samples in {run.path} were made in {steps}: make the "
            f"plan's `of` {steps}."
        )
    return rows


def _annotations(model: Model, run: Run, rows: dict[str, dict[str, Any]], tokens: str) -> dict[str, Annotation | None]:
    """The annotation of each labelled sample; when all tokens are wanted of every sample, None where there is none."""
    current = Labels(run.labels_path).current()
    chosen: dict[str, Annotation | None] = {
        sample: current.get(sample) for sample in rows if tokens == "all" or sample in current
    }
    if not chosen:
        raise HandscopeError(
            f"None of the {len(rows)} samples in {run.path} is labelled: run label first, or extract tokens='all'."
        )
    for sample, annotation in chosen.items():
        if annotation is None:
            continue
        row = rows[sample]
        grid = model.grid(row["height"], row["width"])
        if annotation.labels.shape != grid:
            raise HandscopeError(
                f"The labels of {sample} in {run.labels_path} are on a grid of {_by(annotation.labels.shape)} tokens, "
                f"and the sample has {_by(grid)}: label it again."
            )
        if annotation.image_sha256 != row["image_sha256"]:
            raise HandscopeError(
                f"The labels of {sample} in {run.labels_path} were made on another image "
                f"(hash {annotation.image_sha256[:12]}…, the sample's is {row['image_sha256'][:12]}…): label it again."
            )
    return chosen


def _missing(
    run: Run, rows: dict[str, dict[str, Any]], annotations: dict[str, Annotation | None], common: dict[str, Any]
) -> list[str]:
    """Samples without a shard of this image and these labels; a shard of another plan or model is refused."""
    missing = []
    for sample, annotation in annotations.items():
        path = _shard(run, sample)
        try:
            with reading(path) as file:
                attrs = dict(file.attrs)
        except HandscopeError:
            missing.append(sample)
            continue
        check_same(path, attrs, common)
        if (attrs["image_sha256"], attrs["labels_sha256"]) != (rows[sample]["image_sha256"], _labels_hash(annotation)):
            missing.append(sample)
    return missing


def _batches(rows: list[dict[str, Any]], batch_size: int | None) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Samples that can share a forward, with the size to which a short batch is filled up."""
    groups: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["height"], row["width"], batch_size or row["batch_size"]), []).append(row)
    for (_, _, together), group in groups.items():
        for first in range(0, len(group), together):
            yield group[first : first + together], together


def _extract_batch(
    model: Model,
    run: Run,
    plan: Plan,
    batch: list[dict[str, Any]],
    together: int,
    annotations: dict[str, Annotation | None],
    tokens: str,
    common: dict[str, Any],
) -> None:
    first = batch[0]
    grid = model.grid(first["height"], first["width"])
    trajectories = [run.trajectory(row["sample"]) for row in batch]
    masks = np.zeros((together, grid[0] * grid[1]), bool)
    for mask, row in zip(masks, batch):
        mask[:] = _mask(annotations[row["sample"]], grid, tokens).ravel()
    fill = together - len(batch)
    seen = replay(
        model,
        plan,
        [row["prompt"] for row in batch] + [first["prompt"]] * fill,
        trajectories + trajectories[:1] * fill,
        first["guidance"],
        first["height"],
        first["width"],
        masks,
    )
    bits = torch.stack(
        [seen[cell.block, cell.step].to(torch.bfloat16).view(torch.uint16) for cell in plan.cells]
    ).numpy()
    stop = 0
    for row, mask, trajectory in zip(batch, masks, trajectories):
        start, stop = stop, stop + int(mask.sum())
        annotation = annotations[row["sample"]]
        attrs = {
            **common,
            "sample": row["sample"],
            "image_sha256": row["image_sha256"],
            "noise_sha256": row["noise_sha256"],
            "labels_sha256": _labels_hash(annotation),
            "batch_size": together,
            "rows": grid[0],
            "columns": grid[1],
        }
        write_shard(
            _shard(run, row["sample"]),
            bits[:, start:stop],
            _step_table(plan, trajectory),
            _token_table(annotation, mask.reshape(grid)),
            attrs,
        )


def _mask(annotation: Annotation | None, grid: tuple[int, int], tokens: str) -> np.ndarray:
    if tokens == "all" or annotation is None:
        return np.ones(grid, bool)
    return annotation.hands > 0 if tokens == "hand" else annotation.labels > 0


def _step_table(plan: Plan, trajectory: Trajectory) -> np.ndarray:
    indices = [plan.index(step) for step in plan.steps]
    times = (trajectory.sigmas[indices], trajectory.timesteps[indices], trajectory.model_timesteps[indices])
    return np.array(list(zip(plan.steps, indices, *times, strict=True)), STEP)


def _token_table(annotation: Annotation | None, mask: np.ndarray) -> np.ndarray:
    row, col = mask.nonzero()
    table = np.zeros(len(row), TOKEN)
    table["row"], table["col"] = row, col
    if annotation is not None:
        table["label"], table["hand"] = annotation.labels[mask], annotation.hands[mask]
    return table


def _labels_hash(annotation: Annotation | None) -> str:
    if annotation is None:
        return ""
    return hashlib.sha256(annotation.labels.tobytes() + annotation.hands.tobytes()).hexdigest()


def _consolidated(run: Run) -> bool:
    path = run.activations_dir / "store.h5"
    if not path.exists():
        return False
    try:
        with reading(path) as file:
            return file.attrs["fingerprint"] == fingerprint(heads(run.activations_dir))
    except HandscopeError:
        return False


def _shard(run: Run, sample: str) -> Path:
    return run.activations_dir / "shards" / f"{sample}.h5"


def _by(grid: tuple[int, ...]) -> str:
    return " by ".join(map(str, grid))
