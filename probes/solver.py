"""The solver of the logistic probe: every fold, penalty and labelling of a set of features at once.

All fits share the features, so that a round is two products of one matrix with as many columns as there are fits, where
fit by fit it would be read again for every one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .standardise import FIRM, ROWS, Diagonal, Preconditioner, Standardised

Array = NDArray[Any]

CLOSE = 1e-4
"""Axes of which one is so much shorter than another, squared, are not told apart in single precision."""

BLUR = 1e3
"""How far that may reach towards a penalty, for a tolerance of 1."""

MEMORY, ROUNDS, SEARCHES = 10, 1000, 20
"""Steps that are remembered, the most rounds, and the most looks at the loss along one step."""


def logistic(
    x: Array,
    labels: Array,
    weights: Array,
    l2: Array,
    design: NDArray[np.intp],
    tolerance: float = 1e-8,
    offset: Array | None = None,
) -> tuple[Array, Array]:
    """Weights and intercepts of many l2-penalised logistic regressions on the same features.

    Parameters
    ----------
    x : array of shape (n, width), float32 or float64: products are made in its precision, sums of losses in float64
    labels : array of shape (fits, n), 0 or 1
    weights : array of shape (designs, n), how much each row counts in a design; 0 for the rows of a held-out fold
    l2 : array of shape (fits,), the penalty on the weights of the features as standardised over a design's own rows
    design : int array of shape (fits,), which design each fit belongs to
    offset : array of shape (fits, n), optional; added to the logits of a fit as it is
    tolerance : a fit ends when the next step promises less than this share of its objective

    Returns
    -------
    float64 arrays of shape (fits, width) and (fits,), in units of `x`

    Notes
    -----
    Minimises  sum a log(1 + exp(-s z)) + l2 / 2 |w|²,  s = ±1,  z = w (x - mean) / scale + b. A channel that does not
    vary in a design gets the weight 0. Where there are more channels than rows, each design is turned to a basis of its
    rows first: the penalty sees no rotation, and no solution leaves their span.
    """
    offset = np.broadcast_to(0.0, labels.shape) if offset is None else offset
    if x.shape[1] > len(x):
        return _by_design(x, labels, weights, l2, design, tolerance, offset)
    # Rows that the same designs use lie together, so that a product can leave out the fits that have no use for them.
    patterns, kind = np.unique(weights > 0, axis=1, return_inverse=True)
    order = np.argsort(kind.ravel(), kind="stable")
    stops = np.cumsum(np.bincount(kind.ravel()))
    parts = [slice(stop - size, stop) for stop, size in zip(stops, np.bincount(kind.ravel()), strict=True)]
    whole = Standardised.of(x, weights.sum(0), order)
    labels, weights = labels[:, order], weights[:, order]
    total = weights.sum(1, keepdims=True)
    single = weights.astype(x.dtype)
    mean = single @ whole.x / total
    squares = sum(single[:, k : k + ROWS] @ np.square(whole.x[k : k + ROWS]) for k in range(0, len(x), ROWS))
    variance = np.maximum(squares / total - np.square(mean), 0)
    varies = (variance > FIRM) & whole.varies
    fits = _Fits(
        whole.x,
        [(part, pattern[design]) for part, pattern in zip(parts, patterns.T, strict=True)],
        labels,
        single[design],
        l2[:, None] * np.where(varies, variance, 1.0)[design],
        varies[design],
        Preconditioner(whole.x),
    )
    w, b = fits.solve(tolerance, offset[:, order])
    w = w * varies[design] / whole.scale
    return w, b - w @ whole.mean


def _by_design(
    x: Array,
    labels: Array,
    weights: Array,
    l2: Array,
    design: NDArray[np.intp],
    tolerance: float,
    offset: Array,
) -> tuple[Array, Array]:
    w, b = np.empty((len(labels), x.shape[1])), np.empty(len(labels))
    for number, weight in enumerate(weights):
        chosen, rows = np.flatnonzero(design == number), np.flatnonzero(weight)
        if not len(chosen):
            continue
        part = x[rows]
        whole, values, vectors = _axes(part, weight[rows])
        blur = np.finfo(np.float32).eps * values[-1]
        if x.dtype == np.float32 and values[1] < CLOSE * values[-1] and blur > BLUR * tolerance * l2[chosen].min():
            # One value is 0, of the mean; another that is small needs all digits, unless the penalty hides it.
            part = part.astype(np.float64)
            whole, values, vectors = _axes(part, weight[rows])
        kept = values > len(rows) * np.finfo(np.float64).eps * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        fits = _Fits(
            (vectors * np.sqrt(values)).astype(part.dtype),
            [(slice(None), np.ones(len(chosen), bool))],
            labels[np.ix_(chosen, rows)],
            np.tile(weight[rows].astype(part.dtype), (len(chosen), 1)),
            np.tile(l2[chosen, None], len(values)),
            np.ones((len(chosen), len(values)), bool),
            Diagonal(values.astype(part.dtype)),
        )
        u, b[chosen] = fits.solve(tolerance, offset[np.ix_(chosen, rows)])
        w[chosen] = (u / np.sqrt(values) @ vectors.T).astype(part.dtype) @ whole.x / whole.scale
        b[chosen] -= w[chosen] @ whole.mean
    return w, b


def _axes(x: Array, weights: Array) -> tuple[Standardised, Array, Array]:
    """Standardised rows, with the eigenvalues, in rising order, and eigenvectors of their products with each other."""
    whole = Standardised.of(x, weights)
    values, vectors = np.linalg.eigh((whole.x @ whole.x.T).astype(np.float64))
    return whole, values, vectors


class _Fits:
    """Fits on standardised features; a row of the arrays is a fit's, the last weight of a fit its intercept.

    The margin s z of each row is kept instead of its logit z: where it is large, the loss and its slope are small, and
    would be lost as differences of large numbers.
    """

    def __init__(
        self,
        x: Array,
        parts: list[tuple[slice, NDArray[np.bool_]]],
        labels: Array,
        weights: Array,
        penalty: Array,
        free: Array,
        steer: Preconditioner | Diagonal,
    ) -> None:
        kind = x.dtype
        self.x, self.parts, self.steer = x, parts, steer
        self.sign, self.weights = np.where(labels > 0, 1, -1).astype(kind), weights
        self.l2 = penalty.mean(1, keepdims=True).astype(kind)
        intercept = np.zeros((len(labels), 1))
        self.penalty = np.hstack([penalty, intercept]).astype(kind)
        self.free = np.hstack([free, intercept + 1]).astype(kind)

    def keep(self, going: NDArray[np.bool_]) -> None:
        self.parts = [(rows, use[going]) for rows, use in self.parts]
        for name in ("sign", "weights", "l2", "penalty", "free"):
            setattr(self, name, getattr(self, name)[going])

    def solve(self, tolerance: float, offset: Array) -> tuple[Array, Array]:
        """Limited-memory BFGS (Liu and Nocedal 1989), whose first guess at the inverse Hessian is the preconditioner's
        at a fit's present mean curvature. Margins are linear along a step, so that searching along it costs no product.
        """
        kind = self.x.dtype
        out = np.zeros(self.penalty.shape)
        which = np.arange(len(out))
        w, margin = np.zeros(self.penalty.shape, kind), self.sign * offset.astype(kind)
        loss = start = self.loss(margin, w)
        miss, slope = self.slope(margin, w)
        steps: list[Array] = []
        turns: list[Array] = []
        for _ in range(ROUNDS):
            curvature = np.einsum("fn,fn,fn->f", self.weights, miss, 1 - miss)[:, None] / kind.type(len(self.x))
            step = -self.two_loops(slope, steps, turns, curvature)
            towards = self.margin(step)
            promise = -0.5 * np.einsum("fk,fk->f", step, slope, dtype=np.float64)
            length = self.search(margin, towards, w, step)
            step *= length
            w, margin, before = w + step, margin + length * towards, slope
            loss, last = self.loss(margin, w), loss
            miss, slope = self.slope(margin, w)
            steps, turns = [*steps[1 - MEMORY :], step], [*turns[1 - MEMORY :], slope - before]
            # A loss that grows is one of which the precision is used up.
            going = (promise > np.maximum(tolerance * loss, 1e-4 * np.finfo(kind).eps * start)) & (loss <= last)
            if not going.all():
                out[which[~going]] = w[~going]
                self.keep(going)
                which, w, margin, miss, slope = (a[going] for a in (which, w, margin, miss, slope))
                loss, start = loss[going], start[going]
                steps, turns = [a[going] for a in steps], [a[going] for a in turns]
                if not len(which):
                    break
        out[which] = w
        return out[:, :-1], out[:, -1]

    def margin(self, w: Array) -> Array:
        """s (x w + b), or 0 for rows that a fit does not use."""
        out = np.zeros(self.sign.shape, w.dtype)
        for rows, use in self.parts:
            if use.all():
                out[:, rows] = w[:, :-1] @ self.x[rows].T
                out[:, rows] += w[:, -1:]
            elif use.any():
                out[use, rows] = w[use, :-1] @ self.x[rows].T + w[use, -1:]
        out *= self.sign
        return out

    def slope(self, margin: Array, w: Array) -> tuple[Array, Array]:
        """The chance that each row is missed, 1 / (1 + exp(margin)), and the gradient of the objective."""
        miss = _miss(margin)
        pull = self.sign * self.weights * miss
        slope = self.penalty * w
        for rows, use in self.parts:
            if use.all():
                slope[:, :-1] -= pull[:, rows] @ self.x[rows]
            elif use.any():
                slope[use, :-1] -= pull[use, rows] @ self.x[rows]
        slope[:, -1] -= pull.sum(1)
        return miss, slope * self.free

    def loss(self, margin: Array, w: Array) -> Array:
        losses = np.maximum(-margin, 0) + np.log1p(np.exp(-np.abs(margin)))
        penalty = 0.5 * np.einsum("fk,fk,fk->f", self.penalty, w, w, dtype=np.float64)
        return np.einsum("fn,fn->f", self.weights, losses, dtype=np.float64) + penalty

    def two_loops(self, slope: Array, steps: list[Array], turns: list[Array], curvature: Array) -> Array:
        """The guess at the inverse Hessian, from remembered steps and turns of the slope, times the slope."""
        tiny = np.finfo(slope.dtype).tiny
        v, rates, shares = slope.copy(), [], []
        for step, turn in zip(reversed(steps), reversed(turns), strict=True):
            bend = np.einsum("fk,fk->f", step, turn)[:, None]
            rates.append(np.where(bend > tiny, 1 / np.maximum(bend, tiny), 0))
            shares.append(rates[-1] * np.einsum("fk,fk->f", step, v)[:, None])
            v -= shares[-1] * turn
        v[:, :-1] = self.steer.divide(v[:, :-1], curvature, self.l2)
        v[:, -1:] /= np.maximum(curvature * len(self.x), tiny)
        v *= self.free
        for step, turn, rate, share in zip(steps, turns, reversed(rates), reversed(shares), strict=True):
            v += step * (share - rate * np.einsum("fk,fk->f", turn, v)[:, None])
        return v

    def search(self, margin: Array, towards: Array, w: Array, step: Array) -> Array:
        """How far to go along each step: Newton's method on a convex function of one number, kept in its bracket."""
        bend_w = np.einsum("fk,fk,fk->f", self.penalty, step, step, dtype=np.float64)
        slope_w = np.einsum("fk,fk,fk->f", self.penalty, w, step, dtype=np.float64)
        length, low, high = np.ones(len(w)), np.zeros(len(w)), np.full(len(w), np.inf)
        weighted = self.weights * towards
        for _ in range(SEARCHES):
            miss = _miss(margin + length[:, None].astype(margin.dtype) * towards)
            slope = slope_w + length * bend_w - np.einsum("fn,fn->f", weighted, miss, dtype=np.float64)
            weighted_miss = weighted * miss
            bend = bend_w + np.einsum("fn,fn,fn->f", weighted_miss, towards, 1 - miss, dtype=np.float64)
            low, high = np.where(slope < 0, length, low), np.where(slope > 0, length, high)
            newton = length - slope / np.maximum(bend, np.finfo(float).tiny)
            inside = (newton > low) & (newton < np.minimum(high, 10 * length))
            beyond = np.where(np.isinf(high), 2 * length, 0.5 * (low + np.minimum(high, 2 * length)))
            newton = np.where(inside, newton, beyond)
            near = np.abs(newton - length) <= 0.1 * length
            length = newton
            if near.all():
                break
        # Where no end was reached, the furthest point that is known to lie downhill.
        return np.where(near | (low == 0), length, low)[:, None].astype(w.dtype)


def _miss(margin: Array) -> Array:
    return 1 / (1 + np.exp(np.minimum(margin, margin.dtype.type(80))))
