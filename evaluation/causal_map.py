"""What interchange showed: a row for each arm and cell, with intervals over prompts, and what cells do beyond controls.

The effect on a pair is how far the judge's probability of bad moved towards the donor's class. Pairs of one prompt are
alike: prompts are the unit of interval and test, as in `analysis.statistics.paired`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import bootstrap_weights, interval
from ..analysis.statistics.multiple import benjamini_hochberg, family_p
from ..analysis.statistics.nulls import p_values
from ..analysis.statistics.paired import half_width
from ..errors import HandscopeError
from .patching import CONTROLS, FIRST_ORDER, LATENTS, MAIN, WINDOWS

FLIPS = 9999
CELL = ["block", "step"]
DIRECTIONS = {"both": (-1, 1), "into bad": (-1,), "into good": (1,)}
"""Which pairs: all; good donors into bad recipients; bad donors into good ones."""


def effects_of(folder: Path, pairs: pd.DataFrame) -> pd.DataFrame:
    """All rows that are there, with the prompt of each pair and its effect.

    Returns
    -------
    DataFrame
        The columns of the parts; prompt, toward; `moved`, the judge's probability towards the donor's class, and
        `whole`, the same of the donor's own picture; `judged`, the same of its verdict: 1 where it changed so, -1 where
        it changed the other way and 0 where it did not.

    Raises
    ------
    HandscopeError
        There are none.
    """
    paths = sorted((folder / "parts").glob("*.csv"))
    read = [pd.read_csv(path) for path in paths if path.stat().st_size > 1]
    if not read:
        raise HandscopeError(f"There are no parts in {folder}: run patch first.")
    rows = pd.concat(read, ignore_index=True)
    rows["block"] = rows["block"].fillna("")
    rows = rows.merge(pairs[["pair", "prompt", "toward"]], on="pair")
    rows["moved"] = rows["toward"] * (rows["bad"] - rows["before"])
    rows["whole"] = rows["toward"] * (rows["goal"] - rows["before"])
    rows["judged"] = rows["toward"] * ((rows["bad"] > 0.5).astype(int) - (rows["before"] > 0.5).astype(int))
    return rows


def causal_map(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """One row for each direction, arm and cell; the arm `LATENTS` has no block.

    Columns
    -------
    direction, arm, block, step, n, prompts, tokens
    moved, moved_lo, moved_hi : mean over pairs, 95% interval over prompts
    p, p_family, q : of no move, one-sided, by the signs of prompts; over the cells of the direction and arm
    judged : share of pairs whose verdict changed towards the donor's class, less those that changed away
    way, way_* : mean share of the way from recipient to donor, of latents at the tokens and of shapes
    outside : mean change of pixels elsewhere, in levels
    whole : the same of the donor's own picture, which is all that could be moved
    beyond_*, with _lo, _hi, _p, _q : `moved` less that of a control, of the pairs that have both, with two-sided
        tests; of the arm `MAIN`, and of windows beside `LATENTS`
    """
    drawn = rows[rows["arm"] != FIRST_ORDER]
    tables = []
    for direction, towards in DIRECTIONS.items():
        some = drawn[drawn["toward"].isin(towards)]
        for arm, own in some.groupby("arm", sort=False):
            table = _tested(own, "moved", seed)
            ways = [name for name in own if name.startswith("way")]
            means = own.groupby(CELL, sort=False)[["tokens", "judged", "whole", *ways, "outside"]].mean().reset_index()
            table = table.merge(means, on=CELL)
            table.insert(0, "arm", arm)
            table.insert(0, "direction", direction)
            # The other controls are of one cell each, as windows are not.
            beside = {MAIN: (LATENTS, *CONTROLS)} | dict.fromkeys(WINDOWS, (LATENTS,))
            more = _beyond(own, some, beside.get(str(arm), ()), seed)
            tables.append(table.merge(more, on=CELL, how="left"))
    return pd.concat(tables, ignore_index=True)


def first_order_map(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Of each cell, what it does to the predicted clean picture of its step, measured and estimated, with intervals.

    Columns
    -------
    block, step, n, exact, exact_lo, exact_hi, estimate, estimate_lo, estimate_hi
    """
    own = rows[rows["arm"] == FIRST_ORDER]
    if own.empty:
        return pd.DataFrame()
    names = {name: _tested(own, name, seed) for name in ("exact", "estimate")}
    both = names["exact"].merge(names["estimate"], on=[*CELL, "n", "prompts"], suffixes=("", "_of_estimate"))
    return both[[*CELL, "n", *(f"{name}{end}" for name in names for end in ("", "_lo", "_hi"))]]


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of two maps over their cells, with a 95% interval, and where they differ most."""

    rho: float
    lo: float
    hi: float
    cells: int
    worst: str


def agreement(
    rows: pd.DataFrame, value: str, other: pd.DataFrame | str, seed: int = 0, draws: int = 1000, worst: int = 3
) -> Agreement:
    """How well the map of a value goes with another over cells.

    Parameters
    ----------
    rows : DataFrame
        Of one arm: as of `effects_of`.
    value : str
        A column of it.
    other : DataFrame or str
        Another map, with block, step and ``value``; or another column of `rows`, which is drawn with the first.

    Notes
    -----
    The interval is of draws of prompts, all pairs of each; a map that is given stays as it is in them.
    """
    columns = [value, *([other] if isinstance(other, str) else [])]
    sums, counts, cells = _by_prompt(rows, columns)
    fixed = None
    if isinstance(other, pd.DataFrame):
        given = other.set_index(CELL)["value"]
        kept = [i for i, cell in enumerate(cells) if cell in given.index and np.isfinite(given[cell])]
        cells, fixed = [cells[i] for i in kept], np.array([given[cells[i]] for i in kept])
        sums, counts = sums[:, :, kept], counts[:, kept]
    if len(cells) < 3:
        return Agreement(np.nan, np.nan, np.nan, len(cells), "")
    weights = bootstrap_weights(np.arange(len(counts)), draws, seed)
    whole = np.ones((1, len(counts)))

    def maps(weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shares = [weight @ part / np.maximum(weight @ counts, 1e-12) for part in sums]
        return shares[0], shares[1] if fixed is None else np.broadcast_to(fixed, shares[0].shape)

    observed = [part[0] for part in maps(whole)]
    rho = float(_spearman(*maps(whole))[0])
    lo, hi = interval(_spearman(*maps(weights)))
    apart = rankdata(observed[0]) - rankdata(observed[1])
    names = [f"{cells[i][0]}/{cells[i][1]} ({apart[i]:+.0f})" for i in np.argsort(-np.abs(apart))[:worst]]
    return Agreement(rho, lo, hi, len(cells), "; ".join(names).replace("-", "−"))


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank correlation of each row of two arrays (draws, cells); NaN where one is the same in all cells."""
    ranks = [rankdata(part, axis=1) for part in (one, other)]
    a, b = (part - part.mean(1, keepdims=True) for part in ranks)
    size = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)


