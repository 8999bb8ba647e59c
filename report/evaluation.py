"""The page of an evaluation: arms in a table and a forest, doses, pictures before and after, and a sheet of them all.

It needs no server: ``report.html`` lies beside the pictures that it shows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from .. import __version__, figures
from ..evaluation.evaluate import Outcome, Plan
from ..evaluation.rates import FAILED, INSTANCE, MAIN, PICTURE, kinds_in, measured
from ..evaluation.scored import OUTCOMES
from ..figures.arms import series_of
from ..files import atomic
from ..labeling.subject import Subject, load_subject
from ..parallel import each
from ..progress import Progress, quiet
from .page import TEMPLATES
from .short import embedded
from .words import listed

THUMB = 192  # pixels a side, at most; pictures up to SMALL are shown as they are
SMALL = 256
FEWEST = 8  # prompts, below which their spread says little
SHOWN = 8  # pictures of an arm before and after
ANCHORS = {"same noises": "pairs", "same prompts": "no pairs: other noises", "other prompts": "other prompts"}


def evaluation_page(plan: Plan, outcome: Outcome, progress: Progress = quiet) -> Path:
    """Draw the figures of an evaluation and write its page into its folder.

    Returns
    -------
    The path of the page.
    """
    subject = load_subject(plan.subject)
    tables = measured(outcome.scored)
    pictures = tables[PICTURE]
    pictures["shown"] = _thumbs(plan.folder, pictures["path"].tolist(), progress)
    drawn = {name: (figures.save(figure, plan.folder / "figures", name), alt)
             for name, figure, alt in _figures(plan, outcome, subject)}  # fmt: skip
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    page = environment.get_template("evaluation.html").render(
        version=__version__,
        subject=subject,
        plan=plan,
        failed=outcome.failed,
        figures={name: (embedded(path), alt) for name, (path, alt) in drawn.items()},
        findings=list(_findings(plan, outcome)),
        warnings=list(_warnings(plan, outcome, subject)),
        rates=list(_rate_rows(outcome)),
        apart=list(_contrast_rows(outcome)),
        kinds=[(kind, subject.fault_word(kind)) for kind in kinds_in(outcome.scored)],
        faults=list(_fault_rows(outcome)),
        costs=list(_cost_rows(outcome)),
        metrics=list(_metric_rows(outcome)),
        before=list(_before_and_after(plan, outcome, pictures)),
        sheet=_sheet(plan, outcome, pictures, subject),
        arms=list(dict.fromkeys(pictures["arm"])),
        several=bool((outcome.scored.instances["instance"] != 1).any()),
    )
    path = plan.folder / "report.html"
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _rows(table: pd.DataFrame, unit: str, measure: str) -> pd.DataFrame:
    return table[(table["unit"] == unit) & (table["measure"] == measure)] if len(table) else table


def _figures(plan: Plan, outcome: Outcome, subject: Subject) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and what it shows in words."""
    apart = outcome.contrasts
    if len(apart):
        apart = _rows(apart, PICTURE, MAIN).dropna(subset=["difference"])
    with rc_context(figures.STYLE):
        if len(apart):
            drawn = figures.figure(8.5, 1.6 + 0.32 * len(apart))
            words = f"pictures with an implausible {subject.noun}"
            figures.arms_forest(apart, drawn.add_subplot(), baseline=plan.baseline, measure=words)
            said = "; ".join(f"{row.arm} {_points(row.difference)}" for row in apart.itertuples())
            yield "forest", drawn, f"Difference of each arm from {plan.baseline}, in points: {said}."
        if len(outcome.costs) > 1:
            drawn = figures.figure(8.5, 3.8)
            label = f"pictures with an implausible {subject.noun}, %"
            figures.rate_against_cost(outcome.costs, drawn.add_subplot(), baseline=plan.baseline, label=label)
            rows = outcome.costs.itertuples()
            said = "; ".join(f"{row.arm} {row.rate:.0%} at {row.calls_per_good:.3g}" for row in rows)
            yield "cost", drawn, f"Implausible pictures over calls of the transformer for each good one: {said}."
        rates = _rows(outcome.rates, PICTURE, MAIN).set_index("arm")
        for number, (key, rows) in enumerate(_sweeps(plan, rates)):
            drawn = figures.figure(6, 3.6)
            reference = rates["rate"].get(plan.baseline)
            figures.dose_response(rows, drawn.add_subplot(), dose=key, reference=reference, label="implausible, %")
            said = "; ".join(f"{row.dose:g}: {row.rate:.0%}" for row in rows.itertuples())
            yield f"dose_{number}", drawn, f"Share of implausible pictures over {key}: {said}."


