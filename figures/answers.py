"""Curves that are not over steps: calibration and power."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, PercentFormatter

from ..labeling.subject import Subject, words_of
from .calls import FRESH, drawing, one_a_cell
from .style import BLOCK_STYLE, FAINT, SERIES, halo, scale, scaled


@drawing
def reliability(
    table: pd.DataFrame, ax: Axes = FRESH, *,
    note: str = "", subject: Subject | None = None
) -> Axes:
    """What share of samples is bad among those given a probability, against that probability.

    Parameters
    ----------
    table : DataFrame with columns predicted (mean probability of bad), observed (share that is bad), lo, hi (its
        interval) and n; a row a bin
    note : the calibration error, in words
    subject : whose words are used
    """
    if "bin" in table:
        table = one_a_cell(table, ("bin",))
    colour, marker = BLOCK_STYLE
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=":")
    size = 12 + 60 * np.sqrt(table["n"] / max(table["n"].max(), 1))
    ax.vlines(table["predicted"], table["lo"], table["hi"], color=colour, alpha=0.5, linewidth=1.8 * scale())
    ax.plot(table["predicted"], table["observed"], color=colour, linewidth=1.2 * scale())
    ax.scatter(table["predicted"], table["observed"], s=size * scale() ** 2, marker=marker, color=colour, zorder=3)
    last = -1.0
    for row in table.sort_values("predicted").itertuples():
        if row.predicted - last < 0.07:  # no room beside the number before
            continue
        last = row.predicted
        ax.annotate(f"{int(row.n)}", (row.predicted, 0), (0, 2), textcoords="offset points", ha="center", va="bottom",
                    fontsize=scaled(0.76), color="#666666", path_effects=halo(), zorder=4)
    plural, bad = words_of(subject).plural, words_of(subject).verdicts["bad"]
    label = f"predicted probability of {bad} (below: {plural})"
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=label, ylabel=f"share that is {bad}")
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    if note:
        ax.text(0.03, 0.97, note, transform=ax.transAxes, va="top", fontsize=scaled(0.9))
    return ax


@drawing
def power_curve(
    table: pd.DataFrame, ax: Axes = FRESH, *,
    at: Sequence[int] = (), target: float = 0.8, subject: Subject | None = None
) -> Axes:
    """The chance of seeing an AUC against the number of labelled samples, a line for each AUC.

    Parameters
    ----------
    table : DataFrame with columns auc, n (good and bad samples together), power
    at : numbers of samples to mark: those that a run has
    target : the power to mark
    subject : whose words are used
    """
    for (auc, rows), (colour, marker) in zip(table.groupby("auc"), SERIES, strict=False):
        rows = rows.sort_values("n")
        ax.plot(rows["n"], rows["power"], color=colour, linewidth=2 * scale(), marker=marker,
                markevery=max(1, len(rows) // 6), markersize=5.5 * scale(), label=f"AUC {auc:g}")
    ax.axhline(target, color=FAINT, linewidth=0.9, linestyle=":")
    for n in at:
        ax.axvline(n, color=FAINT, linewidth=0.9, linestyle="--")
        ax.annotate(f"n = {n}", (n, 0.0), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                    va="bottom", fontsize=scaled(0.86), color="#555555")
    ax.set_xscale("log")
    words = words_of(subject)
    label = f"labelled {words.plural}, {words.verdicts['good']} and {words.verdicts['bad']}"
    ax.set(ylim=(0, 1.02), xlabel=label, ylabel="chance of p ≤ 0.05")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="lower right")
    return ax
