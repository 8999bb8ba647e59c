"""A crossed run in words, and its figure: bad against good samples, prompt and noise held out at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from .. import figures
from ..analysis.statistics.multiple import resolvable
from ..figures import LEVEL
from .paired import Said
from .words import CHANCE, TOO_FEW, place, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..run.folder import Run

SHOWN = 8
"""Cells that the page shows."""


def compared(run: Run) -> str:
    """In how many cells bad and good samples can be told apart, and where best."""
    path = run.analysis_dir / "crossed.csv"
    table = pd.read_csv(path)
    counts = f"{(table['q'] <= LEVEL).sum()} of {len(table)} cells separable (q <= {LEVEL})"
    return (
        f"AUC with prompt and noise held out {table['auc'].min():.2f} to {table['auc'].max():.2f}; {counts}, in {path}"
    )


def crossed_findings(run: Run) -> list[Said]:
    """What the tables of the stage allow to be said."""
    table = pd.read_csv(run.analysis_dir / "crossed.csv")
    questions = (
        ("", "Can bad samples be told from good ones when neither their prompt nor their noise was seen?"),
        ("within_", "And among samples of one prompt?"),
    )
    found = [_told(table, prefix, question) for prefix, question in questions]
    if table["beyond_x0"].notna().any():
        found.append(_beyond(table))
    return found


def _told(table: pd.DataFrame, prefix: str, question: str) -> Said:
    row = table.iloc[0]
    n = f"n = {row['n_good'] + row['n_bad']}, {row['n_prompts']} prompts at {row['n_noises']} noises"
    known = table[f"{prefix}q"] <= LEVEL
    best = table.loc[(table[known] if known.any() else table)[f"{prefix}auc"].idxmax()]
    words = f"{_words(best, prefix)}, in {place(best)}"
    if not known.any():
        few = not resolvable(row[f"{prefix}p_floor"], len(table))
        brief = f"In none of {len(table)} cells: {TOO_FEW if few else CHANCE} ({n})."
        return Said(question, brief, f"The highest AUC: {words}.", "too_few" if few else "chance")
    brief = f"In {known.sum()} of {len(table)} cells (q ≤ {LEVEL}; {n}); best: {words}."
    return Said(question, brief, "Being the highest, it is likely too high.", "yes" if known.all() else "partly")


def _beyond(table: pd.DataFrame) -> Said:
    more, less = int((table["beyond_x0_lo"] > 0).sum()), int((table["beyond_x0_hi"] < 0).sum())
    best = table.loc[table["beyond_x0"].idxmax()]
    most = _gain(best)
    brief = (
        f"A probe of the block has a higher AUC than one of the predicted clean picture of its step in {more} of "
        f"{len(table)} cells, and a lower one in {less} (95% intervals of the difference, each by itself)."
    )
    detail = (
        f"The largest difference is {most}, in {place(best)}. Where it is above none, the verdict is more linearly "
        "accessible in the block; that the picture lacks it does not follow."
    )
    return Said("More than the predicted picture shows?", brief, detail, "partly" if more else "chance")


def _words(row: Any, prefix: str) -> str:
    value, low, high = (f"{row[f'{prefix}{name}']:.2f}" for name in ("auc", "lo", "hi"))
    return f"AUC {value} ({low} to {high}; p = {row[f'{prefix}p']:.2g})"


def _gain(row: Any) -> str:
    value, low, high = (signed(row[f"beyond_x0{end}"]) for end in ("", "_lo", "_hi"))
    return f"{value} ({low} to {high})"


def crossed_figure(run: Run) -> Figure:
    """Held-out AUC in every cell, of pairs of any prompts of a block and of pairs of one prompt."""
    table = pd.read_csv(run.analysis_dir / "crossed.csv")
    width = 1.9 + 0.62 * max(table["step"].nunique(), 4)
    drawn = figures.figure(max(width, 5.0), 2 * (1.5 + 0.42 * max(table["block"].nunique(), 4)))
    titles = (("", "Prompt and noise held out"), ("within_", "Pairs of one prompt, both held out"))
    for ax, (prefix, title) in zip(drawn.subplots(2, 1), titles, strict=True):
        figures.grid(table, f"{prefix}auc", f"{prefix}q", ax, centre=0.5, label="AUC")
        ax.set_title(title)
    return drawn


def crossed_context(run: Run) -> dict[str, Any]:
    """What the page of a crossed run says, but for its figure."""
    table = pd.read_csv(run.analysis_dir / "crossed.csv")
    shown = table.sort_values("auc", ascending=False).head(SHOWN)
    row = table.iloc[0]
    return {
        "title": "Every prompt at every noise",
        "made": f"{row['n_prompts']} prompts at {row['n_noises']} noises, {row['n_good']} good and {row['n_bad']} bad "
        "samples with a sure verdict",
        "findings": crossed_findings(run),
        "alt": "Held-out AUC over blocks and steps, of any pairs and of pairs of one prompt",
        "caption": "AUC of a shrunken discriminant on blocks of prompts and noises, none of which it has seen. Hatched "
        "cells are not separable from chance.",
        "head": ("Cell", "AUC", "p", "q", "Within a prompt", "p", "Beyond the predicted picture"),
        "rows": [
            (
                place(one),
                f"{one['auc']:.2f} ({one['lo']:.2f} to {one['hi']:.2f})",
                f"{one['p']:.2g}",
                f"{one['q']:.2g}",
                f"{one['within_auc']:.2f} ({one['within_lo']:.2f} to {one['within_hi']:.2f})",
                f"{one['within_p']:.2g}",
                "" if pd.isna(one["beyond_x0"]) else _gain(one),
            )
            for _, one in shown.iterrows()
        ],
        "note": f"The {len(shown)} cells with the highest AUC of {len(table)}; all are in analysis/crossed.csv. Labels "
        "were permuted so that they stay as alike within a prompt, and within a noise, as they are.",
    }
