"""What one study finds on several models, in words, a figure and a page: what does not hold is said first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from .. import figures
from ..comparison.replicate import QUANTITIES, Replication
from ..figures import LEVEL
from ..models.embedded import ORGANISMS
from .paired import Said
from .short import Picture, Shown, write_page
from .words import capital, listed, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDER = {"chance": 0, "partly": 1, "yes": 2}


def replicated_page(found: Replication, out: Path, left_out: Sequence[str] = ()) -> Path:
    """Draw ``figures/replication`` and write ``replication.html`` in a folder.

    Parameters
    ----------
    left_out : models whose study could not be done
    """
    with mpl.rc_context(figures.STYLE):
        path = figures.save(_figure(found), out / "figures", "replication")
    caption = (
        "Each model with its 95% interval over prompts, and the mean with its 95% interval over models. Dotted: none."
    )
    models = found.each.drop_duplicates("run")
    write_page(
        out / "replication.html",
        f"One study, {len(found.runs)} models",
        f"Runs {listed(found.runs)}",
        replicated_findings(found, left_out),
        [Picture(path, "What each model shows, and the mean over models", caption)],
        [_table(found)],
        [(row.run, row.model) for row in models.itertuples()],
        organism=any(model in ORGANISMS for model in models["model"]),
    )
    return out / "replication.html"


def replicated_findings(found: Replication, left_out: Sequence[str] = ()) -> list[Said]:
    """A finding for each quantity, those that hold in the fewest models first."""
    said = [_said(row, found.each[found.each["quantity"] == row["quantity"]]) for _, row in found.over.iterrows()]
    said.sort(key=lambda one: ORDER[one.mark])
    if left_out:
        text = f"The study could not be done on {listed(left_out)}, and nothing is said of these."
        said.insert(0, Said("Which models are missing?", text, "", "not_measured"))
    return said


def _said(row: Any, each: pd.DataFrame) -> Said:
    quantity, runs, shown = QUANTITIES[row["quantity"]], int(row["runs"]), int(row["shown"])
    effect = quantity.null is not None
    clear = effect and (row["hi"] < quantity.null if quantity.less else row["lo"] > quantity.null)
    mark = "chance" if not shown else "yes" if shown == runs and (clear or not effect) else "partly"
    begin = {"chance": "It does not hold in any", "partly": f"It holds in {shown}", "yes": "It holds in each"}[mark]
    if mark == "yes" and runs == 2:
        begin = "It holds in both"
    verb = f"{begin} of {runs} models" if "both" not in begin else "It holds in both models"
    own = "; ".join(f"{one.run} {_words(one)}" for one in each.itertuples())
    brief = f"{verb}, by each model's own numbers: {own}."
    return Said(f"{capital(quantity.words)}", brief, _mean(row, clear if effect else None), mark)


def _mean(row: Any, clear: bool | None) -> str:
    n = int(row["n"])
    if n < 2:
        return "One model with a number says nothing of others." if n else ""
    between = f"standard deviation between models {number(row['between'])}, p of none {row['heterogeneity_p']:.2g}"
    ends = f"{number(row['lo'])} to {number(row['hi'])}"
    text = f"The mean over models is {number(row['mean'])} (95% interval over {n} models {ends}; {between})."
    if clear is None:
        return text
    return f"{text} {'It leaves out that there is none.' if clear else 'That there is none is not left out.'}"


def _words(row: Any) -> str:
    if pd.isna(row.value):
        return "nowhere"
    ends = "" if pd.isna(row.lo) else f" ({number(row.lo)} to {number(row.hi)})"
    return f"{number(row.value)}{ends}"


def _figure(found: Replication) -> Figure:
    names = [name for name in QUANTITIES if name in set(found.over["quantity"])]
    columns = 2
    rows = -(-len(names) // columns)
    drawn = figures.figure(11, rows * (1.1 + 0.3 * len(found.runs)))
    axes = drawn.subplots(rows, columns, squeeze=False).ravel()
    for name, ax in zip(names, axes):
        mine = found.each[found.each["quantity"] == name]
        mean = found.over[found.over["quantity"] == name].iloc[0]
        last = {"model": "mean", "value": mean["mean"], "lo": mean["lo"], "hi": mean["hi"]}
        if not np.isfinite(mean["lo"]):  # one model
            last |= {"lo": mean["mean"], "hi": mean["mean"]}
        shown = pd.concat([mine.assign(model=mine["run"]), pd.DataFrame([last])], ignore_index=True)
        figures.replicated(shown, ax, null=QUANTITIES[name].null)
        ax.set_title(capital(QUANTITIES[name].words), fontsize=9.5)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    return drawn


def _table(found: Replication) -> Shown:
    rows = []
    for _, row in found.over.iterrows():
        mine = found.each[found.each["quantity"] == row["quantity"]].set_index("run")
        each = [_words(mine.loc[run]) if run in mine.index else "–" for run in found.runs]
        mean = "–" if row["n"] < 2 else f"{number(row['mean'])} ({number(row['lo'])} to {number(row['hi'])})"
        rows.append([capital(QUANTITIES[row["quantity"]].words), f"{row['shown']} of {row['runs']}", mean, *each])
    note = (
        "Shown: the model's own numbers say so, for a place that its family-wise test calls a cell; for an AUC, an "
        f"interval above 0.5; for a gain, an interval above 0 and q ≤ {LEVEL}; for triage, an interval below 0; for "
        f"steering, p ≤ {LEVEL} against doing nothing and against each control. The mean over models is of "
        "DerSimonian and Laird, its interval of Hartung and Knapp: it is for further models of this kind on these "
        "prompts. Prompts and noises are the same in all, and what they do to all alike is not in it."
    )
    return Shown("What holds", ["", "Shown", "Mean over models", *found.runs], rows, note)
