"""Which score follows people: correlations with ratings, one row a score."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from .calls import FRESH, drawing, one_a_cell
from .style import BLOCK_STYLE, FAINT, INK, LEVEL, scale


@drawing
def following(table: pd.DataFrame, ax: Axes = FRESH) -> Axes:
    """Kendall's tau-b of each score with ratings and its 95% interval; smaller and grey, over pairs of one prompt.

    Parameters
    ----------
    table : DataFrame with columns metric, n, tau, tau_lo, tau_hi, within, within_lo, within_hi and p_family, drawn from
        the top; a score whose p_family is above 0.05 is open
    """
    table = one_a_cell(table, ("metric",))
    table = table[table["tau"].notna()]
    colour, marker = BLOCK_STYLE
    for place, row in enumerate(table.itertuples()):
        face = colour if row.p_family <= LEVEL else "white"
        ax.plot([row.tau_lo, row.tau_hi], [place, place], color=colour, linewidth=2 * scale())
        ax.scatter([row.tau], [place], marker=marker, s=40 * scale() ** 2, edgecolors=colour, facecolors=face, zorder=4)
        below = place + 0.26
        ax.plot([row.within_lo, row.within_hi], [below, below], color=FAINT, linewidth=1.2 * scale())
        ax.scatter([row.within], [below], marker=marker, s=14 * scale() ** 2, color=FAINT, zorder=4)
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_yticks(range(len(table)), [f"{row.metric} (n = {row.n})" for row in table.itertuples()])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlim(max(-1.0, min(-0.1, float(table["tau_lo"].min()) - 0.05)), 1)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("Kendall's tau-b with ratings, 95%\nopen: chance not excluded\ngrey: pairs of one prompt")
    ax.grid(axis="x", color="#EEEEEE")
    ax.set_axisbelow(True)
    return ax
