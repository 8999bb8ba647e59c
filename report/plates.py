"""The figures of a report: which results go onto which axes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import figures
from ..figures import STYLE
from .optional_plates import auc_label, optional_plates
from .results import Results, separable

if TYPE_CHECKING:
    import numpy as np

Images = Callable[[str], "np.ndarray"]

SHEETS = {"good": ("good",), "bad": ("bad",), "leaning": ("good?", "bad?"), "unsure": ("unsure",)}
SHEET_COLUMNS, SHEET_ROWS = 8, 3


def plates(results: Results, image: Images, rates: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """How to draw each figure of a report, by the name of its file.

    Parameters
    ----------
    image : gives the image of a sample, uint8 of shape (height, width, 3)
    rates : shares of bad samples, as of `rates_by`; without rows there is no figure of them
    """
    cells, probes, prefix, auc = results.cells, results.probe_of("sure"), results.prefix, auc_label(results.subject)
    count = len(results.steps), cells["block"].nunique()
    drawings: dict[str, Callable[[], Figure]] = {
        "overview": lambda: _overview(results, image),
        **{f"sheet_{name}": _Sheet(results, image, name) for name in SHEETS if _chosen(results, SHEETS[name], 1)},
        **({"rates": lambda: _rates(results, rates)} if len(rates) else {}),
        "grid_probe": lambda: _grid(probes, f"{prefix}auc", f"{prefix}q", 0.5, auc, count),
        "grid_direction": lambda: _grid(cells, "dom_auc", "dom_q", 0.5, auc, count),
        "grid_distance": lambda: _grid(cells, "db_excess", "db_q", None, "excess over permuted labels, nats", count),
        "curves": lambda: _curves(results),
        "added": lambda: _added(results),
        "planes": lambda: _scatters(results, "plane"),
        "components": lambda: _scatters(results, "pca"),
        "cosines": lambda: _cosines(results),
    }
    drawings |= optional_plates(results)
    return {name: _styled(draw) for name, draw in drawings.items()}


NARROW = 3.4
"""Inches of a figure for a phone."""


def narrow(results: Results, image: Images) -> dict[str, Callable[[], Figure]]:
    """How to draw those figures for a narrow screen that would have to be scrolled there, by name."""
    cells, probes, prefix, auc = results.cells, results.probe_of("sure"), results.prefix, auc_label(results.subject)
    drawings: dict[str, Callable[[], Figure]] = {
        "overview": lambda: _narrow_overview(results, image),
        "grid_probe": lambda: _narrow_grid(probes, f"{prefix}auc", f"{prefix}q", 0.5, auc),
        "grid_direction": lambda: _narrow_grid(cells, "dom_auc", "dom_q", 0.5, auc),
        "grid_distance": lambda: _narrow_grid(cells, "db_excess", "db_q", None, "excess over permuted labels, nats"),
        "curves": lambda: _curves(results, columns=1, width=NARROW, height=1.7),
        "added": lambda: _added(results, columns=1, width=NARROW),
    }
    return {name: _styled(draw, figures.COLUMN) for name, draw in drawings.items()}


def _narrow_grid(table: pd.DataFrame, value: str, q: str, centre: float | None, label: str) -> Figure:
    drawn = figures.figure(NARROW, 0.9 + 0.2 * table["block"].nunique())
    _cells(table, value, q, drawn.subplots(), centre, label)
    return drawn


def _cells(table: pd.DataFrame, value: str, q: str, ax: Axes, centre: float | None, label: str) -> None:
    """With a number a cell where there is room for them."""
    draw = figures.grid if table["step"].nunique() <= 8 else figures.survey_map
    draw(table, value, q, ax, centre=centre, label=label)


def _narrow_overview(results: Results, image: Images) -> Figure:
    probes, prefix = results.probe_of("sure"), results.prefix
    high = 0.9 + 0.2 * probes["block"].nunique()
    drawn = figures.figure(NARROW, 4.1 + high)
    *sheets, top, bottom = drawn.subplots(4, 1, height_ratios=[1, 1, high, 2])
    _both_kinds(results, image, sheets, 4)
    _cells(probes, f"{prefix}auc", f"{prefix}q", top, 0.5, "AUC")
    _beside(results, bottom, 2)
    return drawn


def _beside(results: Results, ax: Axes, ncols: int) -> None:
    """The best block beside a few baselines."""
    names = [name for name in ("x0_flat", "x0", "image", "position") if len(results.baseline(name))]
    lines = {results.best_block: _of_block(results), **{name: results.baseline(name) for name in names}}
    figures.curves(lines, results.prefix, ax, band=[results.best_block])
    ax.set_title(f"{results.best_block} beside what needs no look inside")
    ax.set_ylabel("AUC" + (" within prompts" if results.prefix else ""))
    ax.legend(ncols=ncols, loc="upper left", bbox_to_anchor=(0, 1.02), borderaxespad=0)
    ax.set_ylim(top=ax.get_ylim()[1] + (0.07 if ncols > 2 else 0.14))


def _styled(draw: Callable[[], Figure], style: dict[str, Any] = STYLE) -> Callable[[], Figure]:
    def styled() -> Figure:
        with mpl.rc_context(style):
            return draw()

    return styled


def _overview(results: Results, image: Images) -> Figure:
    drawn = figures.figure(13.5, 6.6)
    left, right = drawn.subfigures(1, 2, width_ratios=[1, 1.55], wspace=0.03)
    _both_kinds(results, image, left.subplots(2, 1), 8)
    top, bottom = right.subplots(2, 1, height_ratios=[1, 1.05])
    probes, prefix = results.probe_of("sure"), results.prefix
    figures.grid(probes, f"{prefix}auc", f"{prefix}q", top, centre=0.5, label="AUC")
    top.set_title("A linear probe in every block, at every step")
    _beside(results, bottom, 3)
    return drawn


def _both_kinds(results: Results, image: Images, axes: Iterable[Axes], count: int) -> None:
    """So many of each kind, four in a row."""
    for ax, name in zip(axes, ("good", "bad"), strict=True):
        chosen = _chosen(results, SHEETS[name], count) or _chosen(results, (f"{name}?",), count)
        ax.set_axis_off()
        title = f"{results.subject.nouns[1]} judged {results.subject.verdicts[name]}"
        ax.set_title(title, color=figures.GOOD if name == "good" else figures.BAD)
        if chosen:
            pictures, annotations = [image(one) for one in chosen], [results.annotations[one] for one in chosen]
            figures.contact_sheet(pictures, annotations, ax, columns=4)


def _chosen(results: Results, verdicts: Sequence[str], count: int) -> list[str]:
    """Samples of these verdicts in an order that looks at nothing but their names, one prompt after another."""
    names = results.samples.loc[results.samples["verdict"].isin(verdicts), ["sample", "prompt"]]
    order = names["sample"].map(lambda name: hashlib.sha256(name.encode()).hexdigest())
    names = names.assign(order=order).sort_values("order")
    turn = names.groupby("prompt").cumcount()
    return names.assign(turn=turn).sort_values(["turn", "order"])["sample"].head(count).tolist()


class _Sheet:
    def __init__(self, results: Results, image: Images, name: str) -> None:
        self.results, self.image, self.name = results, image, name

    def __call__(self) -> Figure:
        chosen = _chosen(self.results, SHEETS[self.name], SHEET_COLUMNS * SHEET_ROWS)
        annotations = [self.results.annotations[sample] for sample in chosen]
        subject = self.results.subject
        faults = [", ".join(map(subject.fault_word, annotation.kinds)) for annotation in annotations]
        verdicts = [subject.verdicts[annotation.verdict] for annotation in annotations]
        notes = [f"{said}{': ' if fault else ''}{fault}" for said, fault in zip(verdicts, faults, strict=True)]
        notes = notes if any(faults) or self.name == "leaning" else []
        rows = -(-len(chosen) // SHEET_COLUMNS)
        drawn = figures.figure(11, 0.15 + rows * (1.62 if notes else 1.42))
        figures.contact_sheet([self.image(sample) for sample in chosen], annotations, drawn.subplots(),
                              columns=SHEET_COLUMNS, notes=notes)
        return drawn


def _rates(results: Results, rates: pd.DataFrame) -> Figure:
    drawn = figures.figure(8, 1.2 + 0.3 * len(rates))
    figures.rates(rates, float(results.samples["bad"].mean()), drawn.subplots(), subject=results.subject)
    return drawn


def _grid(table: pd.DataFrame, value: str, q: str, centre: float | None, label: str, count: tuple[int, int]) -> Figure:
    drawn = figures.figure(2.6 + 0.75 * max(count[0], 5), 1.5 + 0.42 * max(count[1], 4))
    figures.grid(table, value, q, drawn.subplots(), centre=centre, label=label)
    return drawn


def _of_block(results: Results) -> pd.DataFrame:
    probes = results.probe_of("sure")
    return probes[probes["block"] == results.best_block]


def _curves(results: Results, columns: int | None = None, width: float = 4, height: float = 2.9) -> Figure:
    """The best block beside one baseline in each panel, of `width` by `height`: together they would hide each other."""
    names = results.baseline_names
    columns = columns or (3 if len(names) <= 9 else 4)
    rows = -(-len(names) // columns)
    drawn = figures.figure(width * columns, 0.5 + height * rows)
    panels = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, ax in enumerate(panels.flat):
        if place >= len(names):
            ax.set_axis_off()
            continue
        name = names[place]
        figures.curves({results.best_block: _of_block(results), name: results.baseline(name)}, results.prefix, ax)
        ax.set_title(f"beside {name}", color=figures.LINE_STYLES.get(name, figures.BLOCK_STYLE)[0])
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("steps that remain" if place >= len(names) - columns else "")
        if place % columns == 0:
            ax.set_ylabel("AUC within prompts" if results.prefix else "AUC")
    handles = panels[0, 0].get_legend_handles_labels()[0][:2]
    names = ["permuted verdicts (95%)", results.best_block]
    drawn.legend(handles=handles, labels=names, loc="outside upper left", ncols=2)
    return drawn


def _added(results: Results, columns: int | None = None, width: float | None = None) -> Figure:
    prefix = results.prefix
    table = results.added_of_best
    table = table[["baseline", "step"]].assign(**{name: table[prefix + name] for name in ("added", "lo", "hi", "q")})
    table = table.dropna(subset=["added"])
    groups = table["baseline"].nunique()
    columns = columns or (2 if groups > 3 else 1)
    names = list(dict.fromkeys(table["baseline"]))
    parts = [names[: -(-groups // columns)], names[-(-groups // columns):]][:columns]
    deepest = max(sum(1.6 + (table["baseline"] == name).sum() for name in part) for part in parts)
    drawn = figures.figure(width or 5.2 * columns + 0.6, 1.0 + (0.14 if width else 0.225) * deepest)
    panels = drawn.subplots(1, columns, sharex=True, squeeze=False)
    for ax, part in zip(panels.flat, parts, strict=True):
        figures.forest(table[table["baseline"].isin(part)], ax)
    return drawn


def _scatters(results: Results, kind: str) -> Figure:
    cells = results.cells
    blocks, steps = list(dict.fromkeys(cells["block"])), results.steps
    drawn = figures.figure(1.0 + 1.5 * len(steps), 0.75 + 1.5 * len(blocks), layout=None)
    panels = drawn.subplots(len(blocks), len(steps), squeeze=False)
    bad = results.order["bad"].to_numpy()
    by_cell = cells.set_index(["block", "step"])
    for row, block in enumerate(blocks):
        for column, step in enumerate(steps):
            ax = panels[row, column]
            cell = by_cell.loc[(block, step)]
            # The AUC belongs to the first axis of the plane; components were not chosen by labels.
            note = f"{cell['dom_auc']:.2f}{'' if separable(cell, 'dom_') else ' n.s.'}" if kind == "plane" else ""
            figures.scatter(results.coordinates[f"{block}/{step}/{kind}"], bad, ax, note=note)
            if row == 0:
                ax.set_title(f"step {step}", fontsize=10, loc="center")
            if column == 0:
                ax.set_ylabel(block)
    height, width = drawn.get_figheight(), drawn.get_figwidth()
    drawn.subplots_adjust(left=0.45 / width, right=1 - 0.1 / width, top=1 - 0.3 / height, bottom=0.45 / height,
                          wspace=0.06, hspace=0.06)
    figures.label_legend(
        panels[-1, 0], subject=results.subject, loc="upper left", bbox_to_anchor=(-0.02, -0.02), ncols=2
    )
    return drawn


def _cosines(results: Results) -> Figure:
    drawn = figures.figure(7.4, 6)
    figures.cosines(results.cosines, drawn.subplots())
    return drawn
