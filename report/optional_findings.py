"""Findings from the optional tables, each only where its table is there."""

from __future__ import annotations

import pandas as pd

from ..analysis.statistics.power import power_table
from ..figures import LEVEL
from .results import Results
from .words import CHANCE, Finding, at_steps, auc_words, best_row, counted, percent, place, rounded

SEEN = 0.6
"""The AUC whose being seen is asked for."""

METHOD_NAMES = {"logistic": "logistic", "ridge": "ridge", "mass_mean": "difference of means"}


def optional_findings(results: Results) -> list[Finding]:
    """What the tables that are there allow."""
    makers = (_power, _everywhere, _scopes, _gaussian, _methods, _calibrated, _places, _survey)
    return [finding for make in makers if (finding := make(results)) is not None]


def _power(results: Results) -> Finding | None:
    question, plural = "What could these data have shown?", results.subject.plural
    table = power_table(results.tested, SEEN)
    if table.empty:
        return None
    row = table.iloc[-1]
    n = f"n = {row['n_good'] + row['n_bad']}"
    brief = (
        f"A {row['test']} whose held-out AUC is {SEEN} would be told from chance in one cell with a chance of "
        f"{percent(row['power'])} ({n}); {row['needed']:,} labelled {plural} would give 80%."
    )
    detail = (
        f"To be the first of {row['cells']} cells after correction: {percent(row['power_first'])}, and "
        f"{row['needed_first']:,} {plural} for 80%. Clustering by prompt, pairs not compared, and samples used twice "
        f"in cross-validation make the null's variance {row['design_effect']:.1f} times that of independent samples."
    )
    return Finding(question, brief, detail, "yes" if row["power"] >= 0.8 else "partly")


def _everywhere(results: Results) -> Finding | None:
    """One direction for all cells, and how far each cell's own direction carries."""
    shared, pairs = results.table("shared"), results.table("transfer")
    if shared.empty or pairs.empty:
        return None
    question = "Does one direction do for all blocks and steps?"
    row, n = shared.iloc[0], counted(results.cells.iloc[0])
    text = f"AUC {row['auc']:.2f} ({row['lo']:.2f} to {row['hi']:.2f}"
    away = pairs[(pairs["block_a"] != pairs["block_b"]) | (pairs["step_a"] != pairs["step_b"])]
    known = int((away["q"] <= LEVEL).sum())
    detail = f"A direction fitted in one cell separates another in {known} of {len(away)} pairs of cells (q ≤ {LEVEL})."
    if not row["p"] <= LEVEL:
        brief = f"The mean of all cells' directions is {CHANCE} ({n}), over {int(row['cells'])} cells: {text})."
        return Finding(question, brief, detail, "chance")
    own = results.cells["dom_auc"].mean()
    brief = (
        f"The mean of all cells' directions separates held-out {results.subject.plural} in the mean over "
        f"{int(row['cells'])} cells with {text}; {n}); each cell's own direction does so with {own:.2f}."
    )
    return Finding(question, brief, detail, "yes" if row["auc"] >= own else "partly")


def _scopes(results: Results) -> Finding | None:
    """Local faults, seen in a part of an instance, against global ones, seen only in the whole of it."""
    table = results.table("contrasts")
    if table.empty:
        return None
    question = f"Is it faults of a part of the {results.subject.noun}, or of the whole?"
    said, found = [], []
    for name, rows in table.groupby("contrast", sort=False):
        tested = rows.dropna(subset=["dom_auc"])
        if tested.empty:
            said.append(f"{name}: not tested, since {rows['reason'].iloc[0]}.")
            continue
        known = tested["dom_q"] <= LEVEL
        best = best_row(tested, "dom_auc", known)
        found.append(bool(known.any()))
        where = f"in {known.sum()} of {len(tested)} cells" if known.any() else f"in none of {len(tested)} cells"
        said.append(f"{name}: {where}, the highest in {place(best)}, {auc_words(best, 'dom_')}.")
    mark = "yes" if found and all(found) else "partly" if any(found) else "chance"
    text = " ".join(f"{part[0].upper()}{part[1:]}" for part in said)
    good = f"{results.subject.verdicts['good']} {results.subject.plural}"
    return Finding(question, f"Told from {good} by the difference of means: {text}", "", mark)


def _gaussian(results: Results) -> Finding | None:
    table = results.table("gaussianity")
    if table.empty:
        return None
    question = "Are the clouds as Gaussian as the distance takes them to be?"
    unfit = table["reason"].notna()
    n = counted(results.cells.iloc[0])
    if not unfit.any():
        brief = f"In all {len(table)} cells nothing was found against it ({n})."
        return Finding(question, brief, "", "yes")
    worst = table.loc[(table["llr_auc_implied"] - table["llr_auc"]).idxmax()]
    brief = (
        f"Not in {unfit.sum()} of {len(table)} cells ({n}), so a distance in nats there ranks cells at best, and its "
        "Bayes error means nothing."
    )
    detail = (
        f"Furthest off in {place(worst)}: the model implies an AUC of {worst['llr_auc_implied']:.2f} for single "
        f"tokens, and reaches {worst['llr_auc']:.2f} on {results.subject.plural} that it was not fitted to. There, "
        f"{worst['reason']}."
    )
    return Finding(question, brief, detail, "no" if unfit.all() else "partly")


