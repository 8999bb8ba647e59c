"""What an extraction is of: which samples, which of their tokens, and which samples lack one of these."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HandscopeError
from ..files import listed
from ..labeling.database.labels import Annotation, Labels
from ..labeling.subject import subject_of
from ..models.condition import conditions
from ..models.model import Model
from ..run.folder import Run, is_given
from ..run.part import Part, check_part, in_part
from .address import Plan, is_count, plain_int
from .store.shard import SCHEMA, TOKEN, DamagedError, check_same, plan_of, reading, tokens_of


@dataclass(frozen=True, eq=False)
class WorkList:
    """The samples of an extraction, or of one machine's part of it.

    Attributes
    ----------
    everything : list of str
        Samples of the whole extraction that have a wanted token.
    rows : dict
        What `samples/metadata.jsonl` says of each sample of this part, by sample.
    annotations : mapping
        The current annotation of each; None where all tokens are wanted of a sample without one.
    masks : mapping
        Which tokens a replay of each sample reads, bool of the form of its token grid (of text tokens: of one row):
        those that are wanted by the labels of now, and those that its shard has already.
    missing : list of str
        Those of which a wanted token or cell is not stored.
    selection : str
        ``subject``, ``labelled`` or ``all``.
    common : dict
        What every shard says of itself.
    plan : Plan
        What every shard holds in the end: the cells that are wanted now, and those that are stored already.
    added : mapping of Plan
        What is read of those missing samples that have some of the cells; of the others it is the whole plan.
    """

    everything: list[str]
    rows: dict[str, dict[str, Any]]
    annotations: Mapping[str, Annotation | None]
    masks: Mapping[str, np.ndarray]
    missing: list[str]
    selection: str
    common: dict[str, Any]
    plan: Plan
    added: Mapping[str, Plan] = field(default_factory=dict)

    def read(self, sample: str) -> Plan:
        """What is read of a missing sample."""
        return self.added.get(sample, self.plan)

    def of(self, samples: list[str]) -> "WorkList":
        """What it says of some samples, for another process to work on them."""
        return WorkList(
            samples,
            {name: self.rows[name] for name in samples},
            {name: self.annotations[name] for name in samples},
            {name: self.masks[name] for name in samples},
            samples,
            self.selection,
            self.common,
            self.plan,
            {name: self.added[name] for name in samples if name in self.added},
        )

    def tokens(self, sample: str) -> np.ndarray:
        """The tokens that are read of a sample, by their places: an array of dtype `TOKEN`."""
        row, col = self.masks[sample].nonzero()
        table = np.empty(len(row), TOKEN)
        table["row"], table["col"] = row, col
        return table

    def attrs(self, sample: str) -> dict[str, Any]:
        """What the shard of a sample says of itself, however it is made."""
        row = self.rows[sample]
        return {
            **self.common,
            "sample": sample,
            "image_sha256": row["image_sha256"],
            "noise_sha256": row["noise_sha256"],
        }


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that share a call of the transformer.

    Attributes
    ----------
    rows : list of dict
        Their lines of `samples/metadata.jsonl`, as many as `together` or fewer.
    together : int
        The size to which the batch is filled up.
    road : str
        How they are read: ``replayed`` from their trajectories, ``noised`` where the pictures were given, or ``made
        again``.
    """

    rows: list[dict[str, Any]]
    together: int
    road: str

    @property
    def samples(self) -> list[str]:
        """Their names."""
        return [row["sample"] for row in self.rows]

    def parts(self) -> list["Batch"]:
        """Each sample alone, among as many."""
        return [Batch([row], self.together, self.road) for row in self.rows]

    def masks(self, work: WorkList) -> np.ndarray:
        """The tokens that are read of each, bool of shape (together, tokens); none of the copies."""
        kept = [work.masks[sample].ravel() for sample in self.samples]
        return np.stack(kept + [np.zeros_like(kept[0])] * (self.together - len(kept)))

    def filled(self) -> list[dict[str, Any]]:
        """The rows with copies of the last behind them, `together` in all."""
        return self.rows + self.rows[-1:] * (self.together - len(self.rows))


@dataclass(frozen=True, eq=False)
class Task:
    """A batch, and what the work list says of its samples."""

    batch: Batch
    work: WorkList

    @property
    def samples(self) -> list[str]:
        """Their names."""
        return self.batch.samples

    def parts(self) -> list["Task"]:
        """Each sample alone, among as many."""
        return [Task(part, self.work.of(part.samples)) for part in self.batch.parts()]


