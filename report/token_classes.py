"""Classes of tokens in words, and their figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .. import figures
from .claims import Columns
from .words import CHANCE, number, percent, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..run.folder import Run
    from .results import Results

SCORE = Columns("auc")


def told(run: Run) -> str:
    """In how many cells the tokens of each class are told from the rest of their picture, and where best."""
    path = run.analysis_dir / "class_probes.csv"
    return f"{sentences(pd.read_csv(path, dtype={'class': str}))} In {path}"


def sentences(table: pd.DataFrame) -> str:
    """What was found of each class."""
    return " ".join(_sentence(table, name) for name in dict.fromkeys(table["class"]))


def _sentence(table: pd.DataFrame, name: str) -> str:
    mine = table[table["class"] == name].reset_index(drop=True)
    called = SCORE.called(mine, len(table))
    best = best_of(mine, called)
    where = (
        f"{place(best)}: AUC {number(best['auc'])} ({number(best['lo'])} to {number(best['hi'])}; n = {best['n']:.0f} "
        f"pictures of {best['n_prompts']:.0f} prompts), where its usual place alone has {number(best['place_auc'])}"
    )
    if called.any():
        return (
            f"Tokens of the class {name} are told from others of their picture, beyond where they usually lie, in "
            f"{called.sum()} of {len(mine)} cells (corrected over {len(table)} tests), best in {where}."
        )
    return (
        f"It is not shown that tokens of the class {name} are told from others of their picture, beyond where they "
        f"usually lie: {CHANCE} in each of {len(mine)} cells (corrected over {len(table)} tests). The largest, in "
        f"{where}, is likely a little too high."
    )


def best_of(mine: pd.DataFrame, called: pd.Series | None = None) -> pd.Series:
    """The cell with the highest AUC, of those that are called where some are."""
    called = SCORE.called(mine, len(mine)) if called is None else called
    rows = mine[called] if called.any() else mine
    return rows.loc[rows["auc"].idxmax()]


def section_of(results: Results) -> tuple[str, dict[str, str], tuple[str, ...], list[tuple[str, ...]]]:
    """The text, captions, head and rows of the section."""
    table, baselines = results.table("class_probes"), results.table("class_baselines")
    text = (
        "Scores are ridge regressions of masks on single tokens, both less their mean over the picture, each fold of "
        "prompts from the others. Only tokens of one picture are compared. The test exchanges masks between pictures "
        f"of one prompt, so that where a class usually lies is no evidence. {sentences(table.astype({'class': str}))}"
    )
    rows: list[tuple[str, ...]] = []
    for name, mine in table.astype({"class": str}).groupby("class", sort=False):
        best = best_of(mine.reset_index(drop=True))
        seen = baselines[(baselines["class"].astype(str) == name) & (baselines["step"] == best["step"])]
        picture = (
            f"{number(seen.iloc[0]['auc'])} ({number(seen.iloc[0]['lo'])} to {number(seen.iloc[0]['hi'])})"
            if len(seen) else "not kept"
        )  # fmt: skip
        rows.append((
            f"{name}, {percent(best['share'])} of a picture", place(best),
            f"{number(best['auc'])} ({number(best['lo'])} to {number(best['hi'])})", f"{best['p_family']:.2g}",
            f"{number(best['place_auc'])}", picture,
        ))  # fmt: skip
    captions = {
        "classes": "Held-out AUC of tokens within their picture, less that of the place alone. Hatched cells are not "
        "told from exchanged masks."
    }
    head = ("Class", "Best cell", "AUC there", "p, corrected", "Place alone", "Predicted picture at that step")
    return text, captions, head, rows


def grid_figure(results: Results) -> Figure:
    """What cells have beyond the place alone over blocks and steps, a panel a class: the AUC itself is soon near 1."""
    table = results.table("class_probes").astype({"class": str})
    names = list(dict.fromkeys(table["class"]))
    wide, high = 1.9 + 0.5 * max(table["step"].nunique(), 6), 1.7 + 0.42 * max(table["block"].nunique(), 4)
    drawn = figures.figure(wide, high * len(names))
    called = SCORE.corrected(table, len(table))
    for name, ax in zip(names, drawn.subplots(len(names), squeeze=False)[:, 0], strict=True):
        figures.grid(table[table["class"] == name], "gain", called, ax, centre=0, label="AUC beyond the place alone")
        ax.set_title(f"Tokens of the class {name}")
    return drawn
