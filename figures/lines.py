"""Numbers over steps: AUCs, gains, shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from ..labeling.subject import Subject, words_of
from .calls import FRESH, drawing, one_a_cell
from .style import BAD, BLOCK_STYLE, FAINT, INK, LEVEL, LINE_STYLES, SERIES, STEPS_LABEL, halo, scale, scaled


@drawing
def curves(
    lines: Mapping[str, pd.DataFrame], prefix: str = "", ax: Axes = FRESH, *,
    band: Sequence[str] | None = None
) -> Axes:
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
        called = (rows[prefix + "q"] <= LEVEL).to_numpy()
        width = (2.4 if place == 0 else 1.6) * scale()
        ax.plot(step, auc, color=colour, linewidth=width, zorder=4 if place == 0 else 3)
        ax.plot([], [], color=colour, linewidth=width, marker=marker, label=name)
        faces = [colour if one else "white" for one in called]
        ax.scatter(step, auc, marker=marker, s=38 * scale() ** 2, zorder=5, edgecolors=colour, facecolors=faces)
        if band is None or name in band:
            ax.fill_between(step, low, high, color=colour, alpha=0.16, linewidth=0)
    ax.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
    ax.set_xlim(max(span) + 0.5, min(span) - 0.5)
    ax.xaxis.set_major_locator(FixedLocator(_spread(span)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(STEPS_LABEL)
    return ax


@drawing
def series(
    lines: Mapping[str, pd.DataFrame], ax: Axes = FRESH, *,
    value: str = "auc", prefix: str = "", neutral: float | None = 0.5
) -> Axes:
    """A line over steps for each name, with its 95% interval as bars: contrasts, kinds of probe, subsets.

    Parameters
    ----------
    lines : name -> DataFrame with columns step, `value`, lo, hi, q, each but step with `prefix` before it
    neutral : the value that says nothing
    """
    span = _steps(lines)
    nudge = 0.012 * (span[0] - span[-1] or 1)
    for place, (name, rows) in enumerate(lines.items()):
        colour, marker = SERIES[place % len(SERIES)]
        rows = rows.sort_values("step", ascending=False)
        at = rows["step"].to_numpy(float) + nudge * (place - (len(lines) - 1) / 2)
        called = (rows[prefix + "q"] <= LEVEL).to_numpy()
        ax.plot(at, rows[prefix + value], color=colour, linewidth=1.8 * scale())
        ax.plot([], [], color=colour, linewidth=1.8 * scale(), marker=marker, markersize=6 * scale(), label=name)
        ax.vlines(at, rows[prefix + "lo"], rows[prefix + "hi"], color=colour, alpha=0.45, linewidth=1.5 * scale())
        ax.scatter(at, rows[prefix + value], marker=marker, s=34 * scale() ** 2, zorder=5, edgecolors=colour,
                   facecolors=[colour if one else "white" for one in called])
    if neutral is not None:
        ax.axhline(neutral, color=FAINT, linewidth=0.8, linestyle=":")
    ax.set_xlim(max(span) + 0.5, min(span) - 0.5)
    ax.xaxis.set_major_locator(FixedLocator(_spread(span)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(STEPS_LABEL)
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


@drawing
def forest(added: pd.DataFrame, ax: Axes = FRESH) -> Axes:
    """What a block's probe adds to a baseline: held-out AUC of both less that of the baseline, with its interval.

    Parameters
    ----------
    added : DataFrame with columns baseline, step, added, lo, hi, q; rows of one baseline together
    """
    added = one_a_cell(added, ("baseline", "step"))
    place = 0.0
    ticks: list[tuple[float, str]] = []
    for name, rows in added.groupby("baseline", sort=False):
        colour, marker = LINE_STYLES.get(str(name), BLOCK_STYLE)
        ax.text(0.0, place, f"beside {name}", transform=ax.get_yaxis_transform(), fontweight="bold", va="center",
                path_effects=halo(), zorder=6)
        for row in rows.sort_values("step", ascending=False).itertuples():
            place += 1
            ax.plot([row.lo, row.hi], [place, place], color=colour, linewidth=2 * scale())
            face = colour if row.q <= LEVEL else "white"
            ax.scatter([row.added], [place], marker=marker, s=40 * scale() ** 2, edgecolors=colour, facecolors=face,
                       zorder=4)
            ticks.append((place, f"step {int(row.step)}"))
        place += 1.6
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_ylim(place - 0.6, -0.8)
    ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=scaled(0.86))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("AUC added\nfilled: q ≤ 0.05; open: not separable from chance")
    ax.grid(axis="x", color="#EEEEEE")
    ax.set_axisbelow(True)
    return ax


@drawing
def rates(
    table: pd.DataFrame, overall: float, ax: Axes = FRESH, *,
    subject: Subject | None = None
) -> Axes:
    """Share of bad samples by level of what a prompt states, with its interval, the overall share and twice that.

    Parameters
    ----------
    table : DataFrame with columns factor, level, rate, lo, hi, n; rows of one factor together
    """
    place, ticks = 0.0, []
    for _, rows in table.groupby("factor", sort=False):
        for row in rows.itertuples():
            ax.plot([row.lo, row.hi], [place, place], color=BAD, linewidth=2.4 * scale(), solid_capstyle="round",
                    alpha=0.55)
            ax.scatter([row.rate], [place], color=BAD, s=36 * scale() ** 2, zorder=3)
            ticks.append((place, f"{row.factor}: {row.level} (n = {row.n})"))
            place += 1
        place += 0.7
    for at, text, style in ((overall, "mean", "-"), (2 * overall, "twice the mean", "--")):
        if at <= 1:
            ax.axvline(at, color=FAINT, linewidth=1, linestyle=style)
            ax.annotate(text, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2), textcoords="offset points",
                        fontsize=scaled(0.86), color="#555555")
    ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    ax.set_ylim(place - 1.2, -0.7)
    ax.set_xlim(0, min(1.0, max(float(table["hi"].max()), 2 * overall) + 0.08))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel(f"share of malformed {words_of(subject).plural}, 95% interval over prompts")
    ax.tick_params(axis="y", length=0)
    return ax
