"""Ridge regression to the labels: Fisher's linear discriminant with a shrunken covariance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from .linear import DRAFT, Array, LinearProbe, fittable
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
            whole, root = Standardised.of(x[rows], weight[rows]), np.sqrt(weight[rows])
            targets = 2 * labels[np.ix_(chosen, rows)] - 1
            bad = (labels[np.ix_(chosen, rows)] * weight[rows]).sum(1)
            good = weight[rows].sum() - bad
            centred = ((targets - ((bad - good) / weight[rows].sum())[:, None]) * root).astype(x.dtype)
            scaled = whole.x * root[:, None].astype(x.dtype)
            wide = scaled.shape[1] > len(rows)
            scatter = (scaled @ scaled.T if wide else gram(scaled)).astype(np.float64)
            shift = (centred @ scaled).astype(np.float64)  # the difference of the means, but for its length
            right = centred.astype(np.float64) if wide else shift
            solved = np.empty((len(chosen), len(scatter)))
            for value in np.unique(penalty[chosen]):
                these = penalty[chosen] == value
                factor = cho_factor(scatter + value * np.eye(len(scatter)), overwrite_a=True, check_finite=False)
                solved[these] = cho_solve(factor, right[these].T, check_finite=False).T
            ridge = (solved.astype(x.dtype) @ scaled).astype(np.float64) if wide else solved
            # From the regression's length to the discriminant's; `apart` is the share of the targets it explains.
            means = shift * (weight[rows].sum() / (2 * bad * good))[:, None]
            apart = 0.5 * np.einsum("fk,fk->f", ridge, means)
            ridge *= (weight[rows].sum() ** 2 / (2 * bad * good * np.maximum(1 - apart, 1e-12)))[:, None]
            middle = 0.5 * means * ((good - bad) / weight[rows].sum())[:, None]  # of the class means, from the mean
            w[chosen] = ridge * whole.varies / whole.scale
            b[chosen] = np.log(bad / good) - np.einsum("fk,fk->f", ridge, middle) - w[chosen] @ whole.mean
        return w, b
