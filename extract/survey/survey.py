"""Every block at every step of every labelled sample, reduced on the device to moments of its tokens."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import HandscopeError
from ...labeling.database.labels import Annotation, Labels
from ...models.model import Model
from ...parallel import Failed, finished, on_cluster, warn_of_failed
from ...progress import Progress, quiet
from ...run.folder import Run
from ...run.noised import Noised
from ...run.part import Part, check_part, in_part
from ...run.trajectory import Trajectory
from ..address import Plan
from ..agreement import check_first
from ..given import read_given
from ..replay import replay
from ..steps import step_table
from ..store.shard import DamagedError
from ..worklist import Task, WorkList, annotations_of, batches, common_attrs, sample_rows
from .surveyed import CLASSES, SCHEMA, SurveyStore, check_same, reading, survey_folder, write_moments


def survey(
    model: Model,
    run: Run,
    batch_size: int | None = None,
    shard: Part | None = None,
    progress: Progress = quiet,
) -> SurveyStore | None:
    """Replay every step of every sample with a labelled instance, and keep the moments of its tokens in every block.

    Of a given picture (`read_given`), which is read with noise on it, moments are the mean over its noises. Tokens are
    reduced on the device and never stored. A sample's file is written whole or not at all, and one that is
    there, of the same image and labels, is not made again.

    Parameters
    ----------
    batch_size : int, optional
        Samples in one forward; by default the generation's, which gives the same bits.
    shard : tuple of int, optional
        (i, n), counted from 1: this machine's part of the samples, as in `extract`.

    Returns
    -------
    SurveyStore, or None where this part of the samples is empty

    Raises
    ------
    HandscopeError
        There are no samples, none has a labelled instance, labels are of another image or grid, a sample has no
        trajectory, or the survey in the folder is of another model.
    """
    work = _work(model, run, shard)
    todo = list(batches(model, run, work, batch_size))
    lost = [sample for batch in todo if batch.road == "made again" for sample in batch.samples]
    if lost:
        raise HandscopeError(
            f"{len(lost)} samples have no trajectory, {lost[0]} among them, and a survey replays trajectories: run "
            "generate again with trajectories kept, which makes the same images."
        )
    done = len(work.rows) - len(work.missing)
    progress("survey", done, len(work.rows))
    if todo and not on_cluster():  # whose workers encode what they read
        model.encode([work.rows[sample]["prompt"] for sample in work.missing], progress)
        check_first(model, run, todo)
    surveyor = partial(_survey_batch, model, run, Plan.from_json(work.common["plan"]))
    tasks, failed = [Task(batch, work.of(batch.samples)) for batch in todo], list[Failed]()
    for _, result in finished(surveyor, tasks, "survey", model, progress):
        if isinstance(result, Failed):
            failed.append(result)
            continue
        done += result
        progress("survey", done, len(work.rows))
    warn_of_failed("survey", failed)
    return SurveyStore(survey_folder(run)) if work.rows else None


def unsurveyed(run: Run) -> list[str]:
    """Samples with a labelled instance whose moments are not there, or are of other labels; needs no model."""
    rows = run.metadata()
    return [
        sample
        for sample, annotation in Labels(run.labels_path).current().items()
        if sample in rows and annotation.instances.any() and not _is_there(_path(run, sample), rows[sample], annotation)
    ]


def token_moments(classes: NDArray[np.uint8], device: Any = "cpu") -> Callable[[Tensor], Tensor]:
    """What a capture reduces each cell with: moments of each sample's tokens of each class.

    Parameters
    ----------
    classes : uint8 array of shape (batch, n_tokens): 0 for a token that is left out, 1 for the subject, 2 for none

    Returns
    -------
    function from the tokens that are not left out, (kept, width), to float32 (batch, 2, 2, width): class, then mean and
    variance; NaN for a class without tokens

    Notes
    -----
    Two passes in float64 over what is on the device anyway; as products with a matrix of weights, which gives the same
    bits every time, where adding by index on a GPU does not.
    """
    sample, token = classes.nonzero()
    group = torch.as_tensor(CLASSES * sample + classes[sample, token] - 1, device=device)
    chosen = torch.nn.functional.one_hot(group, CLASSES * len(classes)).T.double()
    count = chosen.sum(1, keepdim=True)
    weights = chosen / count.clamp(min=1)

    def reduce(rows: Tensor) -> Tensor:
        rows = rows.double()
        mean = weights @ rows
        variance = weights @ (rows - mean[group]).square()
        both = torch.stack([mean, variance], dim=1).masked_fill(count[:, None] == 0, torch.nan)
        return both.float().unflatten(0, (len(classes), CLASSES))

    return reduce


def _work(model: Model, run: Run, shard: Part | None) -> WorkList:
    check_part(shard)
    rows = run.metadata()
    of = next(iter(rows.values()))["steps"] if rows else 1
    plan = Plan(model.carrying("image"), range(of, 0, -1), of=of)
    common = {**common_attrs(model, plan, "labelled"), "schema": SCHEMA}
    rows = sample_rows(run, plan)
    annotations = {
        sample: annotation
        for sample, annotation in annotations_of(model, run, rows, "labelled").items()
        if annotation is not None and annotation.instances.any()
    }
    if not annotations:
        raise HandscopeError(f"None of the labelled samples in {run.path} has a token of the subject: label more.")
    run.write_settings({"model": model.identity})
    everything = list(annotations)
    own = {sample: kept for sample, kept in annotations.items() if in_part(sample, shard)}
    missing = [sample for sample in own if not _is_there(_path(run, sample), rows[sample], own[sample], common)]
    masks = {sample: _classes(annotation) > 0 for sample, annotation in own.items()}
    return WorkList(everything, {sample: rows[sample] for sample in own}, own, masks, missing, "labelled", common, plan)


def _survey_batch(model: Model, run: Run, plan: Plan, task: Task) -> int:
    """Write the moments of a batch, and return how many samples it had."""
    batch, work = task.batch, task.work
    model.encode(row["prompt"] for row in batch.rows)
    first, filled = batch.rows[0], batch.filled()
    tokens = int(np.prod(model.grid(first["height"], first["width"])))
    classes = np.zeros((batch.together, tokens), np.uint8)
    for own, sample in zip(classes, batch.samples):
        own[:] = _classes(work.annotations[sample]).ravel()
    masks, moments_of = classes > 0, token_moments(classes, model.device)
    paths: list[Trajectory | Noised]
    if batch.road == "noised":
        seen, made = read_given(model, run, plan, filled, masks, moments_of)
        paths = [*made]
    else:
        read = {sample: run.trajectory(sample) for sample in batch.samples}
        trajectories = [read[row["sample"]] for row in filled]
        paths = [*trajectories]
        prompts = [row["prompt"] for row in filled]
        sizes = first["guidance"], first["height"], first["width"]
        seen = replay(model, plan, prompts, trajectories, *sizes, masks, moments_of)
    attrs = {**seen.conditions, "batch_size": batch.together, "generation_batch_size": first["batch_size"]}
    moments = torch.stack(list(seen.take().values()), dim=1).numpy()
    for sample, own, part, path in zip(batch.samples, classes, moments, paths):
        counts = [int((own == one).sum()) for one in (1, 2)]
        of_sample = {**attrs, **work.attrs(sample), "classes_sha256": _hash(work.annotations[sample])}
        write_moments(_path(run, sample), part, counts, step_table(plan, path), of_sample)
    return len(batch.samples)


def _classes(annotation: Annotation | None) -> NDArray[np.uint8]:
    assert annotation is not None
    return np.where(annotation.instances > 0, 1, np.where(annotation.labels == 1, 2, 0)).astype(np.uint8)


def _hash(annotation: Annotation | None) -> str:
    """A hash of which tokens are of which class: another verdict on the same tokens leaves it as it is."""
    return hashlib.sha256(_classes(annotation).tobytes()).hexdigest()


def _path(run: Run, sample: str) -> Path:
    return survey_folder(run) / f"{sample}.h5"


def _is_there(path: Path, row: dict[str, Any], annotation: Annotation, common: dict[str, Any] | None = None) -> bool:
    if not path.exists():
        return False
    try:
        with reading(path) as file:
            attrs = dict(file.attrs)
    except DamagedError:  # made anew; a file that is only locked or forbidden is not
        return False
    if common is not None:
        check_same(path, attrs, common)
    if "classes_sha256" not in attrs:  # of 0.3
        labels = hashlib.sha256(annotation.labels.tobytes() + annotation.instances.tobytes()).hexdigest()
        return (attrs.get("image_sha256"), attrs.get("labels_sha256")) == (row["image_sha256"], labels)
    return (attrs.get("image_sha256"), attrs["classes_sha256"]) == (row["image_sha256"], _hash(annotation))
