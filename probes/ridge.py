"""Ridge regression to the labels: Fisher's linear discriminant with a shrunken covariance."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from .linear import DRAFT, Array, LinearProbe, Scorer, fittable
from .standardise import Standardised, gram


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
            bad, good, centred = used.targets(labels[np.ix_(chosen, rows)])
            ridge = np.empty((len(chosen), x.shape[1]))
            for value in np.unique(penalty[chosen]):
                these = penalty[chosen] == value
                ridge[these] = used.solve(centred[these], value)
            # From the regression's length to the discriminant's; `apart` is the share of the targets it explains.
            total, shift = bad + good, used.shift(centred)
            means = shift * (total / (2 * bad * good))[:, None]
            apart = 0.5 * np.einsum("fk,fk->f", ridge, means)
            ridge *= (total**2 / (2 * bad * good * np.maximum(1 - apart, 1e-12)))[:, None]
            middle = 0.5 * means * ((good - bad) / total)[:, None]  # of the class means, from the mean
            whole = used.whole
            w[chosen] = ridge * whole.varies / whole.scale
            b[chosen] = np.log(bad / good) - np.einsum("fk,fk->f", ridge, middle) - w[chosen] @ whole.mean
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
        self.x = self.whole.x * self.root[:, None].astype(x.dtype)
        self.wide = self.x.shape[1] > len(self.x)
        self.scatter = (self.x @ self.x.T if self.wide else gram(self.x)).astype(np.float64)

    def targets(self, labels: Array) -> tuple[Array, Array, Array]:
        """How much bad and good rows weigh, and the centred targets of ±1 times the roots: shape (fits, n)."""
        weight = np.square(self.root)
        bad = labels @ weight
        good = weight.sum() - bad
        centred = 2 * labels - 1 - ((bad - good) / weight.sum())[:, None]
        centred *= self.root
        return bad, good, centred.astype(self.x.dtype)

    def shift(self, centred: Array) -> Array:
        """The difference of the class means, but for its length: shape (fits, n) to (fits, width)."""
        return (centred @ self.x).astype(np.float64)

    def divided(self, columns: Array, l2: float) -> Array:
        """``(scatter + l2)⁻¹ columns``."""
        system = self.scatter + l2 * np.eye(len(self.scatter))
        factor = cho_factor(system, overwrite_a=True, check_finite=False)
        solved: Array = cho_solve(factor, columns, check_finite=False)
        return solved

    def solve(self, centred: Array, l2: float) -> Array:
        """Regressions of centred targets: shape (fits, n) to (fits, width)."""
        if self.wide:
            solved = self.divided(centred.T.astype(np.float64), l2).T
            return (solved.astype(self.x.dtype) @ self.x).astype(np.float64)
        return self.divided(self.shift(centred).T, l2).T


class _RidgeScorer(Scorer):
    """Ridge regression scores new rows by `targets @ reads(l2)`, whatever the targets: so many labellings cost little
    more than one.
    """

    @cached_property
    def rows(self) -> _Rows:
        return _Rows(self.x, self.weights)

    @cached_property
    def products(self) -> Array:
        """Standardised new rows, (width, m), or their products with the training rows, (n, m)."""
        whole = self.rows.whole
        away = (self.new - whole.mean.astype(self.x.dtype)) * (whole.varies / whole.scale).astype(self.x.dtype)
        return (self.rows.x @ away.T if self.rows.wide else away.T).astype(np.float64)

    def reads(self, l2: float) -> Array:
        if l2 not in self._reads:
            self._reads[l2] = self.rows.divided(self.products, l2).astype(self.x.dtype)
        return self._reads[l2]

    @cached_property
    def _reads(self) -> dict[float, Array]:
        return {}

    def order(self, labels: Array, l2: Array) -> Array:
        _, _, centred = self.rows.targets(labels)
        sums = centred if self.rows.wide else centred @ self.rows.x
        out = np.empty((*l2.shape, len(self.new)), self.x.dtype)
        for place, column in enumerate(l2.T):
            for value in np.unique(column):
                these = column == value
                out[these, place] = sums[these] @ self.reads(float(value))
        return out
