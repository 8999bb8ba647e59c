"""What was found, in words that follow the numbers, and what could not be told from chance, in those words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..analysis.statistics.rates import wilson
from ..figures import LEVEL
from .optional_findings import optional_findings
from .results import Results, separable
from .words import CHANCE, Finding, at_steps, auc_words, best_row, counted, percent, place, rounded, with_article

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


def findings(results: Results) -> list[Finding]:
    """Every finding that the results allow, the main ones first."""
    makers = (_malformed, _separable, _beyond, _length, _when, _other_explanations, _direction, _distance, _doubtful)
    return [*(make(results) for make in makers), *optional_findings(results)]


def baseline_words(results: Results, name: str) -> str:
    """What a baseline reads."""
    return _BASELINES.get(name, name).format(noun=results.subject.noun)


def _malformed(results: Results) -> Finding:
    judged = results.samples.dropna(subset=["bad"])
    bad, n = int(judged["bad"].sum()), len(judged)
    low, high = wilson(bad, n)
    unsure = len(results.samples) - n
    sure = results.probe_of("sure").iloc[0]
    brief = f"{percent(bad / n)} (95% interval {percent(low)} to {percent(high)}): {bad} of {n}."
    counts = " and ".join(f"{int(sure[f'n_{side}'])} {results.subject.verdicts[side]}" for side in ("good", "bad"))
    detail = f"The analyses use the {counts} ones whose verdict is sure."
    if unsure:
        detail += f" {unsure} more could not be judged and are in no analysis."
    return Finding(f"How many {results.subject.plural} are malformed?", brief, detail, "yes")


def _separable(results: Results) -> Finding:
    subject = results.subject
    good, bad = subject.verdicts["good"], subject.verdicts["bad"]
    one = with_article(f"{bad} {subject.noun}")
    question = f"Can the activations tell {one} from {with_article(good)} one?"
    column, rows = results.prefix + "auc", results.probe_of("sure")
    known = rows[results.prefix + "q"] <= LEVEL
    best = best_row(rows, column, known)
    scope = "of the same prompt" if results.prefix else "of different prompts, since no prompt has both"
    if not known.any():
        brief = (
            f"A linear probe cannot tell {bad} {subject.plural} from {good} ones {scope}: {CHANCE} ({counted(best)}) "
            f"in every one of {len(rows)} cells."
        )
        return Finding(question, brief, f"The highest AUC is {best[column]:.2f}, {place(best)}.", "chance")
    brief = (
        f"Yes, a linear probe tells {bad} {subject.plural} from {good} ones {scope} in {known.sum()} of {len(rows)} "
        f"cells (q ≤ {LEVEL}), best in {place(best)}: {auc_words(best, results.prefix)}."
    )
    return Finding(question, brief, f"Being the best of {len(rows)}, that number is likely a little too high.", "yes")


def _beyond(results: Results) -> Finding:
    """The honest question: is there more in the block than in what the model would draw if it stopped now?"""
    question = "Does it know more than its own half-finished picture shows?"
    prefix, block, n = results.prefix, results.best_block, counted(results.probe_of("sure").iloc[0])
    gains: dict[str, bool] = {}
    parts = []
    for name in HONEST:
        rows = results.added_of_best
        rows = rows[rows["baseline"] == name].dropna(subset=[prefix + "added"]).sort_values("step", ascending=False)
        if len(rows):
            known = (rows[prefix + "q"] <= LEVEL) & (rows[prefix + "added"] > 0)
            gains[baseline_words(results, name)] = bool(known.any())
            parts.append(_gain_words(rows, known, baseline_words(results, name), prefix, n))
    detail = " ".join(parts)
    whole = _whole_picture(results, n)
    if not parts:
        brief, mark = "This was not measured: no block was compared with the predicted clean picture.", "chance"
    elif all(gains.values()):
        brief = f"Yes: {block} adds to every account of the picture that the model predicts at that step ({n})."
        mark = "yes"
    elif not any(gains.values()):
        brief = (
            f"These data do not show it: what {block} adds to the picture that the model predicts at that step is "
            f"{CHANCE} ({n})."
        )
        mark = "chance"
    else:
        beaten, unbeaten = ([name for name, gain in gains.items() if gain is side] for side in (True, False))
        brief = (
            f"Only in part: {block} adds to {' and to '.join(beaten)}; what it adds to {' and to '.join(unbeaten)} is "
            f"{CHANCE} ({n})."
        )
        mark = "partly"
    return Finding(question, f"{brief} {whole}".strip(), detail, mark)


def _whole_picture(results: Results, n: str) -> str:
    """Whether a probe of the whole predicted picture does better than one of the block, compared at the same steps."""
    prefix, rows = results.prefix, results.whole_picture
    rows = rows[rows["block"] == results.best_block].dropna(subset=[prefix + "added"])
    known = rows[(rows[prefix + "q"] <= LEVEL) & (rows[prefix + "added"] > 0)].sort_values("step", ascending=False)
    if known.empty:
        return ""
    best = known.loc[known[prefix + "added"].idxmax()]
    gain, low, high = (rounded(best[prefix + column], "+") for column in ("added", "lo", "hi"))
    return (
        f"A probe of the whole predicted picture tells more than one of {results.best_block} at "
        f"{at_steps(known['step'])}, most at step {best['step']}: AUC {best[prefix + 'auc_both']:.2f} against "
        f"{best[prefix + 'auc_baseline']:.2f} ({gain}, {low} to {high}; {n}). {_other_penalty(results)}"
    ).strip()


def _other_penalty(results: Results) -> str:
    """Both of these have one penalty, which need not suit both alike."""
    rows = results.table("methods")
    if rows.empty:
        return ""
    rows = rows[(rows["method"] == "ridge") & (rows["block"] == results.best_block)]
    low, high = (rows[results.prefix + "auc"].agg(end) for end in ("min", "max"))
    return (
        f"Both have a penalty that was settled beforehand: ridge probes of {results.best_block}, whose penalty is "
        f"chosen inside the folds, have AUCs of {low:.2f} to {high:.2f}, so part of that lead may be the penalty's."
        if len(rows)
        else ""
    )


def _length(results: Results) -> Finding:
    """One number, the mean length of an instance's tokens in the block itself: does their direction say more?"""
    question = "Is it more than how large the activations are?"
    prefix, block, n = results.prefix, results.best_block, counted(results.probe_of("sure").iloc[0])
    rows = results.added_of_best
    rows = rows[rows["baseline"] == "norm"].dropna(subset=[prefix + "added"]).sort_values("step", ascending=False)
    if rows.empty:
        return Finding(question, "This was not measured.", "", "chance")
    known = (rows[prefix + "q"] <= LEVEL) & (rows[prefix + "added"] > 0)
    best = rows.loc[rows[prefix + "auc_baseline"].idxmax()]
    gain, low, high = (rounded(best[prefix + column], "+") for column in ("added", "lo", "hi"))
    alone = (
        f"At best, step {best['step']}, that length alone reaches AUC {best[prefix + 'auc_baseline']:.2f}, to which "
        f"the vector adds {gain} ({low} to {high}; {n})."
    )
    what = f"what {results.subject.one}'s mean vector in {block} adds to the mean length of its tokens there"
    if not known.any():
        return Finding(question, f"These data do not show it: {what} is {CHANCE} ({n}) at every step.", alone, "chance")
    if known.all():
        return Finding(question, f"Yes: {what} can be told from chance at every step ({n}).", alone, "yes")
    brief = (
        f"Only in part: {what} can be told from chance at {at_steps(rows.loc[known, 'step'])}, and is {CHANCE} ({n}) "
        f"at {at_steps(rows.loc[~known, 'step'])}."
    )
    return Finding(question, brief, alone, "partly")


