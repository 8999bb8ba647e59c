"""The Fréchet distance of the Gaussians of two sets of features, with an interval that few pictures do not bend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import Distance
from .sets import Array, checked, few_groups, jackknife_half, said

ENOUGH = 10_000
"""Pictures below which a Fréchet distance is not published: it grows as there are fewer of them."""
BLOCKS = 20


def frechet(
    features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None, *, blocks: int = BLOCKS, seed: int = 0
) -> Distance:
    """The squared Fréchet distance ``|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½)`` of means and covariances.

    Of Inception's features it is FID (Heusel et al. 2017, arXiv 1706.08500). It is biased upwards, about as 1/n
    (Chong and Forsyth 2020, arXiv 1911.07023): compare it at equal numbers of pictures only, and below some thousand
    take `kid`.

    Parameters
    ----------
    features, reference, groups : as for `kid`
    blocks : of prompts, for the interval: see `jackknifed`

    Raises
    ------
    HandscopeError
        As `kid`.
    """
    x, y, group = checked(features, reference, groups)
    to_reference = _to(y)
    value, low, high = jackknifed(lambda rows: to_reference(x[rows]), group, blocks, seed)
    return Distance(
        value, np.maximum(low, 0.0), high, len(x), len(y), said(few_groups(group), _few(len(x), len(y), x.shape[1]))
    )


def _few(n: int, m: int, d: int) -> str:
    fewest = min(n, m)
    if fewest > ENOUGH:
        return ""
    rank = f", and covariances have a rank of {fewest - 1} of {d}" if fewest <= d else ""
    return f"{fewest:,} pictures are too few for this distance, which grows as there are fewer{rank}: prefer kid."


def _to(y: Array) -> Callable[[Array], float]:
    """The distance of a set of features (n, d) to the reference (m, d)."""
    mean, covariance = y.mean(0), np.atleast_2d(np.cov(y, rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))  # covariance = root @ root.T

    def distance(x: Array) -> float:
        centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
        # The square roots of the eigenvalues of S1 S2 are the singular values of this; the smaller side is decomposed.
        both = centred @ root
        gram = both @ both.T if len(both) < both.shape[1] else both.T @ both
        shared = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum()
        return float(np.square(x.mean(0) - mean).sum() + np.square(centred).sum() + np.trace(covariance) - 2 * shared)

    return distance


def jackknifed(
    statistic: Callable[[NDArray[np.intp]], float], group: NDArray[np.intp], blocks: int = BLOCKS, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of rows, and its 95% interval from leaving out one block of groups at a time.

    Parameters
    ----------
    statistic : function from indices of rows to a number
    group : int array of shape (n,), 0, 1, …; whole groups are dealt out to at most `blocks` blocks by chance

    Notes
    -----
    See `jackknife_half`. The interval is of the statistic at this number of pictures, not of its limit.
    """
    many = int(group.max()) + 1
    value = statistic(np.arange(len(group)))
    blocks = min(blocks, many)
    of = (np.random.default_rng(seed).permutation(many) % blocks)[group]
    half = jackknife_half(np.array([statistic(np.flatnonzero(of != one)) for one in range(blocks)]))
    return value, value - half, value + half
