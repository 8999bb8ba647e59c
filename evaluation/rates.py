"""Rates of arms: of pictures and of instances, with intervals over prompts, and with the scorer's error taken off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.rates import clustered_share
from ..analysis.statistics.verdicts import Counts, corrected_rate
from .scored import OUTCOMES, Scored

PICTURE, INSTANCE = "picture", "instance"
MAIN = "implausible"
FAILED = "failed"
MEASURES = {
    MAIN: "of those that the scorer can tell of, how many are implausible (a picture: any of its instances)",
    FAILED: "of pictures whose prompt asks for an instance: one is implausible, or none is found",
    "avoided": "of pictures whose prompt asks for an instance: none is found",
    "undetected": "of all pictures: none is found",
    "cannot tell": "the scorer cannot tell",
}
"""What is counted; behind them stand the kinds of fault, of those that the scorer can tell of."""


def measured(scored: Scored) -> dict[str, pd.DataFrame]:
    """What is counted, for each picture and for each instance: 1, 0 or NaN where it does not count.

    Returns
    -------
    dict of DataFrames by unit: arm, sample, prompt, noise, and a column for each measure and kind of fault
    """
    keys = ["arm", "sample"]
    own = scored.instances.assign(grave=scored.instances["outcome"].map(_GRAVITY))
    kinds = kinds_in(scored)
    for kind in kinds:
        own[kind] = own["faults"].str.split(";").map(lambda said, kind=kind: kind in said).astype(float)
    of_picture = own.groupby(keys, sort=False)[["grave", *kinds]].max()
    pictures = scored.pictures.set_index(keys)
    # A picture that no row tells of has no verdict at all: it is left out.
    pictures = pictures.join(of_picture, how="inner").reset_index()
    for table in (pictures, own):
        table["outcome"] = table["grave"].map(dict(enumerate(_BY_GRAVITY)))
        told = table["outcome"].isin(("plausible", MAIN))
        table[MAIN] = (table["outcome"] == MAIN).where(told).astype(float)
        table["cannot tell"] = (table["outcome"] == "cannot tell").astype(float)
        table[kinds] = table[kinds].where(told, axis=0)
    none = (pictures["outcome"] == "undetected").astype(float)
    asked = pictures["asked"].astype(bool)
    pictures["undetected"], pictures["avoided"] = none, none.where(asked)
    pictures[FAILED] = pictures[MAIN].where(none == 0, 1.0).where(asked)
    found = own[own["outcome"] != "undetected"].merge(pictures[[*keys, "prompt", "noise"]], on=keys)
    return {PICTURE: pictures, INSTANCE: found}


_BY_GRAVITY = ("undetected", "plausible", "cannot tell", "implausible")
_GRAVITY = {name: place for place, name in enumerate(_BY_GRAVITY)}
assert set(_BY_GRAVITY) == set(OUTCOMES)


def kinds_in(scored: Scored) -> list[str]:
    """The kinds of fault that the scorer named, most frequent first."""
    said = scored.instances["faults"].replace("", np.nan).dropna().str.split(";").explode()
    return [str(kind) for kind in said.value_counts().index]


def measures_of(unit: str, kinds: Sequence[str]) -> list[str]:
    """What is counted of a unit: the measures, and the kinds of fault."""
    own = list(MEASURES) if unit == PICTURE else [MAIN, "cannot tell"]
    return [*own, *kinds]


def rates(scored: Scored, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each arm, unit and measure.

    Columns
    -------
    arm, unit, measure
    n, bad, prompts : samples that count, how many have it, and their prompts
    rate, lo, hi : with the 95% interval over prompts, as of `clustered_share`
    least, most : of implausible ones, if all that could not be told or found were sound, and if none of them were
    corrected, corrected_lo, corrected_hi : of implausible instances, the scorer's error taken off (Rogan and Gladen)
    """
    rows: list[dict[str, Any]] = []
    kinds = kinds_in(scored)
    errors = None if scored.errors is None else Counts(scored.errors)
    for arm in dict.fromkeys(scored.pictures["arm"]):
        for unit, table in tables.items():
            own = table[table["arm"] == arm]
            for measure in measures_of(unit, kinds):
                counts = own[measure].notna()
                row: dict[str, Any] = {"arm": arm, "unit": unit, "measure": measure, "n": int(counts.sum())}
                if row["n"]:
                    value, prompt = own.loc[counts, measure].to_numpy(), own.loc[counts, "prompt"].to_numpy()
                    row |= {"bad": int(value.sum()), "prompts": len(set(prompt))}
                    row |= dict(zip(("rate", "lo", "hi"), clustered_share(value, prompt)))
                    if measure == MAIN:
                        row |= {"least": value.sum() / len(own), "most": 1 - (value == 0).sum() / len(own)}
                        if errors is not None and unit == INSTANCE:
                            corrected = corrected_rate(value, prompt, errors)
                            row |= dict(zip(("corrected", "corrected_lo", "corrected_hi"), corrected))
                rows.append(row)
    columns = ["arm", "unit", "measure", "n", "bad", "prompts", "rate", "lo", "hi", "least", "most"]
    corrected_columns = ["corrected", "corrected_lo", "corrected_hi"]
    return pd.DataFrame(rows).reindex(columns=columns + corrected_columns)


def values(table: pd.DataFrame, arm: str, measure: str) -> tuple[NDArray[np.float64], NDArray, NDArray, NDArray]:
    """Of an arm, what is counted, prompts, samples and noises: (n,) each."""
    own = table[table["arm"] == arm]
    return own[measure].to_numpy(float), own["prompt"].to_numpy(), own["sample"].to_numpy(), own["noise"].to_numpy()
