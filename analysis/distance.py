"""How far two classes of tokens are apart, and how far they would be if the labels meant nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..brief import brief
from ..errors import HandscopeError
from .moments import Moments
from .statistics.arrays import binary
from .statistics.folds import codes
from .statistics.intervals import bootstrap_weights, interval
from .statistics.nulls import p_floor, p_value, permuted_labels

DRAWS = 64
"""Labellings that are worked out at a time, so that memory does not grow with their number."""


@dataclass(frozen=True)
class Bhattacharyya:
    """A Bhattacharyya distance in nats, and the parts of it that means and variances contribute."""

    mean_term: float
    variance_term: float

    @property
    def distance(self) -> float:
        return self.mean_term + self.variance_term

    @property
    def coefficient(self) -> float:
        """The Bhattacharyya coefficient, exp(-distance): 1 for one and the same model, 0 for ones far apart."""
        return float(np.exp(-self.distance))

    @property
    def bayes_error(self) -> tuple[float, float]:
        """Bounds on the least error of any classifier of single tokens, both classes equally frequent.

        (1 - sqrt(1 - BC²)) / 2 and BC / 2 (Kailath 1967). They hold for two Gaussians of the covariances that were
        assumed, and for these very means and variances: where a diagonal stands for correlated channels, or few tokens
        for many, the true error lies far above both.
        """
        return float((1 - np.sqrt(-np.expm1(-2 * self.distance))) / 2), self.coefficient / 2


@dataclass(frozen=True)
class BhattacharyyaTest:
    """A Bhattacharyya distance beside its permutation null: `excess`, `z` and `p` are what may be reported.

    Attributes
    ----------
    observed : the distance of the two classes, in nats
    null : array of shape (permutations,), the distances under permuted labels
    interval : 95% bootstrap interval of `excess`
    p_floor : the smallest p that the null could have given
    """

    observed: Bhattacharyya
    null: NDArray[np.float64]
    interval: tuple[float, float]
    p_floor: float

    __repr__ = brief

    @property
    def excess(self) -> float:
        return self.observed.distance - float(self.null.mean())

    @property
    def z(self) -> float:
        return self.excess / float(self.null.std())

    @property
    def p(self) -> float:
        return p_value(self.observed.distance, self.null)

    @property
    def columns(self) -> dict[str, float]:
        """What a table keeps of it, under names that begin with db."""
        return {
            "db": self.observed.distance,
            "db_mean_term": self.observed.mean_term,
            "db_variance_term": self.observed.variance_term,
            "db_null_mean": float(self.null.mean()),
            "db_null_sd": float(self.null.std()),
            "db_excess": self.excess,
            "db_lo": self.interval[0],
            "db_hi": self.interval[1],
            "db_z": self.z,
            "db_p": self.p,
            "db_p_floor": self.p_floor,
        }


def bhattacharyya(good: ArrayLike | Moments, bad: ArrayLike | Moments) -> Bhattacharyya:
    """Bhattacharyya distance between two classes, each modelled as a Gaussian with a diagonal covariance.

    Parameters
    ----------
    good, bad : arrays of shape (n_tokens, width), or Moments

    Notes
    -----
    1/4 sum (m1 - m2)² / (v1 + v2)  +  1/2 sum ln((v1 + v2) / (2 sqrt(v1 v2))), over channels (Kailath 1967). A channel
    that is constant in both classes is left out. The distance of a distribution from itself grows as width / (2 n), and
    many times faster when tokens of a sample are alike, so it is never reported without `bhattacharyya_test`.

    Raises
    ------
    HandscopeError
        A class has fewer than two tokens, the widths differ, a value is not finite, or a channel is constant in one
        class only.
    """
    first, second = (m if isinstance(m, Moments) else Moments.of(m) for m in (good, bad))
    if first.mean.shape != second.mean.shape:
        raise HandscopeError(
            f"Both classes must have the same width; good has shape {first.mean.shape}, bad has {second.mean.shape}."
        )
    if min(first.count, second.count) < 2:
        raise HandscopeError(
            f"A distance needs at least two tokens in each class; there are {first.count:g} good and {second.count:g} "
            "bad."
        )
    if not (np.isfinite(first.mean).all() and np.isfinite(second.mean).all()):
        raise HandscopeError("Expected finite tokens; some are NaN or infinite: leave them out.")
    moving = (first.variance > 0) | (second.variance > 0)
    one_sided = np.flatnonzero(moving & ((first.variance == 0) | (second.variance == 0)))
    if len(one_sided):
        raise HandscopeError(
            f"Channel {one_sided[0]} is constant in one class and not in the other, so the distance is infinite; "
            "leave the channel out, or give the class more tokens."
        )
    mean_term, variance_term = _terms(
        first.mean[moving], first.variance[moving], second.mean[moving], second.variance[moving]
    )
    return Bhattacharyya(float(mean_term), float(variance_term))


def _terms(m1: NDArray, v1: NDArray, m2: NDArray, v2: NDArray) -> tuple[NDArray, NDArray]:
    total = v1 + v2
    return 0.25 * (np.square(m1 - m2) / total).sum(-1), 0.5 * (np.log(total) - np.log(2) - 0.5 * np.log(v1 * v2)).sum(
        -1
    )


def bhattacharyya_test(
    samples: Moments,
    bad: ArrayLike,
    groups: ArrayLike,
    permutations: int | NDArray[np.float64] = 1000,
    bootstraps: int = 500,
    seed: int = 0,
) -> BhattacharyyaTest:
    """Distance of the tokens of bad samples from those of good ones, with its null and interval.

    Parameters
    ----------
    samples : Moments of n samples, as of ``Moments.by``, or of the instances of each, where their labels differ
    bad : array of shape (n,), 1 for a bad sample (or instance) and 0 for a good one
    groups : array of shape (n,), the prompt of each sample, or (n, 2), as for `permuted_labels`
    permutations : number of permuted labellings, or the labellings themselves, of shape (permutations, n), where many
        cells share them
    bootstraps : number of draws of prompts

    Raises
    ------
    HandscopeError
        Fewer than two tokens in a class.

    Notes
    -----
    A bootstrap draw holds prompts twice, which adds to a distance the same bias that the null measures; so the interval
    is that of the draws around their own mean, put around the excess. Near an excess of 0 it is wider than it need be.
    """
    bad = binary(bad)
    codes(groups, len(bad))
    # Exact zeros only: a channel that never moves says nothing, and 0/0 would say NaN.
    moving = samples.pool(np.ones(len(bad))).variance > 0
    samples = Moments(samples.count, samples.mean[:, moving], samples.m2[:, moving])
    observed = bhattacharyya(samples.pool(1 - bad), samples.pool(bad))
    if isinstance(permutations, int):
        permutations = permuted_labels(bad, groups, permutations, seed)
    null = _distances(samples, permutations)
    draws = bootstrap_weights(groups, bootstraps, seed)[:, codes(groups)]
    drawn = _distances(samples, bad, draws[((draws @ bad) > 1) & ((draws @ (1 - bad)) > 1)])
    low, high = interval(drawn - drawn.mean())
    excess = observed.distance - float(null.mean())
    floor = p_floor(bad, permutations, null)
    return BhattacharyyaTest(observed, null, (excess + low, excess + high), floor)


def _distances(samples: Moments, bad: NDArray, weights: NDArray | float = 1.0) -> NDArray[np.float64]:
    """Distances for many labellings (m, n), or for one (n,) under many weights (m, n): shape (m,)."""
    good, bad = np.broadcast_arrays((1 - bad) * weights, bad * weights)
    floor = 1e-12 * samples.pool(np.ones(len(samples.count))).variance
    out = np.empty(len(bad))
    for start in range(0, len(bad), DRAWS):
        part = slice(start, start + DRAWS)
        first, second = samples.pool(good[part]), samples.pool(bad[part])
        terms = _terms(first.mean, np.maximum(first.variance, floor), second.mean, np.maximum(second.variance, floor))
        out[part] = terms[0] + terms[1]
    return out
