"""Findings from the optional tables, each only where its table is there."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from ..analysis.statistics.multiple import benjamini_hochberg, resolvable
from ..analysis.statistics.power import detectable, power_table
from ..figures import LEVEL
from .accessible import accessible
from .claims import GAIN, SCORE, TARGET, Claim, Columns, Verdict, claim_of, of_parts
from .outcomes import decided_later, mended, patched
from .results import Results
from .words import number, percent, place

SEEN = 0.6
"""The AUC whose being seen is asked for."""

METHOD_NAMES = {"logistic": "logistic", "ridge": "ridge", "mass_mean": "difference of means"}


def optional_findings(results: Results) -> list[Claim]:
    """What the tables that are there allow."""
    makers = (
        _power, _everywhere, _scopes, _gaussian, _methods,
        _calibrated, _places, accessible, _survey, _patched, _later, _mended,
    )  # fmt: skip
    return [claim for make in makers for claim in make(results)]


def _power(results: Results) -> list[Claim]:
    tested = [one for one in results.tested if one[1][f"{one[2]}null_sd"].notna().any()]
    if not tested:
        return []
    row = power_table(tested, SEEN).iloc[-1]
    alone, first = (detectable(row["null_sd"], 0.5, LEVEL / tests, TARGET) for tests in (1, row["cells"]))
    floor = float(row.get("p_floor", float("nan")))
    coarse = floor == floor and not resolvable(floor, int(row["cells"]), LEVEL)
    first_of = (
        f"as the only one of {row['cells']} cells none would be, whatever its AUC, for want of permutations"
        if coarse
        else f"as the first of {row['cells']} cells after correction, {_seen(first)}"
    )
    says = f"with a chance of {percent(TARGET)} one cell named beforehand would be told with {_seen(alone)}; {first_of}"
    notes = [
        f"For an AUC of {SEEN} the chance is {percent(row['power'])} in one cell, and it takes {row['needed']:,} "
        f"labelled {results.subject.plural} to make it {percent(TARGET)}; as the first of {row['cells']}, "
        f"{percent(row['power_first'])} and {row['needed_first']:,}.",
        "Clustering by prompt, pairs not compared, and samples used twice in cross-validation make the null's variance "
        f"{row['design_effect']:.1f} times that of independent samples.",
    ]
    verdict: Verdict = "yes" if row["power"] >= TARGET else "partly"
    n = results.n(results.prefix)
    return [Claim("What could these data have shown?", "power", says, n, verdict, notes=tuple(notes))]


def _seen(auc: float) -> str:
    return f"an AUC of {number(auc)} or more" if auc < 1 else "no AUC at all"


def _everywhere(results: Results) -> list[Claim]:
    """One direction for all cells, and how far each cell's own direction carries."""
    shared, pairs = results.table("shared"), results.table("transfer")
    if shared.empty or pairs.empty:
        return []
    away = pairs[(pairs["block_a"] != pairs["block_b"]) | (pairs["step_a"] != pairs["step_b"])]
    n, cells = results.n(""), int(shared.iloc[0]["cells"])
    carried = claim_of(
        "", "a direction fitted in one cell, in another", "", n, away, replace(SCORE, name="AUC"),
        size=int(pairs["q"].notna().sum()), each="pair",
    )  # fmt: skip
    own = results.cells["dom_auc"].mean()
    claim = claim_of(
        "Does one direction do for all blocks and steps?",
        "one direction for all",
        f"the mean of all cells' directions separates {results.subject.plural} of prompts that it was not fitted to, "
        f"in the mean over {cells} cells",
        n,
        shared,
        replace(SCORE, alone=True),
        notes=[f"Each cell's own direction has {number(own)} in the mean."],
        parts=[carried],
    )
    return [claim]


def _scopes(results: Results) -> list[Claim]:
    """Local faults, seen in a part of an instance, against global ones, seen only in the whole of it."""
    table = results.table("contrasts")
    if table.empty:
        return []
    claims = []
    good = f"{results.subject.verdicts['good']} {results.subject.plural}"
    of = {"local": f"a part of the {results.subject.noun}", "global": f"the whole of the {results.subject.noun}"}
    for name, rows in table.groupby("contrast", sort=False):
        faults = f"faults of {of.get(str(name), str(name))}"
        reason = rows["reason"].iloc[0] if rows["dom_auc"].isna().all() else ""
        claims.append(
            claim_of(
                f"Are {faults} alone told from {good}?",
                f"{name} faults",
                f"the difference of means tells {results.subject.plural} whose faults are all {name} from {good}",
                f"n = {int(rows['n_good'].iloc[0] + rows['n_bad'].iloc[0])}",
                rows,
                replace(SCORE, prefix="dom_"),
                size=int(rows["dom_q"].notna().sum()),
                reason=str(reason),
            )
        )
    return claims


