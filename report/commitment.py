"""When the samples of a run were decided: measured, drawn, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import figures
from ..evaluation.commitment import commit, predicted_pictures
from ..evaluation.decided import decided
from ..evaluation.regions import Region
from ..labeling.subject import subject_of
from ..models.model import Model
from ..organism.study.regions import regions_of
from ..progress import Progress, quiet
from ..run.folder import Run
from .claims import SCORE, claim_of
from .outcomes import decided_later
from .words import place, with_article

SHOWN = 10  # pictures of a filmstrip


def commit_and_draw(model: Model, run: Run, samples: int = 200, seed: int = 0, progress: Progress = quiet) -> None:
    """Measure commitment, as `commit` does, and draw it into ``figures/commitment``."""
    regions = regions_of(run)
    rows, _ = commit(model, run, regions, samples, seed, progress)
    figures.save(commitment_plate(model, run, rows, regions), run.figures_dir, "commitment")


def told(run: Run) -> list[str]:
    """What the tables of a run say of each region: see `sentences`."""
    summary = pd.read_csv(run.analysis_dir / "commitment_summary.csv").fillna({"reason": ""})
    return sentences(run, summary, regions_of(run))


def summary(run: Run) -> str:
    """What is said of the first region, and where the rest is."""
    return f"{told(run)[0]}, in {run.analysis_dir / 'commitment_summary.csv'}"


def commitment_plate(model: Model, run: Run, rows: pd.DataFrame, regions: Sequence[Region]) -> Figure:
    """Shares decided over steps, of all regions and of good and bad samples, and a filmstrip of one of each.

    Parameters
    ----------
    rows : as of `commit`
    regions : the ones of `commit`; the first that has a shape is drawn
    """
    own = pd.concat([rows[(rows["region"] == r.name) & np.isclose(rows["tolerance"], r.tolerance)] for r in regions])
    shown = next((region for region in regions if region.shapes is not None and _typical(own, region.name)), None)
    strips = [] if shown is None else _typical(own, shown.name)
    with rc_context(figures.STYLE):
        drawn = figures.figure(11.0, 3.6 + 1.5 * len(strips))
        above, below = drawn.subfigures(2, 1, height_ratios=[3.6, max(1.5 * len(strips), 0.01)])
        left, right = above.subplots(1, 2)
        steps = int(rows["steps"].iloc[0])
        every = {region.name: own[own["region"] == region.name] for region in regions}
        figures.decided_share({name: decided(part) for name, part in every.items() if _any(part)}, steps, left)
        left.set_title("Regions of the picture")
        compared = regions[0] if shown is None else shown
        subject = subject_of(run)
        good, bad = subject.verdicts["good"], subject.verdicts["bad"]
        groups = {name: every[compared.name].query(f"bad == {is_bad}") for name, is_bad in ((good, 0), (bad, 1))}
        figures.decided_share({name: decided(part) for name, part in groups.items() if _any(part)}, steps, right)
        right.set_title(
            f"{good.capitalize()} and {bad} {subject.plural}: {compared.name}, {compared.tolerance:g} {compared.unit}"
        )
        if shown is not None:
            panels = np.atleast_1d(below.subplots(len(strips), 1))
            for panel, row in zip(panels, strips):
                _strip(model, run, shown, row, panel)
    return drawn


def sentences(run: Run, summary: pd.DataFrame, regions: Sequence[Region]) -> list[str]:
    """What a summary says of each region at its own tolerance, and when a probe begins to tell."""
    said = []
    for region in regions:
        some = summary[(summary["region"] == region.name) & np.isclose(summary["tolerance"], region.tolerance)]
        whole = some[some["group"] == "all"].iloc[0]
        within = f"{region.name}, within {region.tolerance:g} {region.unit}"
        counts = f"{whole.n} samples, {whole.undecided} not before the end, {whole.missing} without it at the end"
        if whole.reason:
            said.append(f"{within}: no median ({whole.reason}; {counts})")
            continue
        noise = f"at {whole.snr_db:.1f} dB" if np.isfinite(whole.snr_db) else "in pure noise"
        interval = f"95% {whole.steps_lo:g} to {whole.steps_hi:g}"
        text = f"{within}: half are decided by step {whole.median_step:g} ({interval}), {noise}; {counts}"
        said.append(text)
    said.append(decided_later(summary, subject_of(run)).brief)
    path = run.analysis_dir / "probes.csv"
    if path.exists():
        said.append(_first_told(pd.read_csv(path)))
    return said


def _first_told(probes: pd.DataFrame) -> str:
    """The noisiest step at which a probe tells good from bad within prompts."""
    columns = replace(SCORE, prefix="within_")
    rows = probes[probes["subset"] == "sure"].dropna(subset=["within_auc"])
    called = rows[columns.called(rows)]
    n = f"n = {int(probes['n_good'].iloc[0] + probes['n_bad'].iloc[0])}"
    claim = claim_of("", "a probe", "a probe tells good from bad within prompts", n, rows, columns)
    if called.empty:
        return claim.brief
    first = called.loc[called["step"].idxmax()]
    return f"a probe tells good from bad within prompts from {place(first)} on: {columns.effect(first).words()} ({n})"


def _any(rows: pd.DataFrame) -> bool:
    return bool((rows["reason"] != "no shape at the end").any())


def _typical(rows: pd.DataFrame, region: str) -> list[pd.Series]:
    """The sample of median commitment among the good, and among the bad; no other choice is made."""
    rows = rows[(rows["region"] == region) & rows["index"].notna()]
    found = []
    for bad in (0, 1):
        some = rows[rows["bad"] == bad].sort_values(["index", "sample"])
        if len(some):
            found.append(some.iloc[len(some) // 2])
    return found


def _strip(model: Model, run: Run, region: Region, row: pd.Series, panel: Axes) -> None:
    sample = run.metadata()[row["sample"]]
    pictures = predicted_pictures(model, run.trajectory(row["sample"]), int(sample["height"]), int(sample["width"]))
    places = np.unique(np.linspace(0, len(pictures) - 1, SHOWN).round().astype(int))
    assert region.shapes is not None
    shapes = region.shapes(pictures[places])
    subject = subject_of(run)
    one = with_article(f"{subject.verdicts['bad' if row['bad'] == 1 else 'good']} {subject.noun}")
    title = f"{one} of median commitment: decided at step {row['step']:g} of {row['steps']} ({row['sample']})"
    figures.filmstrip(
        pictures[places], shapes, [len(pictures) - int(i) for i in places], panel, decided=int(row["step"]), title=title
    )
