"""Runs of several models beside each other, in words, figures and a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from .. import figures
from ..comparison.compare import Comparison
from ..comparison.maps import QUANTITIES
from ..figures import LEVEL
from ..models.embedded import ORGANISMS
from .paired import Said
from .short import Picture, Shown, write_page
from .words import CHANCE, listed, number, percent, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 6
"""Things that a sentence names before the rest are counted."""

DRAWN = 6
"""Pairs of runs whose blocks are drawn."""


def compared_page(found: Comparison, out: Path) -> Path:
    """Draw the figures of a comparison into ``figures/`` of a folder, and write its page, ``compare.html``."""
    drawings = {"maps": (_maps, MAPS_CAPTION), "profiles": (_profiles, PROFILES_CAPTION)}
    if len(found.tables["streams"]):
        drawings["streams"] = (_streams, STREAMS_CAPTION)
    if len(found.tables["carried"]):
        drawings["carried"] = (_carried, CARRIED_CAPTION)
    pictures = []
    for name, (draw, caption) in drawings.items():
        with mpl.rc_context(figures.STYLE):
            path = figures.save(draw(found), out / "figures", name)
        pictures.append(Picture(path, caption.partition(".")[0], caption))
    models = found.tables["summary"].drop_duplicates("run")[["run", "model"]]
    write_page(
        out / "compare.html",
        f"{len(found.runs)} models beside each other",
        f"Runs {listed(found.runs)}",
        compared_findings(found),
        pictures,
        list(_tables(found)),
        [(row.run, row.model) for row in models.itertuples()],
        organism=any(model in ORGANISMS for model in models["model"]),
    )
    return out / "compare.html"


def compared_findings(found: Comparison) -> list[Said]:
    """What the tables allow to be said."""
    said = [_begins(found), _differences(found)]
    pairs = found.tables["pairs"]
    if "cka" in pairs and pairs["cka"].notna().any():
        known = pairs[pairs["cka"].notna()]
        said += [_alike(found, known), _seeds(known)]
        said += [_verdicts(known)] if "verdict_auc" in known and known["verdict_auc"].notna().any() else []
    if len(found.tables["carried"]):
        said.append(_brought(found.tables["carried"]))
    if found.missing:
        reasons = [f"{a} and {b}: {why}" for (a, b), why in found.missing.items()]
        text = f"{'; '.join(reasons[:NAMED])}{f'; and {len(reasons) - NAMED} more' if len(reasons) > NAMED else ''}."
        said.append(Said("Whose streams were not compared?", text, "", "not_measured"))
    return said


def _begins(found: Comparison) -> Said:
    table = found.tables["summary"]
    begins, depth = (table[table["quantity"] == name] for name in ("begins", "peak_depth"))
    some = begins[begins["value"].notna()]
    question = "Where does the signal begin, and where does it peak?"
    brief = (
        f"It begins in {len(some)} of {len(begins)} runs (family-wise p ≤ {LEVEL} over the cells of each)"
        f"{': ' + '; '.join(_at(row) for row in some.head(NAMED).itertuples()) if len(some) else ''}."
    )
    peaks = "; ".join(_at(row) for row in depth.head(NAMED).itertuples())
    detail = (
        f"Relative depth of the block with the highest AUC in the mean over steps: {peaks}. Intervals are 95% of draws "
        "of prompts; that of where it begins leans to noisier steps, since a draw adds noise of its own."
    )
    return Said(question, brief, detail, "yes" if len(some) == len(begins) else "partly" if len(some) else "chance")


def _at(row: Any) -> str:
    ends = "" if pd.isna(row.lo) else f" ({number(row.lo)} to {number(row.hi)})"
    return f"{row.run} {number(row.value)}{ends}"


def _differences(found: Comparison) -> Said:
    table = found.tables["differences"]
    question = "Do the runs differ in that?"
    if table.empty:
        return Said(question, "No two runs have activations to draw prompts of.", "", "not_measured")
    apart = table[(table["lo"] > 0) | (table["hi"] < 0)]
    begin = f"{len(apart)} of {len(table)} differences have a 95% interval without 0, where {0.05 * len(table):.1f}"
    brief = f"{begin} would by chance, were all independent{': ' if len(apart) else '.'}"
    named = [
        f"{row.run_b} less {row.run_a}, {QUANTITIES[row.quantity]}, {signed(row.difference)} ({number(row.lo)} to "
        f"{number(row.hi)})"
        for row in apart.head(NAMED).itertuples()
    ]
    more = f"; and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
    brief += f"{'; '.join(named)}{more}." if named else ""
    detail = "Prompts are drawn together, so that what a prompt does to all runs is no difference. No p was adjusted."
    return Said(question, brief, detail, "partly" if len(apart) else "chance")


def _alike(found: Comparison, pairs: pd.DataFrame) -> Said:
    streams = found.tables["streams"]
    called = streams["cka_p_family"] <= LEVEL
    texts = [
        f"{row.run_a} and {row.run_b} {number(row.cka)} ({number(row.cka_lo)} to {number(row.cka_hi)}; shuffled "
        f"{row.shuffled} {number(row.cka_null)}; n = {row.n:.0f})"
        for row in pairs.head(NAMED).itertuples()
    ]
    tokens = "tokens at the same places" if (pairs["rows"] == "tokens").all() else "means of the subject's tokens"
    brief = f"CKA at equal depth, in the mean over blocks and noise levels: {'; '.join(texts)}."
    maps = [f"{number(row.ridge_ab)} and {number(row.ridge_ba)}" for row in pairs.head(NAMED).itertuples()]
    detail = (
        f"It compares {tokens}, of the same prompts and noises. {percent(called.mean())} of {len(called):,} pairs of "
        f"blocks are more alike than shuffled ones (family-wise p ≤ {LEVEL} for each two runs). Linear maps explain, "
        f"held out, from one to the other and back, R² {'; '.join(maps)}."
    )
    return Said("How alike are the streams of two models?", brief, detail, "yes" if called.all() else "partly")


def _seeds(pairs: pd.DataFrame) -> Said:
    like, other = pairs[pairs["seed_apart"]], pairs[pairs["less_seed"].notna()]
    question = "How much of that does another training seed already make?"
    if like.empty:
        text = "No two runs are said to differ by their training seed alone (--like names them): there is no measure."
        return Said(question, text, "", "not_measured")
    brief = (
        f"Models that differ by their seed alone have a CKA of {number(like['cka'].mean())} in the mean "
        f"({len(like)} pair{'s' if len(like) > 1 else ''})."
    )
    if other.empty:
        return Said(question, brief, "", "partly")
    less = other[other["less_seed_hi"] < 0]
    named = [
        f"{row.run_a} and {row.run_b} {signed(row.less_seed)} "
        f"({number(row.less_seed_lo)} to {number(row.less_seed_hi)})"
        for row in other.head(NAMED).itertuples()
    ]
    detail = (
        f"Less that: {'; '.join(named)}. {len(less)} of {len(other)} intervals, each by itself, lie below 0: these "
        "models differ by more than a seed."
    )
    return Said(question, brief, detail, "yes" if len(less) == len(other) else "partly" if len(less) else "chance")


def _verdicts(pairs: pd.DataFrame) -> Said:
    known = pairs[pairs["verdict_auc"].notna()]
    called = known["verdict_p"] <= LEVEL
    texts = [
        f"{row.run_a} and {row.run_b} AUC {number(row.verdict_auc)} ({number(row.verdict_lo)} to "
        f"{number(row.verdict_hi)}; p = {row.verdict_p:.2g}; n = {row.judged:.0f})"
        for row in known.head(NAMED).itertuples()
    ]
    brief = f"How well the verdict of one tells that of the other among samples of one prompt: {'; '.join(texts)}."
    return Said(
        "Do two models get the same noises wrong?", brief,
        f"In {called.sum()} of {len(known)} pairs more than by chance (p ≤ {LEVEL}, each by itself).",
        "yes" if called.all() else "partly" if called.any() else "chance",
    )  # fmt: skip


def _brought(table: pd.DataFrame) -> Said:
    directions = list(table.groupby(["run_from", "run_to"], sort=False))
    texts, any_called = [], 0
    for (one, other), rows in directions[:NAMED]:
        called = rows["p_family"] <= LEVEL
        best = rows.loc[(rows[called] if called.any() else rows)["auc"].idxmax()]
        any_called += bool(called.any())
        begin = f"{one} to {other}: {called.sum()} of {len(rows)} pairs of blocks" if called.any() else (
            f"{one} to {other}: {CHANCE} in any of {len(rows)} pairs of blocks"
        )  # fmt: skip
        texts.append(
            f"{begin}; most {best['block_from']} to {best['block_to']} at σ {number(best['sigma'])}, AUC "
            f"{number(best['auc'])} ({number(best['lo'])} to {number(best['hi'])}; maps of shuffled pairs "
            f"{number(best['shuffled_mean'])}), {other}'s own probe there {number(best['own_auc'])}, difference "
            f"{signed(best['less_own'])} ({number(best['less_own_lo'])} to {number(best['less_own_hi'])})"
        )
    row = table.iloc[0]
    detail = (
        "A probe is fitted to the samples and verdicts of the first model, and a map from the other's stream to its "
        "own to the same prompts and noises; both are judged on others, and no verdict of the other model is seen. "
        f"Pairs are of one prompt, p family-wise (≤ {LEVEL}) over all blocks and noise levels of a direction "
        f"({row['n_good']:.0f} good and {row['n_bad']:.0f} bad in the first). Being the largest, the AUC that is named "
        "is likely too high. What both models make of a noise is in their streams alike, so that a carried probe can "
        "do well where two models fail at the same noises, without a shared idea of a fault."
    )
    mark = "yes" if any_called == len(texts) else "partly" if any_called else "chance"
    return Said("Does a probe of one model work in another?", f"{'; '.join(texts)}.", detail, mark)


MAPS_CAPTION = (
    "AUC of a linear probe over relative depth and noise level, a panel a run. Relative depth is the place of a "
    "block's output among all blocks of its model; hatched cells are not separable from chance (family-wise p > 0.05)."
)
PROFILES_CAPTION = (
    "The same over depth, in the mean over noise levels, and over noise levels, in the mean over blocks. Bands are 95% "
    "of draws of prompts, the same draws for all runs."
)
STREAMS_CAPTION = (
    "CKA of all pairs of blocks on shared samples, in the mean over noise levels; left as they are, right with samples "
    "shuffled inside prompts. Thin numbers: no noise level at which the two are more alike than shuffled ones."
)
CARRIED_CAPTION = (
    "AUC of carried probes at the noise level of the highest AUC of both directions: rows where they were fitted, "
    "columns where they were read. Thin numbers are not separable from chance (family-wise p > 0.05)."
)


def _maps(found: Comparison) -> Figure:
    cells = found.tables["cells"]
    span = max(0.2, float(np.nanmax(np.abs(cells["auc"] - 0.5))))
    columns = min(3, len(found.runs))
    rows = -(-len(found.runs) // columns)
    drawn = figures.figure(0.8 + 3.6 * columns, 0.5 + 2.7 * rows)
    axes = drawn.subplots(rows, columns, squeeze=False).ravel()
    for place, ax in enumerate(axes):
        if place >= len(found.runs):
            ax.set_axis_off()
            continue
        mine = cells[cells["run"] == found.runs[place]]
        figures.depth_map(mine, ax, span=span, bar=place % columns == columns - 1 or place == len(found.runs) - 1)
        ax.set_title(found.runs[place])
    return drawn


def _profiles(found: Comparison) -> Figure:
    drawn = figures.figure(10.5, 3.6)
    profiles = found.tables["profiles"]
    for place, (x, ax) in enumerate(zip(("depth", "sigma"), drawn.subplots(1, 2, sharey=True))):
        over = profiles[profiles["over"] == x].rename(columns={"at": x})
        lines = {name: over[over["run"] == name] for name in found.runs}
        figures.profiles(lines, ax, x=x, legend=place == 0)
    drawn.axes[0].set_ylabel("AUC")
    return drawn


def _pairs_drawn(table: pd.DataFrame, a: str, b: str) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return list(table.groupby([a, b], sort=False))[:DRAWN]


def _streams(found: Comparison) -> Figure:
    shown = _pairs_drawn(found.tables["streams"], "run_a", "run_b")
    sizes = [0.9 + 0.32 * max(4, min(30, table["block_a"].nunique())) for _, table in shown]
    drawn = figures.figure(11, sum(sizes) + 0.4)
    axes = drawn.subplots(len(shown), 2, squeeze=False, height_ratios=sizes)
    for (names, table), row in zip(shown, axes, strict=True):
        blocks = table.groupby(["block_a", "block_b"], sort=False)
        mean = blocks.agg({"cka": "mean", "cka_null_mean": "mean", "cka_p_family": "min"}).reset_index()
        for ax, value, called in zip(row, ("cka", "cka_null_mean"), ("cka_p_family", None), strict=True):
            figures.block_matrix(mean, value, ax, called=called, label="CKA" if called else "CKA, shuffled")
            ax.set_title(f"{names[0]} (rows), {names[1]}")
    return drawn


def _carried(found: Comparison) -> Figure:
    shown = _pairs_drawn(found.tables["carried"], "run_from", "run_to")
    rows = -(-len(shown) // 2)
    high = max(0.9 + 0.32 * max(4, min(30, table["block_from"].nunique())) for _, table in shown)
    drawn = figures.figure(11, rows * high + 0.4)
    axes = drawn.subplots(rows, 2, squeeze=False).ravel()
    for (names, table), ax in zip(shown, axes):
        best = table.loc[table["auc"].idxmax(), "sigma"]
        figures.block_matrix(table[table["sigma"] == best], "auc", ax, a="block_from", b="block_to", centre=0.5,
                             span=0.3, called="p_family", label="AUC")  # fmt: skip
        ax.set_title(f"{names[0]} (rows) to {names[1]}, σ {best:.2f}")
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    return drawn


def _tables(found: Comparison) -> Iterator[Shown]:
    summary = found.tables["summary"]
    wide = {name: summary[summary["quantity"] == name].set_index("run") for name in QUANTITIES}
    rows = [[run, *(_cell(wide[name].loc[run]) for name in QUANTITIES)] for run in found.runs]
    prompts = wide["level"]["prompts"]
    yield Shown(
        "Where it begins and peaks",
        ["Run", *(what[0].upper() + what[1:] for what in QUANTITIES.values())],
        rows,
        f"Intervals of 95% from {int(prompts.max())} prompts, in which a draw where nothing begins counts as 0; none "
        "where a run has no activations. All are in summary.csv, differences of each two runs in differences.csv.",
    )
    pairs = found.tables["pairs"]
    if "cka" in pairs and pairs["cka"].notna().any():
        known = pairs[pairs["cka"].notna()]
        rows = [
            [
                f"{row.run_a}, {row.run_b}{' (seed)' if row.seed_apart else ''}",
                f"{number(row.cka)} ({number(row.cka_lo)} to {number(row.cka_hi)})", number(row.cka_null),
                f"{number(row.procrustes)} ({number(row.procrustes_null)})",
                f"{number(row.ridge_ab)} ({number(row.ridge_ab_null)})",
                f"{number(row.ridge_ba)} ({number(row.ridge_ba_null)})", f"{row.n:.0f} of {row.prompts:.0f}",
            ]
            for row in known.itertuples()
        ]  # fmt: skip
        head = ["Runs", "CKA", "shuffled", "Procrustes (shuffled)", "R² there (shuffled)", "R² back (shuffled)",
                "Samples of prompts"]  # fmt: skip
        note = (
            "Means over blocks at equal depth and over noise levels. CKA takes the unbiased estimate of HSIC over "
            "samples, each with all its places, so that neither width nor what a place has in all samples counts; "
            "Procrustes distances (0 to 2) and R² are of tokens about the mean of their place, one rotation or map for "
            "all places. Shuffled: samples of one prompt exchanged. All blocks and noise levels are in streams.csv."
        )
        yield Shown("How alike streams are", head, rows, note)


def _cell(row: Any) -> str:
    if pd.isna(row["value"]):
        return CHANCE
    ends = "" if pd.isna(row["lo"]) else f" ({number(row['lo'])} to {number(row['hi'])})"
    return f"{number(row['value'])}{ends}"
