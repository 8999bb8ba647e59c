"""What every figure function does around its drawing: an Axes where none is given, a title, names in other words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from ..errors import HandscopeError
from .style import COLUMN, STYLE, figure

PAPERS = {"neurips": (5.5, 5.5), "icml": (3.25, 6.75), "cvpr": (3.25, 6.875)}
"""Inches of a column and of a page's text, of the style files of 2025 (NeurIPS has one column)."""

FRESH = cast(Axes, None)
"""The default of `ax`: one that `drawing` makes."""

Draw = TypeVar("Draw", bound=Callable[..., Axes])


@contextmanager
def paper(venue: str, height: float = 2.0, wide: bool = False) -> Iterator[Axes]:
    """An Axes of the width of a paper's column, or of its page, in type of 6 to 7.5 points.

    >>> with paper("icml", height=2.2) as ax:                                 # doctest: +SKIP
    ...     figures.grid(table, ax=ax)
    ...     figures.save(ax.figure, "figures", "map")

    Parameters
    ----------
    venue : ``neurips``, ``icml`` or ``cvpr``
    height : in inches
    wide : as wide as the page
    """
    if venue not in PAPERS:
        raise HandscopeError(f"Expected a venue of {', '.join(PAPERS)}, found {venue!r}.")
    with mpl.rc_context(COLUMN):
        yield figure(PAPERS[venue][wide], height).subplots()


def drawing(draw: Draw) -> Draw:
    """Let a function that draws into `ax` do without one, and take a `title` and `labels`.

    `labels` is a mapping from texts that are drawn, as names of blocks, of lines or of an axis, to what stands in
    their place. Without `ax` a figure of 6 by 4 inches is made in the style of the report.
    """
    signature = inspect.signature(draw)

    @wraps(draw)
    def drawn(*given: Any, title: str = "", labels: Mapping[str, str] | None = None, **named: Any) -> Axes:
        bound = signature.bind_partial(*given, **named)
        fresh = bound.arguments.get("ax") is FRESH
        with mpl.rc_context(STYLE) if fresh else nullcontext():
            if fresh:
                bound.arguments["ax"] = figure(6, 4).subplots()
            ax = draw(*bound.args, **bound.kwargs)
            if title:
                ax.set_title(title)
            _rename(ax, labels or {})
        return ax

    last = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter("title", last, default="", annotation="str"),
        inspect.Parameter("labels", last, default=None, annotation="Mapping[str, str] | None"),
    ]
    kept = [one for one in signature.parameters.values() if one.name not in ("title", "labels")]
    drawn.__signature__ = signature.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    return cast(Draw, drawn)


def _rename(ax: Axes, labels: Mapping[str, str]) -> None:
    if not labels:
        return
    beside = [one for one in ax.get_figure(root=False).axes if getattr(one, "_colorbar", None)]
    for one in (ax, *beside):
        for axis in (one.xaxis, one.yaxis):
            axis.set_label_text(labels.get(axis.get_label_text(), axis.get_label_text()))
            names = [text.get_text() for text in axis.get_ticklabels()]
            if set(names) & set(labels):
                axis.set_ticks(axis.get_ticklocs(), [labels.get(name, name) for name in names])
    legend = ax.get_legend()
    for artist in ax.get_children():
        if isinstance(label := artist.get_label(), str) and label in labels:
            artist.set_label(labels[label])
    for text in [*ax.texts, *(legend.get_texts() if legend else ())]:
        text.set_text(labels.get(text.get_text(), text.get_text()))


def one_a_cell(table: pd.DataFrame, keys: tuple[str, ...] = ("block", "step")) -> pd.DataFrame:
    """The rows of a table as it is on disk, of which each stands for another cell.

    Of ``sure`` and ``all`` samples those that are sure.

    Raises
    ------
    HandscopeError
        A column is missing, or several rows are of one cell; the message names what they differ in.
    """
    lacking = [key for key in keys if key not in table]
    if lacking:
        raise HandscopeError(
            f"Expected a table with the columns {', '.join(keys)}, found {', '.join(map(str, table.columns[:8]))}: "
            f"it lacks {', '.join(lacking)}."
        )
    if "subset" in table and "sure" in set(table["subset"]):
        table = table[table["subset"] == "sure"]
    twice = table[table.duplicated(list(keys), keep=False)]
    if len(twice):
        texts = [name for name in table.columns if name not in keys and not pd.api.types.is_numeric_dtype(table[name])]
        differing = next((name for name in texts if twice[name].nunique() > 1), None)
        first = twice.iloc[0]
        cell = ", ".join(f"{key} {first[key]}" for key in keys)
        advice = f"table[table[{differing!r}] == {first[differing]!r}]" if differing else "one row for each"
        raise HandscopeError(
            f"Expected one row for each of {' and '.join(keys)}, found {len(twice)} that are not ({cell} first): "
            f"choose, for example {advice}."
        )
    return table