def work_list(
    model: Model, run: Run, plan: Plan, tokens: str = "subject", shard: Part | None = None
) -> WorkList:
    """Look what an extraction is of and what of it is missing.

    Nothing is written but the model's hash into a `run.yaml` that lacks it.

    Parameters
    ----------
    model, run, plan, tokens, shard
        As in `extract`.

    Raises
    ------
    HandscopeError
        The plan does not fit the model or the run; there are no samples or no labels; labels are of another token grid
        or of another image; activations of another model, choice of tokens or kind of plan are there already.
    """
    tokens = subject_of(run).selection(tokens)
    _check(model, plan, shard)
    common = common_attrs(model, plan, tokens)
    samples = sample_rows(run, plan)
    run.write_settings({"model": model.identity})
    annotations = annotations_of(model, run, samples, tokens)
    text = text_of(model, plan, [samples[sample]["prompt"] for sample in annotations])
    wanted = {
        sample: _wanted(
            annotation,
            tokens,
            model.grid(samples[sample]["height"], samples[sample]["width"]),
            text[samples[sample]["prompt"]],
        )
        for sample, annotation in annotations.items()
    }
    everything = [sample for sample, mask in wanted.items() if mask.any()]
    if not everything:
        raise HandscopeError(
            f"None of the {len(annotations)} labelled samples in {run.path} has a token of the choice {tokens!r}: "
            "label more, or extract tokens='all'."
        )
    own = [sample for sample in annotations if in_part(sample, shard)]
    masks, there, stored = {}, listed(shard_path(run, "").parent), {}
    for sample in own:
        path = shard_path(run, sample)
        found = _stored(path, samples[sample], common) if path.name in there else None
        masks[sample] = wanted[sample].copy()
        if found is not None:
            place = found.tokens["row"], found.tokens["col"]
            masks[sample][place] = True
            wanted[sample][place] = False
            stored[sample] = found.plan
    whole = _joined(model, plan, stored.values())
    missing, added = [], {}
    for sample in own:
        if sample in stored and not wanted[sample].any():
            lacking = set(whole.cells) - set(stored[sample].cells)
            if not lacking:
                continue
            added[sample] = whole.reading(lacking)
        elif sample not in stored and not wanted[sample].any() and shard_path(run, sample).name not in there:
            continue
        missing.append(sample)
    return WorkList(
        everything,
        {sample: samples[sample] for sample in own},
        {sample: annotations[sample] for sample in own},
        masks,
        missing,
        tokens,
        common | {"plan": whole.to_json()},
        whole,
        added,
    )


def text_of(model: Model, plan: Plan, prompts: Sequence[str]) -> dict[str, int]:
    """Text tokens that are read of each prompt: none where the plan reads the image stream."""
    if plan.stream != "text":
        return dict.fromkeys(prompts, 0)
    return {prompt: own or model.max_sequence_length for prompt, own in model.text_tokens(prompts).items()}


def _joined(model: Model, plan: Plan, stored: Iterable[Plan]) -> Plan:
    """The plan of the cells that are wanted or stored: the stored one itself where it has them all."""
    plans = list(dict.fromkeys(stored))
    whole = max(plans, key=lambda one: len(one.cells), default=plan)
    for one in [*plans, plan]:
        whole = whole.joined(one, model.blocks)
    return whole


def common_attrs(model: Model, plan: Plan, tokens: str) -> dict[str, Any]:
    """What every shard of an extraction says of itself: what `check_same` compares, and whose the model is."""
    condition, state = conditions(model.transformer), model.state
    return {
        "schema": SCHEMA,
        "plan": plan.to_json(),
        "model": model.name,
        "revision": model.revision or "",
        "weight_hash": model.weight_hash,
        "model_dtype": str(model.dtype).removeprefix("torch."),
        **{key: "" if condition[key] == "none" else condition[key] for key in ("quantisation", "adapters")},
        "state": "" if state == "plain" else state,
        "selection": tokens,
    }


