"""The solver of the logistic probe: every fold, penalty and labelling of a set of features at once.

All fits share the features, so that a round is two products of one matrix with as many columns as there are fits, where
fit by fit it would be read again for every one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .standardise import FIRM, NARROW, ROWS, Diagonal, Preconditioner, Standardised, gram

Array = NDArray[Any]

CLOSE = 1e-4
"""Axes of which one is so much shorter than another, squared, are not told apart in single precision."""

BLUR = 1e3
"""How far that may reach towards a penalty, for a tolerance of 1."""

AT_ONCE = 1 << 16
"""Margins of fits that are worked on together: as many as a processor's cache holds."""

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
    vary in a design gets the weight 0. Where there are more channels than rows, or few channels, each design is turned
    to its main axes first: the penalty sees no rotation, no solution leaves the span of the rows, and along these axes
    a guess at the inverse Hessian costs no product.
    """
    offset = np.broadcast_to(0.0, labels.shape) if offset is None else offset
    if x.shape[1] > len(x) or x.shape[1] <= NARROW:
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
        turned = _Turned.of(x[rows], weight[rows], tolerance, float(l2[chosen].min()))
        step = max(1, AT_ONCE // len(rows))
        for some in (chosen[start : start + step] for start in range(0, len(chosen), step)):
            fits = _Fits(
                turned.x,
                [(slice(None), np.ones(len(some), bool))],
                labels[np.ix_(some, rows)],
                weight[None, rows].astype(turned.x.dtype),
                np.tile(l2[some, None], turned.x.shape[1]),
                np.ones((len(some), turned.x.shape[1]), bool),
                Diagonal(turned.values.astype(turned.x.dtype)),
            )
            u, b[some] = fits.solve(tolerance, offset[np.ix_(some, rows)])
            w[some] = turned.back(u)
            b[some] -= w[some] @ turned.whole.mean
    return w, b


@dataclass(frozen=True, eq=False)
class _Turned:
    """Standardised rows along their main axes.

    Attributes
    ----------
    x : array of shape (n, axes), the coordinates
    values : array of shape (axes,), the squared lengths of its columns
    whole : Standardised
    axes : array of shape (width, axes); or, where there are more channels than rows, of shape (n, axes): the axes are
        ``whole.x.T @ axes``
    """

    x: Array
    values: Array
    whole: Standardised
    axes: Array

    @classmethod
    def of(cls, x: Array, weights: Array, tolerance: float, l2: float) -> _Turned:
        """Of rows (n, width), their weights, and the least penalty and the tolerance of what will be fitted."""
        whole = Standardised.of(x, weights)
        if x.shape[1] <= len(x):
            values, axes = np.linalg.eigh(gram(whole.x))
            return cls(whole.x @ axes, np.maximum(values, 0), whole, axes)
        values, vectors = np.linalg.eigh((whole.x @ whole.x.T).astype(np.float64))
        blur = np.finfo(np.float32).eps * values[-1]
        if x.dtype == np.float32 and values[1] < CLOSE * values[-1] and blur > BLUR * tolerance * l2:
            # One value is 0, of the mean; another that is small needs all digits, unless the penalty hides it.
            return cls.of(x.astype(np.float64), weights, tolerance, l2)
        kept = values > len(x) * np.finfo(np.float64).eps * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        return cls((vectors * np.sqrt(values)).astype(x.dtype), values, whole, vectors / np.sqrt(values))

    def back(self, u: Array) -> Array:
        """Weights of the features from weights along the axes: shape (fits, axes) to (fits, width)."""
        along = u @ self.axes.T.astype(np.float64)
        if len(self.axes) < self.whole.x.shape[1]:
            along = along.astype(self.x.dtype) @ self.whole.x
        back: Array = along * self.whole.varies / self.whole.scale
        return back


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
        for name in ("sign", "l2", "penalty", "free"):
            setattr(self, name, getattr(self, name)[going])
        if len(self.weights) > 1:  # else all fits share them
            self.weights = self.weights[going]

    def solve(self, tolerance: float, offset: Array) -> tuple[Array, Array]:
        """Limited-memory BFGS (Liu and Nocedal 1989), whose first guess at the inverse Hessian is the preconditioner's
        at a fit's present mean curvature. Margins are linear along a step, so that searching along it costs no product.
        """
        kind = self.x.dtype
        out = np.zeros(self.penalty.shape)
        which = np.arange(len(out))
        w, margin = np.zeros(self.penalty.shape, kind), self.sign * offset.astype(kind)
        losses, miss = _losses(margin)
        loss = start = np.vecdot(self.weights, losses).astype(np.float64)
        slope = self.slope(miss, w)
        steps: list[Array] = []
        turns: list[Array] = []
        for _ in range(ROUNDS):
            curvature = np.vecdot(self.weights, miss - np.square(miss))[:, None] / kind.type(len(self.x))
            step = -self.two_loops(slope, steps, turns, curvature)
            towards = self.margin(step)
            promise = -0.5 * np.vecdot(step, slope).astype(np.float64)
            length, cost = self.search(margin, towards, w, step)
            step *= length
            towards *= length
            w, margin, before, last = w + step, margin + towards, slope, losses
            losses, miss = _losses(margin)
            # Sums of differences: those of whole losses would lose the digits in which they differ.
            grown = np.vecdot(self.weights, losses - last).astype(np.float64) + cost
            loss = loss + grown
            slope = self.slope(miss, w)
            steps, turns = [*steps[1 - MEMORY :], step], [*turns[1 - MEMORY :], slope - before]
            # A loss that grows is one of which the precision is used up.
            going = (promise > np.maximum(tolerance * loss, 1e-4 * np.finfo(kind).eps * start)) & (grown <= 0)
            if not going.all():
                out[which[~going]] = w[~going]
                self.keep(going)
                which, w, margin, miss, slope = (a[going] for a in (which, w, margin, miss, slope))
                loss, start, losses = loss[going], start[going], losses[going]
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
                np.matmul(w[:, :-1], self.x[rows].T, out=out[:, rows])
                out[:, rows] += w[:, -1:]
            elif use.any():
                out[use, rows] = w[use, :-1] @ self.x[rows].T + w[use, -1:]
        out *= self.sign
        return out

    def slope(self, miss: Array, w: Array) -> Array:
        """The gradient of the objective, from the chance that each row is missed, 1 / (1 + exp(margin))."""
        pull = self.sign * miss
        pull *= self.weights
        slope = self.penalty * w
        for rows, use in self.parts:
            if use.all():
                slope[:, :-1] -= pull[:, rows] @ self.x[rows]
            elif use.any():
                slope[use, :-1] -= pull[use, rows] @ self.x[rows]
        slope[:, -1] -= pull.sum(1)
        slope *= self.free
        return slope

    def two_loops(self, slope: Array, steps: list[Array], turns: list[Array], curvature: Array) -> Array:
        """The guess at the inverse Hessian, from remembered steps and turns of the slope, times the slope."""
        tiny = np.finfo(slope.dtype).tiny
        v, rates, shares = slope.copy(), [], []
        for step, turn in zip(reversed(steps), reversed(turns), strict=True):
            bend = np.vecdot(step, turn)[:, None]
            rates.append(np.where(bend > tiny, 1 / np.maximum(bend, tiny), 0))
            shares.append(rates[-1] * np.vecdot(step, v)[:, None])
            v -= shares[-1] * turn
        v[:, :-1] = self.steer.divide(v[:, :-1], curvature, self.l2)
        v[:, -1:] /= np.maximum(curvature * len(self.x), tiny)
        v *= self.free
        for step, turn, rate, share in zip(steps, turns, reversed(rates), reversed(shares), strict=True):
            v += step * (share - rate * np.vecdot(turn, v)[:, None])
        return v

    def search(self, margin: Array, towards: Array, w: Array, step: Array) -> tuple[Array, Array]:
        """How far to go along each step, and what the penalty grows by on the way.

        Newton's method on a convex function of one number, kept in its bracket. The chance of a miss is
        (1 - tanh(margin / 2)) / 2.
        """
        heavy = self.penalty * step
        bend_w, slope_w = np.vecdot(heavy, step).astype(np.float64), np.vecdot(heavy, w).astype(np.float64)
        length, low, high = np.ones(len(w)), np.zeros(len(w)), np.full(len(w), np.inf)
        half, half_step, pull = 0.5 * margin, 0.5 * towards, self.weights * towards
        pull_sum = pull.sum(1)
        squared = pull * towards
        squared_sum = squared.sum(1)
        for _ in range(SEARCHES):
            told = half_step * length[:, None].astype(half.dtype)
            told += half
            np.tanh(told, out=told)
            slope = slope_w + length * bend_w - 0.5 * (pull_sum - np.vecdot(pull, told))
            np.square(told, out=told)
            bend = bend_w + 0.25 * (squared_sum - np.vecdot(squared, told))
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
        length = np.where(near | (low == 0), length, low)
        return length[:, None].astype(w.dtype), length * (slope_w + 0.5 * length * bend_w)


def _losses(margin: Array) -> tuple[Array, Array]:
    """The loss of each row, log(1 + exp(-margin)), and the chance that it is missed, 1 / (1 + exp(margin))."""
    far = margin.dtype.type(80)  # beyond it the loss is minus the margin, to the last digit
    odds = np.minimum(-margin, far)
    np.exp(odds, out=odds)
    losses = np.log1p(odds)
    if margin.min(initial=0) < -far:
        losses += np.maximum(-margin - far, 0)
    return losses, odds / (1 + odds)
