"""What a probe of this kind could learn of anything: control tasks, and how much better the verdicts are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.arrays import binary
from ..analysis.statistics.auc import auc
from ..analysis.statistics.folds import codes, grouped_folds
from .crossval import held_out_scores

Array = NDArray[Any]

CONTROLS = 50
"""Control tasks: labellings of the groups at random."""


@dataclass(frozen=True)
class Selectivity:
    """Verdicts beside control tasks, on new samples of groups that were seen.

    Attributes
    ----------
    auc_seen : held-out AUC of the verdicts where folds deal samples, so that a probe has met every group
    control, control_sd : the same of control tasks, their mean and standard deviation
    auc : held-out AUC of the verdicts where folds hold groups out, as everywhere else
    """

    auc_seen: float
    control: float
    control_sd: float
    auc: float

    @property
    def selectivity(self) -> float:
        return self.auc_seen - self.control


def selectivity(
    estimator: Any, x: ArrayLike, y: ArrayLike, groups: ArrayLike, folds: int = 5, seed: int = 0
) -> Selectivity:
    """Compare the verdicts with labels that groups are given at random, half of them 1.

    Parameters
    ----------
    estimator : as for `held_out_scores`
    x : array of shape (n, width); y, groups : arrays of shape (n,)

    Notes
    -----
    The control task of Hewitt and Liang (2019), https://arxiv.org/abs/1909.03368, with prompts for word types: its
    label can only be had by telling prompts apart and remembering each. A control that is read well says that this
    probe could have learnt the verdicts prompt by prompt, and that only folds that hold prompts out show otherwise; a
    selectivity at or below 0 is not evidence against what such folds find.
    """
    x, y, group = np.asarray(x), binary(y), codes(groups)
    rng = np.random.default_rng([seed, 9])
    m = int(group.max()) + 1
    tasks = np.stack([rng.permutation(np.arange(m) % 2)[group] for _ in range(CONTROLS)]).astype(np.float64)
    dealt = np.empty(len(y), np.intp)  # samples of each group over all folds
    for one in range(m):
        rows = rng.permutation(np.flatnonzero(group == one))
        dealt[rows] = (np.arange(len(rows)) + rng.integers(folds)) % folds
    labels = np.concatenate([y[None], tasks])
    seen = auc(held_out_scores(estimator, x, labels, dealt), labels, dealt)
    fold = grouped_folds(groups, folds, seed)
    new = auc(held_out_scores(estimator, x, y[None], fold)[0], y, fold)
    return Selectivity(float(seen[0]), float(np.nanmean(seen[1:])), float(np.nanstd(seen[1:])), float(new))
