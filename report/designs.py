"""The page of a run whose prompts share noises: shorter than that of a run with noises of each prompt's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__, figures
from ..files import atomic
from ..models.embedded import organism_of
from .crossed import crossed_context, crossed_figure
from .paired import pair_context, pair_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..run.folder import Run

PAGES: dict[str, tuple[Callable[[Run], Figure], Callable[[Run], dict[str, Any]]]] = {
    "pairs": (pair_figure, pair_context),
    "crossed": (crossed_figure, crossed_context),
}
"""By the name of the stage, of its first table and of its figure: what draws the figure, and what the page says."""


def design_page(
    run: Run, flat: Callable[[dict[str, Any]], list[tuple[str, str]]], embedded: Callable[[Path], str]
) -> bool:
    """Draw the figure and write the page of a run that was analysed as a design of its own; False where none was.

    Parameters
    ----------
    flat : turns nested settings into lines
    embedded : turns a picture into text that a page can hold
    """
    if (run.analysis_dir / "cells.csv").exists():
        return False
    name = next((name for name in PAGES if (run.analysis_dir / f"{name}.csv").exists()), None)
    if name is None:
        return False
    draw, context = PAGES[name]
    with mpl.rc_context(figures.STYLE):
        picture = figures.save(draw(run), run.figures_dir, name)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("design.html").render(
        **context(run),
        picture=embedded(picture),
        version=__version__,
        organism=organism_of(run.settings) is not None,
        provenance=flat(run.settings),
    )
    with atomic(run.report_path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return True