def _gaussian(results: Results) -> list[Claim]:
    table = results.table("gaussianity")
    if table.empty:
        return []
    question, topic = "Are the clouds as Gaussian as the distance takes them to be?", "Gaussian clouds"
    unfit = table["reason"].notna()
    n = results.n("")
    if not unfit.any():
        return [Claim(question, topic, f"in all {len(table)} cells nothing was found against it", n, "yes")]
    worst = table.loc[(table["llr_auc_implied"] - table["llr_auc"]).idxmax()]
    says = (
        f"not in {unfit.sum()} of {len(table)} cells, where a distance in nats ranks cells at best, and its Bayes "
        "error means nothing"
    )
    note = (
        f"Furthest off in {place(worst)}: the model implies an AUC of {number(worst['llr_auc_implied'])} for single "
        f"tokens, and reaches {number(worst['llr_auc'])} on {results.subject.plural} that it was not fitted to. There, "
        f"{worst['reason']}. No test was made of this."
    )
    return [Claim(question, topic, says, n, "no" if unfit.all() else "partly", notes=(note,))]


def _methods(results: Results) -> list[Claim]:
    """Other linear probes beside the logistic one; what one calls and another does not was not compared by a test."""
    table, prefix = results.table("methods"), results.prefix
    if table.empty:
        return []
    n, columns = results.n(prefix), replace(SCORE, prefix=prefix)
    every = {"logistic": results.probe_of("sure")} | dict(list(table.groupby("method", sort=False)))
    parts = [
        claim_of("", f"{METHOD_NAMES.get(str(name), str(name))} probe", "", n, rows, columns)
        for name, rows in every.items()
    ]
    claim = Claim(
        "Do other linear probes tell it too?",
        "kinds of probe",
        "every kind of linear probe that was tried tells it in some cell",
        n,
        of_parts(parts),
        parts=tuple(parts),
        notes=("What one kind calls and another does not is no test of their difference.",),
    )
    return [claim]


def _calibrated(results: Results) -> list[Claim]:
    """Here what a test calls is a fault."""
    table, claims = results.table("calibration"), []
    for name, words in (("raw", "as fitted"), ("platt", "calibrated inside the training folds")):
        rows = table[table["log_odds"] == name] if len(table) else table
        if rows.empty:
            continue
        rows = rows if "excess" in rows else rows.assign(excess=rows["ece"] - rows["null_mean"])
        note = (
            f"The median error is {percent(rows['ece'].median())}, of which {percent(rows['null_mean'].median())} "
            "would be there by chance."
        )
        claims.append(
            claim_of(
                f"Are the probe's stated probabilities off, {words}?",
                f"probabilities {words}",
                f"probabilities, {words}, are off by more than chance",
                results.n(""),
                rows,
                Columns("excess", "", "excess error", 0.0, "%", opposed=False),
                notes=[note],
            )
        )
    return claims


def _places(results: Results) -> list[Claim]:
    """A probe of the block with its places kept, beside one of the whole predicted picture, with a permutation null."""
    table, block = results.table("block_flat"), results.best_block
    if table.empty:
        return []
    prefix = "conditional_"
    if f"{prefix}q" not in table:
        table = table.assign(**{f"{prefix}q": benjamini_hochberg(table[f"{prefix}p"])})
    claim = claim_of(
        "With the places of its tokens kept, does the block add to the whole predicted picture?",
        "places kept",
        f"{block}, with the places of its tokens kept, adds to a linear probe of the whole predicted picture",
        results.n(""),
        table[table["block"] == block].sort_values("step", ascending=False),
        replace(GAIN, prefix=prefix, change=None),
        size=int(table[f"{prefix}q"].notna().sum()),
        each="step",
        needs_all=True,
    )
    return [claim]


def _survey(results: Results) -> list[Claim]:
    table = results.table("survey")
    if table.empty:
        return []
    distance = claim_of(
        "", "the distance", "", results.n(""), table, Columns("excess", "db_", "excess", 0.0, "nats"),
    )  # fmt: skip
    notes = [f"Being the largest of {len(table)}, that AUC is likely too high."]
    cosine = table["split_cosine"].median()
    if not pd.isna(cosine):
        notes.append(f"Directions of two halves of the prompts have a cosine of {number(cosine)} in the median cell.")
    claim = claim_of(
        "Where, over all blocks and all steps?",
        "a survey of all cells",
        "a ridge probe separates the samples of prompts that it was not fitted to",
        f"n = {int(table['n_good'].iloc[0] + table['n_bad'].iloc[0])}",
        table,
        replace(SCORE, prefix="ridge_"),
        notes=notes,
        parts=[distance],
    )
    return [claim]


def _patched(results: Results) -> list[Claim]:
    table = results.table("patch")
    return [] if table.empty else [patched(table)]


def _later(results: Results) -> list[Claim]:
    table = results.table("commitment_summary")
    return [] if table.empty else [decided_later(table, results.subject)]


def _mended(results: Results) -> list[Claim]:
    table = results.table("arms")
    return [] if len(table) < 2 else [mended(table, results.subject)]
