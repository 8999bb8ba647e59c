"""What was found: the rows of the main tables as claims, which say for themselves what is not told from chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from ..analysis.statistics.multiple import benjamini_hochberg
from ..analysis.statistics.rates import clustered_share
from .claims import GAIN, SCORE, Claim, Columns, Effect, claim_of, holm_line, of_parts
from .optional_findings import optional_findings
from .results import Results
from .words import at_steps, number, with_article

_BASELINES = {
    "prompt": "the words of the prompt",
    "position": "the outline of the finished {noun}",
    "noise": "the initial noise",
    "x_t": "the noisy latents x_t at the {noun}",
    "x0": "the predicted clean latents x0 at the {noun}",
    "x0_flat": "the predicted clean latents x0 of the whole picture",
    "image": "plain statistics of the predicted clean picture (area, contrast, brightness, …)",
    "norm": "the size of the last block's activations",
    "random": "a random direction of the activations",
    "final_image": "plain statistics of the final picture",
    "all": "all other baselines together",
}
"""What each baseline reads; ``{noun}`` is the subject's."""
HONEST = ("x0", "x0_flat", "image", "all")
"""The accounts of the predicted picture in added.csv."""


def findings(results: Results) -> list[Claim]:
    """Every finding that the results allow, the main ones first, and what holds when all count as one family."""
    makers = (_malformed, _primary, _chosen, _separable, _beyond, _length, _when, _other_explanations, _direction,
              _distance, _doubtful)  # fmt: skip
    claims = [claim for make in makers if (claim := make(results)) is not None]
    claims += optional_findings(results)
    return [*claims, holm_line(claims)]


def first_page(claims: list[Claim]) -> list[Claim]:
    """What the first page says: the cell named beforehand, the main question, and what an honest choice is worth."""
    order = ("the cell named beforehand", "a probe", "a chosen cell", "beyond the picture", "everything together")
    return sorted((claim for claim in claims if claim.topic in order), key=lambda claim: order.index(claim.topic))


def baseline_words(results: Results, name: str) -> str:
    """What a baseline reads."""
    return _BASELINES.get(name, name).format(noun=results.subject.noun)


def _malformed(results: Results) -> Claim:
    judged = results.samples.dropna(subset=["bad"])
    share = Effect("", *clustered_share(judged["bad"], judged["prompt"]), unit="%")
    sure = results.probe_of("sure").iloc[0]
    counts = " and ".join(f"{int(sure[f'n_{side}'])} {results.subject.verdicts[side]}" for side in ("good", "bad"))
    notes = [f"The analyses use the {counts} ones whose verdict is sure."]
    unsure = len(results.samples) - len(judged)
    if unsure:
        notes.append(f"{unsure} more could not be judged and are in no analysis.")
    n = f"{int(judged['bad'].sum())} of {len(judged)}, 95% interval over {judged['prompt'].nunique()} prompts"
    says = f"{{estimate}} of the {results.subject.plural} that could be judged are malformed"
    question = f"How many {results.subject.plural} are malformed?"
    return Claim(question, "malformed", says, n, "yes", share, notes=tuple(notes))


def _tells(results: Results, what: str = "a linear probe") -> str:
    subject = results.subject
    scope = "of the same prompt" if results.prefix else "of different prompts, since no prompt has both"
    bad, good = (subject.verdicts[side] for side in ("bad", "good"))
    return f"{what} tells {bad} {subject.plural} from {good} ones {scope}"


def _primary(results: Results) -> Claim | None:
    """The cell that the study file names: one test, which needs no correction."""
    if results.primary is None:
        return None
    block, _, step = results.primary.rpartition("/")
    rows = results.probe_of("sure")
    rows = rows[(rows["block"] == block) & (rows["step"] == int(step))]
    columns = replace(SCORE, prefix=results.prefix, alone=True)
    return claim_of(
        f"Does the cell that was named beforehand, {results.primary}, tell {_pair(results)}?",
        "the cell named beforehand",
        _tells(results, "a linear probe of the cell that the study file names"),
        results.n(results.prefix),
        rows,
        columns,
        size=1,
        reason=f"probes.csv has no cell {results.primary}",
    )