def _methods(results: Results) -> Finding | None:
    """Other linear probes beside the logistic one, in the cell where that is best."""
    table, prefix = results.table("methods"), results.prefix
    if table.empty:
        return None
    question = "Does the answer hang on the kind of probe?"
    logistic = results.probe_of("sure").assign(method="logistic")
    every = pd.concat([logistic, table], ignore_index=True)
    counts = {
        str(name): (int((rows[prefix + "q"] <= LEVEL).sum()), len(rows))
        for name, rows in every.groupby("method", sort=False)
    }
    best = best_row(logistic, prefix + "auc", logistic[prefix + "q"] <= LEVEL)
    there = every[(every["block"] == best["block"]) & (every["step"] == best["step"])]
    same = len({found > 0 for found, _ in counts.values()}) == 1
    parts = ", ".join(f"{METHOD_NAMES.get(name, name)} {found} of {cells}" for name, (found, cells) in counts.items())
    brief = f"{'No' if same else 'Yes'}: cells that can be told from chance (q ≤ {LEVEL}): {parts}."
    detail = " ".join(
        f"{METHOD_NAMES.get(str(row['method']), str(row['method'])).capitalize()}: {auc_words(row, prefix)}."
        for _, row in there.iterrows()
    )
    detail = f"In {place(best)}, where the logistic probe is best. {detail}"
    return Finding(question, brief, detail, "no" if same else "partly")


def _calibrated(results: Results) -> Finding | None:
    table = results.table("calibration")
    if table.empty:
        return None
    question = "May the probe's probabilities be believed?"
    n, said, off = counted(results.probe_of("sure").iloc[0]), [], []
    for name, words in (("raw", "as fitted"), ("platt", "after calibration inside the training folds")):
        rows = table[table["log_odds"] == name]
        if rows.empty:
            continue
        bad = int((rows["q"] <= LEVEL).sum())
        off.append(bad)
        said.append(
            f"{words}, they are off by more than chance in {bad} of {len(rows)} cells (median error "
            f"{percent(rows['ece'].median())}, of which {percent(rows['null_mean'].median())} would be there by chance)"
        )
    brief = f"{'; '.join(said)}; {n}."
    mark = "yes" if off[-1] == 0 else "partly" if off[-1] < len(table) / 4 else "no"
    return Finding(question, f"{brief[0].upper()}{brief[1:]}", "", mark)


def _places(results: Results) -> Finding | None:
    """A probe of the block with its places kept, beside one of the whole predicted picture, with a permutation null."""
    rows = results.table("block_flat")
    rows = rows[rows["block"] == results.best_block].sort_values("step", ascending=False) if len(rows) else rows
    name = "with the places of its tokens kept"
    if rows.empty:
        rows = results.table("conditional")
        if len(rows):
            rows = rows[(rows["block"] == results.best_block) & (rows["baseline"] == "x0_flat")]
        rows = rows.sort_values("step", ascending=False) if len(rows) else rows
        name = f"as the mean of {results.subject.one}'s tokens"
        added, p = results.prefix + "added", results.prefix + "q"
    else:
        added, p = "conditional_added", "conditional_p"
    rows = rows.dropna(subset=[added]) if len(rows) else rows
    if rows.empty:
        return None
    question = "Fitted to what the predicted picture leaves, does the block say more than by chance?"
    n = counted(results.probe_of("sure").iloc[0])
    known = rows[p] <= LEVEL
    best = best_row(rows, added, known)
    most = f"the largest gain is {rounded(best[added], '+')} at step {int(best['step'])}"
    what = f"what {results.best_block}, {name}, adds to a probe of the whole predicted picture"
    if not known.any():
        brief = f"These data do not show it: {what} is {CHANCE} ({n}) at every step; {most}."
        return Finding(question, brief, "", "chance")
    brief = f"{what[0].upper()}{what[1:]} can be told from chance at {at_steps(rows.loc[known, 'step'])} ({n}); {most}."
    return Finding(question, brief, "", "yes" if known.all() else "partly")


def _survey(results: Results) -> Finding | None:
    table = results.table("survey")
    if table.empty:
        return None
    question = "Where, over all blocks and all steps?"
    known = table["ridge_q"] <= LEVEL
    best = best_row(table, "ridge_auc", known)
    n = counted(best)
    if not known.any():
        brief = f"Nowhere: a ridge probe is {CHANCE} ({n}) in every one of {len(table)} cells."
        return Finding(question, brief, f"The highest AUC is {best['ridge_auc']:.2f}, {place(best)}.", "chance")
    distant = int((table["db_q"] <= LEVEL).sum())
    brief = (
        f"A ridge probe separates in {known.sum()} of {len(table)} cells (q ≤ {LEVEL}), most in {place(best)}: "
        f"{auc_words(best, 'ridge_')}."
    )
    detail = (
        f"Being the highest of {len(table)}, that AUC is likely too high. The distance exceeds its null in {distant} "
        "cells; directions of two halves of the prompts have a cosine of "
        f"{rounded(table['split_cosine'].median())} in the median cell."
    )
    return Finding(question, brief, detail, "yes")
