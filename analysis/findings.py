"""What was found, in words that follow the numbers. What cannot be told from chance is said to be so, in those words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .figures import LEVEL
from .rates import wilson
from .results import Results, separable

BASELINE_NAMES = {
    "prompt": "the words of the prompt",
    "position": "where the hand's tokens lie in the final image",
    "noise": "the initial noise",
    "x_t": "the noisy latents x_t",
    "x0": "the predicted clean latents x0 at the hand",
    "x0_flat": "the predicted clean latents x0 of the whole picture",
    "image": "plain statistics of the predicted clean picture (area, contrast, brightness, …)",
    "norm": "the size of the activations alone",
    "random": "a random direction of the activations",
    "final_image": "plain statistics of the final picture",
    "all": "all of these together",
}
HONEST = ("x0", "image", "all")


@dataclass(frozen=True)
class Finding:
    """A question, its answer in sentences, and a mark: ``yes`` or ``no`` where the data answer, ``chance`` where they cannot."""

    question: str
    answer: str
    mark: str


def findings(results: Results) -> list[Finding]:
    """Every finding that the results allow, the main ones first."""
    return [make(results) for make in (_separable, _when, _beyond_the_picture, _other_explanations, _direction, _distance, _doubtful)]


def in_short(results: Results) -> list[str]:
    """The answer in three sentences: how many hands are bad, whether the model knows, and whether it knows more than the image shows."""
    return [malformed(results), _separable(results).answer, _beyond_the_picture(results).answer]


def malformed(results: Results) -> str:
    """How many hands are malformed, of those whose verdict is not unsure."""
    judged = results.samples.dropna(subset=["bad"])
    bad, n = int(judged["bad"].sum()), len(judged)
    low, high = wilson(bad, n)
    unsure = len(results.samples) - n
    rest = f"; {unsure} more could not be judged" if unsure else ""
    return f"{bad} of {n} judged hands are malformed: {percent(bad / n)} (95% interval {percent(low)} to {percent(high)}){rest}."


def auc_words(row: Any, prefix: str = "") -> str:
    """An AUC with its interval and n, and whether it can be told from chance."""
    value, low, high = (row[prefix + name] for name in ("auc", "lo", "hi"))
    if pd.isna(value):
        return f"could not be computed ({counted(row)})"
    if not separable(row, prefix):
        return f"AUC {value:.2f} ({low:.2f} to {high:.2f}), not separable from chance ({counted(row)})"
    return f"AUC {value:.2f} ({low:.2f} to {high:.2f}; {counted(row)})"


def counted(row: Any) -> str:
    """``n = 320``: samples of both classes."""
    return f"n = {int(row['n_good'] + row['n_bad'])}"


def place(row: Any) -> str:
    """``single.3 at step 8``."""
    return f"{row['block']} at step {row['step']}"


def percent(share: Any) -> str:
    return f"{100 * float(share):.0f}%"


def listed(words: Iterable[object]) -> str:
    """``a, b and c``."""
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def at_steps(steps: Iterable[int]) -> str:
    """``step 20`` or ``steps 20, 8 and 1``."""
    steps = list(steps)
    return f"step{'s' if len(steps) > 1 else ''} {listed(steps)}"


def _scope(results: Results) -> str:
    return "of the same prompt" if results.prefix else "(no prompt has both, so hands of different prompts are compared)"


def _separable(results: Results) -> Finding:
    prefix, rows = results.prefix, results.probe_of("sure")
    known = rows[rows[prefix + "q"] <= LEVEL]
    question = "Can the activations tell a bad hand from a good one?"
    if known.empty:
        best = rows.loc[rows[prefix + "auc"].idxmax()]
        return Finding(question, f"A linear probe cannot tell bad hands from good ones {_scope(results)} in any of {len(rows)} "
                                 f"cells: not separable from chance ({counted(best)}). The highest AUC is "
                                 f"{best[prefix + 'auc']:.2f}, in {place(best)}.", "chance")
    best = known.loc[known[prefix + "auc"].idxmax()]
    return Finding(question, f"A linear probe tells bad hands from good ones {_scope(results)} in {len(known)} of {len(rows)} "
                             f"cells (q ≤ {LEVEL}). It does best in {place(best)}: {auc_words(best, prefix)}. Being the best "
                             f"of {len(rows)}, that number flatters itself a little.", "yes")


def _when(results: Results) -> Finding:
    prefix, block = results.prefix, results.best_block
    rows = results.probe_of("sure")
    rows = rows[rows["block"] == block].sort_values("step", ascending=False)
    known = rows[rows[prefix + "q"] <= LEVEL]
    first, last = rows.iloc[0], rows.iloc[-1]
    question = "When does it know?"
    if known.empty:
        return Finding(question, f"At no step that was read: {block}, the best block, is not separable from chance "
                                 f"({counted(first)}) at {at_steps(rows['step'])}.", "chance")
    trend = "the two intervals overlap, so neither a rise nor a fall is shown"
    if first[prefix + "hi"] < last[prefix + "lo"]:
        trend = "so the separation grows through the generation"
    elif last[prefix + "hi"] < first[prefix + "lo"]:
        trend = "so the separation fades through the generation"
    early = known.iloc[0]
    return Finding(question, f"{block}, the best block, can first be told from chance at step {early['step']}: "
                             f"{auc_words(early, prefix)}. At the noisiest step that was read, {first['step']}, it has "
                             f"{auc_words(first, prefix)}; at the last, {last['step']}, {auc_words(last, prefix)}; {trend}.", "yes")


def _beyond_the_picture(results: Results) -> Finding:
    """The honest question: is there more in the block than in what the model would draw if it stopped now?"""
    question = "Does it know more than its own half-finished picture shows?"
    parts, marks = [], []
    for name in HONEST:
        rows = results.added_of_best
        rows = rows[rows["baseline"] == name].dropna(subset=[results.prefix + "added"])
        if len(rows):
            marks.append(bool((_gains(rows, results.prefix)).any()))
            parts.append(_gain_words(rows.sort_values("step", ascending=False), name, results))
    if not parts:
        return Finding(question, "This was not measured: no block was compared with the predicted clean picture.", "chance")
    verdict = "Partly." if any(marks) else ("These data do not show it: the probe is no better than a look at the picture that "
                                            "the model predicts at the same step.")
    if all(marks):
        verdict = "Yes."
    return Finding(question, " ".join([verdict, *parts]), "yes" if all(marks) else "mixed" if any(marks) else "chance")


def _gains(rows: pd.DataFrame, prefix: str) -> pd.Series:
    return (rows[prefix + "q"] <= LEVEL) & (rows[prefix + "added"] > 0)


def _gain_words(rows: pd.DataFrame, name: str, results: Results) -> str:
    prefix, n = results.prefix, counted(results.probe_of("sure").iloc[0])
    known = _gains(rows, prefix)
    best = rows.loc[(rows[known] if known.any() else rows)[prefix + "added"].idxmax()]
    said = (f"from AUC {best[prefix + 'auc_baseline']:.2f} to {best[prefix + 'auc_both']:.2f} at step {best['step']} "
            f"({best[prefix + 'added']:+.2f}, {best[prefix + 'lo']:+.2f} to {best[prefix + 'hi']:+.2f}; {n})")
    what = BASELINE_NAMES["image" if name == "all" else name] if name != "all" else "all the baselines together"
    if not known.any():
        return (f"To {what}, {results.best_block} adds nothing that shows at any of {len(rows)} steps: not separable from chance "
                f"({n}); the most is {said}.")
    rest = rows.loc[~known, "step"]
    doubt = f" At {at_steps(rest)} what it adds is not separable from chance ({n})." if len(rest) else ""
    return f"To {what}, {results.best_block} adds at {at_steps(rows.loc[known, 'step'])}, at most {said}.{doubt}"


def _other_explanations(results: Results) -> Finding:
    question = "What else predicts the verdict?"
    strong, weak = [], []
    for name in results.baseline_names:
        # Within a prompt its words say nothing, so that baseline is one over pairs of different prompts.
        prefix = "" if name == "prompt" else results.prefix
        rows = results.baseline(name).dropna(subset=[prefix + "auc"])
        if rows.empty:
            continue
        known = rows[rows[prefix + "q"] <= LEVEL]
        label = BASELINE_NAMES.get(name, name) + (" (between prompts)" if name == "prompt" and results.prefix else "")
        if known.empty:
            weak.append(f"{label} ({counted(rows.iloc[0])})")
        else:
            best = known.loc[known[prefix + "auc"].idxmax()]
            where = "" if pd.isna(best["step"]) else f" at step {best['step']:.0f}"
            strong.append(f"{label}{where}, {auc_words(best, prefix)}")
    parts = []
    if strong:
        parts.append(f"These do, without a look inside: {'; '.join(strong)}. A probe that is no better may be reading them.")
    if weak:
        parts.append(f"Not separable from chance: {'; '.join(weak)}.")
    return Finding(question, " ".join(parts) or "No baseline was measured.", "mixed" if strong else "no")


def _direction(results: Results) -> Finding:
    cells = results.cells
    known = cells[cells["dom_q"] <= LEVEL]
    best = cells.loc[(known if len(known) else cells)["dom_auc"].idxmax()]
    question = "Is one direction, the difference of means, enough?"
    fooled = (f"On the very samples that it was fitted to, the same direction would score {best['dom_auc_in_sample']:.2f}: "
              "an in-sample figure, which is no evidence.")
    if known.empty:
        return Finding(question, f"On prompts that it was not fitted to, it is not separable from chance ({counted(best)}) in any "
                                 f"of {len(cells)} cells; its highest AUC is {best['dom_auc']:.2f}, in {place(best)}. {fooled}", "chance")
    row = best.rename(lambda name: str(name).removeprefix("dom_"))
    return Finding(question, f"On prompts that it was not fitted to, it separates in {len(known)} of {len(cells)} cells (q ≤ {LEVEL}), "
                             f"best in {place(best)}: {auc_words(row)}. {fooled}", "yes")


def _distance(results: Results) -> Finding:
    cells = results.cells
    known = cells[cells["db_q"] <= LEVEL]
    best = cells.loc[(known if len(known) else cells)["db_excess"].idxmax()]
    question = "How far apart are the two clouds of hand tokens?"
    null = (f"With permuted labels the distance there is {best['db_null_mean']:.2f} ± {best['db_null_sd']:.2f}, so of the raw "
            f"{best['db']:.2f}, an in-sample figure, only the excess counts.")
    if known.empty:
        return Finding(question, f"The Bhattacharyya distance is not separable from chance ({counted(best)}) in any of {len(cells)} cells; "
                                 f"its largest excess is {best['db_excess']:.2f} nats, in {place(best)}. {null}", "chance")
    return Finding(question, f"The Bhattacharyya distance exceeds its permutation null in {len(known)} of {len(cells)} cells "
                             f"(q ≤ {LEVEL}), most in {place(best)}: by {best['db_excess']:.2f} nats "
                             f"({best['db_lo']:.2f} to {best['db_hi']:.2f}; {counted(best)}). {null}", "yes")


def _doubtful(results: Results) -> Finding:
    prefix = results.prefix
    question = "Does the answer hang on doubtful labels?"
    sure, every = (results.probe_of(subset).set_index(["block", "step"], drop=False) for subset in ("sure", "all"))
    best = sure[prefix + "auc"].idxmax()
    if every.empty or counted(sure.iloc[0]) == counted(every.iloc[0]):
        return Finding(question, f"No: every verdict is sure or unsure, and none leans ({counted(sure.iloc[0])}).", "no")
    shares = [int((rows[prefix + "q"] <= LEVEL).sum()) for rows in (sure, every)]
    return Finding(question, f"With sure verdicts only, {shares[0]} of {len(sure)} cells can be told from chance "
                             f"({counted(sure.iloc[0])}); with leaning ones too, {shares[1]} of {len(every)} "
                             f"({counted(every.iloc[0])}). In {place(sure.loc[best])}: sure only, {auc_words(sure.loc[best], prefix)}; "
                             f"all, {auc_words(every.loc[best], prefix)}.", "no" if (shares[0] > 0) == (shares[1] > 0) else "mixed")