def agreements(rows: pd.DataFrame, probes: pd.DataFrame | None, seed: int = 0) -> pd.DataFrame:
    """Where knowing and causing agree, and where the first order and the whole do.

    Parameters
    ----------
    probes : DataFrame, optional
        Block, step and ``value``, the probe's AUC.

    Returns
    -------
    DataFrame
        causal, other : what is compared; rho, lo, hi, cells, worst
    """
    main, first = rows[rows["arm"] == MAIN], rows[rows["arm"] == FIRST_ORDER]
    found: list[dict[str, Any]] = []

    def add(causal: str, beside: str, one: Agreement) -> None:
        found.append({"causal": causal, "other": beside, **vars(one)})

    latents = rows[rows["arm"] == LATENTS]
    more = _less(main, latents)
    if probes is not None:
        for name, some, value in (("moved", main, "moved"), ("way", main, "way"), ("beyond latents", more, "less")):
            if len(some):
                add(name, "probe", agreement(some, value, probes, seed))
    if len(first):
        add("predicted picture, exact", "first order", agreement(first, "exact", "estimate", seed))
        sums = first.groupby(CELL)["estimate"].mean().rename("value").reset_index()
        for name in ("moved", "way"):
            add(name, "first order", agreement(main, name, sums, seed))
    return pd.DataFrame(found)


