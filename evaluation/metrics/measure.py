"""Files of pictures to numbers: features and scores batch by batch, distances with what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ...analysis.statistics.arrays import numbers
from ...analysis.statistics.folds import codes
from ...analysis.statistics.intervals import bootstrap_weights, interval
from ...anatomy.read.pictures import Skipped, read_picture, shown
from ...errors import HandscopeError
from ...progress import Progress, quiet
from . import Distance, Metric
from .sets import few_groups, said

BATCH = 32


def of_files(
    metric: Metric, paths: Sequence[Path], prompts: Sequence[str] | None = None, progress: Progress = quiet
) -> NDArray[np.float64]:
    """A metric of pictures, or features, of files that are read a batch at a time.

    Parameters
    ----------
    prompts : one a file, where `metric` is of pictures
    progress : called as ``progress(metric.name, done, total)``

    Raises
    ------
    HandscopeError
        A file cannot be read: it is named, with why.
    """
    parts = []
    for first in range(0, len(paths), BATCH):
        progress(metric.name, first, len(paths))
        pictures = [_opened(path) for path in paths[first : first + BATCH]]
        given = (pictures,) if prompts is None else (pictures, list(prompts[first : first + BATCH]))
        parts.append(metric(*given))
    progress(metric.name, len(paths), len(paths))
    return np.concatenate(parts)


def _opened(path: Path) -> Image.Image:
    read = read_picture(path)
    if isinstance(read, Skipped):
        raise HandscopeError(f"{shown(path)} cannot be measured: {read.reason}. Move it away, or mend it.")
    return Image.fromarray(read.pixels)


def distance(metric: Metric, features: ArrayLike, reference: ArrayLike, groups: ArrayLike) -> Distance:
    """A distance of those pictures that have features; how many have none stands in its warning."""
    x, y, group = np.asarray(features, np.float64), np.asarray(reference, np.float64), np.asarray(groups, object)
    seen, known = ~np.isnan(x).any(1), ~np.isnan(y).any(1)
    if min(seen.sum(), known.sum()) < 2:
        raise HandscopeError(
            f"Something to measure was found in {int(seen.sum())} of {len(x)} pictures and {int(known.sum())} of "
            f"{len(y)} of the reference: a distance takes two of each. Measure whole pictures."
        )
    found = metric(x[seen], y[known], group[seen])
    left = "" if seen.all() else f"{int((~seen).sum())} of {len(x)} pictures, in which nothing was found, are left out."
    return Distance(found.value, found.lo, found.hi, found.n, found.m, said(left, found.warning))


def mean(values: ArrayLike, groups: ArrayLike, draws: int = 2000, seed: int = 0) -> Distance:
    """The mean of scores of pictures and its interval by draws of groups, as a `Distance` from nothing (m is 0).

    Parameters
    ----------
    values : array of shape (n,), NaN where a picture cannot be told
    groups : array of shape (n,), the prompt of each
    """
    values = numbers(values, "scores", finite=False).astype(np.float64)
    told = ~np.isnan(values)
    if not told.any():
        raise HandscopeError(f"None of {len(values)} pictures got a score.")
    group = codes(np.asarray(groups, object)[told])
    size, total = np.bincount(group), np.bincount(group, values[told])
    weights = bootstrap_weights(group, draws, seed)
    left = "" if told.all() else f"{int((~told).sum())} of {len(values)} pictures got no score."
    n = int(told.sum())
    return Distance(
        float(total.sum() / n), *interval(weights @ total / (weights @ size)), n, 0, said(left, few_groups(group))
    )


def row(metric: str, found: Distance, of: str = "") -> dict[str, object]:
    """A row of a table of metrics."""
    return {"metric": metric, "features": of} | vars(found)


COLUMNS = ["metric", "features", "value", "lo", "hi", "n", "m", "warning"]


def table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Rows as a table of `COLUMNS`."""
    return pd.DataFrame(list(rows), columns=COLUMNS)
