"""Probes carried from one model to another: fitted on A, brought to B by a map that saw no verdict on B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from ..analysis.statistics.auc import PairWins
from ..analysis.statistics.folds import check_folds, codes, grouped_folds
from ..analysis.statistics.intervals import bootstrap_auc, bootstrap_weights
from ..analysis.statistics.multiple import family_p
from ..analysis.statistics.nulls import p_floor, p_value, permuted_labels
from ..analysis.statistics.rank_auc import auc_table
from ..analysis.subject_tokens import SubjectTokens
from ..extract.address import Block, Cell
from ..labeling.table import FEWEST, SUBSETS, sample_table
from ..parallel import each
from ..probes.crossval import held_out_scores
from ..probes.held_out_ridge import HeldOutRidge
from ..probes.logistic import LogisticProbe
from ..probes.stage import L2
from ..progress import Progress, quiet
from .streams import Shared, pairings_of

Array = NDArray[np.float64]
Single = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Receiver:
    """The samples of B that are judged, and what a carried score is compared with.

    Attributes
    ----------
    y : array of shape (n,), verdicts on B, NaN where there is no sure one
    prompts, fold : int arrays of shape (n,), of all shared samples
    labels : array of shape (permutations, judged), verdicts permuted inside prompts
    """

    y: Array
    prompts: NDArray[np.intp]
    fold: NDArray[np.intp]
    labels: Array
    seed: int

    @classmethod
    def of(
        cls, y: Array, prompts: NDArray[np.intp], fold: NDArray[np.intp], permutations: int = 1000, seed: int = 0
    ) -> Receiver:
        judged = ~np.isnan(y)
        labels = permuted_labels(y[judged], prompts[judged], permutations, seed, within=True)
        return cls(y, prompts, fold, labels, seed)

    @property
    def judged(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.y)

    def own(self, x: Single) -> Array:
        """Held-out scores of B's own probe of the samples that are judged."""
        judged = self.judged
        scores = held_out_scores(LogisticProbe(L2), x[judged], self.y[None, judged], self.fold[judged])
        out: Array = scores[0]
        return out

    def row(self, carried: Array, shuffled: Array, own: Array) -> tuple[dict[str, Any], Array]:
        """Columns of carried.csv of one pair of blocks, and the AUCs of its label permutations.

        Parameters
        ----------
        carried : array of shape (n,), held-out scores of a carried probe
        shuffled : array of shape (pairings, n), the same through maps of shuffled pairs of samples
        own : array of shape (judged,), as of `own`
        """
        judged = self.judged
        y, prompts = self.y[judged], self.prompts[judged]
        values = auc_table(np.vstack([carried[None], shuffled])[:, judged], y[None], prompts)[:, 0]
        null = auc_table(carried[None, judged], self.labels, prompts)[0]
        low, high = bootstrap_auc(carried[judged], y, prompts, seed=self.seed, within=True)
        other = PairWins.of(own, y, prompts)
        mine = PairWins.of(carried[judged], y, prompts)
        weights = bootstrap_weights(prompts, 2000, self.seed)
        gap = mine.within_auc(weights) - other.within_auc(weights)
        whole = np.ones((1, weights.shape[1]))
        own_auc = float(other.within_auc(whole)[0])
        paired = len(np.intersect1d(prompts[y == 1], prompts[y == 0]))
        half = float(student.ppf(0.975, max(1, paired - 1)) * np.nanstd(gap))
        less = float(values[0]) - own_auc
        return {
            "n_good": int((y == 0).sum()), "n_bad": int((y == 1).sum()), "n_prompts": paired, "auc": float(values[0]),
            "lo": low, "hi": high, "p": p_value(float(values[0]), null), "p_floor": p_floor(y, self.labels, null),
            "shuffled_mean": float(np.nanmean(values[1:])), "shuffled_sd": float(np.nanstd(values[1:])),
            "shuffled_p": p_value(float(values[0]), values[1:]), "own_auc": own_auc, "less_own": less,
            "less_own_lo": less - half, "less_own_hi": less + half,
        }, null  # fmt: skip


