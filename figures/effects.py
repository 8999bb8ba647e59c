"""Effects with intervals, block by block and step by step."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .calls import FRESH, drawing, one_a_cell
from .grids import CHANCE
from .style import BLOCK_STYLE, FAINT, LEVEL, SERIES, STEPS_LABEL, inches, scale, scaled, wrapped


@drawing
def effects(
    table: pd.DataFrame, value: str, ax: Axes = FRESH, *,
    low: str | None = None, high: str | None = None, label: str = ""
) -> Axes:
    """A row for each block, a point with its 95% interval for each step, all rows on one scale.

    Parameters
    ----------
    table : DataFrame with columns block, step, q, `value`, `low` and `high`; blocks are drawn in their order there, and
        those of one kind (the part before the dot) in one colour. Points whose q is above 0.05 are open.
    value : the effect, 0 where there is none
    low, high : columns of the interval; ``value_lo`` and ``value_hi`` when left out
    label : what the effect is
    """
    table = one_a_cell(table)
    low, high = low or f"{value}_lo", high or f"{value}_hi"
    blocks, steps = list(dict.fromkeys(table["block"])), sorted(set(table["step"]), reverse=True)
    kinds = list(dict.fromkeys(name.split(".")[0] for name in blocks))
    styles = [BLOCK_STYLE, *SERIES[1:]]
    top, least = float(np.nanmax(table[high])), min(0.0, float(np.nanmin(table[low])))
    room = (top - least) * 1.08 or 1.0
    numbered = len(steps) <= 10
    every = bool((table["q"] <= LEVEL).all())
    for row, name in enumerate(blocks):
        part = table[table["block"] == name].set_index("step").reindex(steps)
        base = -float(row)
        colour, marker = styles[kinds.index(name.split(".")[0]) % len(styles)]
        x = np.arange(len(steps))
        y, lower, upper = (base + part[column].to_numpy(float) / room for column in (value, low, high))
        ax.axhline(base, color=FAINT, linewidth=0.7 * scale())
        ax.plot(x, y, color=colour, linewidth=1.2 * scale(), alpha=0.5)
        ax.vlines(x, lower, upper, color=colour, linewidth=2.2 * scale(), alpha=0.45)
        called = (part["q"] <= LEVEL).to_numpy()
        ax.scatter(x, y, marker=marker, s=26 * scale() ** 2, zorder=4, edgecolors=colour,
                   facecolors=[colour if one else "white" for one in called])
        for place, number in enumerate(part[value]) if numbered else ():
            if np.isfinite(number):
                text = f"{number:.1f}".replace("-", "−")
                ax.annotate(text, (x[place], np.nanmax([upper[place], y[place]])), (0, 3), textcoords="offset points",
                            ha="center", va="bottom", fontsize=scaled(0.8))
    ax.set_yticks([-float(row) for row in range(len(blocks))], blocks)
    ax.set_xticks(range(len(steps)), [str(step) for step in steps])
    ax.set_xlim(-0.5, len(steps) - 0.5)
    ax.set_ylim(-len(blocks) + 1 + least / room - 0.15, 1.2)
    ax.tick_params(length=0)
    ax.set_xlabel(STEPS_LABEL if every else f"{STEPS_LABEL}\nopen: {CHANCE}", loc="left")
    ax.set_title(wrapped(label, inches(ax)[0], scaled(1.1)))
    return ax
