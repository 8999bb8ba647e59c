"""What all linear probes share: the checks, the many fits at once, and what is done with the weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ..analysis.statistics.arrays import numbers
from ..errors import HandscopeError

Array = NDArray[Any]

DRAFT = 1e-6
"""Precision of the fits behind a null or a choice: enough to rank by."""


class LinearProbe(ClassifierMixin, BaseEstimator):
    """A linear probe of bad against good; see `LogisticProbe`, `RidgeProbe` and `MassMeanProbe`.

    Attributes
    ----------
    coef_ : float64 array of shape (width,), in units of the input: ``x @ coef_ + intercept_`` is the log-odds of y = 1
    intercept_ : float
    mean_, scale_ : arrays of shape (width,), mean and standard deviation of the rows it was fitted to
    metadata_ : dict of what `save_probe` was given, after `load_probe`
    """

    coef_: Array
    intercept_: float
    mean_: Array
    scale_: Array
    metadata_: dict[str, Any]

    @abstractmethod
    def fit_many(
        self,
        x: Array,
        labels: Array,
        weights: Array,
        design: NDArray[np.intp],
        l2: ArrayLike | None = None,
        tolerance: float = DRAFT,
    ) -> tuple[Array, Array]:
        """Fit to many labellings, training sets and penalties at once.

        Parameters
        ----------
        x : array of shape (n, width)
        labels : array of shape (fits, n), 0 or 1
        weights : array of shape (designs, n), how much each row counts in a training set, 0 for not at all
        design : int array of shape (fits,), the training set of each fit
        l2 : array of shape (fits,), the penalty of each fit where it is not the probe's own

        Returns
        -------
        float64 arrays of shape (fits, width) and (fits,), weights and intercepts in units of the input; a fit whose
        training set holds only one class has weights and intercept 0
        """

    def scorer(self, x: Array, weights: Array, new: Array) -> Scorer:
        """Ready to score the rows of `new` by fits to `x`, whose rows count `weights`; shapes as of `Scorer`."""
        return Scorer(self, x, weights, new)

    def fit(self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to `x` of shape (n, width) and `y` of shape (n,), 1 for bad and 0 for good.

        Parameters
        ----------
        sample_weight : array of shape (n,), optional; how much each row counts. For tokens, `even_weights`.
        """
        x, y, weights = self._checked(x, y, sample_weight)
        w, b = self.fit_many(x, y[None], weights[None], np.zeros(1, np.intp), tolerance=1e-10)
        self.classes_ = np.array([0, 1])
        self.coef_, self.intercept_ = w[0], float(b[0])
        share = weights / weights.sum()
        self.mean_ = np.einsum("n,nk->k", share, x, dtype=np.float64)
        self.scale_ = np.sqrt(np.einsum("n,nk->k", share, np.square(x - self.mean_), dtype=np.float64))
        return self

    def decision_function(self, x: ArrayLike) -> Array:
        """Log-odds of y = 1: shape (n, width) to (n,)."""
        check_is_fitted(self)
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self.coef_):
            raise HandscopeError(
                f"This probe was fitted to vectors of width {len(self.coef_)}, and was given an array of shape "
                f"{x.shape}: read the block that it was fitted to, as (n, {len(self.coef_)})."
            )
        return np.asarray(x, np.float64) @ self.coef_ + self.intercept_

    def predict_proba(self, x: ArrayLike) -> Array:
        """Probabilities of y = 0 and y = 1: shape (n, width) to (n, 2)."""
        bad = 0.5 + 0.5 * np.tanh(0.5 * self.decision_function(x))
        return np.stack([1 - bad, bad], 1)

    def predict(self, x: ArrayLike) -> Array:
        """1 where y = 1 is likelier: shape (n, width) to (n,)."""
        return (self.decision_function(x) > 0).astype(int)

    def score_many(
        self, x: ArrayLike, labels: ArrayLike, new: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Array:
        """Log-odds for new rows of the probes fitted to each row of `labels`: the fast road to a permutation null.

        Parameters
        ----------
        x : array of shape (n, width); labels : array of shape (fits, n); new : array of shape (m, width)

        Returns
        -------
        array of shape (fits, m), to about four digits: single precision is enough to rank by, and faster
        """
        x, labels, weights = self._checked(x, labels, sample_weight)
        w, b = self.fit_many(x.astype(np.float32), labels, weights[None], np.zeros(len(labels), np.intp))
        return w @ np.asarray(new, np.float64).T + b[:, None]

    def check(self, x: ArrayLike, y: ArrayLike) -> None:
        """Refuse what cannot be fitted to, in one sentence; arrays as of `fit`."""
        self._checked(x, y, None)

    def _checked(self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Array, Array, Array]:
        """The features as float32 or float64, the labels and the weights."""
        x, y = np.asarray(x), np.asarray(y, np.float64)
        name = type(self).__name__
        if not getattr(self, "l2", 1) > 0:
            raise HandscopeError(
                f"{name} needs l2 > 0, and was given {getattr(self, 'l2', None)}: without a penalty separable classes "
                "have no solution."
            )
        if x.dtype != np.float32:
            x = x.astype(np.float64)
        if x.ndim != 2 or y.shape[-1] != len(x):
            raise HandscopeError(
                f"Expected x of shape (n, width) and n labels; found x of shape {x.shape} and y of shape {y.shape}."
            )
        if not np.isfinite(x.sum(1, dtype=np.float64)).all():
            raise HandscopeError(
                f"Expected finite numbers to fit a probe to; {int((~np.isfinite(x)).any(1).sum())} of {len(x)} rows "
                "hold NaN or infinity."
            )
        weights = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        if weights.shape != (len(x),) or not (weights >= 0).all() or not weights.any():
            raise HandscopeError(
                f"Expected {len(x)} sample weights, none negative and not all 0; found an array of shape "
                f"{weights.shape}."
            )
        counted = y[..., weights > 0]
        if not np.isin(y, (0, 1)).all() or (counted.min(-1) == counted.max(-1)).any():
            raise HandscopeError(
                "A probe needs labels of 0 (good) and 1 (bad), and both of them among the rows it is fitted to; "
                f"found {sorted(set(y.ravel().tolist()))[:5]}."
            )
        return x, y, weights


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores of new rows by fits to one training set, to many labellings and with several penalties.

    A score is a log-odds less its mean over the rows fitted to: fits of different folds differ in their intercept,
    which follows the share of bad in the rows that were fitted to and so runs against that of the rows left out.

    Attributes
    ----------
    probe : LinearProbe
    x : array of shape (n, width)
    weights : array of shape (n,), how much each row counts
    new : array of shape (m, width)
    """

    probe: LinearProbe
    x: Array
    weights: Array
    new: Array

    def scores(self, labels: Array, l2: Array) -> Array:
        """Of fits to labels (labellings, n) with penalties (labellings, penalties): (labellings, penalties, m)."""
        many, per = l2.shape
        each = labels if per == 1 else np.repeat(labels, per, 0)
        w, _ = self.probe.fit_many(self.x, each, self.weights[None], np.zeros(len(each), np.intp), l2.ravel())
        out: Array = w.astype(self.x.dtype) @ (self.new - mean_row(self.x, self.weights)).T
        return out.reshape(many, per, len(self.new))

    def order(self, labels: Array, l2: Array) -> Array:
        """As `scores`, but for a factor above 0 of each fit: all that an AUC sees, and cheaper for some probes."""
        return self.scores(labels, l2)


def mean_row(x: Array, weights: Array) -> Array:
    """The weighted mean of the rows of `x`, shape (width,), in the precision of `x`."""
    mean: Array = (weights @ x / weights.sum()).astype(x.dtype)
    return mean


def features(x: ArrayLike) -> Array:
    """Features in single precision: what comes in double is centred first, or a large offset would take its digits.

    Scores of a linear probe do not change when a constant is taken off a feature.

    Raises
    ------
    HandscopeError
        They are not numbers, or not finite.
    """
    array = numbers(x, "features")
    if array.dtype == np.float32 or array.ndim != 2:
        return array
    return (array - array.mean(0)).astype(np.float32)


def penalties(l2: ArrayLike) -> Array:
    """Penalties to choose from, the largest first: float64 array of shape (k,).

    Raises
    ------
    HandscopeError
        There are none, they are no list, or one is not above 0.
    """
    grid = np.asarray(l2, np.float64)
    if grid.ndim != 1 or not len(grid) or not (grid > 0).all():
        raise HandscopeError(f"Expected l2 as a list of penalties larger than 0, such as [1, 100], found {l2!r}.")
    return np.sort(grid)[::-1]


def fittable(labels: Array, weights: Array, design: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which fits have both classes in their training set; arguments as of `LinearProbe.fit_many`."""
    used = weights > 0
    has_both = np.zeros(len(labels), bool)
    for number, rows in enumerate(used):
        chosen = design == number
        bad = labels[np.ix_(chosen, rows)].mean(1) if rows.any() else np.zeros(chosen.sum())
        has_both[chosen] = (bad > 0) & (bad < 1)
    return has_both


def even_weights(sample: ArrayLike) -> Array:
    """Weights of tokens by which every sample counts 1, however many tokens it has: shape (n_tokens,) to (n_tokens,).

    >>> even_weights(["a", "a", "b"])
    array([0.5, 0.5, 1. ])
    """
    _, number, count = np.unique(np.asarray(sample), return_inverse=True, return_counts=True)
    return 1 / count[number]
