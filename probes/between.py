"""Whether one cell tells more than another: steps of a block, and blocks at a step, on the same samples and folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from ..analysis.statistics.auc import PairWins
from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import rarer_groups, widening
from ..analysis.statistics.multiple import benjamini_hochberg
from .crossval import CrossValidation

if TYPE_CHECKING:
    from ..extract.address import Cell

Array = NDArray[Any]

DRAWS = 9999
"""Draws behind the p of a block against the best one: enough for a family of 499 comparisons."""


def pairs_of_cells(cells: Mapping[Cell, CrossValidation], y: Array, groups: Array, seed: int = 0) -> pd.DataFrame:
    """Differences of held-out AUC: neighbouring steps and the first against the last of each block, and each block
    against the best one at its step.

    Parameters
    ----------
    cells : of each cell its cross-validation, all of the same samples and folds
    y, groups : arrays of shape (n,), 1 for bad and 0 for good, and the prompt of each sample

    Returns
    -------
    One row a comparison: block_a, step_a, block_b, step_b, auc_a, auc_b, difference (b less a), lo, hi, p (two-sided),
    q (over all rows); and within_* of pairs of one prompt, where the best block at a step may be another one: these are
    NaN in rows that compare with the best of all pairs, and the other way round.

    Notes
    -----
    The standard error is that of a jackknife over prompts of both cells at once, `widening` times as large, which is
    the root mean square of both cells' own: fits are made on samples that other fits are judged on. p and interval are
    of Student's t with one degree of freedom less than there are prompts of the rarer class, or of prompts with both.
    What a block is compared with is the best of its step on the same samples, which alone makes a difference. So it is
    judged by the largest of all differences of that block from the others (Hsu 1984), drawn with the jackknife's
    covariances; the interval is that of all these differences at once. Where cells are equally good, p ≤ 0.05 in 0 to 6
    of 100 comparisons of steps and of blocks (bench/validity/coverage.py).
    """
    tables = []
    for within in (False, True):
        judged = {cell: _Judged.of(result, y, groups, within, seed) for cell, result in cells.items()}
        rows = [_two(a, b, judged) for a, b in _steps(list(cells))] + _best(judged, seed)
        table = pd.DataFrame(rows, columns=[*_PLACES, *_NUMBERS])
        table["q"] = benjamini_hochberg(table["p"])
        table = table.set_index(_PLACES)
        tables.append(table.add_prefix("within_") if within else table)
    rows_of_both = tables[0].index.union(tables[1].index, sort=False)
    return pd.concat([table.reindex(rows_of_both) for table in tables], axis=1).reset_index()


_PLACES = ["block_a", "step_a", "block_b", "step_b"]
_NUMBERS = ("auc_a", "auc_b", "difference", "lo", "hi", "p")


@dataclass(frozen=True, eq=False)
class _Judged:
    """A cell's held-out AUC, its values without one prompt each (prompts,), and how much wider its fits make it."""

    auc: float
    without: Array
    widened: float
    freedom: int

    @classmethod
    def of(cls, result: CrossValidation, y: Array, groups: Array, within: bool, seed: int) -> _Judged:
        null = result.within_null if within else result.null
        strata = None if within else result.fold
        both = np.intersect1d(codes(groups)[y == 1], codes(groups)[y == 0])
        return cls(
            result.within_auc if within else result.auc,
            PairWins.of(result.scores, y, groups, result.fold).without_each(within),
            widening(result.scores, y, groups, null, strata, within, seed),
            max((len(both) if within else rarer_groups(y, groups)) - 1, 1),
        )


def _steps(cells: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Neighbouring steps of each block, the noisier first, and its first and last."""
    pairs = []
    for block in dict.fromkeys(str(cell.block) for cell in cells):
        steps = sorted((cell for cell in cells if str(cell.block) == block), key=lambda cell: -cell.step)
        pairs += list(zip(steps, steps[1:], strict=False))
        pairs += [(steps[0], steps[-1])] if len(steps) > 2 else []
    return pairs


def _two(a: Cell, b: Cell, judged: dict[Cell, _Judged]) -> dict[str, Any]:
    first, second = judged[a], judged[b]
    error = float(_errors([second], first)[0][0])
    freedom = min(first.freedom, second.freedom)
    half = student.ppf(0.975, freedom) * error
    difference = second.auc - first.auc
    p = 2 * student.sf(abs(difference) / error, freedom) if error > 0 else np.nan
    return _row(a, b, judged, difference - half, difference + half, float(p))


def _best(judged: dict[Cell, _Judged], seed: int) -> list[dict[str, Any]]:
    """Each block against the best one at its step."""
    rows = []
    for step in sorted({cell.step for cell in judged}, reverse=True):
        blocks = [cell for cell in judged if cell.step == step and np.isfinite(judged[cell].auc)]
        best = max(blocks, key=lambda cell: judged[cell].auc, default=None)
        for cell in blocks:
            if cell is best or best is None:
                continue
            others = [other for other in blocks if other is not cell]
            errors, influence = _errors([judged[other] for other in others], judged[cell])
            error, difference = float(errors[others.index(best)]), judged[best].auc - judged[cell].auc
            largest = _largest(influence, judged[cell].freedom, seed)
            half = error * float(np.quantile(largest, 0.95)) if len(largest) else np.nan
            p = (1 + (largest >= difference / error).sum()) / (1 + len(largest)) if error > 0 else np.nan
            rows.append(_row(cell, best, judged, difference - half, difference + half, float(p)))
    return rows


def _errors(others: list[_Judged], one: _Judged) -> tuple[Array, Array]:
    """Standard errors of what `others` have more than `one`, and what each prompt adds to each of them.

    Arrays of shape (others,) and (prompts, others); prompts without which an AUC is not defined add nothing.
    """
    gaps = np.stack([other.without - one.without for other in others], 1)
    counted = ~np.isnan(gaps).any(1)
    m = int(counted.sum())
    if m < 2:
        return np.full(len(others), np.nan), np.zeros(gaps.shape)
    influence = np.where(counted[:, None], gaps - gaps[counted].mean(0), 0.0)
    widened = np.sqrt([(one.widened**2 + other.widened**2) / 2 for other in others])
    return widened * np.sqrt((m - 1) / m * np.square(influence).sum(0)), influence


def _largest(influence: Array, freedom: int, seed: int) -> Array:
    """The largest of all differences in standard errors, either way, where there is none: shape (DRAWS,)."""
    scale = np.linalg.norm(influence, axis=0)
    moving = influence[:, scale > 0] / scale[scale > 0]
    if not moving.shape[1]:
        return np.empty(0)
    rng = np.random.default_rng([seed, 5])
    normal = rng.standard_normal((DRAWS, len(moving))) @ moving
    return np.abs(normal).max(1) / np.sqrt(rng.chisquare(freedom, DRAWS) / freedom)


def _row(a: Cell, b: Cell, judged: dict[Cell, _Judged], low: float, high: float, p: float) -> dict[str, Any]:
    first, second = judged[a].auc, judged[b].auc
    places = (str(a.block), a.step, str(b.block), b.step)
    numbers = (first, second, second - first, max(low, -1.0), min(high, 1.0), p)
    return dict(zip(_PLACES, places, strict=True)) | dict(zip(_NUMBERS, numbers, strict=True))
