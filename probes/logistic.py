"""Logistic regression with an l2 penalty."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .linear import DRAFT, Array, LinearProbe, fittable
from .solver import logistic


class LogisticProbe(LinearProbe):
    """The probe that fits best by its own measure, the likelihood of the labels.

    Parameters
    ----------
    l2 : weight of the penalty, larger than 0; scikit-learn's C is 1 / l2

    Notes
    -----
    Minimises  sum a log(1 + exp(-s z)) + l2 / 2 |w|²,  s = ±1,  z = w (x - mean) / scale + b, with a the sample
    weights, as ``make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2))`` does. Dividing by the standard
    deviation takes their weight from massive channels and keeps the probe linear; a channel that does not vary gets the
    coefficient 0. Its log-odds are those of the training set: they are calibrated as far as the penalty keeps it from
    learning the noise, and `platt` mends the rest. Features in float32 are multiplied in float32.
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
        can_fit = fittable(labels, weights, design)
        if can_fit.all():
            return logistic(x, labels, weights, penalty, design, tolerance)
        w, b = np.zeros((len(labels), x.shape[1])), np.zeros(len(labels))
        if can_fit.any():
            w[can_fit], b[can_fit] = logistic(x, labels[can_fit], weights, penalty[can_fit], design[can_fit], tolerance)
        return w, b
