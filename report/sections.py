"""Sections of the page for stages that a study runs on request, in the order of the table of stages."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from ..stages import ANATOMY, CLASSES, COMMIT, FEATURES, HEADS, LENS, MEND, PATCH, STAGES, SURVEY, TRIAGE, VALUES, Stage
from . import token_classes, values
from .inside import feature_rows, feature_sentences, head_rows, head_sentences, lens_rows, lens_sentences
from .outcomes import STEPS, own_tolerance
from .results import Results
from .words import capital, number, percent, signed

SHOWN = 6
"""Rows of a long table that are shown; all are in its file."""


WEIGHT = r" \([-+−][0-9.]+\)$"
"""How much a reason counts for a verdict, as it stands behind it: reasons are counted without it."""


@dataclass(frozen=True)
class Section:
    """One section: a text, figures with their captions by the names of their files, and a table."""

    stage: Stage
    text: str
    figures: Mapping[str, str] = field(default_factory=dict)
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    @property
    def id(self) -> str:
        return self.stage.section.partition(" ")[0]

    @property
    def title(self) -> str:
        return self.stage.section.partition(" ")[2]


def sections(results: Results, drawn: Container[str]) -> list[Section]:
    """The sections of the stages whose tables a run has.

    Parameters
    ----------
    drawn : names of the figures that are there
    """
    found = []
    for stage in STAGES:
        make = _MAKERS.get(stage.name)
        if make is None or results.table(stage.tables[0].name).empty:
            continue
        section = make(results)
        there = {name: said for name, said in section.figures.items() if name in stage.figures or name in drawn}
        found.append(replace(section, figures=there))
    return found


def _survey(results: Results) -> Section:
    return Section(
        SURVEY,
        "From moments alone, in one pass over all blocks and steps.",
        {
            "survey_probe": "Held-out AUC of a ridge probe. Pale cells are not separable from chance; the ring is "
            "around the highest of the rest. Being the highest, it looks better than it is.",
            "survey_distance": f"How much further apart the two clouds of {results.subject.noun} tokens are than with "
            "permuted verdicts.",
        },
    )


def _values(results: Results) -> Section:
    return Section(VALUES, *values.section_of(results))


def _classes(results: Results) -> Section:
    return Section(CLASSES, *token_classes.section_of(results))


def _patched(results: Results) -> Section:
    table = results.table("patch")
    counts = table[table["direction"] == "both"].groupby("arm", sort=False)["n"].max()
    main = table[(table["arm"] == "donor") & (table["direction"] == "both")].sort_values("moved", ascending=False)
    rows = [
        (
            f"{row.block}, step {row.step:.0f}",
            f"{number(row.moved)} ({number(row.moved_lo)} to {number(row.moved_hi)}; q = {row.q:.2g})",
            percent(row.way),
            *(
                f"{signed(getattr(row, name))} ({signed(getattr(row, f'{name}_lo'))} to "
                f"{signed(getattr(row, f'{name}_hi'))}; q = {getattr(row, f'{name}_q'):.2g}; n = "
                f"{getattr(row, f'{name}_n'):.0f})"
                if pd.notna(getattr(row, name, None))
                else ""
                for name in ("beyond_latents", "beyond_own_class")
            ),
        )
        for row in main.head(SHOWN).itertuples()
    ]
    agreement = [
        f"{row.causal} and {row.other}: {number(row.rho)} ({number(row.lo)} to {number(row.hi)}) over {row.cells:.0f} "
        f"cells, furthest apart {row.worst}"
        for row in results.table("patch_agreement").dropna(subset=["rho"]).itertuples()
    ]
    return Section(
        PATCH,
        "A recipient is drawn on from its own latents at a step, with a donor's activations at the tokens of both. "
        "Donors are of the other verdict, the same prompt and another noise, and every pair is of one that is good and "
        "one that is bad. The effect is how far the judge's probability of bad moves towards the donor's class. Pairs: "
        + ", ".join(f"{count:.0f} {arm}" for arm, count in counts.items())
        + ". "
        + ("Rank correlations over cells: " + "; ".join(agreement) + "." if agreement else ""),
        {
            "patch": "What a probe knows in each cell; what the donor's activations do there; how far the picture "
            "follows; and what they do beyond controls.",
            "patch_strips": "Recipient, donor, and what became of the recipient at each cell: the first two pairs, "
            "whatever they show.",
        },
        ("Cell", "Moved", "Share of the way", "Beyond the latents", "Beyond its own class"),
        rows,
    )


def _lens(results: Results) -> Section:
    table = results.table("lens")
    return Section(
        LENS,
        "The model's own output layer on the stream of each block, and on what a translator makes of it that was "
        "fitted to other prompts and noises: what the model would draw if it stopped there. "
        + " ".join(f"{capital(sentence)}." for sentence in lens_sentences(table)),
        {
            "lens": "How much of the model's velocity at the subject's tokens a block has; how well a judge of "
            "finished pictures tells bad from good by the block's picture; and what each block adds or takes. Hatched: "
            "not separable from chance.",
            "lens_own": "The first good and the first bad sample, whatever they show: what the output layer makes of "
            "each block.",
            "lens_fitted": "The same samples through the translators.",
        },
        ("Kind", "Cell", "Velocity explained", "Judge, AUC within prompts", "q", "Probe, AUC within prompts"),
        lens_rows(table),
    )


def _heads(results: Results) -> Section:
    table = results.table("heads")
    return Section(
        HEADS,
        "How much of their attention the subject's tokens give to words, to each other and to the rest of the picture, "
        "head by head. " + " ".join(f"{capital(sentence)}." for sentence in head_sentences(table)),
        {
            "heads": "How well the attention to each group tells bad from good samples of prompts that were held out: "
            "heads over steps. Hatched: not separable from chance.",
        },
        ("Head", "Looks at", "In good", "In bad", "AUC", "q", "p over all"),
        head_rows(table),
    )


def _features(results: Results) -> Section:
    tables = {table.name: results.table(table.name) for table in FEATURES.tables}
    return Section(
        FEATURES,
        "Sparse autoencoders, fitted to the subject's tokens of half of the prompts; all that follows is of the other "
        "half. " + " ".join(f"{capital(sentence)}." for sentence in feature_sentences(tables)),
        {
            "features": "Each feature by how often it fires, and how well its mean activity tells bad from good "
            "samples of prompts that were held out.",
            "feature_patches": "The tokens at which the features that tell most are most active, one of each held-out "
            "sample, in the finished picture: a framed token and its neighbours.",
        },
        ("Feature", "More active in", "Fires", "AUC", "q", "p over all", "AUC within prompts", "q"),
        feature_rows(results.table("features")),
    )


def _commitment(results: Results) -> Section:
    rows = []
    for region, own in own_tolerance(results.table("commitment_summary")).groupby("region", sort=False):
        own = own.set_index("group")
        whole, bad = own.loc["all"], own.loc["bad"]
        within = f"{whole['tolerance']:g} {whole['unit']}"
        counts = f"{whole['n']} ({whole['undecided']} not before the end, {whole['missing']} without it)"
        if pd.isna(whole["median_step"]):
            rows.append((str(region), within, f"no median: {whole['reason']}", "", counts))
            continue
        half = f"step {whole['median_step']:g} ({whole['steps_lo']:g} to {whole['steps_hi']:g})"
        later = "" if pd.isna(bad["p"]) else f"{_later(bad)} (p = {bad['p']:.3g})"
        rows.append((str(region), within, half, later, counts))
    return Section(
        COMMIT,
        "A region of the picture is decided at the step from which on the clean picture that the model predicts no "
        "longer changes there by more than the tolerance. Steps count what remains, so a lower one is later.",
        {"commitment": "Shares decided over steps, by region, and for good and bad samples; a sample of each."},
        ("Region", "Tolerance", "Half are decided by", "Bad later by", "Samples"),
        rows,
    )


def _later(row: pd.Series) -> str:
    return STEPS.effect(row.rename({"difference_lo": "lo", "difference_hi": "hi"})).words().removeprefix("difference ")


def _triage(results: Results) -> Section:
    table = results.table("triage")
    looks = table[table["way"] != "plain"].sort_values("rate").head(SHOWN)
    rows = [
        (
            str(row.feature),
            "" if pd.isna(row.step) else f"{row.step:g}",
            str(row.way),
            f"{percent(row.rate)} ({percent(row.lo)} to {percent(row.hi)})",
            f"{row.cost:.2f}",
            f"{row.calls_per_good:.1f}",
        )
        for row in pd.concat([table[table["way"] == "plain"], looks]).itertuples()
    ]
    return Section(
        TRIAGE,
        f"Generations that an early look finds wanting are given up and begun anew. Of {len(table) - 1} looks, those "
        "with the lowest rates; being the lowest, they look better than they are.",
        head=("Look at", "Step", "Way", "Malformed", "Cost", "Calls for a good one"),
        rows=rows,
    )


def _mended(results: Results) -> Section:
    table = results.table("arms")
    arms = table.iloc[1:].sort_values("after").head(SHOWN)
    rows = [
        (
            str(row.arm),
            str(row.family),
            percent(row.after),
            f"{signed(100 * row.difference)} ({signed(100 * row.low)} to {signed(100 * row.high)})",
            "" if pd.isna(row.q) else f"{row.q:.3g}",
            "" if pd.isna(row.control_p) else f"{row.control_p:.3g}",
        )
        for row in arms.itertuples()
    ]
    base = table.iloc[0]
    return Section(
        MEND,
        f"{percent(base['before'])} of {base['n']:.0f} new samples are malformed when nothing is done. Of "
        f"{len(table) - 1} arms, those after which the fewest are, by the organism's judge: a blind look decides.",
        {
            "mend": "Change of the malformed rate of each arm, with its interval over prompts.",
            "mend_pairs": "The first pairs of the baseline and of some arms, whatever they show.",
            "mend_doses": "Malformed rate and distance to renders over strength, beside controls.",
        },
        ("Arm", "Family", "Malformed", "Change, points", "q", "p against its controls"),
        rows,
    )


def _anatomy(results: Results) -> Section:
    table = results.table("scores")
    counts = table["outcome"].value_counts()
    bad, unknown, good, none = (
        int(counts.get(name, 0)) for name in ("implausible", "cannot tell", "plausible", "undetected")
    )
    untold = f", cannot tell of {unknown}" if unknown else ""
    reasons = table.loc[table["outcome"] == "implausible", "reasons"].dropna().str.split("; ").explode()
    reasons = reasons.str.replace(WEIGHT, "", regex=True)
    return Section(
        ANATOMY,
        f"HandAnat, which looks at the finished pictures only, finds {bad} of {bad + unknown + good} hands implausible"
        f"{untold}; in {none} pictures it finds none. The hands with its reasons are in anatomy/sheets.",
        head=("Reason", "Hands"),
        rows=[(str(reason), str(count)) for reason, count in reasons.value_counts().head(SHOWN).items()],
    )


_MAKERS: dict[str, Callable[[Results], Section]] = {
    "survey": _survey,
    "values": _values,
    "classes": _classes,
    "patch": _patched,
    "lens": _lens,
    "heads": _heads,
    "features": _features,
    "commit": _commitment,
    "triage": _triage,
    "mend": _mended,
    "anatomy": _anatomy,
}
