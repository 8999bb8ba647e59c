"""More linearly accessible, or not in the picture at all? One step, looked at more closely than all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.auc import auc
from ..analysis.statistics.folds import grouped_folds
from ..analysis.statistics.multiple import benjamini_hochberg
from ..progress import Progress
from .baselines import Baseline
from .conditional import Offset, conditional_gain
from .description_length import online_codelength, usable_information
from .gains import WIDE, described
from .logistic import LogisticProbe
from .nested import GRID
from .nonlinear import beside, fourier, nonlinear_offset, picture_axes, polynomial
from .ridge import RidgeProbe
from .selectivity import selectivity

Array = NDArray[Any]


def middle_step(steps: list[int]) -> int:
    """The step in the middle of those that were read, the later of two: settled before anything is fitted."""
    return sorted(set(steps), reverse=True)[len(set(steps)) // 2]


def accessible_tables(
    cells: dict[Any, NDArray[np.float32]],
    baselines: list[Baseline],
    y: Array,
    groups: Array,
    l2: float,
    folds: int,
    permutations: int,
    seed: int,
    progress: Progress,
) -> dict[str, pd.DataFrame]:
    """nonlinear.csv, information.csv and selectivity.csv, of the cells of the middle step.

    Parameters
    ----------
    cells : sample vectors, arrays of shape (n, width)
    l2 : penalty of the blocks' probes
    """
    step = middle_step([cell.step for cell in cells])
    here = {cell: x for cell, x in cells.items() if cell.step == step}
    of = {baseline.name: baseline.x for baseline in baselines if baseline.step in (None, step)}
    fold = grouped_folds(groups, folds, seed)
    progress("nonlinear baseline", 0, len(here) + 1)
    z = picture_axes(of[WIDE], of["image"], seed=seed)
    linear = Offset.of(RidgeProbe(), of[WIDE], y, groups, fold, seed, GRID)
    nonlinear = nonlinear_offset(z, y, groups, fold, seed)
    gains, told, selective = [], _told_by_pictures(of[WIDE], z, linear, nonlinear, y, groups, seed), []
    for number, (cell, x) in enumerate(here.items(), 1):
        progress("nonlinear baseline", number, len(here) + 1)
        place = {"block": str(cell.block), "step": step}
        gain = conditional_gain(nonlinear, x, y, groups, l2, permutations=permutations, seed=seed)
        both = beside(nonlinear, x, y, l2)
        row = {"auc_linear": float(auc(linear.held_out, y, fold)), **described(gain)}
        beyond = usable_information(both, y, groups, fold, nonlinear.held_out)
        gains.append({**place, **row, **_named("conditional", beyond)})
        alone = Offset.of(LogisticProbe(l2), x, y, groups, fold, seed).held_out
        information = _named("usable", usable_information(alone, y, groups, fold))
        told.append({"what": place["block"], **information, "codelength": online_codelength(x, y, groups, seed)})
        found = selectivity(LogisticProbe(l2), x, y, groups, folds, seed)
        selective.append({**place, **vars(found), "selectivity": found.selectivity})
    table = pd.DataFrame(gains)
    for prefix in ("", "within_"):
        where = table.columns.get_loc(f"{prefix}p_floor") + 1
        table.insert(where, f"{prefix}q", benjamini_hochberg(table[f"{prefix}p"]))
    bits = pd.DataFrame(told)
    bits.insert(1, "step", step)
    bits["n"], bits["compression"] = len(y), len(y) / bits["codelength"]
    return {"nonlinear": table, "information": bits, "selectivity": pd.DataFrame(selective)}


def _told_by_pictures(
    flat: Array, z: Array, linear: Offset, nonlinear: Offset, y: Array, groups: Array, seed: int
) -> list[dict[str, Any]]:
    """Rows of information.csv that no block is needed for."""
    rows: list[dict[str, Any]] = [{"what": "rate", "codelength": online_codelength(None, y, groups, seed)}]
    features = np.hstack([polynomial(z), fourier(z, seed)])
    for what, offset, x in (("x0_flat", linear, flat), ("x0_nonlinear", nonlinear, features)):
        information = _named("usable", usable_information(offset.held_out, y, groups, offset.fold))
        rows.append({"what": what, **information, "codelength": online_codelength(x, y, groups, seed)})
    return rows


def _named(name: str, found: Any) -> dict[str, float]:
    return {f"{name}_bits": found.bits, f"{name}_lo": found.low, f"{name}_hi": found.high}
