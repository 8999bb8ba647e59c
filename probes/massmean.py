"""The difference of the class means as a probe."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .linear import DRAFT, Array, LinearProbe, Scorer, fittable, mean_row


class MassMeanProbe(LinearProbe):
    """The probe with nothing to choose: from the mean of the good towards the mean of the bad.

    Notes
    -----
    Marks and Tegmark (2023), https://arxiv.org/abs/2310.06824. In units of the input, so that it is the direction that
    steering adds, and so that a massive channel weighs what it weighs in the residual stream; the form with the inverse
    covariance is `RidgeProbe`. ``decision_function`` is the log-odds of two normal distributions of equal variance
    along the direction: too sure where there are as many channels as samples, which `platt` mends.
    """

    def fit_many(
        self,
        x: Array,
        labels: Array,
        weights: Array,
        design: NDArray[np.intp],
        l2: ArrayLike | None = None,
        tolerance: float = DRAFT,
    ) -> tuple[Array, Array]:
        w, b = np.zeros((len(labels), x.shape[1])), np.zeros(len(labels))
        can_fit = fittable(labels, weights, design)
        for number, weight in enumerate(weights):
            chosen, rows = np.flatnonzero((design == number) & can_fit), np.flatnonzero(weight)
            if not len(chosen):
                continue
            part, weight = x[rows], weight[rows]
            centre = np.average(part, axis=0, weights=weight)
            part = part - centre.astype(x.dtype)
            label = labels[np.ix_(chosen, rows)]
            bad, good = (label * weight).sum(1), ((1 - label) * weight).sum(1)
            high = (label * weight).astype(x.dtype) @ part / bad[:, None]
            low = ((1 - label) * weight).astype(x.dtype) @ part / good[:, None]
            theta = high - low
            along = theta @ part.T
            at_high, at_low = (np.einsum("fk,fk->f", theta, mean) for mean in (high, low))
            spread = (np.square(along - np.where(label > 0, at_high[:, None], at_low[:, None])) * weight).sum(1)
            variance = np.maximum(spread / weight.sum(), np.finfo(np.float64).tiny)
            length = (at_high - at_low) / variance
            w[chosen] = theta * length[:, None]
            b[chosen] = np.log(bad / good) - length * (at_high + at_low) / 2 - w[chosen] @ centre.astype(x.dtype)
        return w, b

    def scorer(self, x: Array, weights: Array, new: Array) -> Scorer:
        return _MassMeanScorer(self, x, weights, new)


class _MassMeanScorer(Scorer):
    def order(self, labels: Array, l2: Array) -> Array:
        """By the sum of the bad rows, taken from the mean of all: the difference of the means, but for its length."""
        mean = mean_row(self.x, self.weights)
        sums = (labels * self.weights).astype(self.x.dtype) @ (self.x - mean)
        return np.repeat((sums @ (self.new - mean).T)[:, None], l2.shape[1], 1)
