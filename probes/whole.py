"""A probe of a block with its places kept, beside one of the whole predicted picture: like against like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.folds import codes, grouped_folds
from ..parallel import each
from ..progress import Progress
from .baselines import Baseline
from .conditional import Offset, conditional_gain
from .crossval import CrossValidation, cross_validate
from .gains import WIDE, compared
from .methods import family
from .nested import GRID, nested_scores
from .places import flat_block
from .ridge import RidgeProbe

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore


def block_flat(
    store: ActivationStore,
    samples: list[str],
    baselines: list[Baseline],
    y: NDArray[Any],
    groups: NDArray[Any],
    l2: float,
    folds: int,
    permutations: int,
    seed: int,
    progress: Progress,
) -> pd.DataFrame:
    """The table block_flat.csv: one row a cell of a store with all tokens.

    `auc` and the columns that follow it are of the probe of all places: ridge, as the picture's, each with a penalty
    that is chosen inside the folds. ``added_…`` is what it gains beside the whole predicted picture (log-odds of the
    two probes added), ``instead_…`` what the picture gains in its place, both with intervals over prompts;
    ``conditional_…`` is its gain when it is fitted, with `l2`, to what the picture's probe leaves, against a null of
    rows permuted inside prompts.
    """
    fold, probe = grouped_folds(groups, folds, seed), RidgeProbe()
    wide = {b.step: b.x for b in baselines if b.name == WIDE}
    pictures = {
        step: (
            nested_scores(probe, x.astype(np.float32), y[None], codes(groups), fold, GRID, seed=seed).scores[0],
            Offset.of(probe, x, y, groups, fold, seed, GRID),
        )
        for step, x in wide.items()
        if step in store.plan.steps
    }
    names, row_of = list(dict.fromkeys(samples)), pd.factorize(np.asarray(samples))[0]

    def of_cell(cell: Cell) -> tuple[dict[str, Any], CrossValidation]:
        x = flat_block(store, cell, names, seed)[row_of]
        result = cross_validate(probe, x, y, groups, l2=GRID, folds=folds, permutations=permutations, seed=seed)
        picture, offset = pictures[cell.step]
        row: dict[str, Any] = {"block": str(cell.block), "step": cell.step, "features": x.shape[1]}
        pairs = {"added": (picture, picture + result.scores), "instead": (result.scores, picture)}
        for name, (before, after) in pairs.items():
            comparison = compared(before, after, y, groups, fold)
            row |= {f"{name}_{key}": value for key, value in comparison.items()}
        gain = conditional_gain(offset, x, y, groups, l2, permutations=permutations, seed=seed)
        row |= {
            "conditional_added": gain.added,
            "conditional_null": float(np.nanmean(gain.null)) - gain.auc_baseline,
            "conditional_null_sd": float(np.nanstd(gain.null)),
            "conditional_p": gain.p,
            "conditional_p_floor": gain.p_floor,
        }
        return row, result

    rows, results = zip(*each(of_cell, list(store.cells), progress, "probe all places"), strict=True)
    table = pd.DataFrame(rows)
    return pd.concat([table.iloc[:, :3], family(results, y), table.iloc[:, 3:]], axis=1)
