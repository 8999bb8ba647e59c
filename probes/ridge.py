"""Ridge regression to the labels: Fisher's linear discriminant with a shrunken covariance."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from .linear import DRAFT, Array, LinearProbe, Scorer, fittable
from .standardise import Standardised, gram

FEW = 16
"""Fits below which each is solved for, and not the rows that are to be scored."""


class RidgeProbe(LinearProbe):
    """The probe in closed form: ridge regression to ±1, which points where shrunken linear discriminant analysis does.

    Parameters
    ----------
    l2 : weight of the penalty, larger than 0

    Notes
    -----
    With S the scatter within the classes of the standardised features and d the difference of their means, ridge
    regression of ±1 with an intercept points along (S + l2 I)⁻¹ d: by the formula of Sherman and Morrison the part of
    the scatter that lies between the classes changes its length only. So it is the discriminant with the covariance
    shrunk towards the identity, and for l2 towards 0 the probe that Marks and Tegmark (2023),
    https://arxiv.org/abs/2310.06824, call mass-mean with the inverse covariance. `coef_` has the length at which
    ``decision_function`` is the discriminant's log-odds; where there are about as many channels as samples they are far
    too sure, and `platt` mends that. Many labellings share one factorisation, so a null costs hardly more than a fit.
    """

    def __init__(self, l2: float = 1.0) -> None:
        self.l2 = l2

    def fit_many(
        self,
        x: Array,
        labels: Array,
        weights: Array,
        design: NDArray[np.intp],
        l2: ArrayLike | None = None,
        tolerance: float = DRAFT,
    ) -> tuple[Array, Array]:
        penalty = np.broadcast_to(np.asarray(self.l2 if l2 is None else l2, np.float64), len(labels))
        w, b = np.zeros((len(labels), x.shape[1])), np.zeros(len(labels))
        can_fit = fittable(labels, weights, design)
        for number, weight in enumerate(weights):
            chosen, rows = np.flatnonzero((design == number) & can_fit), np.flatnonzero(weight)
            if not len(chosen):
                continue
            used = _Rows(x[rows], weight[rows])
            ridge, level = used.discriminants(labels[np.ix_(chosen, rows)], penalty[chosen])
            w[chosen] = ridge * used.whole.varies / used.whole.scale
            b[chosen] = level - w[chosen] @ used.whole.mean
        return w, b

    def scorer(self, x: Array, weights: Array, new: Array) -> Scorer:
        return _RidgeScorer(self, x, weights, new)


class _Rows:
    """The rows of a training set as a ridge regression sees them: standardised, each times the root of its weight.

    Where there are fewer rows than channels, it is solved in the space of the rows.
    """

    def __init__(self, x: Array, weight: Array) -> None:
        self.whole = Standardised.of(x, weight)
        self.root = np.sqrt(weight)
        self.x = self.whole.x if (weight == 1).all() else self.whole.x * self.root[:, None].astype(x.dtype)
        self.wide = self.x.shape[1] > len(self.x)
        self.scatter = (self.x @ self.x.T if self.wide else gram(self.x)).astype(np.float64)

    def discriminants(self, labels: Array, l2: Array) -> tuple[Array, Array]:
        """Weights of standardised features, and log-odds at their mean: (fits, width) and (fits,) of labels (fits, n)
        that hold both classes.
        """
        weight = np.square(self.root)
        bad, total = labels @ weight, weight.sum()
        good = total - bad
        centred = ((2 * labels - 1 - ((bad - good) / total)[:, None]) * self.root).astype(self.x.dtype)
        shift = (centred @ self.x).astype(np.float64)  # the difference of the means, but for its length
        ridge = np.empty(shift.shape)
        for value in np.unique(l2):
            these = l2 == value
            right = centred[these].astype(np.float64) if self.wide else shift[these]
            solved = self.divided(right.T, value).T
            ridge[these] = solved.astype(self.x.dtype) @ self.x if self.wide else solved
        # From the regression's length to the discriminant's; `apart` is the share of the targets it explains.
        means = shift * (total / (2 * bad * good))[:, None]
        apart = 0.5 * np.einsum("fk,fk->f", ridge, means)
        ridge *= (total**2 / (2 * bad * good * np.maximum(1 - apart, 1e-12)))[:, None]
        middle = 0.5 * means * ((good - bad) / total)[:, None]  # of the class means, from the mean
        return ridge, np.log(bad / good) - np.einsum("fk,fk->f", ridge, middle)

    def divided(self, columns: Array, l2: float) -> Array:
        """``(scatter + l2)⁻¹ columns``."""
        system = self.scatter.copy()
        system[np.diag_indices(len(system))] += l2
        factor = cho_factor(system.T, overwrite_a=True, check_finite=False)  # its transpose needs no copy for Fortran
        solved: Array = cho_solve(factor, columns, check_finite=False)
        return solved


class _RidgeScorer(Scorer):
    """Ridge regression scores new rows by ``targets @ reads(l2)``, whatever the targets: so many labellings cost little
    more than one.
    """

    @cached_property
    def rows(self) -> _Rows:
        return _Rows(self.x, self.weights)

    @cached_property
    def away(self) -> Array:
        """The new rows, standardised as the training rows are: shape (m, width)."""
        whole = self.rows.whole
        out: Array = (self.new - whole.mean.astype(self.x.dtype)) * (whole.varies / whole.scale).astype(self.x.dtype)
        return out

    @cached_property
    def products(self) -> Array:
        """The new rows, (width, m), or their products with the training rows, (n, m)."""
        return (self.rows.x @ self.away.T if self.rows.wide else self.away.T).astype(np.float64)

    @cached_property
    def _reads(self) -> dict[float, Array]:
        return {}

    def reads(self, l2: float) -> Array:
        """What targets, or where there are few channels their products with the rows, are multiplied by: (..., m)."""
        if l2 not in self._reads:
            self._reads[l2] = self.rows.divided(self.products, l2).astype(self.x.dtype)
        return self._reads[l2]

    def scores(self, labels: Array, l2: Array) -> Array:
        each = np.repeat(np.asarray(labels, np.float64), l2.shape[1], 0)
        ridge = np.zeros((len(each), self.x.shape[1]))
        can_fit = fittable(each, self.weights[None], np.zeros(len(each), np.intp))
        if can_fit.any():
            ridge[can_fit], _ = self.rows.discriminants(each[can_fit], l2.ravel()[can_fit])
        out: Array = (ridge.astype(self.x.dtype) @ self.away.T).reshape(*l2.shape, -1)
        return out

    def order(self, labels: Array, l2: Array) -> Array:
        if len(labels) < FEW:
            return self.scores(labels, l2)
        labels, root = labels.astype(self.x.dtype), self.rows.root.astype(self.x.dtype)
        if self.rows.wide:
            weight = np.square(root)
            sums = (labels - (labels @ weight / weight.sum())[:, None]) * root
        else:  # the rows add up to 0, and so need no centred targets
            sums = (labels * root) @ self.rows.x
        if (l2 == l2[0]).all():
            return (sums @ np.hstack([self.reads(float(value)) for value in l2[0]])).reshape(*l2.shape, -1)
        out = np.empty((*l2.shape, len(self.new)), self.x.dtype)
        for place, column in enumerate(l2.T):
            for value in np.unique(column):
                these = column == value
                out[these, place] = sums[these] @ self.reads(float(value))
        return out
