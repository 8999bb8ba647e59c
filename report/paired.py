"""A paired run in words, and its figure: what the one difference between two prompts does at equal noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from .. import figures
from ..analysis.statistics.multiple import resolvable
from ..figures import LEVEL
from ..run.design import design_of, difference
from .words import CHANCE, TOO_FEW, number, percent, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..run.folder import Run

@dataclass(frozen=True)
class Said:
    """A question and what the numbers answer; `mark` is a verdict, as that of `Claim`."""

    question: str
    brief: str
    detail: str
    mark: str


SHOWN = 8
"""Pairs of prompts that are named before the rest are counted."""


def compared(run: Run) -> str:
    """In how many cells the members of pairs can be told apart, and where most."""
    path = run.analysis_dir / "pairs.csv"
    table = pd.read_csv(path)
    known = table["q"] <= LEVEL
    best = _largest(table, known)
    return (
        f"{known.sum()} of {len(table)} cells tell the members of {best['n_pairs']} pairs apart (q <= {LEVEL}); most "
        f"in {place(best)}: d_z {best['dz']:.2f} ({best['dz_lo']:.2f} to {best['dz_hi']:.2f}), in {path}"
    )


def differing(run: Run) -> list[str]:
    """What differs between the prompts of each pair: ``“two” and “three”``."""
    pairs = design_of(run.samples(), run.path).pairs
    return [", ".join(f"“{one}” and “{other}”" for one, other in difference(*pair)) for pair in pairs]


def effect_words(row: Any) -> str:
    """``d_z 1.20 (0.80 to 1.60), 94% of pairs (80% to 99%), p = 0.0001``."""
    return (
        f"d_z {number(row['dz'])} ({number(row['dz_lo'])} to {number(row['dz_hi'])}), the second further along in "
        f"{percent(row['within_auc'])} of held-out pairs ({percent(row['within_lo'])} to {percent(row['within_hi'])}; "
        f"p = {row['p']:.2g})"
    )


def pair_findings(run: Run) -> list[Said]:
    """What the tables of the stage allow to be said."""
    table = pd.read_csv(run.analysis_dir / "pairs.csv")
    found = [_where(run, table)]
    for maker, name in ((_picture, "pair_pictures"), (_verdicts, "pair_verdicts")):
        path = run.analysis_dir / f"{name}.csv"
        if path.exists():
            found.append(maker(table, pd.read_csv(path)))
    return found


def _where(run: Run, table: pd.DataFrame) -> Said:
    differ = differing(run)
    named = "; ".join(differ[:SHOWN]) + (f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else "")
    row = table.iloc[0]
    n = f"n = {row['n_pairs']} pairs" + ("" if row["units"] == row["n_pairs"] else f" of {row['units']} prompt pairs")
    question = f"What does the difference between {named} do at equal noise?"
    known = table["q"] <= LEVEL
    best = _largest(table, known)
    if not known.any():
        few = not resolvable(row["p_floor"], len(table))
        why = f"{TOO_FEW}, whose smallest p is {row['p_floor']:.2g}" if few else CHANCE
        brief = f"Its members cannot be told apart in any of {len(table)} cells: {why} ({n})."
        largest = f"The largest effect: {effect_words(best)}, in {place(best)}."
        return Said(question, brief, largest, "too_few" if few else "chance")
    brief = (
        f"In {known.sum()} of {len(table)} cells, held-out pairs differ along the direction of the other pairs "
        f"(q ≤ {LEVEL}; {n}). Most in {place(best)}: {effect_words(best)}."
    )
    family = int((table["p_family"] <= LEVEL).sum())
    detail = (
        f"With any error at all among the cells at {percent(LEVEL)}, {family} remain. Being the largest of "
        f"{len(table)}, that effect is likely too large; directions from more pairs would make all of them larger."
    )
    return Said(question, brief, detail, "yes" if known.all() else "partly")


def _picture(table: pd.DataFrame, pictures: pd.DataFrame) -> Said:
    question = "Does the picture show it by then?"
    x0 = pictures[pictures["baseline"] == "x0"].set_index("step")
    early = x0.loc[x0.index.max()]
    more, less = int((table["beyond_x0_lo"] > 0).sum()), int((table["beyond_x0_hi"] < 0).sum())
    brief = (
        f"At the noisiest step that was read, {int(early.name)}, the predicted clean picture has {effect_words(early)}."
    )
    detail = (
        f"Beside the predicted picture of its step, d_z is larger in {more} of {len(table)} cells and smaller in "
        f"{less} (95% intervals of the difference, each by itself). Where it is larger, the prompt's difference is "
        "more linearly accessible there; that the picture lacks it does not follow."
    )
    return Said(question, brief, detail, "partly")


def _verdicts(table: pd.DataFrame, verdicts: pd.DataFrame) -> Said:
    row = verdicts.iloc[0]
    question = "Does it change how often the result is bad?"
    between = f"{number(100 * row['lo'], '+')} to {number(100 * row['hi'], '+')}"
    if pd.isna(row["lo"]) or row["hi"] - row["lo"] >= 2:
        between = "no interval from one unit"
    brief = (
        f"Bad are {percent(row['rate_first'])} of the first members and {percent(row['rate_second'])} of the second, "
        f"{number(100 * row['difference'], '+')} points ({between}; p = {row['p']:.2g}; n = {int(row['n'])} pairs "
        "with a sure verdict on both)."
    )
    return Said(question, brief, "", "yes" if row["p"] <= LEVEL else "chance")


def pair_figure(run: Run) -> Figure:
    """Effects in blocks, and below in the latents, over steps."""
    table = pd.read_csv(run.analysis_dir / "pairs.csv")
    path = run.analysis_dir / "pair_pictures.csv"
    if path.exists():
        table = pd.concat([table, pd.read_csv(path).rename(columns={"baseline": "block"})], ignore_index=True)
    drawn = figures.figure(2.2 + 0.62 * max(table["step"].nunique(), 4), 1.4 + 0.7 * table["block"].nunique())
    label = "Difference of held-out pairs over its spread (d_z)"
    figures.effects(table, "dz", drawn.subplots(), label=label)
    return drawn


def pair_context(run: Run) -> dict[str, Any]:
    """What the page of a paired run says, but for its figure."""
    table = pd.read_csv(run.analysis_dir / "pairs.csv")
    shown = table.sort_values("dz", ascending=False).head(SHOWN)
    row = table.iloc[0]
    return {
        "title": "Two prompts at the same noise",
        "made": f"{row['n_pairs']} pairs of pictures, {_prompt_pairs(len(differing(run)))}",
        "findings": pair_findings(run),
        "alt": "Effect of the difference between the prompts in each block over steps, with intervals",
        "caption": "A row for each block, and for what the latents show (x_t, noisy; x0, predicted clean): the mean "
        "difference of held-out pairs along the direction of the other pairs, over its standard deviation, with 95% "
        "intervals. Rows share one scale and begin at 0.",
        "head": ("Cell", "d_z", "Pairs that go the way others do", "AUC of members", "p", "q", "p over all cells"),
        "rows": [
            (
                place(one),
                f"{number(one['dz'])} ({number(one['dz_lo'])} to {number(one['dz_hi'])})",
                f"{percent(one['within_auc'])} ({percent(one['within_lo'])} to {percent(one['within_hi'])})",
                f"{one['auc']:.2f} ({one['lo']:.2f} to {one['hi']:.2f})",
                f"{one['p']:.2g}",
                f"{one['q']:.2g}",
                f"{one['p_family']:.2g}",
            )
            for _, one in shown.iterrows()
        ],
        "note": f"The {len(shown)} cells with the largest effect of {len(table)}; all are in analysis/pairs.csv. The "
        f"smallest p that so many pairs allow is {row['p_floor']:.2g}. Vectors are means over the "
        f"{row['tokens']:.0f} tokens (in the mean) that both members have. Intervals are of the delete-one jackknife "
        "with every direction fitted again; in simulations they held in 94% to 100%.",
    }


def _largest(table: pd.DataFrame, known: pd.Series) -> Any:
    """The cell with the largest effect among those that are called, or of all where none is."""
    return table.loc[(table[known] if known.any() else table)["dz"].idxmax()]


def _prompt_pairs(count: int) -> str:
    return "of one pair of prompts" if count == 1 else f"of {count} pairs of prompts"
