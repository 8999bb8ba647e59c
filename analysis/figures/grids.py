"""Blocks × steps, one number a cell."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.patches import Patch, Rectangle

from .style import INK, LEVEL, STEPS_LABEL, colour_bar, halo, scaled


def grid(
    cells: pd.DataFrame, value: str, q: str, ax: Axes, *, centre: float | None = None, label: str = ""
) -> Axes:
    """Blocks × steps, one number a cell; cells whose `q` is not at most 0.05 are hatched and their numbers thin.

    Parameters
    ----------
    cells : DataFrame with columns block, step, `value` and `q`, one row a cell; blocks are drawn in their order there
    centre : the value of the neutral colour, as 0.5 for an AUC; without it colours run from 0, or below, to the largest
    label : what the colour bar says
    """
    blocks, steps = list(dict.fromkeys(cells["block"])), sorted(set(cells["step"]), reverse=True)
    table = cells.pivot(index="block", columns="step", values=value).loc[blocks, steps].to_numpy(float)
    known = cells.pivot(index="block", columns="step", values=q).loc[blocks, steps].to_numpy(float) <= LEVEL
    norm: Normalize = Normalize(np.nanmin(table, initial=0), np.nanmax(table, initial=1e-9))
    colours = mpl.colormaps["viridis"]
    if centre is not None:
        norm, colours = CenteredNorm(centre, np.nanmax(np.abs(table - centre), initial=0.2)), mpl.colormaps["PuOr"]
    colours = colours.with_extremes(bad="#EEEEEE")
    image = ax.imshow(table, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    for (row, column), number in np.ndenumerate(table):
        sure = bool(known[row, column])
        shade = colours(norm(number)) if np.isfinite(number) else (0.93, 0.93, 0.93, 1.0)
        dark = np.dot(shade[:3], (0.299, 0.587, 0.114)) < 0.55
        if not sure:
            edge = "#FFFFFF99" if dark else "#00000055"
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", lw=0, edgecolor=edge))
        text = f"{number:.2f}".replace("-", "−") if np.isfinite(number) else "–"
        ax.text(column, row, text, ha="center", va="center", fontsize=scaled(0.9),
                color="white" if dark else INK, fontweight="bold" if sure else "normal",
                path_effects=halo(shade))
    ax.set_xticks(range(len(steps)), [str(step) for step in steps])
    ax.set_yticks(range(len(blocks)), blocks)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(STEPS_LABEL, loc="left")
    colour_bar(image, ax, label)
    if not known.all():
        chance = "not separable from chance (q > 0.05)"
        hatched = Patch(facecolor="white", edgecolor="#777777", hatch="////", label=chance)
        ax.legend(handles=[hatched], loc="upper right", bbox_to_anchor=(1, 0), borderaxespad=1.9, borderpad=0.1,
                  handlelength=1.6)
    return ax