def sample_rows(run: Run, plan: Plan) -> dict[str, dict[str, Any]]:
    """The lines of `samples/metadata.jsonl` by sample; HandscopeError where there are none, or the steps differ."""
    rows = run.metadata()
    if not rows:
        raise HandscopeError(f"There are no samples in {run.samples_dir}: run generate first.")
    for sample, row in rows.items():
        if plan.of != row["steps"]:
            raise HandscopeError(
                f"The plan is for a run of {plan.of} steps, and {sample} in {run.path} was made in {row['steps']}: "
                f"make the plan's `of` {row['steps']}."
            )
    return rows


def annotations_of(
    model: Model, run: Run, rows: dict[str, dict[str, Any]], tokens: str
) -> dict[str, Annotation | None]:
    """The annotation of each labelled sample; when all tokens are wanted of every sample, None where there is none.

    Raises
    ------
    HandscopeError
        There are none, or labels are of another token grid or of another image.
    """
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


def batches(model: Model, run: Run, work: WorkList, batch_size: int | None) -> Iterator[Batch]:
    """The missing samples, those of one size, one road, the same cells and as many text tokens together.

    Raises
    ------
    HandscopeError
        `batch_size` is no number.
    """
    batch_size = plain_int(batch_size)
    if batch_size is not None and not is_count(batch_size):
        raise HandscopeError(f"Expected batch_size to be a whole number of at least 1, found {batch_size!r}.")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    kept = listed(run.trajectories_dir)
    text = model.text_tokens(work.rows[sample]["prompt"] for sample in work.missing)
    for sample in work.missing:
        row = work.rows[sample]
        road = _road(row, run.trajectory_path(sample).name in kept)
        together = batch_size if batch_size is not None and road != "made again" else row["batch_size"]
        alike = row["height"], row["width"], row["guidance"], text[row["prompt"]], work.read(sample), together, road
        groups.setdefault(alike, []).append(row)
    for (*_, together, road), group in groups.items():
        for first in range(0, len(group), together):
            yield Batch(group[first : first + together], together, road)


def shard_path(run: Run, sample: str) -> Path:
    """Where the shard of a sample lies, or will."""
    return run.activations_dir / "shards" / f"{sample}.h5"


def _road(row: dict[str, Any], kept: bool) -> str:
    if is_given(row):
        return "noised"
    return "replayed" if kept else "made again"


def _check(model: Model, plan: Plan, shard: Part | None) -> None:
    check_part(shard)
    plan.check(model.blocks)
    _check_sites(model, plan)
    if plan.call != "cond":
        raise HandscopeError(
            "An extraction reads the conditional side of a run: plan call='cond', or capture around a pipeline call of "
            "your own."
        )


def _check_sites(model: Model, plan: Plan) -> None:
    """Refuse sites that a block does not have, and cells of several widths, which one shard does not hold."""
    widths = {}
    for block in plan.blocks:
        given = model.transformer, str(block.whole), block.site, plan.stream
        widths[str(block)] = model.family.site_width(*given) if block.site else model.stream_width
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{block} ({width})" for block, width in widths.items())
        raise HandscopeError(
            f"A store holds values of one width, and the plan names {found}: extract single heads into a run of their "
            "own, or all heads of a site."
        )


def _wanted(annotation: Annotation | None, tokens: str, grid: tuple[int, int], text: int) -> np.ndarray:
    """Which tokens of a sample are wanted by its labels of now, bool of the form of its token grid.

    Text tokens are one row, wanted together: of a sample in whose image any token is.
    """
    if tokens == "all" or annotation is None:
        mask = np.ones(grid, bool)
    else:
        mask = (annotation.instances if tokens == "subject" else annotation.labels) > 0
    return np.full((1, text), mask.any()) if text else mask


@dataclass(frozen=True, eq=False)
class _Stored:
    """The tokens of a shard, of dtype `TOKEN`, and its plan."""

    tokens: np.ndarray
    plan: Plan


def _stored(path: Path, row: dict[str, Any], common: dict[str, Any]) -> _Stored | None:
    """What a shard has; None where it is damaged or of another image. One of another kind or model is refused."""
    try:
        with reading(path) as file:
            attrs, (tokens, _) = dict(file.attrs), tokens_of(file)
    except DamagedError:  # made anew; a file that is only locked or forbidden is not
        return None
    check_same(path, attrs, common)
    if attrs.get("image_sha256") != row["image_sha256"]:
        return None
    return _Stored(tokens, plan_of(str(attrs["plan"])))


def _by(grid: tuple[int, ...]) -> str:
    return " by ".join(map(str, grid))