def _beyond(main: pd.DataFrame, some: pd.DataFrame, controls: Sequence[str], seed: int) -> pd.DataFrame:
    """What the donor's values move beyond each control, of the same pairs."""
    cells = main[CELL].drop_duplicates().reset_index(drop=True)
    for control in controls:
        less = _less(main, some[some["arm"] == control])
        if less.empty:
            continue
        name = f"beyond_{control.replace(' ', '_')}"
        table = _tested(less, "less", seed, two_sided=True).drop(columns=["prompts", "p_family"])
        names = {"less": name, "n": f"{name}_n", "less_lo": f"{name}_lo", "less_hi": f"{name}_hi"}
        cells = cells.merge(table.rename(columns={**names, "p": f"{name}_p", "q": f"{name}_q"}), on=CELL, how="left")
    return cells


def _less(main: pd.DataFrame, control: pd.DataFrame) -> pd.DataFrame:
    """Effects less those of a control, pair by pair; of one without blocks, at the step."""
    on = ["pair", "step"] if (control["block"] == "").all() else ["pair", *CELL]
    both = main.merge(control[[*on, "moved"]], on=on, suffixes=("", "_there"))
    return both.assign(less=both["moved"] - both["moved_there"])


def _by_prompt(
    rows: pd.DataFrame, values: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[tuple[str, int]]]:
    """Sums (values, prompts, cells) and numbers of pairs (prompts, cells), and the cells."""
    rows = rows.dropna(subset=values)
    cells = list(dict.fromkeys(zip(rows["block"], rows["step"])))
    place = {cell: i for i, cell in enumerate(cells)}
    at = (codes(rows["prompt"]), np.array([place[cell] for cell in zip(rows["block"], rows["step"])]))
    shape = at[0].max() + 1, len(cells)
    sums, counts = np.zeros((len(values), *shape)), np.zeros(shape)
    np.add.at(counts, at, 1)
    for part, value in zip(sums, values):
        np.add.at(part, at, rows[value].to_numpy(float))
    return sums, counts, cells


def _tested(rows: pd.DataFrame, value: str, seed: int, two_sided: bool = False) -> pd.DataFrame:
    """Mean of a value in each cell, its interval over prompts, and tests that it is not above 0, or that it is 0."""
    sums, counts, cells = _by_prompt(rows, [value])
    total, n = sums[0], counts.sum(0)
    mean = total.sum(0) / n
    # What is less than the rounding of float32 is none.
    total = np.where(np.abs(total) < 1e-6 * counts, 0.0, total)
    half = np.array([half_width((total[:, i] - counts[:, i] * mean[i]) / n[i]) for i in range(len(cells))])
    signs = np.random.default_rng([seed, 5]).choice([-1.0, 1.0], size=(FLIPS, len(total)))
    observed, null = total.sum(0) / n, signs @ total / n
    if two_sided:
        observed, null = np.abs(observed), np.abs(null)
    moved = np.abs(total).sum(0) > 0
    p = np.where(moved, p_values(observed - 1e-12, null), 1.0)
    family = np.where(moved, family_p(observed, null), 1.0)
    return pd.DataFrame(
        {
            "block": [block for block, _ in cells],
            "step": [step for _, step in cells],
            "n": n.astype(int),
            "prompts": (counts > 0).sum(0),
            value: mean,
            f"{value}_lo": mean - half,
            f"{value}_hi": mean + half,
            "p": p,
            "p_family": family,
            "q": benjamini_hochberg(p),
        }
    )


def probe_map(table: pd.DataFrame) -> pd.DataFrame:
    """The AUC within prompts of ``analysis/probes.csv``, of sure verdicts, as a map."""
    sure = table[table["subset"] == "sure"] if "subset" in table else table
    value = "within_auc" if "within_auc" in sure and sure["within_auc"].notna().any() else "auc"
    return sure[[*CELL, value]].rename(columns={value: "value"})


def counted(rows: pd.DataFrame) -> Mapping[str, int]:
    """Pairs that each arm has."""
    return rows.groupby("arm", sort=False)["pair"].nunique().to_dict()
