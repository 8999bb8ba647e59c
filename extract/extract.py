"""From labelled samples to activations on disk: read them, keep the wanted tokens, write one shard a sample.

A sample whose trajectory was kept is replayed; one without is generated again (`regenerate`), and its labels are
used only where noise and image come out as they were. A given picture is encoded and noised (`read_given`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import HandscopeError
from ..files import sweep
from ..labeling.table import SUBSETS
from ..labeling.values import read_values
from ..models.model import Model
from ..parallel import Failed, finished, on_cluster, processes, warn_of_failed
from ..progress import Progress, quiet
from ..run.folder import Run
from ..run.noised import Noised
from ..run.part import Part
from ..run.trajectory import Trajectory
from .address import Plan
from .agreement import check_first
from .given import read_given
from .picture_statistics import decode_predicted
from .regenerate import regenerate
from .replay import batch_difference, replay
from .seen import Seen
from .steps import step_table
from .store.added import with_added
from .store.aside import SetAside, set_aside, write_set_aside
from .store.consolidate import consolidate, is_consolidated
from .store.shard import shards
from .store.store import ActivationStore
from .store.writer import ShardWriter
from .worklist import Batch, Task, WorkList, batches, shard_path, work_list


def extract(
    model: Model,
    run: Run,
    plan: Plan,
    tokens: str = "subject",
    batch_size: int | None = None,
    shard: Part | None = None,
    compression: str | None = None,
    progress: Progress = quiet,
) -> ActivationStore | None:
    """Extract the plan's cells of the labelled samples of which a wanted token or cell is not stored yet, then
    consolidate.

    What is stored stays. Cells of other blocks, steps or sites are added: what is lacking is read, and the bits that
    are there are copied into the sample's new shard. Readers see what all samples have; `ActivationStore.read_by` says
    which plan a cell was read by. All cells of a sample are read again where a token is wanted by the labels of now
    that its shard has not, and its new shard has both. A changed verdict, or a mask that has shrunk, needs nothing.

    Samples with a trajectory are replayed, given pictures encoded and noised (`read_given`). The others are generated
    again from prompt and seed, in batches of the size that was used then; one whose noise or image comes out otherwise
    is set aside: it gets no shard, and ``activations/set_aside.csv`` names it with its PSNR. The next extraction tries
    it again.

    The shards of one batch are written while the next one runs; no more than two batches of wanted tokens are held.
    Of samples with a verdict and a trajectory, the clean image that the model predicts at each step of the plan is
    decoded, and its plain statistics kept in ``analysis/image_statistics.csv``: a probe has to beat them.

    Parameters
    ----------
    plan : Plan
        `plan.of` is the number of steps of the run; one without blocks is of all that the model has.
    tokens : str
        ``subject`` (or its noun): tokens with an instance number, whatever the verdict; ``labelled``: tokens
        whose label is not 0; ``all``: every token of every sample, labelled or not. Of the text stream, all tokens of
        each sample with such a token.
    batch_size : int, optional
        Samples in one forward of a replay. By default the batch size of the generation, which gives the same bits as
        the generation had; at another one the difference is measured on the first batch, and kept in each shard.
    shard : tuple of int, optional
        (i, n), counted from 1: this machine's part of the samples. Every machine divides alike, by the samples' names.
        All parts may write into one folder, or into copies of the run whose `shards` are put together afterwards.
    compression : str, optional
        As in `write_shard`.

    Returns
    -------
    ActivationStore or None
        Of all samples that have a shard by now, consolidated once that is all of them. None where nothing is there yet
        and this part of the samples is empty, or was set aside.

    Raises
    ------
    HandscopeError
        The plan does not fit the model or the run; there are no samples or no labels; labels are of another token grid
        or of another image; activations of another model, choice of tokens, stream or side are there already; every
        sample was set aside; the disk is full.
    """
    plan = plan.on(model.blocks, model.carrying(plan.stream))
    work = work_list(model, run, plan, tokens, shard)
    todo = list(batches(model, run, work, batch_size))
    for folder in (run.activations_dir, run.activations_dir / "shards"):
        sweep(folder)
    progress("extract", len(work.rows) - len(work.missing), len(work.rows))
    if todo:
        if not on_cluster():  # whose workers encode what they read
            model.encode([work.rows[sample]["prompt"] for sample in work.missing], progress)
            check_first(model, run, todo)
        # What it was made from is about to change; it is written again from the shards below.
        (run.activations_dir / "store.h5").unlink(missing_ok=True)
        _write_batches(_Reader(model, run, compression), work, todo, shard, progress)
    _decode(model, run, work.plan, work, shard, progress)
    if shards(run.activations_dir):
        _consolidate(run, work, progress)
        return ActivationStore(run.activations_dir)
    if shard is None:
        aside = set_aside(run.activations_dir)
        raise HandscopeError(
            f"All {len(aside)} samples came out otherwise when they were generated again (at most "
            f"{aside['psnr'].max():.1f} dB), so that none of their labels can be used: extract where they were "
            "generated, or generate and label them anew, with trajectories."
        )
    return None


def _decode(
    model: Model, run: Run, plan: Plan, work: WorkList, shard: Part | None, progress: Progress
) -> None:
    """Statistics of what the model predicts, for the samples that probes may be fitted to, while the model is here."""
    aside = set(set_aside(run.activations_dir)["sample"])
    judged = [
        sample
        for sample, annotation in work.annotations.items()
        if annotation is not None and annotation.verdict in SUBSETS["all"] and annotation.instances.any()
        and sample not in aside
    ]
    valued = read_values(run) if run.values_path.exists() else {}
    judged += [sample for sample in work.rows if sample in valued and sample not in (*judged, *aside)]
    decode_predicted(model, run, judged, {step: plan.index(step) for step in plan.steps}, shard, progress)


@dataclass(frozen=True, eq=False)
class _Replayed:
    """What `replay` is given of a batch."""

    prompts: list[str]
    trajectories: list[Trajectory]
    guidance: float
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class _Shard:
    """What a shard is written from, as `ShardWriter.put` takes it."""

    path: Path
    bits: np.ndarray
    steps: np.ndarray
    tokens: np.ndarray
    attrs: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Read:
    """A batch as it was read: the shards of its samples, and who has none."""

    shards: list[_Shard]
    differing: list[SetAside]


class _Reader:
    """Reads batches, each by its road, in whichever process."""

    def __init__(self, model: Model, run: Run, compression: str | None) -> None:
        self.model, self.run, self.compression = model, run, compression
        self._compared = not on_cluster()  # else each worker compares its own model
        self._differences: dict[tuple[int, int], dict[str, Any]] = {}

    def __call__(self, task: Task) -> tuple[int, list[SetAside]]:
        """Read a batch and write its shards; how many samples it had, and those that have none."""
        if not self._compared:
            self.model.encode(row["prompt"] for row in task.batch.rows)
            check_first(self.model, self.run, [task.batch])
            self._compared = True
        read = self.read(task.batch, task.work)
        with ShardWriter(self.compression, depth=len(task.samples)) as writer:
            for part in read.shards:
                writer.put(**vars(part))
        return len(task.samples), read.differing

    def read(self, batch: Batch, work: WorkList) -> _Read:
        self.model.encode(row["prompt"] for row in batch.rows)
        masks, plan = batch.masks(work), work.read(batch.samples[0])
        differing: list[SetAside] = []
        paths: list[Trajectory | Noised]
        if batch.road == "replayed":
            given = self._replayed(batch)
            paths = [*given.trajectories]
            seen = replay(self.model, plan, **vars(given), tokens=masks)
        elif batch.road == "noised":
            seen, made = read_given(self.model, self.run, plan, batch.filled(), masks)
            paths = []
            for row, noised in zip(batch.rows, made):
                if row["sample"] in work.added:
                    noised = noised.joined(self.run.noised(row["sample"]))
                noised.save(self.run.latents_path(row["sample"]), self.run.noised_metadata(row))
                paths.append(noised)
        else:
            seen, drawn, differing = regenerate(self.model, self.run, plan, batch, masks)
            paths = [*drawn]
        attrs = {**seen.conditions, **self._batch_attrs(batch)}
        bits = _bits(seen, plan, masks[: len(batch.rows)].sum(axis=1))
        dropped = {aside.sample for aside in differing}
        parts = [part for part in zip(batch.rows, bits, paths) if part[0]["sample"] not in dropped]
        return _Read([self._shard(work, *part, attrs) for part in parts], differing)

    def _replayed(self, batch: Batch) -> _Replayed:
        first = batch.rows[0]
        read = {sample: self.run.trajectory(sample) for sample in batch.samples}
        filled = batch.filled()
        prompts, trajectories = [row["prompt"] for row in filled], [read[row["sample"]] for row in filled]
        return _Replayed(prompts, trajectories, first["guidance"], first["height"], first["width"])

    def measure(self, todo: Sequence[Batch], work: WorkList) -> None:
        """What other batch sizes than the generation's do, each on its first batch; one process does it for all."""
        for batch in todo:
            sizes = batch.together, batch.rows[0]["batch_size"]
            if sizes[0] == sizes[1] or sizes in self._differences or batch.road == "noised":
                continue
            wide = Batch(batch.rows, max(sizes), batch.road)
            masks, given, plan = wide.masks(work), self._replayed(wide), work.read(batch.samples[0])
            self.model.encode(given.prompts)
            found = batch_difference(self.model, plan, **vars(given), tokens=masks, size=min(sizes))
            self._differences[sizes] = {
                "absolute": found.absolute,
                "relative": found.relative,
                "cell": str(found.cell),
                "sizes": found.sizes,
            }

    def _batch_attrs(self, batch: Batch) -> dict[str, Any]:
        """The batch size, and where it is not the generation's what that does."""
        sizes = batch.together, batch.rows[0]["batch_size"]
        attrs: dict[str, Any] = {"batch_size": sizes[0], "generation_batch_size": sizes[1]}
        if batch.road == "noised":
            return attrs | {"noises": batch.rows[0]["given"]["noises"]}
        return attrs if sizes[0] == sizes[1] else attrs | {"batch_difference": self._differences[sizes]}

    def _shard(
        self, work: WorkList, row: dict[str, Any], bits: np.ndarray, path: Trajectory | Noised, attrs: dict[str, Any]
    ) -> _Shard:
        sample, grid = row["sample"], self.model.grid(row["height"], row["width"])
        steps, tokens, where = step_table(work.plan, path), work.tokens(sample), shard_path(self.run, sample)
        if sample in work.added:
            bits, attrs = with_added(where, work.plan, work.added[sample], bits, attrs)
        own = {**attrs, **work.attrs(sample), "rows": grid[0], "columns": grid[1]}
        return _Shard(where, bits, steps, tokens, own)