def _gain_words(rows: pd.DataFrame, known: pd.Series, name: str, prefix: str, n: str) -> str:
    best = best_row(rows, prefix + "added", known)
    gain, low, high = (rounded(best[prefix + column], "+") for column in ("added", "lo", "hi"))
    before, after = best[prefix + "auc_baseline"], best[prefix + "auc_both"]
    most = f"at step {best['step']}, from AUC {before:.2f} to {after:.2f} ({gain}, {low} to {high}; {n})"
    what = f"Beside {name}"
    if not known.any():
        return f"{what}, the gain is {CHANCE} ({n}) at each of {len(rows)} steps; the largest is {most}."
    rest = rows.loc[~known, "step"]
    doubt = f"; at {at_steps(rest)} the gain is {CHANCE} ({n})" if len(rest) else ""
    return f"{what}, it gains at {at_steps(rows.loc[known, 'step'])}, most {most}{doubt}."


def _when(results: Results) -> Finding:
    question = "When does it know?"
    prefix, block, rows = results.prefix, results.best_block, results.probe_of("sure")
    rows = rows[rows["block"] == block].sort_values("step", ascending=False)
    known = rows[rows[prefix + "q"] <= LEVEL]
    first, last = rows.iloc[0], rows.iloc[-1]
    if known.empty:
        steps = at_steps(rows["step"])
        brief = f"At no step that was read: {block}, the best block, is {CHANCE} ({counted(first)}) at {steps}."
        return Finding(question, brief, "", "chance")
    trend = "the two intervals overlap, so neither a rise nor a fall is shown"
    if first[prefix + "hi"] < last[prefix + "lo"]:
        trend = "so the separation grows through the generation"
    elif last[prefix + "hi"] < first[prefix + "lo"]:
        trend = "so the separation fades through the generation"
    early = known.iloc[0]
    brief = (
        f"{block}, the best block, can first be told from chance at step {early['step']}: {auc_words(early, prefix)}."
    )
    detail = (
        f"At the noisiest step that was read, {first['step']}: {auc_words(first, prefix)}. At the last, "
        f"{last['step']}: {auc_words(last, prefix)}; {trend}."
    )
    return Finding(question, f"{brief} {_leak(results, early)}".strip(), detail, "yes")


