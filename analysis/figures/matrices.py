"""Cells × cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm

from .style import colour_bar


def cosines(table: pd.DataFrame, ax: Axes) -> Axes:
    """Cosines between the direction of a cell in one half of the prompts and that of a cell in the other half.

    Parameters
    ----------
    table : DataFrame with columns block_a, step_a, block_b, step_b, cosine_split, a row for each ordered pair of cells
    """
    cells = list(dict.fromkeys(zip(table["block_a"], table["step_a"])))
    blocks = list(dict.fromkeys(block for block, _ in cells))
    cells.sort(key=lambda cell: (blocks.index(cell[0]), -cell[1]))
    wide = table.pivot(index=["block_a", "step_a"], columns=["block_b", "step_b"], values="cosine_split")
    matrix = wide.loc[cells, cells].to_numpy(float)
    image = ax.imshow(matrix, cmap="PuOr", norm=CenteredNorm(0, 1), interpolation="nearest")
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
    colour_bar(image, ax, "cosine, each direction from its own half of the prompts")
    return ax
