"""Blocks × steps, one number a cell."""

from __future__ import annotations

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, Colormap, Normalize
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from .calls import FRESH, drawing, one_a_cell
from .style import INK, LEVEL, STEPS_LABEL, colour_bar, halo, inches, scale, scaled, wrapped

RING = "#B3003C"
CHANCE = "not separable from chance (q\u00a0>\u00a00.05)"


@drawing
def grid(
    cells: pd.DataFrame, value: str = "auc", q: str | None = "q", ax: Axes = FRESH, *,
    centre: float | None = None, label: str = "", digits: int = 2, cmap: str | Colormap | None = None
) -> Axes:
    """Blocks × steps, one number a cell; cells whose `q` is not at most 0.05 are hatched and their numbers thin.

    Parameters
    ----------
    cells : DataFrame with columns block, step, `value` and `q`, one row a cell; blocks are drawn in their order there
    q : None where the value is a description and not a test: nothing is hatched then
    centre : the value of the neutral colour, by default 0.5 of an AUC; without it colours run from 0, or below, to the
        largest
    label : what the colour bar says
    digits : after the decimal point
    cmap : colours, by default PuOr around a centre, else viridis
    """
    blocks, steps, table, called = _tables(cells, value, q)
    norm, colours = _colours(table, _centre(value, centre), cmap)
    image = ax.imshow(table, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    # Numbers that would run into each other are left to the colours.
    readable = 72 * inches(ax)[0] / len(steps) > 0.5 * scaled(0.9) * (digits + 3)
    for (row, column), number in np.ndenumerate(table):
        sure = bool(called[row, column])
        shade = colours(norm(number)) if np.isfinite(number) else (0.93, 0.93, 0.93, 1.0)
        dark = np.dot(shade[:3], (0.299, 0.587, 0.114)) < 0.55
        if not sure:
            edge = "#FFFFFF99" if dark else "#00000055"
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", lw=0, edgecolor=edge))
        text = f"{number:.{digits}f}".replace("-", "−") if np.isfinite(number) else "–"
        if readable:
            ax.text(column, row, text, ha="center", va="center", fontsize=scaled(0.9),
                    color="white" if dark else INK, fontweight="bold" if sure else "normal",
                    path_effects=halo(shade))
    _thin_steps(ax, steps)
    ax.set_yticks(range(len(blocks)), blocks)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    # Names of blocks and the colour bar take about a third of the width.
    hatched = wrapped(f"hatched: {CHANCE}", 0.65 * inches(ax)[0], scaled(1))
    ax.set_xlabel(STEPS_LABEL if called.all() else f"{STEPS_LABEL}\n{hatched}", loc="left")
    colour_bar(image, ax, label)
    return ax


@drawing
def survey_map(
    cells: pd.DataFrame, value: str = "auc", q: str | None = "q", ax: Axes = FRESH, *,
    centre: float | None = None, label: str = "", cmap: str | Colormap | None = None
) -> Axes:
    """Many blocks × steps as colours alone; what is not separable from chance is pale, the largest of the rest ringed.

    Parameters
    ----------
    cells, value, q, centre, label, cmap : as for `grid`; meant for hundreds of cells, as 57 blocks by 20 steps
    """
    blocks, steps, table, called = _tables(cells, value, q)
    norm, colours = _colours(table, _centre(value, centre), cmap)
    shades = colours(norm(np.ma.masked_invalid(table)))
    shades[..., :3] = np.where(called[..., None], shades[..., :3], 1 - 0.35 * (1 - shades[..., :3]))
    ax.imshow(shades, aspect="auto", interpolation="nearest")
    if np.isfinite(table[called]).any():
        row, column = np.unravel_index(np.nanargmax(np.where(called, table, np.nan)), table.shape)
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=1.6 * scale() + 0.4, edgecolor=RING))
        ax.annotate(f"{blocks[row]}, step {steps[column]}: {table[row, column]:.2f}", (1, 1), (0, 2),
                    xycoords="axes fraction", textcoords="offset points", ha="right", va="bottom",
                    fontsize=scaled(0.86), color=RING)
    kinds = [name.split(".")[0] for name in blocks]
    for edge in (i for i in range(1, len(blocks)) if kinds[i] != kinds[i - 1]):
        ax.axhline(edge - 0.5, color="white", linewidth=2 * scale())
    _thin_ticks(ax, blocks, steps)
    pale = wrapped(f"pale: {CHANCE}", 0.65 * inches(ax)[0], scaled(1))
    ax.set_xlabel(STEPS_LABEL if called.all() else f"{STEPS_LABEL}\n{pale}", loc="left")
    colour_bar(ScalarMappable(norm, colours), ax, label)
    return ax


def _thin_ticks(ax: Axes, blocks: list[str], steps: list[int]) -> None:
    """As many names as have room: every name, or every second, third, fifth, counted from the first of each kind."""
    high = 72 * inches(ax)[1] / (1.25 * mpl.rcParams["font.size"])
    apart = next((n for n in (1, 2, 3, 5, 10) if len(blocks) / n <= high), 20)
    rows = [i for i, name in enumerate(blocks) if int(re.findall(r"\.(\d+)", name)[0]) % apart == 0]
    # The first of a kind keeps its name, and the one before it gives way.
    rows = [row for row, after in zip(rows, [*rows[1:], len(blocks) + apart]) if after - row >= apart]
    _thin_steps(ax, steps)
    ax.set_yticks(rows, [blocks[i] for i in rows])
    ax.tick_params(length=1.5)
    ax.spines[:].set_visible(False)


def _thin_steps(ax: Axes, steps: list[int]) -> None:
    """As many steps as have room: every one, or every second, fifth or tenth."""
    wide = 72 * inches(ax)[0] / (1.25 * mpl.rcParams["font.size"])
    across = next((n for n in (1, 2, 5, 10) if len(steps) / n <= wide / 2), 20)
    ax.set_xticks(range(0, len(steps), across), [str(step) for step in steps[::across]])


def _tables(
    cells: pd.DataFrame, value: str, q: str | None
) -> tuple[list[str], list[int], NDArray[np.float64], NDArray[np.bool_]]:
    """Blocks, steps from the noisiest, and what belongs to them: values, and whether they can be told from chance."""
    cells = one_a_cell(cells)
    blocks, steps = list(dict.fromkeys(cells["block"])), sorted(set(cells["step"]), reverse=True)
    table = cells.pivot(index="block", columns="step", values=value).loc[blocks, steps].to_numpy(float)
    if q is None:
        return blocks, steps, table, np.ones(table.shape, bool)
    called = cells.pivot(index="block", columns="step", values=q).loc[blocks, steps].to_numpy(float) <= LEVEL
    return blocks, steps, table, called


def _centre(value: str, centre: float | None) -> float | None:
    return 0.5 if centre is None and value.rpartition("_")[2] == "auc" else centre


def _colours(
    table: NDArray[np.float64], centre: float | None, cmap: str | Colormap | None
) -> tuple[Normalize, Colormap]:
    if centre is None:
        norm: Normalize = Normalize(np.nanmin(table, initial=0), np.nanmax(table, initial=1e-9))
    else:
        norm = CenteredNorm(centre, np.nanmax(np.abs(table - centre), initial=0.2))
    colours = mpl.colormaps.get_cmap(cmap or ("viridis" if centre is None else "PuOr"))
    return norm, colours.with_extremes(bad="#EEEEEE")
