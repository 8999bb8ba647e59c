"""Draw results that others computed: each function takes results and an Axes, and returns the Axes.

Steps run as the generation does, from the noisiest on the left to the last on the right. Good and bad have colours of
Okabe and Ito (2008), which readers with any colour vision can tell apart; lines differ by their markers too. What
cannot be told from chance is hatched in a grid, and has an open marker elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import CenteredNorm, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from ..extract.labels import Annotation
from ..files import atomic

LEVEL = 0.05
GOOD, BAD, UNSURE = "#0072B2", "#D55E00", "#7A7A7A"
HAND_COLOURS = {2: GOOD, 3: BAD, 0: UNSURE}
INK, FAINT = "#222222", "#8A8A8A"
BLOCK_STYLE = ("#4B2A7B", "o")
LINE_STYLES = {  # a baseline's colour and marker
    "x0": ("#009E73", "s"), "image": ("#CC79A7", "^"), "x_t": ("#56B4E9", "v"), "position": ("#B07D00", "D"),
    "prompt": ("#555555", "X"), "noise": ("#2E8BC0", "P"), "norm": ("#8C5A2B", "h"), "random": ("#888888", "*"),
    "final_image": ("#A0527D", "<"), "x0_flat": ("#006B4E", ">"), "all": ("#222222", "d"),
}
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 10.5, "axes.titlesize": 11.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 10.5, "axes.edgecolor": "#666666", "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "legend.fontsize": 9.5, "figure.facecolor": "white", "hatch.linewidth": 0.6,
    "svg.fonttype": "none", "svg.hashsalt": "handscope",
}


def figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure of a size in inches, to be filled inside ``matplotlib.rc_context(STYLE)``."""
    return Figure(figsize=(width, height), layout=layout)


def save(drawn: Figure, folder: str | os.PathLike[str], name: str) -> Path:
    """Write ``name.png`` (150 dots an inch) and ``name.svg``, each whole or not at all; returns the PNG's path."""
    with mpl.rc_context(STYLE):
        for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            with atomic(Path(folder) / f"{name}.{suffix}") as temporary:
                drawn.savefig(temporary, dpi=150, metadata=metadata)
    return Path(folder) / f"{name}.png"


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
        ax.text(column, row, text, ha="center", va="center", fontsize=9.5,
                color="white" if dark else INK, fontweight="bold" if sure else "normal",
                path_effects=_halo(shade))
    ax.set_xticks(range(len(steps)), [str(step) for step in steps])
    ax.set_yticks(range(len(blocks)), blocks)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("steps that remain: noisiest → last", loc="left")
    _colour_bar(image, ax, label)
    if not known.all():
        chance = "not separable from chance (q > 0.05)"
        hatched = Patch(facecolor="white", edgecolor="#777777", hatch="////", label=chance)
        ax.legend(handles=[hatched], loc="upper right", bbox_to_anchor=(1, 0), borderaxespad=1.9, borderpad=0.1,
                  handlelength=1.6)
    return ax


def _halo(colour: Any = "white") -> list[patheffects.AbstractPathEffect]:
    return [patheffects.withStroke(linewidth=3.5, foreground=colour)]


def _colour_bar(image: AxesImage, ax: Axes, label: str) -> None:
    bar = ax.get_figure(root=False).colorbar(image, ax=ax, label=label, pad=0.015, aspect=30)
    bar.outline.set_visible(False)


