"""Cells × cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Colormap

from .calls import FRESH, drawing, one_a_cell
from .style import INK, colour_bar, scaled

PROBES = {
    "fitted_block": "block_a", "fitted_step": "step_a", "judged_block": "block_b", "judged_step": "step_b"
}  # fmt: skip
"""Columns of probe_transfer.csv, and what they are called in transfer.csv."""


@drawing
def cosines(
    table: pd.DataFrame, ax: Axes = FRESH, *, cmap: str | Colormap = "PuOr"
) -> Axes:
    """Cosines between the direction of a cell in one half of the prompts and that of a cell in the other half.

    Parameters
    ----------
    table : DataFrame with columns block_a, step_a, block_b, step_b, cosine_split, a row for each ordered pair of cells
    """
    said = "cosine, each direction from its own half of the prompts"
    return _matrix(table, "cosine_split", ax, 0.0, 1.0, said, cmap)


@drawing
def transfer(
    table: pd.DataFrame, ax: Axes = FRESH, *,
    value: str = "auc", cmap: str | Colormap = "PuOr"
) -> Axes:
    """How well the direction, or the probe, of one cell (rows) separates another (columns), on held-out samples.

    Parameters
    ----------
    table : DataFrame with columns block_a, step_a (fitted at), block_b, step_b (read at) and `value`, a held-out AUC;
        a row for each ordered pair of cells; or with fitted_block, fitted_step, judged_block and judged_step
    """
    table = table.rename(columns=PROBES)
    furthest = max(0.2, float(np.nanmax(np.abs(table[value] - 0.5), initial=0)))
    _matrix(table, value, ax, 0.5, furthest, "held-out AUC", cmap)
    ax.set_ylabel("fitted at")
    ax.set_xlabel("read at; within a block: noisiest step → last")
    return ax


@drawing
def confusion(
    table: pd.DataFrame, order: Sequence[str] = (), ax: Axes = FRESH, *, cmap: str | Colormap = "Blues"
) -> Axes:
    """Values of samples (down) and what was said of them (across): colours are shares of a row, numbers counts.

    Parameters
    ----------
    table : DataFrame with columns value, said and n, of one cell
    order : the values in their order, by default as they first stand in the table
    """
    names = list(order) or list(dict.fromkeys([*table["value"], *table["said"]]))
    counts = table.pivot(index="value", columns="said", values="n").reindex(index=names, columns=names).fillna(0)
    numbers = counts.to_numpy(float)
    shares = numbers / np.maximum(numbers.sum(1, keepdims=True), 1)
    image = ax.imshow(shares, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    for (row, column), number in np.ndenumerate(numbers):
        colour = "white" if shares[row, column] > 0.6 else INK
        ax.text(column, row, f"{number:.0f}", ha="center", va="center", color=colour, fontsize=scaled(0.9))
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("said by held-out probes")
    ax.set_ylabel("value")
    colour_bar(image, ax, "share of a row")
    return ax


def _matrix(
    table: pd.DataFrame, value: str, ax: Axes, centre: float, span: float, label: str, cmap: str | Colormap
) -> Axes:
    table = one_a_cell(table, ("block_a", "step_a", "block_b", "step_b"))
    cells = list(dict.fromkeys(zip(table["block_a"], table["step_a"])))
    blocks = list(dict.fromkeys(block for block, _ in cells))
    cells.sort(key=lambda cell: (blocks.index(cell[0]), -cell[1]))
    wide = table.pivot(index=["block_a", "step_a"], columns=["block_b", "step_b"], values=value)
    matrix = wide.loc[cells, cells].to_numpy(float)
    image = ax.imshow(matrix, cmap=cmap, norm=CenteredNorm(centre, span), interpolation="nearest")
    edges = np.cumsum([0, *(sum(cell[0] == block for cell in cells) for block in blocks)])
    middles = (edges[:-1] + edges[1:]) / 2 - 0.5
    ax.set_xticks(middles, blocks, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(middles, blocks)
    ax.tick_params(length=0)
    for edge in edges[1:-1] - 0.5:
        ax.axhline(edge, color="white", linewidth=1.2)
        ax.axvline(edge, color="white", linewidth=1.2)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("within a block: noisiest step → last")
    colour_bar(image, ax, label)
    return ax
