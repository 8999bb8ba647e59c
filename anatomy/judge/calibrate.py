"""Fit `calibrated` to a person's labels, and measure every method on hands that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...analysis.statistics.auc import auc
from ...analysis.statistics.intervals import bootstrap_auc
from ...analysis.statistics.probabilities import calibration_curve, calibration_error
from ...analysis.statistics.verdicts import (
    Counts,
    accuracy,
    kappa,
    rogan_gladen,
    sensitivity,
    specificity,
    with_interval,
)
from ...errors import HandscopeError
from ..measure.examine import Examined
from .calibration import Calibration, fit
from .scoring import METHODS, judge

FOLDS = 5
PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)
MEASURES = {"agreement": accuracy, "kappa": kappa, "sensitivity": sensitivity, "specificity": specificity}
ALARMS = 0.05
"""The share of good hands that `calibrate` lets be called implausible, unless another is asked for."""
UNDETECTED = ("left out", "counted as implausible", "counted as plausible")


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A calibration, and what it and the other methods are worth on hands that it was not fitted to.

    Attributes
    ----------
    calibration : fitted to all labelled hands that were found, with its trust.
    agreement : a row for each method and each way to count undetected hands, see `agreement_of`.
    curve : a `calibration_curve` of held-out probabilities.
    error : mean distance of predicted from observed, over it.
    rates : a row a method: labelled, flagged and corrected share of bad hands among those found.
    held_out : DataFrame, a row a labelled hand that was found: place, group, bad, probability, and a bool column a
        method that says whether it flags the hand.
    groups : a row a group (a generator, or a prompt), see `report_card`.
    warning : why the calibration is not to be used, or "" where it learnt something.
    """

    calibration: Calibration
    agreement: pd.DataFrame
    curve: pd.DataFrame
    error: float
    rates: pd.DataFrame
    held_out: pd.DataFrame
    groups: pd.DataFrame
    warning: str


def calibrate(
    read: Examined,
    bad: NDArray[np.bool_],
    groups: NDArray[Any],
    *,
    boxes: Sequence[Sequence[float] | None] | None = None,
    provenance: dict[str, Any] | None = None,
    alarms: float = ALARMS,
) -> Calibrated:
    """Fit and measure.

    Parameters
    ----------
    read : n pictures, examined
    bad, groups : (n,), the label of the hand in each picture, and its prompt or generator
    alarms : the share of good hands that may be called implausible
    boxes : for each picture the box of the hand that is meant, x0, y0, x1, y1 in pixels, or None. Without one it is the
        hand that was found most surely

    Raises
    ------
    HandscopeError
        There are fewer than 5 groups, or a fold leaves only good, or only bad, hands to fit to.

    Notes
    -----
    Five folds keep groups together. The strength of the penalty is chosen for each fold by the log loss of folds of its
    training groups, so that no held-out probability has seen its own group. The calibration itself is fitted to all.

    The threshold is the held-out probability that at most `alarms` of the good hands reach (`threshold_at`), so that
    it does not depend on how rare bad hands are among those labelled: a threshold of one half flags nothing where one
    in ten is bad. That of a fold's verdicts here is set without the fold. Where the AUC's interval holds one half
    nothing was learnt: the calibration then calls no hand plausible and none implausible.
    """
    bad, groups = np.asarray(bad, bool), np.asarray(groups).astype(str)
    chosen = chosen_hands(read, boxes)
    place = np.flatnonzero(chosen >= 0)
    if len(place) == 0:
        raise HandscopeError(f"No hand was found in any of {len(bad)} labelled pictures: there is nothing to fit to.")
    names = [name for name in read.evidence if name != "hand"]
    x = read.matrix(names).numpy()[chosen[place]]
    y, group = bad[place], groups[place]
    probability = held_out(x, y, group, names)
    l2 = best_penalty(x, y, group, names)
    fitted = fit(x, y, names, l2=l2)
    fitted = replace(fitted, threshold=threshold_at(probability[~y], alarms))
    table = pd.DataFrame({"place": place, "group": group, "bad": y, "probability": probability})
    for method in METHODS:
        if method == "calibrated":
            table[method] = flagged_apart(probability, y, group, alarms)
        else:
            verdicts = judge(read, method).verdicts
            table[method] = [verdicts[hand].plausible is False for hand in chosen[place]]
    agreement = pd.DataFrame([row for method in METHODS for row in agreement_of(table, method, bad, groups)])
    curve = calibration_curve(probability, y)
    warning = _warning(agreement)
    if warning:
        fitted = replace(fitted, threshold=NEVER, passes=0.0)
    trust = {"folds": FOLDS, "l2": l2, "alarms": alarms, "calibration_error": calibration_error(curve)} | {
        method: _trust(agreement, table, method) for method in METHODS
    }
    return Calibrated(
        replace(fitted, trust=trust, provenance=provenance or {}),
        agreement,
        curve,
        calibration_error(curve),
        pd.DataFrame([_rates(table, method) for method in METHODS]),
        table,
        report_card(table),
        warning,
    )


