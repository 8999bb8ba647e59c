"""Colours, sizes and files of every figure.

Good and bad have colours of Okabe and Ito (2008), which readers with any colour vision can tell apart; lines differ by
their markers too. A figure is drawn inside ``matplotlib.rc_context`` of `STYLE`, or of `COLUMN` for a paper's column.
"""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from ..files import atomic

LEVEL = 0.05
GOOD, BAD, UNSURE = "#0072B2", "#D55E00", "#7A7A7A"
LABEL_COLOURS = {2: GOOD, 3: BAD, 0: UNSURE}
INK, FAINT = "#222222", "#8A8A8A"
BLOCK_STYLE = ("#4B2A7B", "o")
LINE_STYLES = {  # a baseline's colour and marker
    "x0": ("#009E73", "s"), "image": ("#CC79A7", "^"), "x_t": ("#56B4E9", "v"), "position": ("#B07D00", "D"),
    "prompt": ("#555555", "X"), "noise": ("#2E8BC0", "P"), "norm": ("#8C5A2B", "h"), "random": ("#888888", "*"),
    "final_image": ("#A0527D", "<"), "x0_flat": ("#006B4E", ">"), "all": ("#222222", "d"),
}
SERIES = (("#4B2A7B", "o"), ("#009E73", "s"), ("#D55E00", "^"), ("#0072B2", "D"), ("#CC79A7", "v"), ("#B07D00", "P"))
"""Colours and markers of lines that have no place in `LINE_STYLES`, in the order in which they are drawn."""
OF_THE_USER = ("backend", "backend_fallback", "interactive", "toolbar", "timezone", "date.epoch", "docstring.hardcopy")
PLAIN: dict[str, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key not in OF_THE_USER}
"""Matplotlib's own defaults: a matplotlibrc, which may ask for LaTeX, changes no figure of a run."""
STYLE: dict[str, Any] = PLAIN | {
    "font.family": "DejaVu Sans", "font.size": 10.5, "axes.titlesize": 11.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 10.5, "axes.edgecolor": "#666666", "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "legend.fontsize": 9.5, "figure.facecolor": "white", "hatch.linewidth": 0.6,
    "svg.fonttype": "none", "svg.hashsalt": "handscope", "pdf.fonttype": 42, "ps.fonttype": 42,
}
COLUMN: dict[str, Any] = STYLE | {
    "font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5, "lines.markersize": 3.5, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "hatch.linewidth": 0.4,
}
"""`STYLE` for a figure 3.3 inches wide, as it is printed in a column: nothing is smaller than 6 points."""
SMALLEST = 6.0
FORMATS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
OF_FILES = ("svg", "pdf", "ps", "savefig", "agg", "path", "mathtext")
"""Groups of settings that count when a figure is written; the others do when it is drawn."""
STEPS_LABEL = "steps that remain: noisiest → last"


def figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure of a size in inches, to be filled inside ``matplotlib.rc_context(STYLE)``."""
    return Figure(figsize=(width, height), layout=layout)


def save(drawn: Figure, folder: str | os.PathLike[str], name: str) -> Path:
    """Write ``name.png`` (150 dots an inch), ``name.svg`` and ``name.pdf``, each whole or not at all.

    Returns
    -------
    The path of the PNG
    """
    with mpl.rc_context({key: STYLE[key] for key in STYLE if key.split(".")[0] in OF_FILES}):
        # The layout is worked out once and not again for each format: that is most of the time.
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")
        for suffix, metadata in FORMATS.items():
            with atomic(Path(folder) / f"{name}.{suffix}") as temporary:
                drawn.savefig(temporary, dpi=150, metadata=metadata)
    return Path(folder) / f"{name}.png"


def scaled(factor: float) -> float:
    """A font size in points, `factor` times the current one and never below 6."""
    return max(SMALLEST, factor * float(mpl.rcParams["font.size"]))


def scale() -> float:
    """How large text is beside that of `STYLE`; markers and lines are scaled with it."""
    return float(mpl.rcParams["font.size"]) / STYLE["font.size"]


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of an Axes, before a layout engine has moved it."""
    box = ax.get_window_extent()
    dpi = ax.get_figure(root=True).dpi
    return box.width / dpi, box.height / dpi


def wrapped(text: str, width: float, points: float) -> str:
    """A text in lines that fit a width in inches, at a font size."""
    return fill(text, max(20, int(width * 72 / (0.56 * points))))


def halo(colour: Any = "white") -> list[patheffects.AbstractPathEffect]:
    """An outline that keeps text readable on any ground."""
    return [patheffects.withStroke(linewidth=3.5 * scale(), foreground=colour)]


def colour_bar(image: ScalarMappable, ax: Axes, label: str) -> None:
    """A colour bar without a frame beside an Axes, its label in lines that fit."""
    label = wrapped(label, inches(ax)[1], scaled(1))
    bar = ax.get_figure(root=False).colorbar(image, ax=ax, label=label, pad=0.015, aspect=30)
    bar.outline.set_visible(False)
