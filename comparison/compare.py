"""Compare runs of several models: their maps, their streams on shared samples, and probes carried between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.statistics.intervals import jackknife_interval
from ..errors import HandscopeError
from ..files import write_csv
from ..models.embedded import ORGANISMS
from ..progress import Progress, quiet
from .alike import compare_streams
from .carried import compare_carried
from .maps import differences, maps, profiles, summary
from .runs import Compared, open_runs
from .streams import Shared

if TYPE_CHECKING:
    from ..run.folder import Run

TABLES = {
    "cells": "a row for each cell of each run: AUC, depth, sigma, and whether the run's own test calls it",
    "summary": "where the signal of each run begins and peaks, with intervals over prompts",
    "differences": "the same, of two runs, one less the other, prompts drawn together",
    "profiles": "mean AUCs over depth and over noise levels, with intervals over prompts",
    "pairs": "what every two runs share, and how alike their streams and verdicts are",
    "streams": "a row for each two blocks at one sigma: CKA, Procrustes distance, R² of ridge maps, and their nulls",
    "carried": "a row for each block of one run whose probe was carried to a block of another",
}
"""The tables that `compare` writes, a file each."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was found.

    Attributes
    ----------
    runs : their names
    tables : those of `TABLES` by name; without rows where there was nothing to compare
    missing : of two runs, by their names, why their streams were not compared
    """

    runs: tuple[str, ...]
    tables: dict[str, pd.DataFrame] = field(repr=False)
    missing: dict[tuple[str, str], str]


@threadpool_limits.wrap(limits=1, user_api="blas")
def compare(
    runs: Sequence[Run],
    out: Path,
    like: Sequence[tuple[Path, Path]] = (),
    samples: int = 128,
    pairings: int = 99,
    permutations: int = 1000,
    seed: int = 0,
    progress: Progress = quiet,
) -> Comparison:
    """Compare runs, and write the tables of `TABLES` to a folder.

    The streams of each two runs are a file a noise level in ``parts/``: what was killed goes on with the next one.

    Parameters
    ----------
    out : folder
    like : two folders each of runs whose models differ by their training seed alone; organisms of one size are known
    samples : about how many shared samples the streams are compared on; carried probes are of all
    pairings : shuffled pairs of samples behind each null of the streams
    permutations : permuted verdicts behind each null of carried probes

    Raises
    ------
    HandscopeError
        As of `open_runs`; a pair of `like` is none of these runs.
    """
    opened = open_runs(runs)
    alike = seeds_apart(opened, like)
    found = maps(opened, seed=seed, progress=progress)
    missing, parts, carried, rows = {}, [], [], []
    for a, b in combinations(opened, 2):
        both, every = Shared.of(a, b, samples), Shared.of(a, b)
        row: dict[str, Any] = {"run_a": a.name, "run_b": b.name, "seed_apart": (a.name, b.name) in alike}
        if isinstance(both, str) or isinstance(every, str) or not both.steps:
            missing[a.name, b.name] = both if isinstance(both, str) else "no step of one is at a sigma of the other's"
            rows.append(row)
            continue
        streams, likeness = compare_streams(both, out / "parts", pairings, seed, progress)
        parts.append(streams)
        told, verdicts = compare_carried(every, pairings, permutations, seed, progress)
        carried.append(told)
        rows.append(row | likeness | verdicts)
    pairs = _beside_seeds(pd.DataFrame(rows))
    cells = [map_.cells.assign(run=one.name, model=one.model) for one, map_ in zip(opened, found, strict=True)]
    tables = {
        "cells": pd.concat(cells, ignore_index=True),
        "summary": summary(opened, found),
        "differences": differences(opened, found),
        "profiles": profiles(opened, found),
        "pairs": pairs.drop(columns="replicates", errors="ignore"),
        "streams": pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(),
        "carried": pd.concat(carried, ignore_index=True) if carried else pd.DataFrame(),
    }
    for name, table in tables.items():
        if len(table.columns):
            write_csv(out / f"{name}.csv", table)
        else:
            (out / f"{name}.csv").unlink(missing_ok=True)  # of an earlier comparison
    return Comparison(tuple(one.name for one in opened), tables, missing)


def seeds_apart(runs: Sequence[Compared], like: Sequence[tuple[Path, Path]]) -> set[tuple[str, str]]:
    """Names of two runs each whose models differ by their training seed alone, in the order of the runs."""
    name_of = {Path(os.path.realpath(one.run.path)): one.name for one in runs}
    given = [[Path(os.path.realpath(path)) for path in pair] for pair in like]
    unknown = next((path for pair in given for path in pair if path not in name_of), None)
    if unknown is not None:
        raise HandscopeError(
            f"Expected runs that are compared, found {unknown}: name two of {', '.join(map(str, name_of))}."
        )
    said = [{name_of[path] for path in pair} for pair in given]
    return {
        (a.name, b.name)
        for a, b in combinations(runs, 2)
        if {a.name, b.name} in said or _seed_alone(a.model, b.model)
    }


def _seed_alone(one: str, other: str) -> bool:
    """Whether two models are organisms of one size and recipe, of two training seeds."""
    a, b = ORGANISMS.get(one), ORGANISMS.get(other)
    if a is None or b is None or a.seed == b.seed:
        return False
    return replace(a, name=b.name, seed=b.seed, judge=b.judge, ships=b.ships) == b


def _beside_seeds(pairs: pd.DataFrame) -> pd.DataFrame:
    """With the CKA of each two runs less the mean of those that differ by their training seed alone.

    The interval is of a jackknife over the prompts that all of them share.
    """
    columns = ("less_seed", "less_seed_lo", "less_seed_hi")
    pairs = pairs.assign(**dict.fromkeys(columns, np.nan))
    if "replicates" not in pairs:
        return pairs
    known = pairs[pairs["replicates"].notna()]
    like = known[known["seed_apart"]]
    for index, row in known[~known["seed_apart"]].iterrows():
        prompts = set(row["replicates"]).intersection(*like["replicates"]) if len(like) else set()
        if len(prompts) < 2:
            continue
        value = row["cka"] - like["cka"].mean()
        without = [row["replicates"][one] - np.mean([other[one] for other in like["replicates"]]) for one in prompts]
        pairs.loc[index, list(columns)] = value, *jackknife_interval(value, without, (-3.0, 3.0))
    return pairs
