"""What the best of many cells is worth, and the choice of cells to look at token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import HandscopeError
from .statistics.auc import auc
from .statistics.intervals import bootstrap_auc
from .statistics.nulls import p_value

if TYPE_CHECKING:
    from ..extract.address import Plan

Array = NDArray[np.float64]


def zoom(table: pd.DataFrame, cells: int = 48, q: float = 0.05) -> Plan:
    """The plan of a capture of the cells that matter: where a probe separates at a false-discovery rate of `q`.

    Parameters
    ----------
    table : of `map_survey`
    cells : at most so many
    q : rate of false discoveries among the cells that the choice is made of

    Returns
    -------
    Plan of blocks by steps, which holds cells between the chosen ones that were not significant

    Raises
    ------
    HandscopeError
        No cell is significant.

    Notes
    -----
    Among grids of at most `cells` cells, the one with the largest sum of z values of significant cells that alternating
    between the best blocks for given steps and the best steps for given blocks finds. The numbers of the chosen cells
    were what they were chosen by: judge them on other samples, or with the nested estimate of survey.json.
    """
    from ..extract.address import Plan

    if cells < 1:
        raise HandscopeError(f"A plan needs at least one cell, and {cells} were asked for.")
    significant = table["ridge_q"] <= q
    if not significant.any():
        row = table.loc[table["ridge_q"].idxmin()]
        raise HandscopeError(
            f"No cell is separable from chance at a false-discovery rate of {q:g} (n = {row['n_bad']} bad and "
            f"{row['n_good']} good; the smallest rate is {row['ridge_q']:.2g}), so there is nothing to zoom in on: "
            "label more samples, or name blocks and steps to extract yourself."
        )
    z = (table["ridge_auc"] - table["ridge_null_mean"]) / table["ridge_null_sd"]
    grid = table.assign(z=z.where(significant, 0.0)).pivot(index="block", columns="step", values="z")
    grid = grid.loc[table["block"].unique(), table["step"].unique()]
    blocks, steps = _best_grid(grid.to_numpy(), cells)
    return Plan(
        [grid.index[number] for number in blocks],
        [int(grid.columns[number]) for number in steps],
        of=int(table["step"].max()),
    )


def _best_grid(weights: Array, cells: int) -> tuple[list[int], list[int]]:
    """Rows and columns, ascending, of a part of at most `cells` entries with a large sum of weights."""
    best: tuple[float, list[int], list[int]] = (-1.0, [], [])
    places = np.arange(weights.shape[1])
    for n_rows in range(1, min(cells, len(weights)) + 1):
        n_columns = min(cells // n_rows, weights.shape[1])
        for start in places:
            columns = np.sort(np.argsort(np.abs(places - start), kind="stable")[:n_columns])
            for _ in places:
                rows = np.sort(np.argsort(-weights[:, columns].sum(1), kind="stable")[:n_rows])
                columns = np.sort(np.argsort(-weights[rows].sum(0), kind="stable")[:n_columns])
            total = float(weights[np.ix_(rows, columns)].sum())
            if total > best[0] + 1e-9:
                best = (total, rows.tolist(), columns.tolist())
    _, found_rows, found_columns = best
    chosen = weights[np.ix_(found_rows, found_columns)]
    return (
        [row for row, taken in zip(found_rows, chosen) if taken.any()],
        [column for column, taken in zip(found_columns, chosen.T) if taken.any()],
    )


class Choice:
    """What is needed to say what the best of many cells is worth."""

    def __init__(self) -> None:
        self._null: Array | None = None
        self._values: list[Array] = []
        self._scores: list[Array] = []
        self._inner: list[list[Array]] = []

    def add(self, values: Array, scores: Array, inner: list[Array]) -> None:
        """AUCs of all labellings (the observed first), held-out scores, and for each fold the AUC without it."""
        self._null = values[1:] if self._null is None else np.maximum(self._null, values[1:])
        self._values.append(values)
        self._scores.append(scores)
        self._inner.append(inner)

    def report(
        self, cells: pd.DataFrame, y: NDArray[Any], groups: NDArray[Any], fold: NDArray[np.intp], seed: int
    ) -> dict[str, Any]:
        """The best cell with its selected AUC, and what cells chosen in the same way do where they were not chosen."""
        names = (cells["block"] + "/" + cells["step"].astype(str)).tolist()
        observed = np.array([values[0] for values in self._values])
        best = int(observed.argmax())
        assert self._null is not None
        chosen = np.array(self._inner).argmax(0)
        scores = np.asarray(self._scores)[chosen[fold], np.arange(len(y))]
        nested = float(auc(scores, y, fold))
        null = self._values[best][1:]
        low, high = bootstrap_auc(scores, y, groups, fold, seed=seed, null=null)
        return {
            "cell": names[best],
            "auc_of_pure_noise": float(observed[(cells["step"] == cells["step"].max()).to_numpy()].max()),
            "auc_selected": float(observed[best]),
            "p_of_the_largest": p_value(observed[best], self._null),
            "auc_nested": nested,
            "auc_nested_lo": low,
            "auc_nested_hi": high,
            "cells_of_the_folds": [names[number] for number in chosen],
        }