def _chosen(results: Results) -> Claim | None:
    """Choosing the best of many cells flatters it; a choice that does not see what it is judged on does not."""
    rows = results.table("chosen")
    if rows.empty:
        return None
    row = rows[rows["pairs"] == ("within" if results.prefix else "all")].iloc[0]
    question = "How well is it told in a cell that was chosen without the pictures it is judged on?"
    topic, n = "a chosen cell", results.n(results.prefix)
    if pd.isna(row["auc"]):
        return Claim(question, topic, "", n, "not_measured", reason="there is no pair to compare")
    effect = Effect("AUC", row["auc"], row["lo"], row["hi"], 0.5)
    places = pd.Series(str(row["cells"]).split(";")).value_counts()
    folds = ", ".join(f"{name} ({count})" for name, count in places.items())
    says = (
        f"with block and step chosen inside the training folds, anew for each of {int(places.sum())} folds, the "
        "held-out folds have {estimate}"
    )
    flattery = number(max(0.0, row["largest"] - row["auc"]))
    notes = [
        f"Chosen: {folds}. The best of all {int(row['n_cells'])} cells, chosen on what it is shown on, has AUC "
        f"{number(row['largest'])}: it looks better by {flattery}. No test was made of this; its interval "
        + ("holds 0.5." if effect.holds_null else "does not hold 0.5.")
    ]
    return Claim(question, topic, says, n, "chance" if not effect.low > 0.5 else "yes", effect, notes=tuple(notes))


def _pair(results: Results) -> str:
    one = with_article(f"{results.subject.verdicts['bad']} {results.subject.noun}")
    return f"{one} from {with_article(results.subject.verdicts['good'])} one"


def _separable(results: Results) -> Claim:
    rows = results.probe_of("sure")
    return claim_of(
        f"Can the activations tell {_pair(results)}?",
        "a probe",
        _tells(results),
        results.n(results.prefix),
        rows,
        replace(SCORE, prefix=results.prefix),
        notes=[f"Being the largest of {len(rows)}, that AUC is likely a little too high."],
    )


