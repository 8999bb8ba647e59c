"""The heads stage: what the subject's tokens look at, head by head, and whether that differs between samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.paired import PairedComparison
from ..analysis.pairs import effect_table, pair_table
from ..analysis.statistics.rank_auc import Verdicts
from ..errors import HandscopeError
from ..extract.address import Plan
from ..files import write_csv
from ..labeling.database.labels import Labels
from ..labeling.table import labelled, sample_table
from ..models.sampling import Sampling
from ..progress import Progress, quiet
from ..run.design import design_of
from ..run.record import fresh, made_from, set_fresh
from ..stages import HEADS
from .attention import GROUPS, Groups, reading_attention
from .batches import batches_of, in_turn
from .parts import Arrays, kept, key_of

if TYPE_CHECKING:
    from ..models.model import Model
    from ..run.folder import Run

COUNT = re.compile(r"\b(?:zero|no|one|two|three|four|five|six|seven|eight|nine|ten|[0-9]+)\b", re.IGNORECASE)
"""Words that say how many."""


@threadpool_limits.wrap(limits=1, user_api="blas")
def heads(
    model: Model,
    run: Run,
    blocks: Sequence[str] = (),
    steps: Sequence[int] = (),
    samples: int = 200,
    permutations: int = 1000,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """How much attention the subject's tokens give to words, to each other and to the rest, and where that differs.

    Writes ``analysis/heads.csv``, or ``analysis/head_pairs.csv`` of a paired design; does nothing where it is there and
    belongs to the present labels and arguments. What a step gave is kept in ``heads/``.

    Parameters
    ----------
    blocks, steps : optional
        All blocks whose attention is over image and text, and every fourth step from the second on, by default.
    samples : with a sure verdict, at most, as many of each prompt as can be; of a paired design, pairs
    permutations : labellings at least, or patterns of signs; 20 for each row of the table
    folds : of prompts: the direction in which a head differs is the one that other folds show

    Returns
    -------
    The table, with a row a block, head, step and group of tokens that are looked at: count words, other words, the rest
    of the text, other tokens of the subject, and the rest of the picture. `mean` is the attention in the mean over
    samples. Bad and good samples are compared by `auc`, held out, as in `Verdicts.table`; the members of pairs by `dz`,
    as in `handscope.analysis.pairs`.

    Raises
    ------
    HandscopeError
        The family does not say how its attention is ordered, there are too few samples, or trajectories are missing.
    """
    settings = {
        "blocks": list(blocks), "steps": list(steps), "samples": samples, "permutations": permutations, "folds": folds,
        "seed": seed,
    }  # fmt: skip
    now = made_from(run.path, HEADS, settings)
    paired = design_of(run.samples(), run.path).kind == "paired"
    path = run.analysis_dir / ("head_pairs.csv" if paired else "heads.csv")
    if fresh(run.path, HEADS, now):
        return pd.read_csv(path)
    generation = run.settings["generation"]
    sizes = {name: generation[name] for name in ("steps", "guidance", "height", "width")}
    sampling = Sampling(model, **sizes)
    blocks = list(blocks) or _joint(model)
    steps = list(steps) or list(range(sampling.steps - 1, 0, -4))
    Plan(blocks, steps, of=sampling.steps).check(model.blocks)
    pairs, table = pd.DataFrame(), pd.DataFrame()
    if paired:
        pairs = pair_table(run)
        pairs = in_turn(pairs.assign(prompt=pairs["prompts"]), samples)
        names = [*pairs["first"], *pairs["second"]]
    else:
        table = in_turn(labelled(sample_table(run), "sure", folds, run.path), samples)
        names = table["sample"].tolist()
    looking = _Looking.of(sampling, run, names, paired, progress)
    key = key_of(now, ("samples", "seed"), blocks)
    parts = [
        kept(run.path / "heads" / f"step_{step}.safetensors", key, partial(looking.at, step, blocks)) for step in steps
    ]
    places = [
        {"block": block, "head": head, "step": step, "group": group}
        for step, part in zip(steps, parts)
        for block in blocks
        for group in looking.groups
        for head in range(part[block].shape[2])
    ]
    values = np.concatenate([own.T for part in parts for block in blocks for own in part[block]])
    found = (
        _paired(places, values, pairs, permutations, folds, seed)
        if paired
        else _compared(places, values, table, permutations, folds, seed)
    )
    write_csv(path, found)
    set_fresh(run.path, HEADS, now)
    return pd.read_csv(path)


def _joint(model: Model) -> list[str]:
    """Blocks whose attention is over image and text."""
    kinds = {blocks.kind for blocks in model.family.lists if blocks.attends}
    names = [name for name in model.blocks if name.rsplit(".", 1)[0] in kinds]
    if not names:
        raise HandscopeError(
            f"The family {model.family.name} does not say in which order an attention of it has image and text, so "
            "that what heads look at cannot be read."
        )
    return names


@dataclass(frozen=True, eq=False)
class _Looking:
    """Samples, in batches, with the tokens that look in each and the groups of its words."""

    sampling: Sampling
    run: Run
    names: list[str]
    prompts: list[str]
    masks: NDArray[np.bool_]
    text: dict[str, list[NDArray[np.bool_]]]
    batches: list[list[int]]
    progress: Progress = field(repr=False)

    @property
    def groups(self) -> list[str]:
        return [*self.text, *GROUPS]

    @classmethod
    def of(cls, sampling: Sampling, run: Run, names: list[str], paired: bool, progress: Progress) -> _Looking:
        model, rows = sampling.model, run.metadata()
        prompts = [rows[name]["prompt"] for name in names]
        current = Labels(run.labels_path).current() if run.labels_path.exists() else {}
        tokens = int(np.prod(model.grid(sampling.height, sampling.width)))
        masks = np.ones((len(names), tokens), bool)
        for place, name in enumerate(names):
            if name in current and current[name].instances.any():
                masks[place] = current[name].instances.ravel() > 0
        if paired:  # tokens of the subject in both members, or all of them
            both = masks[: len(names) // 2] & masks[len(names) // 2 :]
            both[~both.any(1)] = True
            masks = np.concatenate([both, both])
        encoded = model.encode(prompts, progress)
        lengths = [model.family.text_tokens(encoded.embeddings(prompt)) for prompt in prompts]
        text = _words(model, prompts, lengths)
        batches = batches_of(model, prompts, int(rows[names[0]]["batch_size"]))
        return cls(sampling, run, names, prompts, masks, text, batches, progress)

    def at(self, step: int, blocks: Sequence[str]) -> Arrays:
        """By block, float32 of shape (groups, n, heads)."""
        found: dict[str, list[Any]] = {block: [None] * len(self.names) for block in blocks}
        index = self.sampling.steps - step
        plan = Plan(blocks, [step], of=self.sampling.steps)
        for number, some in enumerate(self.batches):
            self.progress(f"heads: step {step}", number, len(self.batches))
            latents = torch.stack([self.run.trajectory(self.names[i]).noisy(index) for i in some])
            text = {name: torch.as_tensor(np.stack([rows[i] for i in some])) for name, rows in self.text.items()}
            groups = Groups(torch.as_tensor(self.masks[some]), text)
            with reading_attention(self.sampling.model.transformer, plan, groups, [step]) as seen:
                latents = latents.to(self.sampling.model.device)
                self.sampling.step(latents, [self.prompts[i] for i in some], index)
            for block in blocks:
                told = torch.stack([seen[block, step][group] for group in self.groups])
                for place, i in enumerate(some):
                    found[block][i] = told[:, place].numpy()
        self.progress(f"heads: step {step}", len(self.batches), len(self.batches))
        return {block: np.stack(rows, axis=1) for block, rows in found.items()}


def _words(model: Model, prompts: Sequence[str], lengths: Sequence[int]) -> dict[str, list[NDArray[np.bool_]]]:
    """Groups of text tokens in each prompt: bool of shape (tokens,)."""
    spans = {prompt: model.family.text_spans(model.pipe, prompt) for prompt in dict.fromkeys(prompts)}
    if any(one is None for one in spans.values()):
        return {"text": [np.ones(length, bool) for length in lengths]}
    groups: dict[str, list[NDArray[np.bool_]]] = {"count": [], "words": [], "padding": []}
    for prompt in prompts:
        told = spans[prompt] or []
        counts = [match.span() for match in COUNT.finditer(prompt)]
        count = np.array([any(start < last and first < end for start, end in counts) for first, last in told])
        count &= np.array([first < last for first, last in told])
        word = np.array([first < last for first, last in told]) & ~count
        for name, own in (("count", count), ("words", word), ("padding", ~count & ~word)):
            groups[name].append(own)
    return groups


def _compared(
    places: list[dict[str, Any]], values: NDArray[np.float64], table: pd.DataFrame, permutations: int, folds: int,
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    y, prompts = table["bad"].to_numpy(), table["prompt"].to_numpy()
    verdicts = Verdicts.of(y, prompts, max(permutations, 20 * len(values)), folds, seed)
    counts = {"n_good": int((y == 0).sum()), "n_bad": int(y.sum()), "n_prompts": len(set(prompts))}
    rows = pd.DataFrame([place | counts for place in places])
    rows["mean"], rows["mean_good"] = values.mean(1), values[:, y == 0].mean(1)
    rows["mean_bad"] = values[:, y == 1].mean(1)
    return pd.concat([rows, verdicts.table(values, directed=False)], axis=1)


def _paired(
    places: list[dict[str, Any]], values: NDArray[np.float64], pairs: pd.DataFrame, permutations: int, folds: int,
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    comparison = PairedComparison.of(pairs["prompts"].to_numpy(), max(permutations, 20 * len(values)), folds, seed)
    first, second = values[:, : len(pairs), None], values[:, len(pairs) :, None]
    counts = {"n_pairs": len(pairs), "units": len(comparison.signs[0])}
    rows = [
        place | counts | {"mean_first": float(one.mean()), "mean_second": float(other.mean())}
        for place, one, other in zip(places, first, second, strict=True)
    ]
    effects = [comparison.effect(one, other) for one, other in zip(first, second)]
    return effect_table(rows, effects, comparison).drop(columns="massive_channels")