def carry(
    a: Sequence[Single], y_a: Array, b: Sequence[Single], receiver: Receiver, pairings: NDArray[np.intp]
) -> tuple[pd.DataFrame, Array]:
    """Carry the probe of each block of A to each block of B.

    For each fold of prompts a probe is fitted to A's samples and verdicts of the other prompts. What it says of A's
    samples there is regressed on B's streams of the same samples: to carry a linear probe through a ridge map of
    streams is to do that. Then it is read off B's samples of the fold. None of their prompts, noises and verdicts has
    been seen, and no verdict on B at all. Samples are regressed about the mean of their prompt, since pairs of one
    prompt are judged: else means of prompts, which shuffled pairs keep, would tell the map all the same.

    Parameters
    ----------
    a, b : of each block, float32 array of shape (n, width): vectors of the shared samples
    y_a : array of shape (n,), verdicts on A, NaN where there is no sure one
    pairings : int array of shape (m, n), which sample each is paired with instead, inside its prompt

    Returns
    -------
    A row for each two blocks with their places in `a` and `b`, and the null of its `auc`, (permutations, rows)

    Raises
    ------
    HandscopeError
        A fold leaves only good, or only bad, samples of A to fit to.
    """
    fold, judged = receiver.fold, ~np.isnan(y_a)
    check_folds(y_a[judged], fold[judged])
    names, size = np.unique(fold), np.bincount(receiver.prompts)
    said = np.empty((len(names), len(a), len(fold)))
    for place, one in enumerate(names):
        train = judged & (fold != one)
        for block, x in enumerate(a):
            scores = LogisticProbe(L2).fit(x[train], y_a[train]).decision_function(x)
            said[place, block] = scores - (np.bincount(receiver.prompts, scores) / size)[receiver.prompts]
    rows, nulls = [], []
    for number, x in enumerate(b):
        ridge, own = HeldOutRidge(x, fold), receiver.own(x)
        carried = np.empty((len(a), 1 + len(pairings), len(fold)))
        for place, one in enumerate(names):
            train = fold != one
            targets = np.concatenate([said[place][:, None], said[place][:, pairings]], axis=1)[..., train]
            columns = targets.reshape(-1, train.sum()).T
            carried[..., ~train] = ridge.along(place, columns)[0].T.reshape(*carried.shape[:2], -1)
        for block, scores in enumerate(carried):
            row, null = receiver.row(scores[0], scores[1:], own)
            rows.append({"a": block, "b": number, **row})
            nulls.append(null)
    return pd.DataFrame(rows), np.stack(nulls, axis=1)


def compare_carried(
    shared: Shared, pairings: int = 99, permutations: int = 1000, seed: int = 0, progress: Progress = quiet
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Carry probes between two runs, both ways, at every noise level that both have.

    Returns
    -------
    A row for each block of one run and of the other, `p_family` over all rows of a direction; without rows where the
    verdicts are too few. And how the verdicts on the shared samples agree, as columns of pairs.csv.
    """
    runs = shared.a, shared.b
    names, verdicts = _judged(shared)
    table = shared.samples.set_index("sample").loc[names]
    prompts = codes(table["prompt"].to_numpy(object))
    agreement = _agreement(verdicts[0], verdicts[1], prompts, permutations, seed)
    if len(np.unique(prompts)) < 2 or any(min(np.sum(y == 0), np.sum(y == 1)) < FEWEST for y in verdicts):
        return pd.DataFrame(), agreement
    fold = grouped_folds(prompts, min(5, int(prompts.max()) + 1), seed)
    receivers = [Receiver.of(y, prompts, fold, permutations, seed) for y in verdicts]
    shuffled = pairings_of(prompts, pairings, seed)
    subjects = [SubjectTokens(one.store, names) for one in runs if one.store is not None]

    def at(steps: tuple[int, int]) -> list[tuple[pd.DataFrame, Array]]:
        vectors = [
            [subject.read(Cell(Block.parse(block), step))[0].mean.astype(np.float32) for block in one.blocks]
            for one, subject, step in zip(runs, subjects, steps, strict=True)
        ]
        found = []
        for i, j in ((0, 1), (1, 0)):
            rows, null = carry(vectors[i], verdicts[i], vectors[j], receivers[j], shuffled)
            place = {
                "run_from": runs[i].name, "block_from": [runs[i].blocks[k] for k in rows.pop("a")],
                "step_from": steps[i], "run_to": runs[j].name, "block_to": [runs[j].blocks[k] for k in rows.pop("b")],
                "step_to": steps[j], "sigma": runs[0].sigma[steps[0]],
            }  # fmt: skip
            found.append((pd.concat([pd.DataFrame(place), rows], axis=1), null))
        return found

    parts = each(at, shared.steps, progress, f"carry {runs[0].name} {runs[1].name}")
    tables = []
    for direction in (0, 1):
        rows = pd.concat([part[direction][0] for part in parts], ignore_index=True)
        null = np.concatenate([part[direction][1] for part in parts], axis=1)
        rows.insert(rows.columns.get_loc("p_floor") + 1, "p_family", family_p(rows["auc"], null))
        tables.append(rows)
    return pd.concat(tables, ignore_index=True), agreement


def _judged(shared: Shared) -> tuple[list[str], list[Array]]:
    """Shared samples with stored tokens of the subject in both runs, and the sure verdicts on them in each."""
    names, verdicts = shared.samples["sample"].tolist(), []
    for one in (shared.a, shared.b):
        assert one.store is not None
        names = SubjectTokens(one.store, names).samples
    for one in (shared.a, shared.b):
        table = sample_table(one.run)
        sure = table[table["verdict"].isin(SUBSETS["sure"])].set_index("sample")["bad"]
        verdicts.append(sure.reindex(names).to_numpy(np.float64))
    return names, verdicts


def _agreement(a: Array, b: Array, prompts: NDArray[np.intp], permutations: int, seed: int) -> dict[str, Any]:
    """How far the verdicts on one run tell those on the other, of samples of one prompt."""
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b, prompts = a[both], b[both], prompts[both]
    if len(a) == 0:
        return {"judged": 0}
    labels = permuted_labels(b, prompts, permutations, seed, within=True)
    values = auc_table(a[None], np.concatenate([b[None], labels]), prompts)[0]
    low, high = bootstrap_auc(a, b, prompts, seed=seed, within=True)
    return {
        "judged": len(a), "same": float((a == b).mean()), "verdict_auc": float(values[0]), "verdict_lo": low,
        "verdict_hi": high, "verdict_p": p_value(float(values[0]), values[1:]),
    }  # fmt: skip
