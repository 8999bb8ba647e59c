"""What a block adds to each baseline: gains with intervals, and against a null of permuted rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.folds import codes, grouped_folds
from ..analysis.statistics.multiple import family_p
from ..parallel import each
from ..progress import Progress
from .baselines import Baseline
from .conditional import Conditional, Offset, conditional_gain
from .crossval import compare, held_out_scores
from .logistic import LogisticProbe
from .nested import GRID, Nested, nested_scores
from .ridge import RidgeProbe

Array = NDArray[Any]

NESTED = ("prompt", "position", "x_t", "x0", "image")
"""Baselines whose features a block's join in one fit; the norm of the block's own tokens is one more of them."""

WIDE = "x0_flat"
"""The baseline with so many features that a block's would drown among them in one fit: the log-odds of two fits
are added instead. "all" holds every other baseline, in one fit."""

INSTEAD = "block"
"""Names the rows that take a block as the baseline, and ask what `WIDE` would gain in its place."""


def gains(
    cells: dict[Any, tuple[NDArray[np.float32], Array]],
    baselines: list[Baseline],
    y: Array,
    groups: Array,
    l2: float,
    folds: int,
    permutations: int,
    seed: int,
    progress: Progress,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Compare each cell, given as vectors and norms, with each baseline, on the same folds and draws of prompts.

    Baselines, alone and joined by a block, have ridge probes that choose their penalty inside the training folds; a
    block alone has the probe of probes.csv, with `l2`, as has what conditional.csv fits beside a baseline.

    Returns
    -------
    The rows of added.csv with those of whole_picture.csv, and conditional.csv.
    """
    fold = grouped_folds(groups, folds, seed)

    def fitted(x: NDArray[Any]) -> Nested:
        """Held out, each with a penalty of its own: one for all would weaken whichever it suits least."""
        return nested_scores(RidgeProbe(), x.astype(np.float32), y[None], codes(groups), fold, GRID, seed=seed)

    def logits(x: NDArray[Any]) -> Array:
        scores: Array = fitted(x).scores[0]
        return scores

    def of_step(step: int) -> _Step:
        features = {b.name: b.x for b in baselines if b.step in (None, step)}
        narrow = {name: features[name] for name in NESTED}
        whole = {"all": np.hstack(list(narrow.values())), WIDE: features[WIDE]}
        nested = {name: fitted(x) for name, x in whole.items()}
        return _Step(
            narrow,
            {name: logits(x) for name, x in narrow.items()},
            nested[WIDE].scores[0],
            {
                name: Offset.of(RidgeProbe(), x, y, groups, fold, seed, GRID, nested[name])
                for name, x in whole.items()
            },
        )

    def of_cell(cell: Any) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], Conditional]]]:
        (x, norm), at = cells[cell], of_steps[cell.step]
        narrow, added, conditional = at.features, [], []
        joined = np.hstack([*narrow.values(), norm[:, None]])
        block = held_out_scores(LogisticProbe(l2), x, y[None], fold)[0]
        pairs = {name: (at.alone[name], logits(np.hstack([image, x]))) for name, image in narrow.items()}
        pairs["norm"] = logits(norm[:, None]), logits(np.hstack([norm[:, None], x]))
        pairs["all"] = logits(joined), logits(np.hstack([joined, x]))
        pairs[WIDE] = at.wide, at.wide + block
        pairs[INSTEAD] = block, at.wide
        for name, (before, both) in pairs.items():
            row = {"block": str(cell.block), "step": cell.step, "baseline": name}
            added.append(row | compared(before, both, y, groups, fold))
        for name, offset in at.offsets.items():
            gain = conditional_gain(offset, x, y, groups, l2, permutations=permutations, seed=seed)
            row = {"block": str(cell.block), "step": cell.step, "baseline": name}
            conditional.append((row, gain))
        return added, conditional

    steps = sorted({cell.step for cell in cells})
    of_steps = dict(zip(steps, each(of_step, steps, progress, "probe baselines"), strict=True))
    found = each(of_cell, list(cells), progress, "compare with baselines")
    return [row for added, _ in found for row in added], _conditional([pair for _, pairs in found for pair in pairs])


def _conditional(gains: list[tuple[dict[str, Any], Conditional]]) -> pd.DataFrame:
    """conditional.csv: the gains of all rows were judged by the same permutations, and so by the largest among all."""
    table = pd.DataFrame([row | described(gain) for row, gain in gains])
    for prefix in ("", "within_"):
        gained = [getattr(gain, f"{prefix}null") - getattr(gain, f"{prefix}auc_baseline") for _, gain in gains]
        where = table.columns.get_loc(f"{prefix}p_floor") + 1
        table.insert(where, f"{prefix}p_family", family_p(table[f"{prefix}added"], np.stack(gained, 1)))
    return table


@dataclass(frozen=True, eq=False)
class _Step:
    """The baselines of a step: features, held-out log-odds alone and of `WIDE`, and what blocks are fitted beside."""

    features: dict[str, Array]
    alone: dict[str, Array]
    wide: Array
    offsets: dict[str, Offset]


def compared(before: Array, both: Array, y: Array, groups: Array, fold: Array) -> dict[str, float]:
    """A row of added.csv, without names and without q."""
    row: dict[str, float] = {}
    for prefix, within in (("", False), ("within_", True)):
        gain = compare(before, both, y, groups, fold, within=within)
        row |= {
            f"{prefix}auc_baseline": gain.auc_baseline,
            f"{prefix}auc_both": gain.auc_both,
            f"{prefix}added": gain.added,
            f"{prefix}lo": gain.interval[0],
            f"{prefix}hi": gain.interval[1],
            f"{prefix}p": gain.p,
            f"{prefix}p_floor": gain.p_floor,
        }
    return row


def described(gain: Conditional) -> dict[str, float]:
    """A row of conditional.csv, without names, and without what is corrected over rows."""
    row: dict[str, float] = {}
    for prefix, null in (("", gain.null), ("within_", gain.within_null)):
        before, both = getattr(gain, f"{prefix}auc_baseline"), getattr(gain, f"{prefix}auc_both")
        values = null[~np.isnan(null)]
        row |= {
            f"{prefix}auc_baseline": before,
            f"{prefix}auc_both": both,
            f"{prefix}added": both - before,
            f"{prefix}null_added": values.mean() - before if len(values) else np.nan,
            f"{prefix}null_sd": values.std() if len(values) else np.nan,
            f"{prefix}p": getattr(gain, f"{prefix}p"),
            f"{prefix}p_floor": getattr(gain, f"{prefix}p_floor"),
        }
    return row