def together(rows: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """One row a cell that asks whether it gains beside all its baselines at once: the least gain, and the largest p.

    Parameters
    ----------
    rows : with block, step, baseline, and after `prefix` added, p and what else a gain has

    Notes
    -----
    All of several null hypotheses can be rejected at a level when each of them is (Berger 1982): so their largest p is
    a p of the whole, whatever they have to do with each other. Then come false discovery rates over the cells.
    """
    found = []
    for _, cell in rows.groupby(["block", "step"], sort=False):
        p = cell[f"{prefix}p"]
        row = cell.loc[cell[f"{prefix}added"].idxmin()].copy() if cell[f"{prefix}added"].notna().all() else cell.iloc[0]
        row = row.copy()
        row[f"{prefix}p"] = p.max() if p.notna().all() else float("nan")
        if f"{prefix}p_floor" in cell:
            row[f"{prefix}p_floor"] = cell[f"{prefix}p_floor"].max()
        found.append(row)
    table = pd.DataFrame(found)
    table[f"{prefix}q"] = benjamini_hochberg(table[f"{prefix}p"].astype(float))
    return table.drop(columns=f"{prefix}p_family", errors="ignore")


def _beyond(results: Results) -> Claim:
    """The honest question: does the block add to every account of what the model would draw if it stopped now?"""
    prefix, block, n = results.prefix, results.best_block, results.n(results.prefix)
    conditional, plain = results.table("conditional"), results.added[results.added["baseline"].isin(HONEST)]
    rows = conditional if len(conditional) else plain
    accounts = [baseline_words(results, name) for name in dict.fromkeys(rows["baseline"])]
    question = "Is it more linearly accessible inside than in the picture that the model predicts at that step?"
    topic = "beyond the picture"
    if rows.empty:
        reason = "no block was compared with the predicted clean picture"
        return Claim(question, topic, "", n, "not_measured", reason=reason)
    cells = together(rows, prefix)
    parts = [
        claim_of(
            question,
            f"beside {baseline_words(results, name)}",
            f"{block} adds to {baseline_words(results, name)}",
            n,
            part[part["block"] == block].sort_values("step", ascending=False),
            replace(GAIN, prefix=prefix),
            size=_tested(results.added, prefix),
            each="step",
            needs_all=True,
        )
        for name, part in plain.groupby("baseline", sort=False)
    ]
    said = f"the verdict is more linearly accessible in {block} than in its predicted picture by these readers"
    notes = [
        f"Accounts that it must add to at the same step: {'; '.join(accounts)}.",
        "A reader is a linear probe of so many samples: that the picture lacks what the block has is not shown.",
        *_joint_words(plain[plain["block"] == block], prefix),
    ]
    return claim_of(
        question,
        topic,
        said,
        n,
        cells[cells["block"] == block].sort_values("step", ascending=False),
        replace(GAIN, prefix=prefix),
        size=_tested(cells, prefix),
        each="step",
        needs_all=True,
        notes=notes,
        parts=[*parts, *_whole_picture(results, n)],
    )


def _joint_words(plain: pd.DataFrame, prefix: str) -> list[str]:
    """At which steps the plain gains beside all accounts are called together."""
    rows = plain.dropna(subset=[f"{prefix}added"])
    if rows.empty:
        return []
    good = (rows[f"{prefix}q"] <= 0.05) & (rows[f"{prefix}added"] > 0)
    steps = good.groupby(rows["step"]).all()
    held = sorted((int(step) for step in steps[steps].index), reverse=True)
    of = rows["baseline"].nunique()
    where = f"called together at {at_steps(held)}" if held else "at no step called together"
    return [f"With one fit to both (added.csv), the gains beside all {of} accounts are {where}; each for itself:"]


def _whole_picture(results: Results, n: str) -> list[Claim]:
    """Whether a probe of the whole predicted picture does better than one of the block, compared at the same steps."""
    rows, block = results.whole_picture, results.best_block
    claim = claim_of(
        "Does a probe of the whole predicted picture tell more than one of the block?",
        f"a probe of the whole predicted picture in place of {block}'s",
        f"a probe of the whole predicted picture tells more than one of {block}",
        n,
        rows[rows["block"] == block].sort_values("step", ascending=False),
        replace(GAIN, prefix=results.prefix),
        size=_tested(rows, results.prefix),
        each="step",
        needs_all=True,
    )
    return [claim] if claim.verdict != "not_measured" else []


def _tested(rows: pd.DataFrame, prefix: str) -> int:
    """How many tests of a table were corrected together."""
    return int(rows[f"{prefix}q"].notna().sum())


def _length(results: Results) -> Claim:
    """One number, the mean length of an instance's tokens in the block itself: does their direction say more?"""
    prefix, block = results.prefix, results.best_block
    rows = results.added_of_best
    rows = rows[rows["baseline"] == "norm"].dropna(subset=[f"{prefix}added"]).sort_values("step", ascending=False)
    notes = []
    if len(rows):
        best = rows.loc[rows[f"{prefix}auc_baseline"].idxmax()]
        gain = replace(GAIN, prefix=prefix, change=None).effect(best)
        notes = [
            f"At best, step {best['step']}, that length alone has AUC {number(best[f'{prefix}auc_baseline'])}; the "
            f"vector's {gain.words()} there."
        ]
    return claim_of(
        "Is it more than how large the activations are?",
        "more than their size",
        f"{results.subject.one}'s mean vector in {block} adds to the mean length of its tokens there",
        results.n(prefix),
        rows,
        replace(GAIN, prefix=prefix),
        size=_tested(results.added, prefix),
        each="step",
        needs_all=True,
        notes=notes,
        reason="no block was compared with the length of its tokens",
    )


def _when(results: Results) -> Claim:
    prefix, block, every = results.prefix, results.best_block, results.probe_of("sure")
    rows = every[every["block"] == block].sort_values("step", ascending=False)
    columns = replace(SCORE, prefix=prefix)
    found = rows.dropna(subset=[prefix + "auc"])
    known = found[columns.called(found)] if len(found) else found
    notes = []
    if len(known):
        early = known.iloc[0]
        notes.append(f"First called at step {early['step']}: {columns.effect(early).words()}. {_leak(results, early)}")
    if len(found) > 1:
        first, last = (columns.effect(found.iloc[place]).words() for place in (0, -1))
        notes.append(
            f"At the noisiest step that was read, {found.iloc[0]['step']}: {first}. At the last, "
            f"{found.iloc[-1]['step']}: {last}."
        )
    return claim_of(
        "When can it be told?",
        "the best block over steps",
        _tells(results, f"a linear probe of {block}, the best block,"),
        results.n(prefix),
        rows,
        columns,
        size=_tested(every, prefix),
        each="step",
        notes=[note.strip() for note in notes],
        parts=_change(results, found) if len(found) > 1 else (),
    )


def _change(results: Results, found: pd.DataFrame) -> list[Claim]:
    """A paired comparison of the first step with the last, where one was made; intervals of both show no change."""
    pairs, prefix, block = results.table("pairs_of_cells"), results.prefix, results.best_block
    first, last = int(found.iloc[0]["step"]), int(found.iloc[-1]["step"])
    prefix = prefix if f"{prefix}difference" in pairs else ""
    topic = f"from step {first} to step {last}"
    rows = pairs
    if len(pairs):
        same = (pairs["block_a"] == block) & (pairs["block_b"] == block)
        rows = pairs[same & (pairs["step_a"].isin([first, last])) & (pairs["step_b"].isin([first, last]))]
    if rows.empty:
        reason = "no paired comparison of steps was made, and the intervals of two steps do not make one"
        return [Claim("", f"a change {topic}", "", results.n(results.prefix), "not_measured", reason=reason)]
    row = rows.iloc[0]
    early, late = ("a", "b") if row["step_a"] == first else ("b", "a")
    change = float(row[f"{prefix}auc_{late}"] - row[f"{prefix}auc_{early}"])
    sign = 1 if change >= 0 else -1
    forth = abs(row[f"{prefix}difference"] - sign * change) < abs(row[f"{prefix}difference"] + sign * change)
    ends = sorted((1 if forth else -1) * row[f"{prefix}{end}"] for end in ("lo", "hi"))
    one = pd.DataFrame([row]).assign(
        **{f"{prefix}difference": abs(change), f"{prefix}lo": ends[0], f"{prefix}hi": ends[1]}
    )
    columns = Columns("difference", prefix, "difference", 0.0, change=(f"auc_{early}", f"auc_{late}"))
    topic = f"a {'rise' if sign > 0 else 'fall'} {topic}"
    return [
        claim_of("", topic, "", results.n(results.prefix), one, columns, size=_tested(pairs, prefix), each="comparison")
    ]


def _leak(results: Results, early: Any) -> str:
    """Which tokens are an instance's is known from the finished picture: does the block know more than that?"""
    prefix, rows = results.prefix, results.added_of_best
    rows = rows[(rows["baseline"] == "position") & (rows["step"] == early["step"])].dropna(subset=[prefix + "added"])
    if rows.empty:
        return ""
    columns = replace(GAIN, prefix=prefix)
    outline = f"the outline of the finished {results.subject.noun}, by which its tokens are chosen"
    gain = columns.effect(rows.iloc[0])
    if columns.called(rows).any() and not gain.holds_null:
        return f"That is more than {outline}, gives away ({gain.words()})."
    return f"That may be a leak: what it adds there to {outline}, is not shown ({gain.words()})."


def _other_explanations(results: Results) -> Claim:
    # Within a prompt its words say nothing, so this one baseline is judged between prompts.
    parts, every = [], []
    size = sum(len(results.baseline(name)) for name in results.baseline_names)
    for name in results.baseline_names:
        prefix = "" if name == "prompt" else results.prefix
        rows = results.baseline(name)
        label = baseline_words(results, name) + (" (between prompts)" if name == "prompt" and results.prefix else "")
        part = claim_of("", label, "", results.n(prefix), rows, replace(SCORE, prefix=prefix), size=size)
        names = {column: column.removeprefix(prefix) for column in rows if prefix and column.startswith(prefix)}
        every.append(rows.drop(columns=list(names.values()), errors="ignore").rename(columns=names))
        parts.append(part)
    return claim_of(
        "What else predicts the verdict?",
        "a baseline",
        "what needs no look inside predicts the verdict too",
        results.n(results.prefix),
        pd.concat(every, ignore_index=True) if every else pd.DataFrame(),
        size=size,
        each="baseline",
        notes=["A probe that is no better may be reading that."],
        parts=parts,
        listed=True,
        reason="no baseline was made",
    )


def _direction(results: Results) -> Claim:
    cells, plural = results.cells, results.subject.plural
    columns = replace(SCORE, prefix="dom_")
    found = cells.dropna(subset=["dom_auc"])
    notes = []
    if len(found):
        called = found[columns.called(found)]
        best = (called if len(called) else found)["dom_auc"].idxmax()
        notes.append(
            f"On the very {plural} that it was fitted to, that direction would score "
            f"{number(cells.loc[best, 'dom_auc_in_sample'])}: an in-sample figure, which is no evidence."
        )
    return claim_of(
        "Is one direction, the difference of means, enough?",
        "the difference of means",
        f"the difference of means separates {plural} of prompts that it was not fitted to",
        results.n(""),
        cells,
        columns,
        notes=notes,
    )


def _distance(results: Results) -> Claim:
    cells = results.cells
    columns = Columns("excess", "db_", "excess", 0.0, "nats")
    found = cells.dropna(subset=["db_excess"])
    notes = []
    if len(found):
        called = found[columns.called(found)]
        best = cells.loc[(called if len(called) else found)["db_excess"].idxmax()]
        notes.append(
            f"There, permuted verdicts give {best['db_null_mean']:.2f} ± {best['db_null_sd']:.2f} nats, so of the raw "
            f"{best['db']:.2f}, an in-sample figure, only the excess counts."
        )
    return claim_of(
        f"How far apart are the two clouds of {results.subject.noun} tokens?",
        "the distance",
        "the Bhattacharyya distance exceeds what permuted verdicts give",
        results.n(""),
        cells,
        columns,
        notes=notes,
    )


def _doubtful(results: Results) -> Claim:
    question, topic = "Is the same called with doubtful labels?", "doubtful labels"
    columns = replace(SCORE, prefix=results.prefix)
    sure, every = (results.probe_of(one) for one in ("sure", "all"))
    counts = [int(rows["n_good"].iloc[0] + rows["n_bad"].iloc[0]) for rows in (sure, every)]
    if counts[0] == counts[1]:
        return Claim(question, topic, "no verdict leans, each is sure or unsure", results.n(""), "no")
    parts = [
        claim_of("", name, "", f"n = {n}", rows, columns, size=_tested(rows, results.prefix))
        for name, n, rows in (("sure verdicts only", counts[0], sure), ("leaning ones too", counts[1], every))
    ]
    says = f"{_tells(results)} with sure verdicts only and with leaning ones too"
    notes = ("Their difference was not tested.",)
    n = f"n = {counts[0]} and {counts[1]}"
    return Claim(question, topic, says, n, of_parts(parts), parts=tuple(parts), notes=notes)