NEVER = 2.0  # a threshold that no probability reaches


def threshold_at(good: NDArray[np.float64], alarms: float) -> float:
    """The probability that a new good hand reaches with a chance of at most `alarms`, if it is like these (n,).

    Notes
    -----
    Split conformal prediction: the k-th smallest, k = ceil((n + 1) (1 - alarms)); beyond the largest where there are
    too few (Vovk et al. 2005; Angelopoulos et al. 2024, "Conformal risk control", arXiv 2208.02814).
    """
    k = int(np.ceil((len(good) + 1) * (1 - alarms)))
    return float(np.nextafter(np.sort(good)[min(k, len(good)) - 1], np.inf)) if len(good) else NEVER


def flagged_apart(
    probability: NDArray[np.float64], bad: NDArray[np.bool_], groups: NDArray[Any], alarms: float
) -> NDArray[np.bool_]:
    """Whether each hand is flagged by a threshold that was set without its fold: (m,)."""
    flagged = np.zeros(len(bad), bool)
    for train, test in folds_of(bad, groups):
        flagged[test] = probability[test] >= threshold_at(probability[train][~bad[train]], alarms)
    return flagged


def report_card(table: pd.DataFrame) -> pd.DataFrame:
    """How `calibrated` does on each group of held-out hands, the largest first.

    Columns: group, n, bad, flagged (share), sensitivity, specificity, auc; NaN where a group has no such hands.
    """
    rows = []
    for group, own in table.groupby("group", sort=True):
        y, flagged = own["bad"].to_numpy(bool), own["calibrated"].to_numpy(bool)
        counts = Counts.of(flagged, y, np.zeros(len(y))).total()
        rows.append(
            {
                "group": group, "n": len(y), "bad": int(y.sum()), "flagged": float(flagged.mean()),
                "sensitivity": float(sensitivity(counts)), "specificity": float(specificity(counts)),
                "auc": float(auc(own["probability"], y)),
            }
        )  # fmt: skip
    return pd.DataFrame(rows).sort_values(["n", "group"], ascending=[False, True], kind="stable", ignore_index=True)


def _warning(agreement: pd.DataFrame) -> str:
    row = agreement[(agreement["method"] == "calibrated") & (agreement["undetected"] == "left out")].iloc[0]
    if row["auc_lo"] > 0.5:
        return ""
    return (
        f"nothing was learnt that holds for other groups: the AUC on hands that were not fitted to is {row['auc']:.2f} "
        f"({row['auc_lo']:.2f} to {row['auc_hi']:.2f}; {row['bad']} bad and {row['good']} good hands), so that with "
        "this calibration the score says cannot tell of every hand; label more bad hands"
    )


def chosen_hands(read: Examined, boxes: Sequence[Sequence[float] | None] | None = None) -> NDArray[np.intp]:
    """The hand that each picture's label is about: (n,), places in ``read.hands``; -1 where it was not found."""
    chosen = np.full(read.pictures, -1)
    image = read.hands.image.tolist()
    centre = read.hands.points[..., :2].mean(1).numpy()
    for k in sorted(range(len(image)), key=lambda k: -float(read.hands.presence[k])):
        i = image[k]
        box = boxes[i] if boxes is not None else None
        inside = box is None or (box[0] <= centre[k, 0] <= box[2] and box[1] <= centre[k, 1] <= box[3])
        if chosen[i] < 0 and inside:
            chosen[i] = k
    return chosen


