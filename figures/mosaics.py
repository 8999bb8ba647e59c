"""Pictures in rows and columns that have names, such as blocks and steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from .style import STEPS_LABEL, scaled


def mosaic(
    pictures: NDArray[np.uint8], rows: Sequence[str], columns: Sequence[str], ax: Axes, *, label: str = STEPS_LABEL
) -> Axes:
    """Pictures side by side, with the names of rows on the left and of columns below.

    Parameters
    ----------
    pictures : uint8 array of shape (rows, columns, height, width, 3)
    label : what the columns are
    """
    height, width = pictures.shape[2:4]
    across, down = 1.05 * width, 1.05 * height
    for (row, column), _ in np.ndenumerate(np.empty(pictures.shape[:2])):
        left, top = column * across, row * down
        ax.imshow(pictures[row, column], extent=(left, left + width, top + height, top), interpolation="nearest")
    ax.set_xlim(-1, len(columns) * across)
    ax.set_ylim(len(rows) * down, -1)
    ax.set_aspect("equal")
    ax.set_xticks(np.arange(len(columns)) * across + width / 2, columns)
    ax.set_yticks(np.arange(len(rows)) * down + height / 2, rows, fontsize=scaled(0.9))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(label, loc="left")
    return ax
