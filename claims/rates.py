"""Rates of implausible hands beside something else: their size, what hides them, steps, and other sets of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.multiple import holm
from ..analysis.statistics.nulls import p_value, permuted_labels
from ..analysis.statistics.paired import paired_rates
from ..analysis.statistics.rank_correlation import Correlation, spearman, spearman_null
from ..analysis.statistics.rates import clustered_share
from ..analysis.statistics.two_rates import two_rates
from ..errors import HandscopeError
from ..extract.generate import generate
from ..models.embedded import ORGANISMS
from ..models.model import Model
from ..organism.judge import Judge
from ..progress import Progress, quiet
from ..run.folder import Run

BAD = {"implausible": 1.0, "plausible": 0.0}
VERDICTS = {"bad": 1.0, "good": 0.0}


def read_scores(path: Path) -> pd.DataFrame:
    """A ``scores.csv`` of ``handscope anatomy score``, or its folder: path, outcome, size, presence, bad (NaN unsure).

    Raises
    ------
    HandscopeError
        It is missing, or no such table.
    """
    path = path / "scores.csv" if path.is_dir() else path
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise HandscopeError(f"{path} could not be read ({error}): run handscope anatomy score first.") from error
    if not {"path", "outcome", "size", "presence"} <= set(table):
        raise HandscopeError(
            f"{path} is no table of handscope anatomy score: path, outcome, size or presence is missing."
        )
    return table.assign(bad=table["outcome"].map(BAD))


def by_bins(values: ArrayLike, bad: ArrayLike, groups: ArrayLike, bins: int = 4) -> pd.DataFrame:
    """Rate of bad in bins of as many instances each: low, high, n, rate, lo, hi (95%, over groups).

    Rows of NaN in either are left out.
    """
    x, y, group = np.asarray(values, np.float64), np.asarray(bad, np.float64), np.asarray(groups, object)
    told = ~np.isnan(x) & ~np.isnan(y)
    x, y, group = x[told], y[told], group[told]
    if len(x) < 2 * bins:
        raise HandscopeError(f"{len(x)} hands have a size and a verdict: {bins} bins take at least {2 * bins}.")
    edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for one in np.unique(place):
        inside = place == one
        rate, lo, hi = clustered_share(y[inside], group[inside])
        rows.append((x[inside].min(), x[inside].max(), int(inside.sum()), rate, lo, hi))
    return pd.DataFrame(rows, columns=["low", "high", "n", "rate", "lo", "hi"])


def trend(
    values: ArrayLike, bad: ArrayLike, groups: ArrayLike, permutations: int = 1000, seed: int = 0
) -> tuple[Correlation, float]:
    """Spearman's rho of values with bad, its interval over groups, and a two-sided p of permuted labels."""
    x, y, group = np.asarray(values, np.float64), np.asarray(bad, np.float64), np.asarray(groups, object)
    told = ~np.isnan(x) & ~np.isnan(y)
    x, y, group = x[told], y[told], group[told]
    found = spearman(x, y, group)
    null = spearman_null(x, permuted_labels(y, group, permutations, seed))
    return found, p_value(abs(found.value), np.abs(null))


def beside_first(sets: Mapping[str, tuple[NDArray[np.float64], NDArray]]) -> pd.DataFrame:
    """Rates of sets of pictures, each beside the first: set, n, rate, lo, hi, difference, d_lo, d_hi, p, p_holm.

    Parameters
    ----------
    sets : of each its bad (n,), 1, 0 or NaN, and its groups (n,)

    Notes
    -----
    Differences are `two_rates`: prompts in both sets count as what they have in common. Holm's correction is over sets.
    """
    rows, first = [], None
    for name, (bad, group) in sets.items():
        told = ~np.isnan(bad)
        if told.sum() < 2:
            raise HandscopeError(f"{name} has {int(told.sum())} pictures with a verdict: a rate takes two.")
        rate, lo, hi = clustered_share(bad[told], group[told])
        row = {"set": name, "n": int(told.sum()), "rate": rate, "lo": lo, "hi": hi}
        if first is None:
            first = bad, group
        else:
            found = two_rates(*first, bad, group)
            row |= {"difference": found.difference, "d_lo": found.low, "d_hi": found.high, "p": found.p}
        rows.append(row)
    table = pd.DataFrame(rows, columns="set n rate lo hi difference d_lo d_hi p".split())
    return table.assign(p_holm=holm(table["p"]))


def over_steps(
    model: Model,
    out: Path,
    prompts: Sequence[str],
    seeds: int,
    steps: Sequence[int],
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Draw the same prompts and noises at several numbers of steps, and compare each with the first.

    The organism's pictures are judged by its judge, others by the score of hands; what neither can tell is left out.

    Returns
    -------
    DataFrame with columns steps, n, rate (of the pairs with the first), and difference, lo, hi, p of pairs; p_holm
    """
    bad, group = {}, np.empty(0, object)
    for one in steps:
        run = Run(out / f"steps_{one}")
        generate(model, run, prompts, range(seeds), one, trajectories=False, progress=progress)
        samples = run.samples().sort_values("sample")
        group = samples["prompt"].to_numpy()
        bad[one] = _judged(model, run, samples)
    first = steps[0]
    rows = []
    for one in steps:
        pair = paired_rates(bad[first], bad[one], group)
        row = {"steps": one, "n": pair.n, "rate": pair.after, "difference": pair.difference}
        rows.append(row | {"lo": pair.low, "hi": pair.high, "p": pair.p if one != first else np.nan})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def _judged(model: Model, run: Run, samples: pd.DataFrame) -> NDArray[np.float64]:
    images = [run.image(sample) for sample in samples["sample"]]
    if model.name in ORGANISMS:
        judge = Judge.of(model.name)
        said = [judge.verdict(image, prompt)[0] for image, prompt in zip(images, samples["prompt"])]
        return np.array([VERDICTS.get(one, np.nan) for one in said])
    from ..anatomy.judge.scoring import score

    outcomes = [outcome for image in images for outcome in score([image]).outcomes()]
    return np.array([BAD.get(one, np.nan) for one in outcomes])
