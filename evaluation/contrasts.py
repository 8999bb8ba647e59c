"""Two arms, and several: how far their rates are apart, in pairs where both drew from the same noises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.multiple import benjamini_hochberg, holm
from ..analysis.statistics.paired import Paired, paired_rates
from ..analysis.statistics.power import groups_for
from ..analysis.statistics.two_rates import conditional_odds, corrected_difference, mcnemar_p, two_rates
from ..analysis.statistics.verdicts import Counts
from .rates import FAILED, INSTANCE, MAIN, PICTURE, kinds_in, measures_of, values
from .scored import Scored

NOISES, PROMPTS, NEITHER = "same noises", "same prompts", "other prompts"
TESTED = (MAIN, FAILED)
"""Measures that arms are tested on; of the others there are intervals alone."""


def contrasts(
    scored: Scored,
    tables: Mapping[str, pd.DataFrame],
    baseline: str,
    controls: Mapping[str, Sequence[str]],
    untested: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """A row for each arm but the baseline, unit and measure.

    Parameters
    ----------
    tables : as of `handscope.evaluation.rates.measured`
    controls : of an arm, the arms that it has to beat
    untested : arms that are left out of corrections, as controls are

    Columns
    -------
    arm, against, unit, measure
    design : ``same noises``: pictures are pairs; ``same prompts``: they are not, and prompts are; ``other prompts``:
        neither are
    n, n_against, prompts, left_out : samples, and pairs without a judgement in one of the two
    before, after, difference, low, high : of the baseline and of the arm, with the 95% interval over prompts
    ratio, ratio_low, ratio_high, mended, broken, mcnemar_p : of pairs; McNemar's test takes pairs as independent
    p, holm, q : of exchanging arms prompt by prompt (or by the spread between prompts), adjusted over the arms
    control_p : the largest p against one of its controls, 1 where the arm is not below it
    odds, odds_low, odds_high, fisher_p : conditional odds ratio and Fisher's test, which take samples as independent
    corrected, corrected_low, corrected_high : difference of implausible instances, the scorer's error taken off
    needed : prompts for a difference of 5 points, with a chance of 0.8
    """
    rows: list[dict[str, Any]] = []
    kinds = kinds_in(scored)
    errors = None if scored.errors is None else Counts(scored.errors)
    arms = [arm for arm in dict.fromkeys(scored.pictures["arm"]) if arm != baseline]
    for unit, table in tables.items():
        for measure in measures_of(unit, kinds):
            sides = {arm: values(table, arm, measure) for arm in (baseline, *arms)}
            for arm in arms:
                row = {"arm": arm, "against": baseline, "unit": unit, "measure": measure}
                own = _contrast(sides[baseline], sides[arm], unit, measure in TESTED, seed)
                if errors is not None and own and (unit, measure) == (INSTANCE, MAIN):
                    (a, of_a, *_), (b, of_b, *_) = sides[baseline], sides[arm]
                    corrected = corrected_difference(two_rates(a, of_a, b, of_b, tested=False), errors)
                    own |= dict(zip(("corrected", "corrected_low", "corrected_high"), corrected))
                rows.append(row | own)
                if measure == MAIN and unit == PICTURE:
                    beside = [(_contrast(sides[one], sides[arm], unit, True, seed)) for one in controls.get(arm, ())
                              if one in sides]  # fmt: skip
                    worst = (one["p"] if one.get("difference", 0) < 0 else 1.0 for one in beside)
                    rows[-1]["control_p"] = max(worst, default=np.nan)
    found = pd.DataFrame(rows).reindex(columns=COLUMNS)
    tested = found["p"].where(~found["arm"].isin(untested))
    for _, place in found.groupby(["unit", "measure"]).groups.items():
        found.loc[place, "holm"] = holm(tested[place])
        found.loc[place, "q"] = benjamini_hochberg(tested[place])
    return found


COLUMNS = (
    "arm against unit measure design n n_against prompts left_out before after difference low high ratio ratio_low "
    "ratio_high mended broken p holm q control_p mcnemar_p odds odds_low odds_high fisher_p corrected "
    "corrected_low corrected_high needed"
).split()

Side = tuple[NDArray[np.float64], NDArray, NDArray, NDArray]


def _contrast(before: Side, after: Side, unit: str, tested: bool, seed: int) -> dict[str, Any]:
    """One arm against another, by one measure."""
    (a, prompts_a, samples_a, noises_a), (b, prompts_b, samples_b, noises_b) = before, after
    if np.isnan(a).all() or np.isnan(b).all():
        return {}
    row: dict[str, Any]
    at = dict(zip(samples_a.tolist(), range(len(a)))) if unit == PICTURE else {}
    pairs = np.array([at.get(sample, -1) for sample in samples_b.tolist()])
    same = len(pairs) == len(b) == len(a) and (pairs >= 0).all()
    if unit == PICTURE and same and (noises_b != "").all() and (noises_a[pairs] == noises_b).all():
        if (~np.isnan(a[pairs]) & ~np.isnan(b)).any():
            found = paired_rates(a[pairs], b, prompts_b, seed, tested)
            row = of_pairs(found) | {"design": NOISES, "prompts": len(set(prompts_b))}
        else:
            return {}
    else:
        other = two_rates(a, prompts_a, b, prompts_b, seed, tested)
        design = PROMPTS if set(prompts_a) & set(prompts_b) else NEITHER
        row = {key: value for key, value in asdict(other).items() if key in COLUMNS}
        row |= {"design": design, "n": other.n_after, "n_against": other.n_before, "prompts": other.groups}
    half = max(row["high"] - row["difference"], row["difference"] - row["low"])
    alike = np.isclose(half, 1 - 0.025 ** (1 / row["prompts"]))  # no prompt differs from another: no spread to go by
    row["needed"] = np.nan if alike else groups_for(half, row["prompts"])
    if not tested:
        return row
    counts = [[int(np.nansum(one)), int((one == 0).sum())] for one in (a, b)]
    odds = conditional_odds(counts)
    return row | {"odds": odds.ratio, "odds_low": odds.low, "odds_high": odds.high, "fisher_p": odds.p}


def of_pairs(found: Paired) -> dict[str, Any]:
    """What pairs say, by the columns of `contrasts`."""
    row = {key: value for key, value in asdict(found).items() if key in COLUMNS}
    return row | {"n_against": found.n, "mcnemar_p": mcnemar_p(found.mended, found.broken)}
