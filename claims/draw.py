"""The figures of the claims: each takes what its measurement found and an Axes, and returns the Axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from ..figures.calls import FRESH, drawing
from ..figures.style import BAD, FAINT, GOOD, INK, SERIES, scale
from .counting import NUMBERS, Counting
from .imbalance import Imbalance
from .loss import TIMES, Blindness


@drawing
def table(found: pd.DataFrame, ax: Axes = FRESH) -> Axes:
    """Printed numbers over what the rows imply: 1 where they agree."""
    rows = found[found["printed"] != ""]
    ratio = rows["printed"].astype(float) / rows["value"]
    for place, (value, agrees) in enumerate(zip(ratio, rows["agrees"])):
        ax.scatter([value], [place], s=40 * scale() ** 2, color=GOOD if agrees else BAD, marker="o" if agrees else "X")
    ax.axvline(1, color=INK, linewidth=0.9)
    ax.set_yticks(range(len(rows)), rows["quantity"])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#EEEEEE")
    ax.set_xlabel("printed over re-derived; crosses do not agree")
    return ax


@drawing
def loss(found: Blindness, ax: Axes = FRESH) -> Axes:
    """How often each loss calls the fault worse than a shift of the background, by the shift."""
    places = np.arange(len(TIMES))
    for k, (name, worse) in enumerate(found.worse.items()):
        colour, marker = SERIES[k]
        ax.plot(places, worse.mean(1), color=colour, marker=marker, label=name, linewidth=1.6 * scale())
    levels = [float(np.median(found.shift)) * times for times in TIMES]
    ax.set_xticks(places, [f"{level:.0f}" for level in levels])
    ax.set_xlabel("shift of the background, levels of 255 (median)")
    ax.set_ylabel("share of pairs in which\nthe fault is the worse")
    ax.set_ylim(-0.05, 1.05)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.axhline(0.5, color=FAINT, linewidth=0.8)
    ax.legend()
    return ax


@drawing
def codec(rows: pd.DataFrame, ax: Axes = FRESH) -> Axes:
    """Share counted five and share bad, before and after the autoencoder, by size in latents."""
    kinds = (("five", "counted five", GOOD), ("bad", "implausible or not found", BAD))
    for name, text, colour in kinds:
        ax.plot(rows["latents"], rows[name], color=colour, marker="o", linestyle=":", label=f"{text}, before")
        ax.plot(rows["latents"], rows[f"{name}_after"], color=colour, marker="s", label=f"{text}, after")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set_xticks(rows["latents"])
    ax.set_xlabel("side of the hand's picture in latents")
    ax.set_ylim(-0.05, 1.05)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend()
    return ax


@drawing
def counting(found: Sequence[Counting], ax: Axes = FRESH) -> Axes:
    """How many each word says, as told from the other words; or which word it is, where there are few."""
    ordered = [one for one in found if np.isfinite(one.predicted).all()]
    if ordered:
        true = sorted(NUMBERS.values())[: ordered[0].numbers]
        for k, one in enumerate(ordered):
            colour, marker = SERIES[k % len(SERIES)]
            said = f"{one.embedding}: tau-b {one.order:.2f}, p {one.order_p:.2g}"
            ax.plot(true, one.predicted, color=colour, marker=marker, label=said)
        ax.plot(true, true, color=FAINT, linewidth=0.9)
        ax.set_xlabel("the number that a prompt names")
        ax.set_ylabel("as told from the other numbers")
        ax.legend()
        return ax
    for place, one in enumerate(found):
        ax.plot([one.chance, one.accuracy], [place, place], color=FAINT, linewidth=1.6 * scale())
        ax.scatter([one.accuracy], [place], color=SERIES[0][0], s=40 * scale() ** 2, zorder=3)
        ax.scatter([one.chance], [place], color=FAINT, s=40 * scale() ** 2, zorder=3)
    ax.set_yticks(range(len(found)), [one.embedding for one in found])
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_xlim(0, 1.05)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("number words told right in new templates; grey: by chance")
    return ax


@drawing
def rates(rows: pd.DataFrame, names: Sequence[str], ax: Axes = FRESH, *, label: str = "") -> Axes:
    """A rate with its interval a row; `names` are written beside them."""
    for place, row in enumerate(rows.itertuples()):
        if "lo" in rows and np.isfinite(row.lo):
            ax.plot([row.lo, row.hi], [place, place], color=BAD, linewidth=2.4 * scale(), alpha=0.55)
        ax.scatter([row.rate], [place], color=BAD, s=36 * scale() ** 2, zorder=3)
    ax.set_yticks(range(len(rows)), list(names))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(label or "share of implausible hands, 95%")
    return ax


@drawing
def imbalance(found: Imbalance, ax: Axes = FRESH) -> Axes:
    """What was added to the judge's score of bad by each gesture; the rare one in colour."""
    for place, row in enumerate(found.rates.itertuples()):
        colour = BAD if row.gesture == found.gesture else FAINT
        ax.plot([row.lo, row.hi], [place, place], color=colour, linewidth=2.4 * scale())
        ax.scatter([row.added], [place], color=colour, s=40 * scale() ** 2, zorder=3)
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_yticks(range(len(found.rates)), [f"{row.gesture} (n = {row.n})" for row in found.rates.itertuples()])
    ax.set_ylim(len(found.rates) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("mean P(bad) by the judge,\nimbalanced less balanced, 95%")
    return ax
