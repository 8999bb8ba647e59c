"""The lens stage: what each block would draw, judged, and how much of the model's word a block has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.statistics.folds import codes, grouped_folds
from ..analysis.statistics.intervals import bootstrap_weights, interval
from ..analysis.statistics.multiple import benjamini_hochberg
from ..analysis.statistics.rank_auc import Verdicts
from ..files import atomic, write_csv
from ..labeling.database.labels import Labels
from ..labeling.table import labelled, sample_table
from ..models.sampling import Sampling
from ..probes.crossval import compare, cross_validate
from ..probes.logistic import LogisticProbe
from ..probes.stage import L2
from ..progress import Progress, quiet
from ..run.record import fresh, made_from, set_fresh
from ..stages import LENS
from .batches import batches_of, in_turn
from .lens import BlockLens, Said
from .parts import kept, key_of
from .translate import Translator, TranslatorSums, fitted

if TYPE_CHECKING:
    from ..models.model import Model
    from ..run.folder import Run

KINDS = ("own", "fitted")
SIDE = 128
"""Pixels of the longer side of pictures that are kept for the strip."""

Judge = Callable[[NDArray[np.uint8], Sequence[str]], NDArray[np.float64]]
"""From pictures (n, height, width, 3) and their prompts to scores (n,), higher for what is more likely bad."""


@threadpool_limits.wrap(limits=1, user_api="blas")
def lens(
    model: Model,
    run: Run,
    judge: Judge | None = None,
    blocks: Sequence[str] = (),
    steps: Sequence[int] = (),
    samples: int = 200,
    permutations: int = 1000,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """What each block would draw at each step: by the model's own output layer, and through a fitted translator.

    Writes ``analysis/lens.csv`` and ``analysis/lens.safetensors``, the pictures of the first good and the first bad
    sample; does nothing where they are there and belong to the present labels, activations and arguments. What a step
    gave is kept in ``lens/``, so that a stage that was killed goes on.

    Parameters
    ----------
    judge : function, optional
        A judge of finished pictures, which is given the lens's; without one, columns of AUCs stay empty.
    blocks, steps : optional
        Those of the extraction by default, which the probe beside the judge reads.
    samples : how many with a sure verdict are looked at at most, as many of each prompt as can be
    folds : of prompts. The translator for a sample is fitted to samples of other folds, whose noises are others too

    Returns
    -------
    The table of lens.csv, with a row a kind (``own`` or ``fitted``), block and step. `explained` is the share of the
    variance of the velocity, at the subject's tokens, that the block's has; `auc` tells samples that will be bad from
    good ones by the judge's scores of the block's picture; `change` is what it gains on the block before, and
    `beyond_probe` on a linear probe of the block itself, held out, on the same folds.

    Raises
    ------
    HandscopeError
        The model's family does not say what its output layer is; there are too few samples; trajectories or
        activations are missing; or a cell that is asked for was not extracted.
    """
    from ..extract.store.store import ActivationStore

    settings = {"permutations": permutations, "folds": folds, "seed": seed}
    now = made_from(run.path, LENS, settings | {"blocks": list(blocks), "steps": list(steps), "samples": samples})
    path = run.analysis_dir / "lens.csv"
    if fresh(run.path, LENS, now):
        return pd.read_csv(path)
    store = ActivationStore(run.activations_dir)
    blocks = [str(block) for block in store.plan.blocks if not blocks or str(block) in blocks] or list(blocks)
    read = {(str(cell.block), cell.step) for cell in store.cells}
    steps = list(steps or [step for step in store.plan.steps if all((block, step) in read for block in blocks)])
    steps = steps or list(store.plan.steps)
    for block in blocks:
        for step in steps:
            store.plan.cell(f"{block}/{step}")
    table = in_turn(labelled(sample_table(run), "sure", folds, run.path), samples)
    generation = run.settings["generation"]
    sizes = {name: generation[name] for name in ("steps", "guidance", "height", "width")}
    reader = BlockLens(Sampling(model, **sizes), blocks)
    look = _Look.of(reader, run, table, judge, folds, seed, progress)
    key = key_of(now, ("samples", "folds", "seed"), reader.blocks)
    parts = []
    for step in steps:
        parts.append(kept(run.path / "lens" / f"step_{step}.safetensors", key, partial(look.at, step)))
    rows = _rows(reader.blocks, steps, parts, table, judge is not None, permutations, folds, seed)
    cells = _beside_probe(rows, parts, reader.blocks, steps, store, table, folds, seed, progress) if judge else rows
    write_csv(path, cells)
    with atomic(run.analysis_dir / "lens.safetensors") as temporary:
        strip = {f"{step}": part["strip"] for step, part in zip(steps, parts)}
        told = {"blocks": json.dumps(reader.blocks), "samples": json.dumps(look.shown), "kinds": json.dumps(KINDS)}
        save_file(strip, temporary, told)
    set_fresh(run.path, LENS, now)
    return pd.read_csv(path)


@dataclass(frozen=True, eq=False)
class _Look:
    """What a lens is shown: samples in batches of one fold, with the tokens of the subject in each.

    `masks` is bool of shape (n, tokens), `places` the row of each sample in the table.
    """

    reader: BlockLens
    run: Run
    judge: Judge | None
    batches: list[list[int]]
    names: list[str]
    prompts: list[str]
    fold: NDArray[np.intp]
    masks: NDArray[np.bool_]
    shown: list[str]
    progress: Progress = field(repr=False)

    @classmethod
    def of(
        cls, reader: BlockLens, run: Run, table: pd.DataFrame, judge: Judge | None, folds: int, seed: int,
        progress: Progress,
    ) -> _Look:  # fmt: skip
        model = reader.sampling.model
        names, prompts = table["sample"].tolist(), table["prompt"].tolist()
        asked = run.metadata()
        own = [asked[name]["prompt"] for name in names]
        fold = grouped_folds(prompts, folds, seed)
        current = Labels(run.labels_path).current()
        masks = np.stack([current[name].instances.ravel() > 0 for name in names])
        shown = [names[int((table["bad"] == bad).to_numpy().argmax())] for bad in (0, 1)]
        model.encode(own, progress)
        batches = batches_of(model, own, int(asked[names[0]]["batch_size"]), fold)
        return cls(reader, run, judge, batches, names, own, fold, masks, shown, progress)

    def at(self, step: int) -> dict[str, NDArray[Any]]:
        """Everything about one step, as arrays with a row a kind, a block and a sample.

        ``score`` (kinds, blocks, n): of the judge. ``off`` (kinds, blocks, n): squared error of the velocity at the
        subject's tokens; ``moment`` (n, 3, channels) the count, sum and sum of squares of what the model said there.
        ``strip`` uint8 (kinds, blocks, shown, height, width, 3).
        """
        index = self.reader.sampling.steps - step
        blocks, n = self.reader.blocks, len(self.names)
        found: dict[str, NDArray[Any]] = {
            "score": np.full((len(KINDS), len(blocks), n), np.nan), "off": np.zeros((len(KINDS), len(blocks), n)),
        }  # fmt: skip
        strip: dict[tuple[int, int, str], NDArray[np.uint8]] = {}
        sums: dict[tuple[str, int], TranslatorSums] = {}
        for some, said in self._read(index, f"lens: step {step}"):
            self._moments(found, some, said)
            for place, block in enumerate(blocks):
                self._look(found, strip, 0, place, some, said, None)
                one = int(self.fold[some[0]])
                for stream, last in zip(said.streams(block), said.streams(self.reader.last)):
                    if (block, one) not in sums:
                        origin = next((held.origin for (name, _), held in sums.items() if name == block), None)
                        sums[block, one] = TranslatorSums(stream[0].float().mean(0) if origin is None else origin)
                    sums[block, one].add(stream, last)
        of: dict[tuple[str, int], Translator] = {
            (block, one): fitted([sums[block, other] for other in np.unique(self.fold) if other != one])
            for block, one in sums
        }
        del sums
        for some, said in self._read(index, f"lens: step {step}, translated"):
            for place, block in enumerate(blocks):
                self._look(found, strip, 1, place, some, said, of[block, int(self.fold[some[0]])])
        found["strip"] = np.stack(
            [
                np.stack([np.stack([strip[kind, place, name] for name in self.shown]) for place in range(len(blocks))])
                for kind in range(len(KINDS))
            ]
        )
        return found

    def _read(self, index: int, stage: str) -> Iterator[tuple[list[int], Said]]:
        for number, some in enumerate(self.batches):
            self.progress(stage, number, len(self.batches))
            latents = torch.stack([self.run.trajectory(self.names[i]).noisy(index) for i in some])
            yield some, self.reader.read(latents, [self.prompts[i] for i in some], index)
        self.progress(stage, len(self.batches), len(self.batches))

    def _moments(self, found: dict[str, NDArray[Any]], some: list[int], said: Said) -> None:
        output = said.output.float().cpu()
        moment = found.setdefault("moment", np.zeros((len(self.names), 3, output.shape[-1])))
        for i, own in zip(some, output):
            rows = own[torch.as_tensor(self.masks[i])].double()
            moment[i] = np.stack([np.full(rows.shape[-1], len(rows)), rows.sum(0), rows.square().sum(0)])

    def _look(
        self, found: dict[str, NDArray[Any]], strip: dict[tuple[int, int, str], NDArray[np.uint8]], kind: int,
        place: int, some: list[int], said: Said, translate: Translator | None,
    ) -> None:  # fmt: skip
        block, sampling = self.reader.blocks[place], self.reader.sampling
        velocity = said.velocity(block, translate)
        off = (velocity.float() - said.output.float()).square().sum(-1).cpu().numpy()
        found["off"][kind, place, some] = (off * self.masks[some]).sum(1)
        wanted = [name for name in self.shown if name in [self.names[i] for i in some]]
        if self.judge is None and not wanted:
            return
        pictures = sampling.images(sampling.clean(said.latents, velocity, said.index))
        if self.judge is not None:
            found["score"][kind, place, some] = self.judge(pictures, [self.prompts[i] for i in some])
        for i, picture in zip(some, pictures):
            if self.names[i] in wanted:
                strip[kind, place, self.names[i]] = _small(picture)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def _rows(
    blocks: list[str], steps: list[int], parts: list[dict[str, NDArray[Any]]], table: pd.DataFrame, judged: bool,
    permutations: int, folds: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """The table, but for what stands beside a probe."""
    y, groups = table["bad"].to_numpy(), table["prompt"].to_numpy()
    counts = {"n_good": int((y == 0).sum()), "n_bad": int(y.sum()), "n_prompts": len(set(groups))}
    rows, scores = [], []
    for kind, name in enumerate(KINDS):
        for place, block in enumerate(blocks):
            for step, part in zip(steps, parts):
                share, low, high = _explained(part["off"][kind, place], part["moment"], groups, seed)
                cell = {"kind": name, "block": block, "step": step, **counts}
                rows.append(cell | {"explained": share, "explained_lo": low, "explained_hi": high})
                scores.append(part["score"][kind, place])
    found = pd.DataFrame(rows)
    if not judged:
        return found
    verdicts = Verdicts.of(y, groups, permutations, folds, seed)
    told = verdicts.table(np.stack(scores)).drop(columns="direction")
    changes = []
    for number in range(len(rows)):
        before = number - len(steps)
        first = before < 0 or rows[before]["kind"] != rows[number]["kind"]
        changes.append(
            dict.fromkeys(("change", "change_lo", "change_hi", "change_p"), np.nan)
            if first
            else _change(scores[before], scores[number], verdicts)
        )
    change = pd.DataFrame(changes)
    change["change_q"] = benjamini_hochberg(change["change_p"])
    return pd.concat([found, told, change], axis=1)


def _change(before: NDArray[np.float64], after: NDArray[np.float64], verdicts: Verdicts) -> dict[str, float]:
    """The gain of AUC within prompts from one block to the next; p is two-sided."""
    whole = np.zeros(len(verdicts.y), np.intp)
    gain = compare(before, after, verdicts.y, verdicts.groups, whole, within=True)
    p = 2 * min(gain.p, 1 - gain.p) if gain.added else 1.0  # also where no prompt changes
    return {"change": gain.added, "change_lo": gain.interval[0], "change_hi": gain.interval[1], "change_p": p}


def _explained(
    off: NDArray[np.float64], moment: NDArray[np.float64], groups: NDArray[Any], seed: int
) -> tuple[float, float, float]:
    """1 less the squared error over the variance about the mean of all tokens, with an interval over prompts."""
    group = codes(groups)
    summed = np.zeros((group.max() + 1, *moment.shape[1:]))
    np.add.at(summed, group, moment)
    errors = np.bincount(group, off)

    def share(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        count, first, second = np.moveaxis(np.tensordot(weights, summed, 1), 1, 0)
        spread = (second - first**2 / np.maximum(count, 1)).sum(-1)
        return np.divide(spread - weights @ errors, spread, out=np.full(len(weights), np.nan), where=spread > 0)

    low, high = interval(share(bootstrap_weights(groups, 1000, seed)))
    return float(share(np.ones((1, len(errors))))[0]), low, high


def _beside_probe(
    rows: pd.DataFrame, parts: list[dict[str, NDArray[Any]]], blocks: list[str], steps: list[int], store: Any,
    table: pd.DataFrame, folds: int, seed: int, progress: Progress,
) -> pd.DataFrame:  # fmt: skip
    """The table with a held-out linear probe of each cell beside the judge, and what the judge has beyond it."""
    from ..analysis.subject_tokens import SubjectTokens

    tokens = SubjectTokens(store, table["sample"].tolist())
    at = [table["sample"].tolist().index(name) for name in tokens.samples]
    y, groups = table["bad"].to_numpy()[at], table["prompt"].to_numpy()[at]
    found: dict[tuple[str, int], dict[str, tuple[float, float, float, float]]] = {}
    for number, (block, step) in enumerate((block, step) for block in blocks for step in steps):
        progress("lens: probes", number, len(blocks) * len(steps))
        x = tokens.read(store.plan.cell(f"{block}/{step}"))[0].mean
        probe = cross_validate(LogisticProbe(L2), x, y, groups, folds=folds, permutations=0, bootstraps=10, seed=seed)
        for kind, name in enumerate(KINDS):
            score = parts[steps.index(step)]["score"][kind, blocks.index(block)][at]
            gain = compare(probe.scores, score, y, groups, probe.fold, within=True)
            found.setdefault((block, step), {})[name] = (gain.auc_baseline, gain.added, *gain.interval)
    told = [found[row.block, row.step][row.kind] for row in rows.itertuples()]
    names = ("probe_within_auc", "beyond_probe", "beyond_probe_lo", "beyond_probe_hi")
    return pd.concat([rows, pd.DataFrame(told, columns=names)], axis=1)