def _leak(results: Results, early: Any) -> str:
    """Which tokens are an instance's is known from the finished picture: does the block know more than that?"""
    prefix, rows = results.prefix, results.added_of_best
    rows = rows[(rows["baseline"] == "position") & (rows["step"] == early["step"])].dropna(subset=[prefix + "added"])
    if rows.empty:
        return ""
    row = rows.iloc[0]
    outline = f"the outline of the finished {results.subject.noun}, by which its tokens are chosen"
    if separable(row, prefix) and row[prefix + "added"] > 0:
        return f"That is more than {outline}, gives away."
    return f"That may be a leak: what it adds there to {outline}, is {CHANCE} ({counted(early)})."


def _other_explanations(results: Results) -> Finding:
    question = "What else predicts the verdict?"
    strong, weak = [], []
    for name in results.baseline_names:
        # Within a prompt its words say nothing, so this one baseline is judged between prompts.
        prefix = "" if name == "prompt" else results.prefix
        rows = results.baseline(name).dropna(subset=[prefix + "auc"])
        if rows.empty:
            continue
        known = rows[prefix + "q"] <= LEVEL
        best = best_row(rows, prefix + "auc", known)
        label = baseline_words(results, name) + (" (between prompts)" if name == "prompt" and results.prefix else "")
        where = "" if pd.isna(best["step"]) else f" at step {best['step']:.0f}"
        if known.any():
            strong.append(f"{label}{where}, {auc_words(best, prefix)}")
        else:
            weak.append(f"{label} ({counted(best)})")
    none = f"{CHANCE[0].upper()}{CHANCE[1:]}: {'; '.join(weak)}." if weak else ""
    if not strong:
        return Finding(question, "Nothing that was tried.", none, "no")
    brief = (
        f"{len(strong)} of {len(strong) + len(weak)} baselines do; a probe that is no better may be reading them."
    )
    return Finding(question, brief, f"Separable: {'; '.join(strong)}. {none}", "partly")


def _direction(results: Results) -> Finding:
    question = "Is one direction, the difference of means, enough?"
    cells = results.cells
    known = cells["dom_q"] <= LEVEL
    best = best_row(cells, "dom_auc", known)
    fooled = (
        f"On the very {results.subject.plural} that it was fitted to, that direction would score "
        f"{best['dom_auc_in_sample']:.2f}: an in-sample figure, which is no evidence."
    )
    if not known.any():
        brief = f"On prompts not fitted to, it is {CHANCE} ({counted(best)}) in every one of {len(cells)} cells."
        highest = f"Its highest AUC is {best['dom_auc']:.2f}, {place(best)}."
        return Finding(question, brief, f"{highest} {fooled}", "chance")
    brief = (
        f"On prompts not fitted to, it separates in {known.sum()} of {len(cells)} cells (q ≤ {LEVEL}), best in "
        f"{place(best)}: {auc_words(best, 'dom_')}."
    )
    return Finding(question, brief, fooled, "yes")


def _distance(results: Results) -> Finding:
    question = f"How far apart are the two clouds of {results.subject.noun} tokens?"
    cells = results.cells
    known = cells["db_q"] <= LEVEL
    best = best_row(cells, "db_excess", known)
    null = (
        f"There, permuted verdicts give {best['db_null_mean']:.2f} ± {best['db_null_sd']:.2f} nats, so of the raw "
        f"{best['db']:.2f}, an in-sample figure, only the excess counts."
    )
    if not known.any():
        brief = f"The Bhattacharyya distance is {CHANCE} ({counted(best)}) in every one of {len(cells)} cells."
        largest = f"Its largest excess is {rounded(best['db_excess'])} nats, {place(best)}."
        return Finding(question, brief, f"{largest} {null}", "chance")
    low, high = rounded(best["db_lo"]), rounded(best["db_hi"])
    brief = (
        f"The Bhattacharyya distance exceeds its null in {known.sum()} of {len(cells)} cells (q ≤ {LEVEL}), most in "
        f"{place(best)}: by {rounded(best['db_excess'])} nats ({low} to {high}; {counted(best)})."
    )
    return Finding(question, brief, null, "yes")


def _doubtful(results: Results) -> Finding:
    question = "Does the answer hang on doubtful labels?"
    sure, every = (results.probe_of(one).set_index(["block", "step"], drop=False) for one in ("sure", "all"))
    n_sure, n_all = (counted(rows.iloc[0]) for rows in (sure, every))
    if n_sure == n_all:
        return Finding(question, f"No: no verdict leans, each is sure or unsure ({n_sure}).", "", "no")
    found, found_all = (int((rows[results.prefix + "q"] <= LEVEL).sum()) for rows in (sure, every))
    best = sure[results.prefix + "auc"].idxmax()
    same = (found > 0) == (found_all > 0)
    brief = (
        f"{'No' if same else 'Yes'}: with sure verdicts only, {found} of {len(sure)} cells can be told from chance "
        f"({n_sure}); with leaning ones too, {found_all} of {len(every)} ({n_all})."
    )
    detail = (
        f"In {place(sure.loc[best])}: sure only, {auc_words(sure.loc[best], results.prefix)}; all, "
        f"{auc_words(every.loc[best], results.prefix)}."
    )
    return Finding(question, brief, detail, "no" if same else "partly")
