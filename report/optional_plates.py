"""Figures of the optional tables, each only where its table is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import figures
from ..analysis.statistics.power import design_effect, power
from ..figures import LEVEL
from ..labeling.subject import Subject
from . import token_classes, values
from .results import Results
from .words import best_row, percent, place

AUCS = (0.55, 0.6, 0.65, 0.7)
AUC = "held-out AUC"


def optional_plates(results: Results) -> dict[str, Callable[[], Figure]]:
    """How to draw each of them, by the name of its file."""
    makers = {
        "contrasts": (_contrasts, ("contrasts",)),
        "gaussianity": (_gaussianity, ("gaussianity",)),
        "transfer": (_transfer, ("transfer",)),
        "probe_transfer": (_probe_transfer, ("probe_transfer",)),
        "methods": (_methods, ("methods",)),
        "reliability": (_reliability, ("reliability", "calibration")),
        "survey_probe": (_survey_probe, ("survey",)),
        "survey_distance": (_survey_distance, ("survey",)),
        "values": (values.grid_figure, ("value_probes",)),
        "value_confusion": (values.confusion_figure, ("value_probes", "value_confusion")),
        "classes": (token_classes.grid_figure, ("class_probes",)),
    }
    drawings: dict[str, Callable[[], Figure]] = {
        name: partial(draw, results)
        for name, (draw, tables) in makers.items()
        if all(len(results.table(table)) for table in tables)
    }
    if results.table("contrasts").get("dom_auc", pd.Series(dtype=float)).isna().all():
        drawings.pop("contrasts", None)  # nothing but reasons, which are told in words
    return drawings | {"distance_parts": partial(_parts, results), "power": partial(_power, results)}


def auc_label(subject: Subject) -> str:
    """What the colours of a grid of AUCs mean."""
    return f"AUC: {subject.verdicts['bad']} {subject.plural} score above {subject.verdicts['good']} ones"


def _size(results: Results) -> tuple[float, float]:
    """Width and height of a panel of blocks × steps."""
    return 1.9 + 0.62 * max(len(results.steps), 4), 1.5 + 0.42 * max(results.cells["block"].nunique(), 4)


def _parts(results: Results) -> Figure:
    """The two parts of the distance, in-sample, and what remains of both above the null."""
    width, height = _size(results)
    drawn = figures.figure(max(width, 5.0), 3 * height)
    panels = drawn.subplots(3, 1)
    for ax, value, title in zip(
        panels, ("db_mean_term", "db_variance_term", "db_excess"),
        ("Part of the means, in-sample", "Part of the variances, in-sample", "Both, above the null"), strict=True
    ):
        figures.grid(results.cells, value, "db_q" if value == "db_excess" else None, ax, label="nats")
        ax.set_title(title)
    return drawn


def _contrasts(results: Results) -> Figure:
    table = results.table("contrasts").dropna(subset=["dom_auc"])
    names = list(dict.fromkeys(table["contrast"]))
    every = results.cells
    block = best_row(every, "dom_auc", every["dom_q"] <= LEVEL)["block"]
    lines = {"all faults": every[every["block"] == block]}
    lines |= {f"{name} faults": table[(table["contrast"] == name) & (table["block"] == block)] for name in names}
    drawn = figures.figure(6.6, 3.8)
    ax = figures.series(lines, drawn.subplots(), prefix="dom_")
    ax.set_title(f"Difference of means in {block}")
    ax.set_ylabel(AUC)
    ax.legend(loc="best")
    return drawn


def _gaussianity(results: Results) -> Figure:
    table = results.table("gaussianity")
    table = table.assign(claimed=table["llr_auc_implied"] - table["llr_auc"])
    width, height = _size(results)
    drawn = figures.figure(max(width, 5.0), 3 * height)
    panels = drawn.subplots(3, 1)
    for ax, (value, title, label, digits) in zip(panels, (
        ("claimed", "Claimed and not there", "AUC implied by the model, less held-out AUC", 2),
        ("kurtosis", "Tails", "excess kurtosis of a leading direction, median", 1),
        ("effective_rank", "Dimensions", "effective rank of the covariance within classes", 1),
    ), strict=True):
        figures.grid(table, value, None, ax, label=label, digits=digits)
        ax.set_title(title)
    return drawn


def _transfer(results: Results) -> Figure:
    drawn = figures.figure(7.4, 6.2)
    figures.transfer(results.table("transfer"), drawn.subplots()).set_title("Difference of means")
    return drawn


def _probe_transfer(results: Results) -> Figure:
    names = {"fitted_block": "block_a", "fitted_step": "step_a", "judged_block": "block_b", "judged_step": "step_b"}
    drawn = figures.figure(7.4, 6.2)
    table = results.table("probe_transfer").rename(columns=names)
    figures.transfer(table, drawn.subplots()).set_title("Logistic probe")
    return drawn


def _methods(results: Results) -> Figure:
    table, block = results.table("methods"), results.best_block
    probes = results.probe_of("sure")
    lines = {"logistic": probes[probes["block"] == block]}
    lines |= {str(name): rows[rows["block"] == block] for name, rows in table.groupby("method", sort=False)}
    drawn = figures.figure(6.6, 3.8)
    ax = figures.series(lines, drawn.subplots(), prefix=results.prefix)
    ax.set_title(f"Kinds of probe in {block}")
    ax.set_ylabel("AUC within prompts" if results.prefix else AUC)
    ax.legend(loc="best")
    return drawn


def _reliability(results: Results) -> Figure:
    """The cell whose probe is best, as fitted and calibrated."""
    probes, prefix = results.probe_of("sure"), results.prefix
    best = best_row(probes, prefix + "auc", probes[prefix + "q"] <= LEVEL)
    bins, errors = (
        table[(table["block"] == best["block"]) & (table["step"] == best["step"])]
        for table in (results.table("reliability"), results.table("calibration"))
    )
    drawn = figures.figure(8.6, 4.5)
    for ax, (name, title) in zip(drawn.subplots(1, 2), (("raw", "As fitted"), ("platt", "Calibrated")), strict=True):
        row = errors[errors["log_odds"] == name].iloc[0]
        note = f"error {percent(row['ece'])}, by chance {percent(row['null_mean'])}"
        figures.reliability(bins[bins["log_odds"] == name], ax, note=note, subject=results.subject)
        ax.set_title(f"{title}: {place(best)}")
    return drawn


def _power(results: Results) -> Figure:
    """The chance of seeing an AUC, by the number of samples, with the design effect that the probes' nulls show."""
    probes, prefix = results.probe_of("sure"), results.prefix
    n_bad, n_good = int(probes["n_bad"].iloc[0]), int(probes["n_good"].iloc[0])
    share, n = n_bad / (n_bad + n_good), n_bad + n_good
    design = float(design_effect(probes[prefix + "null_sd"].median(), n_bad, n_good))
    counts = np.unique(np.geomspace(max(20, n / 8), 20 * n, 60).round().astype(int))
    table = pd.concat([
        pd.DataFrame({"auc": auc, "n": counts, "power": power(auc, counts * share, counts * (1 - share), design)})
        for auc in AUCS
    ])
    drawn = figures.figure(6.6, 3.8)
    ax = figures.power_curve(table, drawn.subplots(), at=[n], subject=results.subject)
    ax.set_title("A probe of one cell" + (", within prompts" if prefix else ""))
    return drawn


def _survey_probe(results: Results) -> Figure:
    table = results.table("survey")
    drawn = figures.figure(6.6, 2.2 + 0.115 * max(table["block"].nunique(), 12))
    ax = figures.survey_map(table, "ridge_auc", "ridge_q", drawn.subplots(), centre=0.5, label=AUC)
    ax.set_title("Ridge probe")
    return drawn


def _survey_distance(results: Results) -> Figure:
    table = results.table("survey")
    drawn = figures.figure(6.6, 2.2 + 0.115 * max(table["block"].nunique(), 12))
    ax = figures.survey_map(table, "db_excess", "db_q", drawn.subplots(), label="excess over permuted labels, nats")
    ax.set_title("Bhattacharyya distance")
    return drawn
