"""One page that says what was asked, what was found and what could not be told from chance."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__, figures
from ..analysis.statistics.rates import rates_by
from ..files import atomic
from ..labeling.subject import Subject
from ..models.embedded import organism_of
from ..organism import about
from ..parallel import each
from ..progress import Progress, quiet
from ..run.record import entry_of, fresh, made_from, set_fresh
from ..stages import ANALYZE, PROBE, REPORT, Stage
from . import findings, plates, words
from .claims import SCORE, Claim
from .designs import design_page
from .results import Results
from .sections import sections
from .short import embedded, flat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..run.folder import Run

TEMPLATES = Path(__file__).parent


def report(run: Run, progress: Progress = quiet) -> Path:
    """Draw the figures of a run, as PNG, SVG and PDF, and write its report: one HTML file that needs nothing else.

    Does nothing when both are there and belong to the present results.

    Returns
    -------
    The path of the report.

    Raises
    ------
    HandscopeError
        A stage before this one has not ended, or a file that it wrote is damaged.
    """
    now = made_from(run.path, REPORT, {})
    if fresh(run.path, REPORT, now):
        return run.report_path
    if design_page(run):
        set_fresh(run.path, REPORT, now)
        return run.report_path
    results = Results.read(run)
    rates = _rates(results.samples, results.subject)
    drawings = plates.plates(results, run.image, rates)
    files = {path.stem: path for path in run.figures_dir.glob("*.png")}  # stages that need a model drew their own
    parts = sections(results, files)
    pictures = {name: embedded(files[name]) for part in parts for name in part.figures if name in files}

    narrow = plates.narrow(results, run.image)

    def drawn(name: str) -> tuple[str, str]:
        whole = embedded(figures.save(drawings[name](), run.figures_dir, name))
        return whole, embedded(_as_png(narrow[name]())) if name in narrow else ""

    saved = dict(zip(drawings, each(drawn, list(drawings), progress, "report", near=True)))
    pictures |= {name: whole for name, (whole, _) in saved.items()}
    columns = {name: small for name, (_, small) in saved.items() if small}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    context = {"pictures": pictures, "narrow": columns, "sections": parts, **_context(run, results, rates)}
    page = environment.get_template("report.html").render(context)
    with atomic(run.report_path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    set_fresh(run.path, REPORT, now)
    return run.report_path


def _as_png(drawn: Figure) -> io.BytesIO:
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=200)
    return file


FIGURES = {
    "the cell named beforehand": "grid_probe", "a probe": "grid_probe", "a chosen cell": "grid_probe",
    "beyond the picture": "added", "more than their size": "added", "the best block over steps": "curves",
    "a baseline": "curves", "the difference of means": "grid_direction", "the distance": "grid_distance",
    "one direction for all": "transfer", "malformed": "rates", "Gaussian clouds": "gaussianity",
    "local faults": "contrasts", "global faults": "contrasts",
}  # fmt: skip
"""The figure of a finding, by its topic."""


def _numbers(claims: list[Claim]) -> list[dict[str, str]]:
    """Three numbers for the first page: how much is bad, how well it is told, and what that adds to the picture."""
    said = {
        "malformed": "are malformed",
        "the cell named beforehand": "AUC in the cell that was named beforehand",
        "a chosen cell": "AUC in a cell chosen without the pictures it is judged on",
        "a probe": "AUC of a linear probe",
        "beyond the picture": "the least gain in AUC beside the accounts of the predicted picture",
    }
    of = {claim.topic: claim for claim in claims if claim.effect is not None and claim.verdict != "too_few"}
    told = next((topic for topic in list(said)[1:4] if topic in of), "")
    shown = []
    for claim in (of[topic] for topic in ("malformed", told, "beyond the picture") if topic in of):
        effect = claim.effect
        assert effect is not None
        where = f", {claim.where}" if claim.where else ""
        ends = "" if math.isnan(effect.low) else f" ({effect.said(effect.low)} to {effect.said(effect.high)})"
        shown.append({"value": effect.said(effect.value), "words": f"{said[claim.topic]}{where}{ends}; {claim.n}"})
    return shown


def _rates(samples: pd.DataFrame, subject: Subject) -> pd.DataFrame:
    """Shares of bad samples by what the subject finds stated in their prompts; no rows where none states anything."""
    judged = samples.dropna(subset=["bad"])
    stated = pd.DataFrame([subject.stated(prompt) for prompt in judged["prompt"]], index=judged.index)
    return rates_by(stated.reindex(columns=list(subject.facts)), judged["bad"], judged["prompt"])


def _context(run: Run, results: Results, rates: pd.DataFrame) -> dict[str, Any]:
    samples, probes = results.samples, results.probe_of("sure")
    claims = findings.findings(results)
    settings, subject = results.settings, results.subject
    good, bad = subject.verdicts["good"], subject.verdicts["bad"]
    judged = samples["bad"].notna()
    verdicts = samples["verdict"].value_counts()
    kinds = samples.loc[samples["bad"] == 1, "kinds"].explode().dropna().value_counts()
    sources = samples["source"].value_counts()
    rate = float(samples["bad"].mean())
    return {
        "numbers": _numbers(claims), "see": lambda claim: FIGURES.get(claim.topic, ""),
        "results": results, "findings": claims, "first": findings.first_page(claims),
        "organism": organism_of(settings),
        "model": settings.get("provenance", {}).get("name", "a model"),
        "n_prompts": samples["prompt"].nunique(), "n_labelled": len(samples), "n_judged": int(judged.sum()),
        "prompts": sorted(set(samples["prompt"])),
        "generation": settings.get("generation", {}),
        "given": settings.get("generation", {}).get("pictures") == "given",
        "verdicts": [(name, int(verdicts.get(name, 0)), _share(verdicts.get(name, 0), len(samples)))
                     for name in ("good", "good?", "bad?", "bad", "unsure")],
        "kinds": [(subject.fault_word(str(kind)), count) for kind, count in kinds.items()],
        "sources": [(name or "not stated", int(n)) for name, n in sources.items()],
        "labels": flat(settings.get("labels", {})), "labels_map": settings.get("labels", {}), "version": __version__,
        "rates": rates.to_dict("records"), "rate": rate, "doubled": rates[rates["rate"] > 2 * rate].to_dict("records"),
        "n": results.n(results.prefix),
        "n_good": int(probes["n_good"].iloc[0]), "n_bad": int(probes["n_bad"].iloc[0]),
        "subsets": _subsets(results), "in_sample": _in_sample(results), "baselines": _baselines(results),
        "resolution": _resolution(run, results), "massive": _massive(results.cells), "halves": _halves(results.cosines),
        "provenance": [(name, value) for name, value in flat(settings) if not name.startswith("labels")],
        "percent": words.percent, "about": about, "subject": subject, "noun": subject.noun, "plural": subject.plural,
        "good": good, "bad": bad,
        "a_good": words.with_article(good), "a_bad": words.with_article(f"{bad} {subject.noun}"),
    }


def _share(part: int, whole: int) -> str:
    return words.percent(part / whole) if whole else "–"


def told(row: pd.Series, prefix: str) -> str:
    """The AUC of one cell for a table, and whether a corrected test calls it."""
    if pd.isna(row[prefix + "auc"]):
        return f"no AUC could be computed (n = {int(row['n_good'] + row['n_bad'])})"
    columns = replace(SCORE, prefix=prefix)
    said = columns.effect(row).words()
    called = bool(columns.called(row.to_frame().T).iloc[0])
    return f"{said}{'' if called else f', {words.CHANCE}'} (n = {int(row['n_good'] + row['n_bad'])})"


def _subsets(results: Results) -> list[dict[str, Any]]:
    """The best block at every step, with sure verdicts only and with leaning ones too."""
    prefix, rows = results.prefix, []
    tables = {subset: results.probe_of(subset).set_index(["block", "step"]) for subset in ("sure", "all")}
    for step in results.steps:
        row: dict[str, Any] = {"step": step}
        for subset, table in tables.items():
            key = (results.best_block, step)
            row[subset] = told(table.loc[key], prefix) if key in table.index else "–"
        rows.append(row)
    return rows


def _in_sample(results: Results) -> list[dict[str, Any]]:
    """The difference of means of the best block: in-sample beside held out."""
    cells = results.cells[results.cells["block"] == results.best_block].sort_values("step", ascending=False)
    return [{"step": row["step"], "held_out": told(row, "dom_"),
             "in_sample": f"{row['dom_auc_in_sample']:.2f}", "raw": f"{row['db']:.2f}",
             "null": f"{row['db_null_mean']:.2f} ± {row['db_null_sd']:.2f}"} for _, row in cells.iterrows()]


def _baselines(results: Results) -> list[dict[str, str]]:
    """Each baseline at the step where it does best."""
    lines = []
    for name in results.baseline_names:
        prefix = "" if name == "prompt" else results.prefix
        rows = results.baseline(name).dropna(subset=[prefix + "auc"])
        if len(rows):
            best = rows.loc[rows[prefix + "auc"].idxmax()]
            lines.append({"name": name, "what": findings.baseline_words(results, name),
                          "step": "any" if pd.isna(best["step"]) else f"{best['step']:.0f}",
                          "auc": told(best, prefix)})
    return lines


def _resolution(run: Run, results: Results) -> list[dict[str, Any]]:
    """How many rows of a table must have the smallest p that its permutations allow before one has q <= 0.05."""
    directions = _permutations(run, ANALYZE, run.analysis_dir / "analyze.json")
    probes = _permutations(run, PROBE, run.probes_dir / "probe.json")
    tables = {"directions and distances": (directions, len(results.cells)),
              "probes": (probes, len(results.probe_of("sure"))),
              "baselines": (probes, int((results.baselines["subset"] == "sure").sum()))}
    lines = []
    for name, (permutations, rows) in tables.items():
        if permutations:
            needed = math.ceil(rows / (1 + permutations) / figures.LEVEL)
            lines.append({"name": name, "permutations": permutations, "rows": rows, "needed": needed})
    return lines


def _permutations(run: Run, stage: Stage, earlier: Path) -> int:
    """How many permutations a stage made: from the record, for a run of 0.3 from the stage's own file, else 0."""
    settings = entry_of(run.path, stage).get("settings")
    if settings is None and earlier.exists():
        settings = json.loads(earlier.read_text(encoding="utf-8"))
    return int(settings["permutations"]) if settings else 0


def _massive(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Channels that were left out of the analyses, by block."""
    column = cells["massive_channels"].astype(object).fillna("").astype(str)
    found = {block: sorted({int(float(one)) for text in texts for one in text.split(";") if one})
             for block, texts in column.groupby(cells["block"], sort=False)}
    return [(str(block), ", ".join(map(str, channels))) for block, channels in found.items() if channels]


def _halves(cosines: pd.DataFrame) -> dict[str, str]:
    """Median cosine between directions from disjoint halves of the prompts, by how near the two cells are."""
    same_block = cosines["block_a"] == cosines["block_b"]
    same_step = cosines["step_a"] == cosines["step_b"]
    parts = {"the same cell": same_block & same_step, "other steps of the same block": same_block & ~same_step,
             "other blocks": ~same_block}
    values = {name: cosines.loc[rows, "cosine_split"].to_numpy(float) for name, rows in parts.items()}
    known = {name: value for name, value in values.items() if np.isfinite(value).any()}
    return {name: words.number(float(np.nanmedian(value))) for name, value in known.items()}