def _write_batches(
    reader: _Reader,
    work: WorkList,
    todo: Sequence[Batch],
    shard: Part | None,
    progress: Progress,
) -> None:
    run = reader.run
    done = len(work.rows) - len(work.missing)
    differing: list[SetAside] = []
    write_set_aside(run.activations_dir, differing, shard)
    reader.measure(todo, work)
    for samples, aside in _read_batches(reader, work, todo, progress):
        for one in aside:
            # It may have a shard of another image, or one that lacks tokens which cannot be made here.
            if one.sample not in work.added:
                shard_path(run, one.sample).unlink(missing_ok=True)
        if aside:
            differing += aside
            write_set_aside(run.activations_dir, differing, shard)
        done += samples
        progress("extract", done, len(work.rows))
    kept = [one.sample for one in differing if one.sample in work.added]
    if kept:
        raise HandscopeError(
            f"{len(kept)} samples came out otherwise when they were generated again, {kept[0]} among them: no cells can"
            " be added to them, and what is stored of them stays. Add cells where they were generated, or remove their "
            f"shards in {shard_path(run, kept[0]).parent}."
        )


def _read_batches(
    reader: _Reader, work: WorkList, todo: Sequence[Batch], progress: Progress
) -> Iterator[tuple[int, list[SetAside]]]:
    """How many samples each batch had when it is done, and those without a shard."""
    if on_cluster() or processes(len(todo), reader.model) > 1:
        failed: list[Failed] = []
        tasks = [Task(batch, work.of(batch.samples)) for batch in todo]
        for _, result in finished(reader, tasks, "extract", reader.model, progress):
            if isinstance(result, Failed):
                failed.append(result)
                yield len(result.item.samples), [SetAside(name, f"failed twice: {result.error}", float("nan"))
                                                 for name in result.item.samples]  # fmt: skip
            else:
                yield result
        warn_of_failed("extract", failed)
        return
    # One process: the shards of a batch are written while the next one is read.
    with ShardWriter(reader.compression, depth=max(batch.together for batch in todo)) as writer:
        for batch in todo:
            read = reader.read(batch, work)
            writer.settle()  # the batch before: two are in memory, and no more
            for part in read.shards:
                writer.put(**vars(part))
            yield len(batch.rows), read.differing


