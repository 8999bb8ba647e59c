"""Logistic regression with an l2 penalty, for one labelling or for hundreds of permuted ones at once."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ..errors import HandscopeError
from ..files import atomic

Array = NDArray[Any]


class LogisticProbe(ClassifierMixin, BaseEstimator):
    """A linear probe of bad against good.

    Parameters
    ----------
    l2 : weight of the penalty, larger than 0; scikit-learn's C is 1 / l2

    Attributes
    ----------
    coef_ : array of shape (width,), in units of the input, so that ``x @ coef_ + intercept_`` is the log-odds of y = 1
    intercept_ : float
    mean_, scale_ : arrays of shape (width,), the standardisation that the penalty is applied after
    metadata_ : dict of what `save` was given, after `load`

    Notes
    -----
    Minimises  sum log(1 + exp(-s z)) + l2 / 2 |w|²,  s = ±1,  z = w (x - mean) / scale + b, as
    ``make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2))`` does. Dividing by the standard deviation takes
    their weight from massive channels and keeps the probe linear; a channel that does not vary gets the coefficient 0.
    """

    def __init__(self, l2: float = 1.0) -> None:
        self.l2 = l2

    def fit(self, x: ArrayLike, y: ArrayLike) -> LogisticProbe:
        """Fit to `x` of shape (n, width) and `y` of shape (n,), 1 for bad and 0 for good."""
        x, y = self._checked(x, y)
        weights, intercept = self._solve(x, y[None], np.float64, 1e-9)
        self.classes_ = np.array([0, 1])
        self.coef_: Array = weights[0]
        self.intercept_ = float(intercept[0])
        return self

    def decision_function(self, x: ArrayLike) -> Array:
        """Log-odds of y = 1: shape (n, width) to (n,)."""
        check_is_fitted(self)
        return np.asarray(x, np.float64) @ self.coef_ + self.intercept_

    def predict_proba(self, x: ArrayLike) -> Array:
        """Probabilities of y = 0 and y = 1: shape (n, width) to (n, 2)."""
        bad = 0.5 + 0.5 * np.tanh(0.5 * self.decision_function(x))
        return np.stack([1 - bad, bad], 1)

    def predict(self, x: ArrayLike) -> Array:
        """1 where y = 1 is likelier: shape (n, width) to (n,)."""
        return (self.decision_function(x) > 0).astype(int)

    def score_many(self, x: ArrayLike, labels: ArrayLike, new: ArrayLike) -> Array:
        """Log-odds for new rows of the probes fitted to each row of `labels`: the fast road to a permutation null.

        Parameters
        ----------
        x : array of shape (n, width); labels : array of shape (fits, n); new : array of shape (m, width)

        Returns
        -------
        array of shape (fits, m), to about four digits: single precision is enough to rank by, and three times as fast
        """
        x, labels = self._checked(x, labels)
        weights, intercept = self._solve(x, labels, np.float32, 1e-3)
        return weights @ np.asarray(new, np.float64).T + intercept[:, None]

    def save(self, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> None:
        """Write the probe, and what is known of where it comes from, as one safetensors file."""
        check_is_fitted(self)
        arrays = {
            "coef": self.coef_,
            "intercept": np.array([self.intercept_]),
            "mean": self.mean_,
            "scale": self.scale_,
        }
        text = json.dumps({"kind": "LogisticProbe", "l2": self.l2, **(metadata or {})})
        with atomic(path) as temporary:
            save_file(
                {name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()},
                temporary,
                {"handscope": text},
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LogisticProbe:
        """Read a probe that `save` wrote."""
        try:
            with safe_open(path, "numpy") as file:
                metadata = json.loads((file.metadata() or {})["handscope"])
                arrays = {name: file.get_tensor(name) for name in ("coef", "intercept", "mean", "scale")}
        except (OSError, SafetensorError, KeyError) as error:
            raise HandscopeError(
                f"Expected a probe saved by LogisticProbe.save at {path}, and could not read one ({error}); "
                "fit it again with `handscope probe`."
            ) from error
        probe = cls(l2=metadata["l2"])
        probe.classes_ = np.array([0, 1])
        probe.coef_, probe.mean_, probe.scale_ = arrays["coef"], arrays["mean"], arrays["scale"]
        probe.intercept_ = float(arrays["intercept"][0])
        probe.metadata_ = metadata
        return probe

    def _checked(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if not self.l2 > 0:
            raise HandscopeError(
                f"LogisticProbe needs l2 > 0, and was given {self.l2}: without a penalty separable classes have no "
                "solution."
            )
        if x.ndim != 2 or y.shape[-1] != len(x):
            raise HandscopeError(
                f"Expected x of shape (n, width) and n labels; found x of shape {x.shape} and y of shape {y.shape}."
            )
        if not np.isfinite(x).all():
            raise HandscopeError(
                f"Expected finite numbers to fit a probe to; {int((~np.isfinite(x)).any(1).sum())} of {len(x)} rows "
                "hold NaN or infinity."
            )
        if not np.isin(y, (0, 1)).all() or (y.min(-1) == y.max(-1)).any():
            raise HandscopeError(
                "A probe needs labels of 0 (good) and 1 (bad), and both of them among the rows it is fitted to; "
                f"found {sorted(set(y.ravel().tolist()))[:5]}."
            )
        return x, y

    def _solve(self, x: Array, labels: Array, dtype: type, tolerance: float) -> tuple[Array, Array]:
        """Coefficients (fits, width) and intercepts (fits,) in units of the input."""
        self.mean_ = x.mean(0)
        spread = x.std(0)
        varies = spread > 1e-7 * np.abs(x).max(0)
        self.scale_ = np.where(varies, spread, 1.0)
        x = np.where(varies, x - self.mean_, 0.0) / self.scale_
        basis = None
        if x.shape[1] > len(x):
            # The penalty sees no rotation, and no solution leaves the span of the rows: solve in a basis of that span.
            values, vectors = np.linalg.eigh(x @ x.T)
            kept = values > 1e-10 * values[-1]
            basis = x.T @ (vectors[:, kept] / np.sqrt(values[kept]))
            x = vectors[:, kept] * np.sqrt(values[kept])
        weights, intercept = _newton(x, labels, self.l2, dtype, tolerance)
        weights = (weights if basis is None else weights @ basis.T) * varies / self.scale_
        return weights, intercept - weights @ self.mean_


def _newton(x: Array, labels: Array, l2: float, dtype: type, tolerance: float) -> tuple[Array, Array]:
    """Newton's method with conjugate gradients, for all rows of `labels` together.

    The Hessian at weights of 1/4, which no labelling changes and which bounds every Hessian (Böhning and Lindsay 1988),
    is factored once. In coordinates u = L'w that it turns into the identity, the penalty is |u|² - |Xu|²/4, and the
    Hessian is I + X'(D - 1/4)X: two products with a matrix of all labellings at once, and few steps, since its
    eigenvalues are in (0, 1].
    """
    x = np.hstack([x, np.ones((len(x), 1))])
    penalty = np.full(x.shape[1], l2)
    penalty[-1] = 0.0
    factor = np.linalg.inv(np.linalg.cholesky(0.25 * x.T @ x + np.diag(penalty))).T
    z_of: Array = np.ascontiguousarray((x @ factor).T, dtype)
    u_of = np.ascontiguousarray(z_of.T)
    y: Array = labels.astype(dtype)
    u: Array = np.zeros((len(y), len(z_of)), dtype)
    z: Array = np.zeros_like(y)
    loss = _loss(u, z, y)
    slack = 8 * np.finfo(dtype).eps
    for _ in range(50):
        chance = 0.5 + 0.5 * np.tanh(0.5 * z)
        gradient = u + (chance - y - 0.25 * z) @ u_of
        size = np.linalg.norm(gradient, axis=1)
        if size.max() < tolerance:
            break
        curvature = chance * (1 - chance) - dtype(0.25)
        step = _conjugate_gradients(curvature, z_of, u_of, -gradient, min(0.1, float(size.max())))
        slope = step @ z_of
        length: Array = np.ones((len(y), 1), dtype)
        for _ in range(30):
            trial = _loss(u + length * step, z + length * slope, y)
            worse = trial > loss + slack * np.abs(loss)
            if not worse.any():
                break
            length[worse] /= 2
        u, z, loss = u + length * step, z + length * slope, trial
    weights = u.astype(np.float64) @ factor.T
    return weights[:, :-1], weights[:, -1]


def _loss(u: Array, z: Array, y: Array) -> Array:
    penalty = 0.5 * (np.square(u).sum(1, dtype=np.float64) - 0.25 * np.square(z).sum(1, dtype=np.float64))
    softplus = np.maximum(z, 0) + np.log(1 + np.exp(-np.abs(z)))  # as logaddexp(0, z), at a quarter of the time
    return (softplus - y * z).sum(1, dtype=np.float64) + penalty


def _conjugate_gradients(curvature: Array, z_of: Array, u_of: Array, target: Array, tolerance: float) -> Array:
    """Solve (I + X'CX) s = target for each row, until every residual is `tolerance` times what it was."""
    solution, residual = np.zeros_like(target), target
    direction, energy = residual, np.square(residual).sum(1)
    enough = tolerance**2 * energy
    for _ in range(100):
        if (energy <= enough).all():
            break
        image = direction + (curvature * (direction @ z_of)) @ u_of
        # A row that has arrived has direction 0: the tiny number keeps it from dividing by 0.
        rate = (energy / np.maximum((direction * image).sum(1), np.finfo(target.dtype).tiny))[:, None]
        solution = solution + rate * direction
        residual = residual - rate * image
        energy, before = np.square(residual).sum(1), energy
        direction = residual + (energy / np.maximum(before, np.finfo(target.dtype).tiny))[:, None] * direction
    return solution
