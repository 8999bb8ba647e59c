"""Several models beside each other: maps over depth and noise level, profiles, blocks of two, what replicates."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Colormap, Normalize
from matplotlib.patches import Rectangle

from .calls import FRESH, drawing
from .style import FAINT, INK, SERIES, colour_bar, halo, scale, scaled

SIGMA_LABEL = "noise level σ: noisiest → last"
DEPTH_LABEL = "relative depth"


@drawing
def depth_map(
    cells: pd.DataFrame, ax: Axes = FRESH, *,
    value: str = "auc", centre: float | None = 0.5, span: float = 0.2, bar: bool = True, label: str = "AUC",
    cmap: str | Colormap = "PuOr"
) -> Axes:
    """Cells of one model by relative depth and noise level; those that no test calls are hatched.

    Parameters
    ----------
    cells : DataFrame with depth (of a block's output, from 0 to 1), sigma, `value` and called, a row a cell
    centre, span : of the colours, which several models share
    bar : whether there is a colour bar
    """
    depths, sigmas = sorted(set(cells["depth"])), sorted(set(cells["sigma"]), reverse=True)
    places = cells.groupby(["depth", "sigma"])  # sites of one block lie at one depth
    wide = places[value].mean().unstack().loc[depths, sigmas].to_numpy(float)
    called = places["called"].max().unstack().loc[depths, sigmas].to_numpy(bool)
    norm = CenteredNorm(centre, span) if centre is not None else Normalize(0, span)
    edges = np.array([0.0, *depths])  # a block begins where the one before it that was read ends
    image = ax.pcolormesh(np.arange(len(sigmas) + 1), edges, wide, norm=norm, cmap=cmap)
    for row, column in np.argwhere(~called):
        box = (column, edges[row]), 1, edges[row + 1] - edges[row]
        ax.add_patch(Rectangle(*box, fill=False, hatch="////", lw=0, edgecolor="#00000055"))
    for edge in edges[1:-1]:
        ax.axhline(edge, color="white", linewidth=0.8 * scale())
    apart = -(-len(sigmas) // 10)
    names = [f"{sigma:.2f}" for sigma in sigmas[::apart]]
    ax.set_xticks(np.arange(0, len(sigmas), apart) + 0.5, names, rotation=60)
    ax.set_ylim(1, 0)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(SIGMA_LABEL)
    ax.set_ylabel(DEPTH_LABEL)
    if bar:
        colour_bar(image, ax, label)
    return ax


@drawing
def profiles(
    lines: Mapping[str, pd.DataFrame], ax: Axes = FRESH, *,
    x: str = "depth", neutral: float | None = 0.5, legend: bool = True
) -> Axes:
    """A line for each model, over relative depth or over sigma, with its 95% interval as a band.

    Parameters
    ----------
    lines : name -> DataFrame with columns `x`, value, lo, hi
    x : ``depth`` or ``sigma``
    """
    for place, (name, rows) in enumerate(lines.items()):
        colour, marker = SERIES[place % len(SERIES)]
        style = "-" if place < len(SERIES) else "--"
        rows = rows.sort_values(x)
        ax.plot(rows[x], rows["value"], style, color=colour, marker=marker, markersize=5 * scale(),
                linewidth=1.8 * scale(), label=name)
        ax.fill_between(rows[x], rows["lo"], rows["hi"], color=colour, alpha=0.13, linewidth=0)
    if neutral is not None:
        ax.axhline(neutral, color=FAINT, linewidth=0.8, linestyle=":")
    if x == "sigma":
        ax.invert_xaxis()
    ax.set_xlabel(SIGMA_LABEL if x == "sigma" else DEPTH_LABEL)
    if legend:
        ax.legend()
    return ax


@drawing
def block_matrix(
    table: pd.DataFrame, value: str, ax: Axes = FRESH, *,
    a: str = "block_a", b: str = "block_b", centre: float | None = None, span: float = 1.0, label: str = "",
    called: str | None = None, cmap: str | Colormap | None = None
) -> Axes:
    """All blocks of one model (rows) beside all of another (columns), a number each.

    Parameters
    ----------
    table : DataFrame with columns `a`, `b` and `value`, a row for each two blocks
    centre, span : of the colours; without a centre they run from 0 to `span`
    called : a column of p; numbers whose p is not at most 0.05 are thin
    """
    rows, columns = list(dict.fromkeys(table[a])), list(dict.fromkeys(table[b]))
    wide = table.pivot(index=a, columns=b, values=value).loc[rows, columns].to_numpy(float)
    sure = np.ones(wide.shape, bool)
    if called is not None:
        sure = table.pivot(index=a, columns=b, values=called).loc[rows, columns].to_numpy(float) <= 0.05
    norm = CenteredNorm(centre, span) if centre is not None else Normalize(0, span)
    colours = mpl.colormaps.get_cmap(cmap or ("viridis" if centre is None else "PuOr"))
    image = ax.imshow(wide, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    for (row, column), number in np.ndenumerate(wide) if wide.size <= 144 else ():
        shade = colours(norm(number)) if np.isfinite(number) else (0.93, 0.93, 0.93, 1.0)
        dark = np.dot(shade[:3], (0.299, 0.587, 0.114)) < 0.55
        text = f"{number:.2f}".replace("-", "−") if np.isfinite(number) else "–"
        ax.text(column, row, text, ha="center", va="center", fontsize=scaled(0.8), color="white" if dark else INK,
                fontweight="bold" if sure[row, column] else "normal", path_effects=halo(shade))
    apart = max(1, -(-max(wide.shape) // 20))
    ax.set_xticks(range(0, len(columns), apart), columns[::apart], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(0, len(rows), apart), rows[::apart])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    colour_bar(image, ax, label)
    return ax


@drawing
def replicated(
    rows: pd.DataFrame, ax: Axes = FRESH, *,
    null: float | None = None, label: str = ""
) -> Axes:
    """One quantity of several models with its interval over prompts, and below the mean over models with its own.

    Parameters
    ----------
    rows : DataFrame with columns model, value, lo, hi; the row whose model is ``mean`` is that of all
    null : the value of no effect
    """
    names = []
    for place, row in enumerate(rows.itertuples()):
        mean = row.model == "mean"
        colour, marker = (INK, "D") if mean else SERIES[0]
        ax.plot([row.lo, row.hi], [place, place], color=colour, linewidth=2.2 * scale(), alpha=0.6)
        ax.scatter([row.value], [place], marker=marker, s=36 * scale() ** 2, color=colour, zorder=3)
        names.append(f"mean of {len(rows) - 1}" if mean else row.model)
    if null is not None:
        ax.axvline(null, color=FAINT, linewidth=0.9, linestyle=":")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(label)
    return ax