def _bits(seen: Seen, plan: Plan, counts: np.ndarray) -> list[np.ndarray]:
    """Bits of bfloat16 of each sample, (cells, tokens, width), from cells of shape (tokens of all samples, width).

    Values by head, (tokens of all samples, heads, head_dim), lie one head behind the other.
    """
    cells = {cell: rows.flatten(1) for cell, rows in seen.take().items()}
    width = next(iter(cells.values())).shape[-1]
    bits = [np.empty((len(plan.cells), count, width), np.uint16) for count in counts]
    for number, cell in enumerate(plan.cells):
        rows = cells.pop(cell).to(torch.bfloat16).view(torch.uint16).numpy()
        for part, found in zip(bits, np.split(rows, np.cumsum(counts))):
            part[number] = found
    return bits


def _consolidate(run: Run, work: WorkList, progress: Progress) -> None:
    """Consolidate once every sample of the whole extraction has a shard, whichever machine wrote it."""
    if is_consolidated(run.activations_dir):
        return
    aside = set(set_aside(run.activations_dir)["sample"])
    if all(sample in aside or shard_path(run, sample).exists() for sample in work.everything):
        # Two machines may come to this at once: each writes the same under a name of its own, and renames it.
        consolidate(run.activations_dir, progress)
    else:
        (run.activations_dir / "store.h5").unlink(missing_ok=True)  # of shards that have changed since