def folds_of(y: NDArray[np.bool_], groups: NDArray[Any], folds: int = FOLDS) -> list[tuple[Any, Any]]:
    """Rows to fit to and rows to hold out, a pair a fold, whole groups together and the classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    n = len(np.unique(groups))
    if n < folds:
        raise HandscopeError(
            f"Held-out numbers need hands of at least {folds} groups (prompts, or generators), found {n}: label more, "
            "or give each picture a group of its own."
        )
    fewest = min(int(y.sum()), int((~y).sum()))
    if fewest < folds:
        raise HandscopeError(
            f"Held-out numbers need at least {folds} good and {folds} bad hands that were found; there are "
            f"{int(y.sum())} bad ones among {len(y)}: label more."
        )
    splits = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(y, y, groups))
    for train, _ in splits:
        if y[train].min() == y[train].max():
            raise HandscopeError(
                f"{int(y.sum())} of {len(y)} labelled hands are bad, and they lie in so few groups that a fold leaves "
                "only one kind to fit to: label more, in more groups."
            )
    return splits


def held_out(
    x: NDArray[np.float64], y: NDArray[np.bool_], groups: NDArray[Any], names: Sequence[str]
) -> NDArray[np.float64]:
    """Probability of "bad" of each row, from a fit, and a choice of penalty, that saw no row of its group: (m,)."""
    p = np.empty(len(y))
    for train, test in folds_of(y, groups):
        l2 = best_penalty(x[train], y[train], groups[train], names)
        p[test] = fit(x[train], y[train], names, l2=l2).probability(x[test])
    return p


def best_penalty(
    x: NDArray[np.float64], y: NDArray[np.bool_], groups: NDArray[Any], names: Sequence[str]
) -> float:
    """The strength of the penalty with the least log loss over grouped folds."""
    n_folds = min(FOLDS, len(np.unique(groups)), int(y.sum()), int((~y).sum()))
    if n_folds < 2:
        return PENALTIES[-1]
    splits = folds_of(y, groups, n_folds)
    losses = []
    for l2 in PENALTIES:
        loss = 0.0
        for train, test in splits:
            p = np.clip(fit(x[train], y[train], names, l2=l2).probability(x[test]), 1e-9, 1 - 1e-9)
            loss -= np.log(np.where(y[test], p, 1 - p)).sum()
        losses.append(loss)
    return PENALTIES[int(np.argmin(losses))]


def agreement_of(
    table: pd.DataFrame, method: str, bad: NDArray[np.bool_], groups: NDArray[Any]
) -> list[dict[str, Any]]:
    """Agreement of a method with the labels, a row for each way to count hands that were not found.

    Columns: method, undetected (how they are counted), n, bad, good, groups, undetected_bad and undetected_good (shares
    of those labelled so), and agreement, kappa, sensitivity, specificity, each with ``_lo`` and ``_hi``, and auc,
    auc_lo, auc_hi (of `calibrated`, among those found).
    """
    lost = np.ones(len(bad), bool)
    lost[table["place"]] = False
    rows = []
    for undetected in UNDETECTED:
        flagged = np.zeros(len(bad), bool)
        flagged[table["place"]] = table[method]
        keep = ~lost if undetected == "left out" else np.ones(len(bad), bool)
        if undetected == "counted as implausible":
            flagged |= lost
        counts = Counts.of(flagged[keep], bad[keep], groups[keep])
        row: dict[str, Any] = {
            "method": method,
            "undetected": undetected,
            "n": int(keep.sum()),
            "bad": int(bad[keep].sum()),
            "good": int((~bad[keep]).sum()),
            "groups": len(np.unique(groups[keep])),
            "undetected_bad": float(lost[bad].mean()) if bad.any() else float("nan"),
            "undetected_good": float(lost[~bad].mean()) if (~bad).any() else float("nan"),
        }
        for name, measure in MEASURES.items():
            row[name], row[f"{name}_lo"], row[f"{name}_hi"] = with_interval(measure, counts)
        if method == "calibrated" and undetected == "left out":
            row["auc"] = float(auc(table["probability"], table["bad"]))
            row["auc_lo"], row["auc_hi"] = bootstrap_auc(table["probability"], table["bad"], table["group"])
        rows.append(row)
    return rows


def _trust(agreement: pd.DataFrame, table: pd.DataFrame, method: str) -> dict[str, Any]:
    """What a calibration keeps of a method: its agreement where hands were found, and the counts in each group."""
    row = agreement[(agreement["method"] == method) & (agreement["undetected"] == "left out")].iloc[0]
    kept = {key: value for key, value in row.items() if key not in ("method", "undetected") and value == value}
    clean = {key: round(float(value), 4) if isinstance(value, float) else int(value) for key, value in kept.items()}
    counts = Counts.of(table[method], table["bad"], table["group"]).table.astype(int).tolist()
    return clean | {"counts": counts}


def _rates(table: pd.DataFrame, method: str) -> dict[str, Any]:
    """The share of bad hands by label, by verdict, and by verdict with the error taken off.

    The correction of a fold's hands comes from the other folds: sensitivity and specificity of the same hands would
    give the labelled share back, whatever the method.
    """
    y, flagged = table["bad"].to_numpy(bool), table[method].to_numpy(bool)
    corrected = np.full(len(y), np.nan)
    for train, test in folds_of(y, table["group"].to_numpy()):
        counts = Counts.of(flagged[train], y[train], np.zeros(len(train))).total()
        corrected[test] = rogan_gladen(flagged[test].mean(), sensitivity(counts), specificity(counts))
    corrects = not np.isnan(corrected).any()
    return {
        "method": method,
        "labelled": float(y.mean()),
        "flagged": float(flagged.mean()),
        "corrected": float(corrected.mean()) if corrects else float("nan"),
        "why": "" if corrects else "it flags good hands as often as bad ones",
    }
