"""Which metric follows people: rank correlations of scores with ratings, and a classifier that is fitted to ratings."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..analysis.statistics.arrays import numbers
from ..analysis.statistics.folds import codes, grouped_folds, two_way_folds
from ..analysis.statistics.multiple import family_p
from ..analysis.statistics.nulls import permuted_labels
from ..analysis.statistics.rank_correlation import kendall, spearman, spearman_null
from ..errors import HandscopeError
from ..labeling.database.labels import Labels
from ..labeling.table import as_seen
from ..run.folder import Run

PENALTIES = np.logspace(0, 6, 13)
FEWEST = 10
"""Rated samples below which nothing is computed."""
KEYS = ("sample", "file_name", "path")
"""Columns by one of which a table of scores names its samples."""


def rated(run: Run) -> pd.DataFrame:
    """The rated samples of a run: sample, prompt, noise, file_name, rating (the mean of all raters'), raters.

    Ratings of another picture than the run now holds are left out. `noise` is the hash of the initial noise, or the
    sample where it is not known.

    Raises
    ------
    HandscopeError
        Fewer than `FEWEST` samples are rated.
    """
    samples = as_seen(run).set_index("sample")
    ratings = Labels(run.labels_path).ratings()
    ratings = ratings[ratings["image_sha256"] == ratings["sample"].map(samples["image_sha256"])]
    by_sample = ratings.groupby("sample")["value"]
    table = pd.DataFrame({"rating": by_sample.mean(), "raters": by_sample.size()})
    if len(table) < FEWEST:
        raise HandscopeError(
            f"{run.path} has {len(table)} rated samples, and at least {FEWEST} are needed: rate whole pictures on the "
            f"page of handscope label {run.path}."
        )
    table = table.join(samples[["prompt", "noise_sha256", "file_name"]]).reset_index()
    table["noise"] = table.pop("noise_sha256").where(lambda noise: noise != "", table["sample"])
    return table


def scores_of(path: Path, samples: pd.Series, files: pd.Series, lower: Collection[str] = ()) -> pd.DataFrame:
    """The numeric columns of a CSV of scores for samples, NaN where it says nothing; of several rows the worst counts.

    Parameters
    ----------
    path : a table with a column `sample`, `file_name` or `path`, such as ``anatomy/scores.csv`` or ``pictures.csv``
    samples, files : the names of samples, and of their files
    lower : columns of which lower is better

    Raises
    ------
    HandscopeError
        It cannot be read, names no samples, none of these, or has no numbers.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors are of the second kind
        raise HandscopeError(f"{path} could not be read as a CSV ({' '.join(str(error).split())}).") from error
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        raise HandscopeError(f"{path} names no samples: expected a column {', '.join(KEYS[:-1])} or {KEYS[-1]}.")
    named = table[key].astype(str).map(lambda name: Path(name).name)
    known = dict(zip(files.map(lambda name: Path(name).name), samples)) | dict(zip(samples, samples))
    values = table.select_dtypes("number").astype(float)
    if values.empty:
        raise HandscopeError(f"{path} has no column of numbers beside {key}.")
    sign = pd.Series({name: -1.0 if name in lower else 1.0 for name in values})
    worst = (values * sign).groupby(named.map(known)).min() * sign
    if worst.empty:
        raise HandscopeError(f"{path} names none of {len(samples)} samples in its column {key}: is it of this run?")
    return worst.reindex(samples.to_numpy())


def followed(
    scores: pd.DataFrame,
    ratings: ArrayLike,
    groups: ArrayLike,
    lower: Collection[str] = (),
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How far each score follows ratings: one row a column of `scores`, the closest first.

    Parameters
    ----------
    scores : n rows, a column a metric; NaN where it says nothing, and there it is judged on the others
    ratings : array of shape (n,), higher is better
    groups : array of shape (n,), the prompt of each sample
    lower : columns of which lower is better: they are turned round
    permutations : of ratings, inside prompts and with whole prompts changing places

    Returns
    -------
    DataFrame with columns metric, n, tau, tau_lo, tau_hi, rho, rho_lo, rho_hi, within, within_lo, within_hi (tau-b over
    pairs of one prompt), p (one-sided, of rho), p_family (adjusted over all metrics). NaN where a score does not vary.

    Raises
    ------
    HandscopeError
        A name in `lower` is no column, or all ratings are alike.
    """
    if unknown := set(lower) - set(scores):
        raise HandscopeError(
            f"There is no score {', '.join(sorted(unknown))}: there are {', '.join(map(str, scores))}."
        )
    y, group = numbers(ratings, "ratings").astype(np.float64), codes(groups, len(scores))
    if np.ptp(y) == 0:
        raise HandscopeError(f"All {len(y)} ratings are {y[0]:g}: no score can follow them.")
    labellings = permuted_labels(y, group, permutations, seed)
    rows, observed, null = [], [], []
    for name in scores:
        x = scores[name].to_numpy(np.float64) * (-1 if name in lower else 1)
        told = ~np.isnan(x)
        x, known, of = x[told], y[told], group[told]
        if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(known) == 0:
            rows.append({"metric": name, "n": len(x)})
            observed.append(np.nan)
            null.append(np.full(len(labellings), np.nan))
            continue
        tau, within, rho = kendall(x, known, of), kendall(x, known, of, within=True), spearman(x, known, of)
        row: dict[str, object] = {"metric": name, "n": len(x)}
        for prefix, one in (("tau", tau), ("rho", rho), ("within", within)):
            row |= {prefix: one.value, f"{prefix}_lo": one.lo, f"{prefix}_hi": one.hi}
        drawn = spearman_null(x, labellings[:, told])
        rows.append(row | {"p": (1 + (drawn >= rho.value).sum()) / (1 + len(drawn))})
        observed.append(rho.value)
        null.append(drawn)
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_family"] = family_p(observed, np.array(null).T)
    return table.sort_values("tau", ascending=False, ignore_index=True)


COLUMNS = "metric n tau tau_lo tau_hi rho rho_lo rho_hi within within_lo within_hi p p_family".split()


def held_out_ratings(
    features: ArrayLike, ratings: ArrayLike, prompts: ArrayLike, noises: ArrayLike, folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """What a fit to other samples' ratings says of each sample, less what it says of a mean one: shape (n,).

    Parameters
    ----------
    features : array of shape (n, d)
    ratings : array of shape (n,)
    prompts, noises : arrays of shape (n,). A sample is predicted by a fit that has seen neither its prompt nor its
        noise: where every noise is of one prompt that is a fold of prompts, where they cross a block of both.

    Raises
    ------
    HandscopeError
        There are too few prompts or noises to hold any out.

    Notes
    -----
    Ridge regression of the rating on standardised features; the penalty is chosen among the samples fitted to, by
    leaving one out. What the fit says of the mean of all features is taken off: a constant of the fit that is low where
    the held-out ratings are high would make predictions that know nothing run against ratings. A row of features that
    are NaN gets NaN. What folds that leak do instead is shown by bench/validity/ratings_leak.py.
    """
    x, y = (
        numbers(features, "features", finite=False).astype(np.float64),
        numbers(ratings, "ratings").astype(np.float64),
    )
    told = ~np.isnan(x).any(1)
    predicted = np.full(len(y), np.nan)
    if told.sum() < FEWEST:
        raise HandscopeError(
            f"Features of {int(told.sum())} rated samples are too few to fit: expected {FEWEST} or more."
        )
    middle = x[told].mean(0, keepdims=True)
    for train, test in _splits(np.asarray(prompts)[told], np.asarray(noises)[told], folds, seed):
        if test.any() and train.any():
            model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(x[told][train], y[told][train])
            predicted[np.flatnonzero(told)[test]] = model.predict(x[told][test]) - model.predict(middle)
    return predicted


def _splits(
    prompts: NDArray, noises: NDArray, folds: int, seed: int
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    prompt, noise = codes(prompts), codes(noises)
    if int(prompt.max()) < 1:
        raise HandscopeError("All rated samples are of one prompt: none can be held out. Rate samples of more prompts.")
    pairs = len(np.unique(np.stack([prompt, noise]), axis=1).T)
    if pairs == int(noise.max()) + 1:  # every noise is of one prompt
        fold = grouped_folds(prompt, min(folds, int(prompt.max()) + 1), seed)
        return [(fold != one, fold == one) for one in np.unique(fold)]
    return two_way_folds(prompt, noise, folds, seed)
