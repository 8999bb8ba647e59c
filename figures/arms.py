"""Arms of an evaluation: how far each is from the baseline, and how its rate goes with a dose."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .calls import FRESH, drawing
from .style import FAINT, INK, LEVEL, SERIES, scale

PAIRED, UNPAIRED = "#4B2A7B", "#B07D00"


@drawing
def arms_forest(table: pd.DataFrame, ax: Axes = FRESH, *, baseline: str = "the baseline", measure: str = "") -> Axes:
    """The difference of each arm's rate from the baseline's, in points, with its interval over prompts.

    Parameters
    ----------
    table : DataFrame with arm, design, difference, low, high and holm, a row an arm, drawn from above. Filled where
        Holm's p is at most 0.05; circles are of pictures from the same noises, squares of others.
    """
    rows = table.iloc[::-1]
    place = np.arange(len(rows))
    for paired, colour, marker, text in ((True, PAIRED, "o", "same noises"), (False, UNPAIRED, "s", "other noises")):
        own = (rows["design"] == "same noises").to_numpy() == paired
        if not own.any():
            continue
        some = rows[own]
        ax.hlines(place[own], 100 * some["low"], 100 * some["high"], colors=colour, linewidth=2 * scale())
        faces = [colour if called else "white" for called in some["holm"] <= LEVEL]
        ax.scatter(100 * some["difference"], place[own], c=faces, edgecolors=colour, marker=marker,
                   s=34 * scale() ** 2, zorder=3, label=text)  # fmt: skip
    ax.axvline(0, color=INK, linewidth=0.9 * scale())
    ax.set_yticks(place, rows["arm"])
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#EEEEEE")
    ax.set_axisbelow(True)
    ax.set_xlabel(f"{measure}: points from {baseline}; filled: Holm's p ≤ {LEVEL}")
    legend = ax.legend(loc="upper left", bbox_to_anchor=(0, -0.24 * 4 / max(len(rows), 4)), ncols=2)
    for handle in legend.legend_handles:
        handle.set_facecolor("none")
    return ax


@drawing
def dose_response(
    table: pd.DataFrame, ax: Axes = FRESH, *, dose: str = "dose", reference: float | None = None, label: str = ""
) -> Axes:
    """The rate over a dose, with its interval over prompts; a line for each series.

    Parameters
    ----------
    table : DataFrame with series, dose, rate, lo and hi
    reference : the baseline's rate
    """
    for (name, rows), (colour, marker) in zip(table.groupby("series", sort=False), cycle(SERIES)):
        rows = rows.sort_values("dose")
        x, y, low, high = (rows[column].to_numpy(float) for column in ("dose", "rate", "lo", "hi"))
        ax.fill_between(x, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(x, 100 * y, color=colour, marker=marker, markersize=5 * scale(), label=str(name))
    if reference is not None:
        ax.axhline(100 * reference, color=FAINT, linestyle="--", linewidth=0.9 * scale(), label="baseline")
    if table["dose"].nunique() <= 6:
        ax.set_xticks(sorted(set(table["dose"])))
    ax.set_ylim(bottom=0)
    ax.set_xlabel(dose)
    ax.set_ylabel(label)
    ax.legend()
    return ax


@drawing
def rate_against_cost(table: pd.DataFrame, ax: Axes = FRESH, *, baseline: str, label: str = "") -> Axes:
    """The rate of each arm over what a good picture costs, with intervals of the rate over prompts: best is below left.

    Parameters
    ----------
    table : DataFrame with arm, calls_per_good, rate, lo and hi
    baseline : the arm whose rate is a line across
    """
    x, rate, low, high = (table[name].to_numpy(float) for name in ("calls_per_good", "rate", "lo", "hi"))
    ax.vlines(x, 100 * low, 100 * high, colors=PAIRED, linewidth=1.4 * scale())
    ax.scatter(x, 100 * rate, c=PAIRED, s=30 * scale() ** 2, zorder=3)
    for name, *at in zip(table["arm"], x, 100 * rate):
        ax.annotate(name, at, (5 * scale(), 3 * scale()), textcoords="offset points")
    for level in rate[(table["arm"] == baseline).to_numpy()]:
        ax.axhline(100 * level, color=FAINT, linestyle="--", linewidth=0.9 * scale())
    ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    ax.set_xlabel("calls of the transformer for each good picture")
    ax.set_ylabel(label)
    return ax


def series_of(doses: Mapping[str, float], along: str) -> str:
    """The name of a series: the other numbers of a sweep."""
    return ", ".join(f"{name} {value:g}" for name, value in doses.items() if name != along)