def _sweeps(plan: Plan, rates: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Of each key that was swept, the rates over its numbers."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, variant in plan.variants.items():
        if name in rates.index and rates.loc[name, "n"]:
            for key, value in variant.doses.items():
                others = series_of(variant.doses, key)
                series = f"{variant.group} ({others})" if others else variant.group
                row = rates.loc[name]
                found.setdefault(key, []).append({"series": series, "dose": float(value), **row[["rate", "lo", "hi"]]})
    for key, rows in found.items():
        yield key, pd.DataFrame(rows)


def _findings(plan: Plan, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Of each arm whether it could be told from the baseline, in a sentence."""
    if not len(outcome.contrasts):
        return
    for row in _rows(outcome.contrasts, PICTURE, MAIN).itertuples():
        if np.isnan(row.difference):
            yield row.arm, "nothing could be told of its pictures, or of the baseline's."
            continue
        recipe = plan.arms[row.arm]
        size = f"{_points(row.difference)} points ({_points(row.low)} to {_points(row.high)})"
        n = f"n = {int(row.n)}, {int(row.prompts)} prompts, {row.design}"
        called = (row.p if recipe.control else row.holm) <= figures.LEVEL
        verb = "fewer" if row.difference < 0 else "more"
        if called:
            text = f"{verb} implausible pictures than {plan.baseline}: {size} ({n})."
        else:
            text = f"not separable from {plan.baseline}: {size} ({n})."
            if row.needed == row.needed and row.prompts >= FEWEST:
                text += f" A difference of 5 points would take about {int(row.needed):,} such prompts."
        if row.control_p == row.control_p:
            beats = row.control_p <= figures.LEVEL
            text += " It beats every control." if beats else " It does not beat every control."
        failed = _rows(outcome.contrasts, PICTURE, FAILED).set_index("arm").loc[row.arm]
        if row.difference < 0 <= failed["difference"]:
            text += " Pictures without a find count against it: implausible or absent, it is no better."
        yield row.arm, text


def _warnings(plan: Plan, outcome: Outcome, subject: Subject) -> Iterator[str]:
    """What to know before the numbers are believed."""
    for name, why in outcome.failed.items():
        yield f"The arm {name} failed and is missing here: {why}"
    rates = _rows(outcome.rates, PICTURE, "undetected").set_index("arm")["rate"].fillna(0)
    if rates.max() > 0.1:
        yield (
            f"In up to {rates.max():.0%} of an arm's pictures ({rates.idxmax()}) no {subject.noun} was found. A scorer "
            "finds malformed ones less often, so that a low rate of implausible ones may be of what it did not see: "
            "read the bounds in the table, and the column for implausible or absent."
        )
    doubt = _rows(outcome.rates, PICTURE, "cannot tell").set_index("arm")["rate"].fillna(0)
    if doubt.max() > 0.2:
        yield (
            f"Of up to {doubt.max():.0%} of an arm's pictures ({doubt.idxmax()}) the scorer cannot tell, and they are "
            "left out of its rate."
        )
    if len(outcome.contrasts):
        loose = _rows(outcome.contrasts, PICTURE, MAIN)
        names = loose.loc[loose["design"].isin(("same prompts", "other prompts")), "arm"].tolist()
        if names:
            yield (
                f"Not of the same noises as {plan.baseline}, so that pictures are no pairs: {listed(names)}. Prompts "
                "are compared there, and more of them are needed."
            )
    same = [name for name, recipe in plan.arms.items() if recipe.best_of and recipe.best_of.by == plan.scorer]
    if same:
        yield f"Chosen by the scorer that judges here, so that their rates flatter them: {listed(same)}."
    prompts = len(plan.prompts)
    if prompts < FEWEST:
        yield f"{prompts} prompts are few: intervals are wide, and what holds for these need not hold for others."


def _rate_rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    of = outcome.rates.set_index(["arm", "unit", "measure"])
    for arm in dict.fromkeys(outcome.rates["arm"]):
        cell = lambda unit, measure, arm=arm: _share(of.loc[arm, unit, measure])  # noqa: E731
        main, inner = of.loc[arm, PICTURE, MAIN], of.loc[arm, INSTANCE, MAIN]
        yield {
            "arm": arm, "n": int(of.loc[arm, PICTURE, "undetected"]["n"]), "main": cell(PICTURE, MAIN),
            "bounds": _between(main["least"], main["most"]), "failed": cell(PICTURE, FAILED),
            "avoided": cell(PICTURE, "avoided"), "doubt": cell(PICTURE, "cannot tell"),
            "inner": cell(INSTANCE, MAIN), "n_inner": int(inner["n"]),
            "corrected": _share(inner, "corrected", "corrected_lo", "corrected_hi"),
        }  # fmt: skip


def _contrast_rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    if not len(outcome.contrasts):
        return
    inner = _rows(outcome.contrasts, INSTANCE, MAIN).set_index("arm")
    for row in _rows(outcome.contrasts, PICTURE, MAIN).itertuples():
        if np.isnan(row.difference):
            continue
        one = inner.loc[row.arm]
        yield {
            "arm": row.arm, "design": ANCHORS[row.design], "n": int(row.n),
            "difference": f"{_points(row.difference)} ({_points(row.low)} to {_points(row.high)})",
            "ratio": _times(row.ratio, row.ratio_low, row.ratio_high),
            "changed": f"{int(row.mended)} / {int(row.broken)}" if row.mended == row.mended else "–",
            "p": _p(row.p), "holm": _p(row.holm), "q": _p(row.q), "mcnemar": _p(row.mcnemar_p),
            "odds": _times(row.odds, row.odds_low, row.odds_high),
            "fisher": _p(row.fisher_p), "needed": f"{int(row.needed):,}" if row.needed == row.needed else "–",
            "inner": f"{_points(one['difference'])} ({_points(one['low'])} to {_points(one['high'])})",
            "corrected": "–" if one["corrected"] != one["corrected"] else
            f"{_points(one['corrected'])} ({_points(one['corrected_low'])} to {_points(one['corrected_high'])})",
        }  # fmt: skip


def _fault_rows(outcome: Outcome) -> Iterator[tuple[str, list[str]]]:
    of = outcome.rates[outcome.rates["unit"] == INSTANCE].set_index(["arm", "measure"])
    kinds = kinds_in(outcome.scored)
    for arm in dict.fromkeys(outcome.rates["arm"]) if kinds else ():
        yield arm, [_share(of.loc[arm, kind]) for kind in kinds]


def _cost_rows(outcome: Outcome) -> Iterator[dict[str, str]]:
    for row in outcome.costs.itertuples():
        each = f"{row.calls_per_good:.3g} ({row.calls_per_good_lo:.3g} to {row.calls_per_good_hi:.3g})"
        yield {"arm": row.arm, "calls": f"{row.calls:.3g}", "seconds": f"{row.seconds:.2g}", "each": each}


def _metric_rows(outcome: Outcome) -> Iterator[dict[str, str]]:
    for row in outcome.metrics.itertuples():
        yield {
            "arm": row.arm, "metric": row.metric + (f" of {row.features} features" if row.features else ""),
            "value": f"{row.value:.4g} ({row.lo:.4g} to {row.hi:.4g})", "n": f"{row.n:,}",
            "warning": str(row.warning or ""),
        }  # fmt: skip


def _before_and_after(plan: Plan, outcome: Outcome, pictures: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The same few samples of every arm, drawn by a seed and not chosen; the baseline first."""
    arms = [plan.baseline, *(name for name in dict.fromkeys(pictures["arm"]) if name != plan.baseline)]
    of = {arm: rows.set_index("sample") for arm, rows in pictures.groupby("arm", sort=False)}
    first = of.get(plan.baseline)
    random = np.random.default_rng(plan.seed)
    order = [] if first is None else random.permutation(first.index.to_numpy())[:SHOWN].tolist()
    for arm in arms:
        if arm not in of:
            continue
        rows = of[arm]
        same = set(order) <= set(rows.index)
        names = order if same else np.random.default_rng(plan.seed).permutation(rows.index.to_numpy())[:SHOWN].tolist()
        yield {
            "arm": arm,
            "pairs": same and arm != plan.baseline,
            "shown": [{"src": rows.loc[name, "shown"], "outcome": rows.loc[name, "outcome"], "prompt":
                       rows.loc[name, "prompt"]} for name in names],
        }  # fmt: skip


def _sheet(plan: Plan, outcome: Outcome, pictures: pd.DataFrame, subject: Subject) -> str:
    """Every picture with what was said of it, as JSON that can stand in a page."""
    kinds = kinds_in(outcome.scored)
    arms, prompts = (list(dict.fromkeys(pictures[name])) for name in ("arm", "prompt"))
    at = {name: place for place, name in enumerate(arms)}
    asked = {name: place for place, name in enumerate(prompts)}
    flags = pictures[kinds].fillna(0).to_numpy(bool) if kinds else np.zeros((len(pictures), 0), bool)
    rows = [
        [at[arm], OUTCOMES.index(said), np.flatnonzero(flag).tolist(), asked[prompt], src]
        for arm, said, flag, prompt, src in zip(
            pictures["arm"], pictures["outcome"], flags, pictures["prompt"], pictures["shown"]
        )
    ]
    said = {"arms": arms, "outcomes": OUTCOMES, "kinds": [subject.fault_word(kind) for kind in kinds],
            "prompts": prompts, "rows": rows}  # fmt: skip
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def _thumbs(folder: Path, paths: list[str], progress: Progress) -> list[str]:
    """Where the page finds each picture: itself where it is small, else a thumbnail that is made here."""
    small = each(partial(_thumb, folder), paths, progress, "page", near=True)
    return [path.relative_to(folder).as_posix() for path in small]


def _thumb(folder: Path, name: str) -> Path:
    path = Path(name)
    target = folder / "thumbs" / path.parent.parent.name / f"{path.stem}.webp"
    if target.exists() and target.stat().st_mtime_ns >= path.stat().st_mtime_ns:
        return target
    with Image.open(path) as image:
        if max(image.size) <= SMALL:
            return path
        small = image.convert("RGB")
        small.thumbnail((THUMB, THUMB))
        held = io.BytesIO()
        small.save(held, "WEBP", quality=85)
    with atomic(target) as temporary:
        temporary.write_bytes(held.getvalue())
    return target


def _share(row: Mapping[str, Any], value: str = "rate", low: str = "lo", high: str = "hi") -> str:
    if row[value] != row[value]:
        return "–"
    return f"{100 * row[value]:.1f}% ({100 * row[low]:.1f} to {100 * row[high]:.1f})"


def _between(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f}%" if low == low else "–"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _times(value: float, low: float, high: float) -> str:
    return f"{value:.2f} ({low:.2f} to {high:.2f})" if value == value else "–"


def _p(value: float) -> str:
    return "–" if value != value else f"{value:.3f}" if value >= 0.001 else "< 0.001"
