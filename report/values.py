"""A label of several values in words, and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .. import figures
from ..labeling.subject import Values, subject_of
from .claims import Columns
from .words import CHANCE, number, percent, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..run.folder import Run
    from .results import Results

SCORE = Columns("auc")
PANELS = {"all": "Each value from the rest, the mean", "order": "The order of values"}


def told(run: Run) -> str:
    """In how many cells the values are told within prompts, and where best."""
    path = run.analysis_dir / "value_probes.csv"
    return f"{sentences(pd.read_csv(path, dtype={'value': str}), subject_of(run).values)} In {path}"


def sentences(table: pd.DataFrame, asked: Values | None) -> str:
    """What was found of the mean over values, and of their order where it was asked for."""
    names = [name for name in ("all", "order") if name in set(table["value"])]
    return " ".join([*(sentence(table, asked, name) for name in names), _single(table)])


def _single(table: pd.DataFrame) -> str:
    """Which values are told from the rest somewhere."""
    called = table[SCORE.called(table) & ~table["value"].isin(list(PANELS))]
    counts = called["value"].value_counts(sort=False)
    said = ", ".join(f"{name} in {count} cell{'s' if count > 1 else ''}" for name, count in counts.items())
    return f"Single values that are told from the rest: {said or 'none'}."


def sentence(table: pd.DataFrame, asked: Values | None, name: str = "all") -> str:
    """What was found of one of the things that were asked: the mean over values, the order, or one value."""
    mine = table[table["value"] == name].reset_index(drop=True)
    called = SCORE.called(mine, len(table))
    of = asked.of if asked else "the value"
    known = {"all": f"{of} is told", "order": f"the order of {of} is told"}
    what = known.get(name, f"{of} {name} is told from the rest")
    auc = "share in order" if name == "order" else "AUC"
    rows = mine[called] if called.any() else mine
    best = rows.loc[rows["auc"].idxmax()]
    where = f"{place(best)}: {auc} {number(best['auc'])} ({number(best['lo'])} to {number(best['hi'])}"
    counts = f"{best['n_pairs']:,.0f} pairs in {best['n_prompts']:.0f} prompts, n = {best['n']:.0f}"
    if called.any():
        return (
            f"Among samples of one prompt {what} in {called.sum()} of {len(mine)} cells (corrected over {len(table)} "
            f"tests), most in {where}; {counts})."
        )
    return (
        f"It is not shown that among samples of one prompt {what}: {CHANCE} in each of {len(mine)} cells (corrected "
        f"over {len(table)} tests). The largest, in {where}; {counts}), is likely a little too high."
    )


def beside(table: pd.DataFrame, baselines: pd.DataFrame) -> str:
    """How well plain statistics of the predicted picture do; empty where they were not kept."""
    mine = baselines[baselines["value"] == "all"] if len(baselines) else baselines
    if not len(mine):
        return ""
    best = mine.loc[mine["auc"].idxmax()]
    own = table[(table["value"] == "all") & (table["step"] == best["step"])]["auc"].max()
    return (
        " Eight plain numbers of the predicted picture (area, contrast, brightness, …) reach AUC "
        f"{number(best['auc'])} ({number(best['lo'])} to {number(best['hi'])}) at step {best['step']:.0f}, where the "
        f"best block has {number(own)}; their difference was not tested."
    )


def agreement(confusion: pd.DataFrame, values: list[str], row: pd.Series) -> tuple[float, float]:
    """The mean over values of the share that is told rightly in a cell, and what guessing would have."""
    mine = confusion[(confusion["block"] == row["block"]) & (confusion["step"] == row["step"])]
    right = mine[mine["value"] == mine["said"]].groupby("value")["n"].sum()
    shares = right.reindex(mine["value"].unique(), fill_value=0) / mine.groupby("value")["n"].sum()
    return float(shares.mean()), 1 / len(shares)


def section_of(results: Results) -> tuple[str, dict[str, str], tuple[str, ...], list[tuple[str, ...]]]:
    """The text, captions, head and rows of the section."""
    table, asked = results.table("value_probes"), results.subject.values
    table = table.assign(value=table["value"].astype(str))
    confusion = results.table("value_confusion").astype({"value": str, "said": str})
    names = list(dict.fromkeys(table["value"]))
    best = _best(table)
    share, chance = agreement(confusion, names, best)
    text = (
        f"Scores are ridge regressions on the mean activation of the {results.subject.noun}'s tokens, each fold of "
        "prompts from the others. Only samples of one prompt are compared, so that what a prompt asks for cannot help; "
        "values are permuted inside prompts. "
        f"{sentences(table, asked)}{beside(table, results.table('value_baselines'))} In "
        f"{place(best)} the value that scores highest is the right one in {percent(share)} of samples, the mean over "
        f"values, where guessing has {percent(chance)}; between prompts the prompt helps with that, and it is no test."
    )
    rows: list[tuple[str, ...]] = []
    for name in names:
        mine = table[(table["value"] == name)]
        row = mine[(mine["block"] == best["block"]) & (mine["step"] == best["step"])].iloc[0]
        words = {"all": "all, the mean", "order": "their order"}.get(name, name)
        rows.append((
            words, f"{number(row['auc'])} ({number(row['lo'])} to {number(row['hi'])})", f"{row['p_family']:.2g}",
            f"{row['n_of']:.0f}", f"{row['n_pairs']:,.0f} in {row['n_prompts']:.0f}",
        ))  # fmt: skip
    captions = {
        "values": "Held-out AUC within prompts. Hatched cells are not separable from chance.",
        "value_confusion": f"The value of a sample (down) and the one that scores highest in {place(best)} (across).",
    }
    return text, captions, ("Told", f"AUC in {place(best)}", "p, corrected", "Samples", "Pairs in prompts"), rows


def grid_figure(results: Results) -> Figure:
    """AUC within prompts over blocks and steps: the mean over values, and their order where it was asked for."""
    table = results.table("value_probes")
    value = table["value"].astype(str)
    shown = [name for name in PANELS if (value == name).any()]
    wide, high = 1.9 + 0.5 * max(table["step"].nunique(), 6), 1.7 + 0.42 * max(table["block"].nunique(), 4)
    drawn = figures.figure(wide, high * len(shown))
    called = SCORE.corrected(table, len(table))
    for name, ax in zip(shown, drawn.subplots(len(shown), squeeze=False)[:, 0], strict=True):
        figures.grid(table[value == name], "auc", called, ax, centre=0.5, label="AUC within prompts")
        ax.set_title(PANELS[name])
    return drawn


def confusion_figure(results: Results) -> Figure:
    """Values and what was said of them, in the cell with the highest mean AUC."""
    table = results.table("value_probes")
    best = _best(table.assign(value=table["value"].astype(str)))
    confusion = results.table("value_confusion").astype({"value": str, "said": str})
    mine = confusion[(confusion["block"] == best["block"]) & (confusion["step"] == best["step"])]
    asked = results.subject.values
    order = [one for one in (asked.levels if asked else []) if one in set(mine["value"])]
    drawn = figures.figure(1.8 + 0.55 * len(order), 1.4 + 0.45 * len(order))
    figures.confusion(mine, order, drawn.subplots()).set_title(f"{best['block']}, step {best['step']:.0f}")
    return drawn


def _best(table: pd.DataFrame) -> pd.Series:
    every = table[table["value"] == "all"].reset_index(drop=True)
    return every.loc[every["auc"].idxmax()]

