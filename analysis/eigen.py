"""Leading eigenvectors of symmetric matrices, and of one matrix less ever more of another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, eigh
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from ..progress import Progress, quiet

Array = NDArray[np.float64]

DENSE = 400
"""Up to this width a dense solver is as fast as anything."""

FEW = 10

RESTARTS = 20
"""More are not faster than a dense solver; they are needed where many leading eigenvalues are one up to rounding."""


def leading(matrix: Array, k: int) -> tuple[Array, Array]:
    """The `k` largest eigenvalues of a symmetric matrix, descending, and their vectors in columns.

    The matrix is overwritten.
    """
    n = len(matrix)
    values, vectors = eigh(matrix.T, subset_by_index=[n - k, n - 1], overwrite_a=True, check_finite=False)
    return values[::-1], vectors[:, ::-1]


def leading_of_differences(
    a: Array, b: Array, alphas: ArrayLike, k: int, progress: Progress = quiet
) -> tuple[Array, Array]:
    """The `k` largest eigenvalues of ``a - alpha b``, and their vectors, for each alpha.

    Parameters
    ----------
    a, b : symmetric arrays of shape (width, width), `b` without negative eigenvalues
    alphas : array of shape (m,), not negative, ascending

    Returns
    -------
    values of shape (m, k), descending, and vectors of shape (m, k, width), rows orthonormal

    Notes
    -----
    Shift and invert: with a shift just above the largest eigenvalue a Cholesky factorisation, a quarter of the work of
    a dense solver, leaves some twenty solves to ARPACK, however close the leading eigenvalues lie, where without the
    inverse a large alpha spreads the spectrum so far that ARPACK does not end. The shift comes for nothing: the largest
    eigenvalue is a maximum of functions that are linear in alpha, so it is convex, and lies below the chord between
    two alphas that are solved already. They are solved by halving; the far end is left to the dense solver.
    """
    alphas = np.asarray(alphas, np.float64)
    n, m = len(a), len(alphas)
    values, vectors = np.empty((m, k)), np.empty((m, k, n))
    solved = 0

    def keep(one: int, leaders: tuple[Array, Array]) -> None:
        nonlocal solved
        values[one], vectors[one] = leaders[0], leaders[1].T
        solved += 1
        progress("contrastive components", solved, m)

    if n <= max(DENSE, 10 * k):
        for one in range(m):
            keep(one, leading(_difference(a, b, alphas[one]), k))
        return values, vectors
    for one in {0, m - 1}:
        # At alpha 0 nothing is spread out, and iterating for a few vectors takes a thirtieth of the time.
        keep(one, leading(_difference(a, b, alphas[one]), k) if alphas[one] else leading_basis(a, k))
    for low, one, high in _halving(m):
        share = (alphas[one] - alphas[low]) / max(alphas[high] - alphas[low], np.finfo(float).tiny)
        chord = (1 - share) * values[low, 0] + share * values[high, 0]
        margin = 0.01 * min(np.ptp(values[low]), np.ptp(values[high]))
        start = vectors[low, 0] + vectors[high, 0]
        leaders = _inverted(a, b, alphas[one], k, chord, margin, start)
        keep(one, leaders if leaders is not None else leading(_difference(a, b, alphas[one]), k))
    return values, vectors


def _halving(m: int) -> Iterator[tuple[int, int, int]]:
    """0 < one < m - 1 in such an order that `low` and `high`, on both sides of it, came before."""
    waiting = deque([(0, m - 1)])
    while waiting:
        low, high = waiting.popleft()
        if high - low > 1:
            one = (low + high) // 2
            yield low, one, high
            waiting += [(low, one), (one, high)]


def _difference(a: Array, b: Array, alpha: float) -> Array:
    difference = np.multiply(b, -alpha)
    difference += a
    return difference


def _inverted(
    a: Array, b: Array, alpha: float, k: int, bound: float, margin: float, start: Array
) -> tuple[Array, Array] | None:
    """`leading` of ``a - alpha b`` from the inverse of ``shift - a + alpha b``; None where it does not get there."""
    diagonal = np.diag_indices(len(a))
    rounding = np.finfo(float).eps * float(np.abs(a[diagonal]).sum() + alpha * np.abs(b[diagonal]).sum())
    shift = bound + max(margin, 100 * rounding)
    inverse = np.multiply(b, alpha)
    inverse -= a
    inverse[diagonal] += shift
    try:
        factor = cholesky(inverse.T, lower=True, overwrite_a=True, check_finite=False)
        solve = LinearOperator(
            a.shape, matvec=lambda x: cho_solve((factor, True), x, check_finite=False), dtype=np.float64
        )
        inverted, vectors = eigsh(solve, k, which="LA", tol=1e-10, ncv=max(20, 2 * k + 4), v0=start, maxiter=RESTARTS)
    except (LinAlgError, ArpackError):
        return None
    order = np.argsort(-inverted)
    values, vectors = shift - 1 / inverted[order], np.linalg.qr(vectors[:, order])[0]
    residual = a @ vectors - alpha * (b @ vectors) - vectors * values
    return (values, vectors) if np.abs(residual).max() <= 1e3 * rounding else None


def leading_basis(matrix: Array, r: int) -> tuple[Array, Array]:
    """As `leading`, and the matrix is left as it is; a few vectors of a wide matrix are iterated for."""
    if r <= FEW and len(matrix) > DENSE:
        try:
            values, vectors = eigsh(matrix, r, which="LA", v0=matrix[np.diagonal(matrix).argmax()], maxiter=RESTARTS)
            return values[::-1], vectors[:, ::-1]
        except ArpackError:
            pass
    return leading(matrix.copy(), r)
