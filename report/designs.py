"""The page of a run whose prompts share noises: shorter than that of a run with noises of each prompt's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from .. import figures
from ..models.embedded import organism_of
from .crossed import crossed_context, crossed_figure
from .paired import pair_context, pair_figure
from .short import Picture, Shown, flat, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..run.folder import Run

PAGES: dict[str, tuple[Callable[[Run], Figure], Callable[[Run], dict[str, Any]]]] = {
    "pairs": (pair_figure, pair_context),
    "crossed": (crossed_figure, crossed_context),
}
"""By the name of the stage, of its first table and of its figure: what draws the figure, and what the page says."""


def design_page(run: Run) -> bool:
    """Draw the figure and write the page of a run that was analysed as a design of its own; False where none was."""
    if (run.analysis_dir / "cells.csv").exists():
        return False
    name = next((name for name in PAGES if (run.analysis_dir / f"{name}.csv").exists()), None)
    if name is None:
        return False
    draw, context = PAGES[name]
    with mpl.rc_context(figures.STYLE):
        picture = figures.save(draw(run), run.figures_dir, name)
    said = context(run)
    write_page(
        run.report_path,
        said["title"],
        said["made"],
        said["findings"],
        [Picture(picture, said["alt"], said["caption"])],
        [Shown("The numbers", said["head"], said["rows"], said["note"])],
        flat(run.settings),
        organism_of(run.settings) is not None,
    )
    return True