def curves(lines: Mapping[str, pd.DataFrame], prefix: str, ax: Axes, *, band: Sequence[str] | None = None) -> Axes:
    """AUC over steps, a line for each name, with its 95% interval as a band; the null of the first as a grey band.

    Parameters
    ----------
    lines : name -> DataFrame with columns step, auc, lo, hi, q, null_mean, null_sd, each but step with `prefix` before
        it. A table of one row without a step is a line across; a name that is not a baseline's is a block's.
    band : names that get a band; all by default
    """
    span = _steps(lines)
    for place, (name, rows) in enumerate(lines.items()):
        colour, marker = LINE_STYLES.get(name, BLOCK_STYLE)
        rows, step = _over_steps(rows, span)
        auc, low, high = (rows[prefix + column].to_numpy(float) for column in ("auc", "lo", "hi"))
        if place == 0:
            mean, sd = rows[prefix + "null_mean"].to_numpy(float), rows[prefix + "null_sd"].to_numpy(float)
            ax.fill_between(step, mean - 1.96 * sd, mean + 1.96 * sd, color="#BBBBBB", alpha=0.45, linewidth=0,
                            label="permuted verdicts")
        known = (rows[prefix + "q"] <= LEVEL).to_numpy()
        width = 2.4 if place == 0 else 1.6
        ax.plot(step, auc, color=colour, linewidth=width, zorder=4 if place == 0 else 3)
        ax.plot([], [], color=colour, linewidth=width, marker=marker, label=name)
        faces = [colour if one else "white" for one in known]
        ax.scatter(step, auc, marker=marker, s=38, zorder=5, edgecolors=colour, facecolors=faces)
        if band is None or name in band:
            ax.fill_between(step, low, high, color=colour, alpha=0.16, linewidth=0)
    ax.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
    ax.set_xlim(max(span) + 0.5, min(span) - 0.5)
    ax.xaxis.set_major_locator(FixedLocator(_spread(span)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("steps that remain: noisiest → last")
    return ax


def _steps(lines: Mapping[str, pd.DataFrame]) -> list[int]:
    return sorted({int(step) for rows in lines.values() for step in rows["step"].dropna()}, reverse=True)


def _over_steps(rows: pd.DataFrame, span: Sequence[int]) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Rows in the order of `span`, and their steps; what has no step holds at every one."""
    if rows["step"].isna().all():
        rows = pd.concat([rows.iloc[:1]] * len(span))
        return rows, np.asarray(span, float)
    rows = rows.sort_values("step", ascending=False)
    return rows, rows["step"].to_numpy(float)


def _spread(span: Sequence[int]) -> list[int]:
    """Steps whose numbers have room beside each other."""
    kept: list[int] = []
    for step in span:
        if not kept or kept[-1] - step >= 0.09 * (span[0] - span[-1]):
            kept.append(step)
    return kept


def scatter(xy: ArrayLike, bad: ArrayLike, ax: Axes, *, note: str = "") -> Axes:
    """Samples at coordinates of shape (n, 2), coloured by `bad` of shape (n,), 1 or 0; a `note` in a corner."""
    xy, bad = np.asarray(xy, float), np.asarray(bad, float)
    # One call for both classes, in the samples' own order: neither lies on top of the other.
    colours = [BAD if one else GOOD for one in bad == 1]
    ax.scatter(xy[:, 0], xy[:, 1], s=5, c=colours, alpha=0.65, linewidths=0, rasterized=True)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#CCCCCC")
    if note:
        ax.text(0.97, 0.96, note, transform=ax.transAxes, ha="right", va="top", fontsize=8.5, path_effects=_halo())
    return ax


def forest(added: pd.DataFrame, ax: Axes) -> Axes:
    """What a block's probe adds to a baseline: held-out AUC of both less that of the baseline, with its interval.

    Parameters
    ----------
    added : DataFrame with columns baseline, step, added, lo, hi, q; rows of one baseline together
    """
    place = 0.0
    ticks: list[tuple[float, str]] = []
    for name, rows in added.groupby("baseline", sort=False):
        colour, marker = LINE_STYLES.get(str(name), BLOCK_STYLE)
        ax.text(0.0, place, f"beside {name}", transform=ax.get_yaxis_transform(), fontweight="bold", va="center",
                path_effects=_halo(), zorder=6)
        for row in rows.sort_values("step", ascending=False).itertuples():
            place += 1
            ax.plot([row.lo, row.hi], [place, place], color=colour, linewidth=2)
            face = colour if row.q <= LEVEL else "white"
            ax.scatter([row.added], [place], marker=marker, s=40, edgecolors=colour, facecolors=face, zorder=4)
            ticks.append((place, f"step {int(row.step)}"))
        place += 1.6
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_ylim(place - 0.6, -0.8)
    ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("AUC added (filled: q ≤ 0.05; open: not separable from chance)")
    ax.grid(axis="x", color="#EEEEEE")
    ax.set_axisbelow(True)
    return ax


def rates(table: pd.DataFrame, overall: float, ax: Axes) -> Axes:
    """Share of bad hands by level of each caption factor, with its interval, against the overall share and twice that.

    Parameters
    ----------
    table : DataFrame with columns factor, level, rate, lo, hi, n; rows of one factor together
    """
    place, ticks = 0.0, []
    for _, rows in table.groupby("factor", sort=False):
        for row in rows.itertuples():
            ax.plot([row.lo, row.hi], [place, place], color=BAD, linewidth=2.4, solid_capstyle="round", alpha=0.55)
            ax.scatter([row.rate], [place], color=BAD, s=36, zorder=3)
            ticks.append((place, f"{row.factor}: {row.level} (n = {row.n})"))
            place += 1
        place += 0.7
    for at, text, style in ((overall, "mean", "-"), (2 * overall, "twice the mean", "--")):
        if at <= 1:
            ax.axvline(at, color=FAINT, linewidth=1, linestyle=style)
            ax.annotate(text, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2), textcoords="offset points",
                        fontsize=9, color="#555555")
    ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    ax.set_ylim(place - 1.2, -0.7)
    ax.set_xlim(0, min(1.0, max(float(table["hi"].max()), 2 * overall) + 0.08))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("share of malformed hands, 95% Wilson interval")
    ax.tick_params(axis="y", length=0)
    return ax


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
    _colour_bar(image, ax, "cosine, each direction from its own half of the prompts")
    return ax


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation], ax: Axes, *, columns: int,
    notes: Sequence[str] = ()
) -> Axes:
    """Images in rows of `columns`, with the token labels over them: hand tokens tinted, and outlined, by their label.

    Parameters
    ----------
    images : uint8 arrays of shape (height, width, 3), all of one size
    annotations : the labels of each
    notes : a few words to write below each
    """
    height, width = images[0].shape[:2]
    gap, line = 0.06 * width, (0.2 * height if notes else 0.06 * height)
    for place, (image, annotation) in enumerate(zip(images, annotations, strict=True)):
        left, top = place % columns * (width + gap), place // columns * (height + line)
        box = (left, left + width, top + height, top)
        ax.imshow(image, extent=box, interpolation="nearest")
        tints = np.zeros((*annotation.labels.shape, 4))
        for label, colour in HAND_COLOURS.items():
            tints[(annotation.labels == label) & (annotation.hands > 0)] = to_rgba(colour, 0.12)
        ax.imshow(tints, extent=box, interpolation="nearest")
        edge = {"g": GOOD, "b": BAD, "u": UNSURE}[annotation.verdict[0]]
        outline = _outline(annotation.hands > 0, left, top, width, height)
        for colour, thick in (("white", 2.0), (edge, 1.1)):
            ax.add_collection(LineCollection(outline, colors=[colour], linewidths=thick))
        if notes:
            ax.text(left + width / 2, top + height + 0.03 * height, notes[place], ha="center", va="top", fontsize=8)
    rows = -(-len(images) // columns)
    ax.set_xlim(-1, columns * (width + gap) - gap + 1)
    ax.set_ylim(rows * (height + line) - (0 if notes else line) + 1, -1)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _outline(
    mask: NDArray[np.bool_], left: float, top: float, width: float, height: float
) -> list[list[tuple[float, float]]]:
    """Segments along the border of a token mask."""
    rows, columns = mask.shape
    tall, wide = height / rows, width / columns
    padded = np.pad(mask, 1)
    segments = []
    for row, column in zip(*np.nonzero(padded[1:, :] != padded[:-1, :]), strict=True):
        y, x = top + row * tall, left + (column - 1) * wide
        segments.append([(x, y), (x + wide, y)])
    for row, column in zip(*np.nonzero(padded[:, 1:] != padded[:, :-1]), strict=True):
        y, x = top + (row - 1) * tall, left + column * wide
        segments.append([(x, y), (x, y + tall)])
    return segments


def label_legend(ax: Axes, **where: Any) -> Axes:
    """A legend of the colours of good and bad hands; `where` goes to ``Axes.legend``."""
    handles = [Patch(facecolor=to_rgba(colour, 0.45), edgecolor=colour, label=name)
               for name, colour in (("good hand", GOOD), ("bad hand", BAD))]
    ax.legend(handles=handles, **where)
    return ax
