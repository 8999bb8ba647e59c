"""Whether a probe's probabilities are what they say, and how to make them so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.arrays import binary, numbers
from ..analysis.statistics.folds import codes
from ..analysis.statistics.nulls import p_value
from ..analysis.statistics.rates import wilson
from ..brief import brief
from ..errors import HandscopeError

Array = NDArray[Any]


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from how often they come true.

    Attributes
    ----------
    table : DataFrame, one row a bin: n, predicted (mean probability), observed (share of bad), lo, hi (its 95% interval
        after Wilson, as if samples were independent)
    ece : expected calibration error, the mean of |observed - predicted| over samples. It is above 0 for a predictor
        that is calibrated perfectly, the more so the fewer samples there are
    null : array of shape (draws,), the error by chance
    p_floor : the smallest p that the null could have given
    slope, intercept : of the logistic regression of the labels on the log-odds. Calibrated ones have 1 and 0; a slope
        below 1 says that the probe is too sure
    """

    table: pd.DataFrame
    ece: float
    null: Array
    p_floor: float
    slope: float
    intercept: float

    __repr__ = brief

    @property
    def excess(self) -> float:
        """The error beyond what a calibrated predictor would show."""
        return self.ece - float(self.null.mean())

    @property
    def p(self) -> float:
        """Share of the null, the observed error counted in, that is at least as large."""
        return p_value(self.ece, self.null)


def calibration(
    scores: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    bins: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> Calibration:
    """The reliability of held-out log-odds.

    Parameters
    ----------
    scores, y : arrays of shape (n,); log-odds of bad, and 1 for bad and 0 for good
    groups : array of shape (n,), the prompt of each sample; each sample is its own group when left out
    bins : of about equal numbers of samples

    Raises
    ------
    HandscopeError
        There are fewer samples than bins, or only one class.

    Notes
    -----
    The null is a wild bootstrap over groups (Cameron, Gelbach and Miller 2008): what each group has more or fewer of
    bad samples than stated, in each bin, is kept, and each group has a sign by chance. Of probabilities that are right,
    p ≤ 0.05 in 4 to 7 of 100 data sets with 8 to 32 prompts and labels that are alike in them (ICC 0 to 0.3), where
    labels drawn one by one gave 5 to 26 (bench/validity/coverage.py).
    """
    scores, y = numbers(scores, "log-odds").astype(np.float64), binary(y)
    if len(y) < bins or y.min() == y.max():
        raise HandscopeError(
            f"Calibration needs good and bad samples, and at least one for each of {bins} bins; found "
            f"{int((y == 0).sum())} good and {int(y.sum())} bad. Ask for fewer bins, or label more samples."
        )
    order = np.argsort(scores, kind="stable")
    group = np.arange(len(y)) if groups is None else codes(groups, len(y))[order]
    scores, y = scores[order], y[order]
    chance = _chance(scores)
    starts = np.arange(bins) * len(y) // bins
    size = np.diff(np.append(starts, len(y)))
    more = np.zeros((int(group.max()) + 1, bins))
    np.add.at(more, (group, np.repeat(np.arange(bins), size)), y - chance)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(more)))
    null = np.abs(signs @ more).sum(1) / len(y)
    bad = np.add.reduceat(y, starts)
    low, high = wilson(bad, size)
    predicted = np.add.reduceat(chance, starts) / size
    table = pd.DataFrame({"n": size, "predicted": predicted, "observed": bad / size, "lo": low, "hi": high})
    slope, intercept = platt(scores, y, smooth=False)
    floor = max(1 / (1 + draws), 2.0 ** (1 - len(more)))
    return Calibration(table, float(np.abs(more.sum(0)).sum() / len(y)), null, floor, slope, intercept)


def platt(scores: ArrayLike, y: ArrayLike, smooth: bool = True) -> tuple[float, float]:
    """Slope and intercept that turn held-out scores into log-odds of bad: ``slope * scores + intercept``.

    Parameters
    ----------
    scores, y : arrays of shape (n,), of samples that the scores' fits had not seen
    smooth : towards what is sure of a class of n samples, (n + 1) / (n + 2), after Platt (1999), so that separable
        scores have a solution

    Notes
    -----
    Logistic regression in one dimension, by Newton's method. The slope may be negative, where scores rank worse than
    chance; `rising` is the calibration that keeps the order of scores.
    """
    scores, y = np.asarray(scores, np.float64), np.asarray(y, np.float64)
    bad, good = y.sum(), (1 - y).sum()
    target = np.where(y > 0, (bad + 1) / (bad + 2), 1 / (good + 2)) if smooth else y
    centre, spread = scores.mean(), scores.std()
    if spread == 0:
        return 0.0, float(np.log((bad + 0.5) / (good + 0.5)))
    z = np.column_stack([(scores - centre) / spread, np.ones(len(y))])
    w = np.array([0.0, np.log((target.sum() + 1e-9) / (len(y) - target.sum() + 1e-9))])
    for _ in range(100):
        chance = _chance(z @ w)
        slope = z.T @ (chance - target)
        bend = z.T @ (z * (chance * (1 - chance))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        step /= max(1.0, np.abs(step).max() / 3)  # from far away Newton's step is too long
        w = w - step
        if np.abs(step).max() < 1e-10 or np.abs(w).max() > 1e4:
            break
    return float(w[0] / spread), float(w[1] - w[0] * centre / spread)


def rising(scores: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """`platt` with a slope of at least 0, so that calibration never turns a probe upside down.

    Scores that rank worse than chance say nothing: their slope is 0, and the intercept the log-odds of all.
    """
    slope, intercept = platt(scores, y)
    return (slope, intercept) if slope >= 0 else platt(np.zeros(len(np.asarray(y))), y)


def _chance(scores: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * scores)
