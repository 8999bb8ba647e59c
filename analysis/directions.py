"""Directions in the residual stream that tell bad from good, and channels that would drown them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import HandscopeError


def difference_of_means(good: ArrayLike, bad: ArrayLike) -> NDArray[np.float64]:
    """Mean of `good` less mean of `bad`: arrays of shape (n, width) to (width,), from bad to good, not normalised."""
    good, bad = np.asarray(good, np.float64), np.asarray(bad, np.float64)
    if len(good) == 0 or len(bad) == 0:
        raise HandscopeError(
            f"A difference of means needs both classes; there are {len(good)} good and {len(bad)} bad rows."
        )
    return good.mean(0) - bad.mean(0)


@dataclass(frozen=True)
class Plane:
    """Two orthonormal directions through `mean`: the difference of means, and the most variance beside it.

    `axes` has shape (2, width), `mean` has shape (width,).
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]

    def transform(self, x: ArrayLike) -> NDArray[np.float64]:
        """Coordinates in the plane: shape (n, width) to (n, 2), the first growing from bad to good."""
        return (np.asarray(x, np.float64) - self.mean) @ self.axes.T


def plane(good: ArrayLike, bad: ArrayLike) -> Plane:
    """The plane of the difference of means and the direction of largest variance orthogonal to it.

    Parameters
    ----------
    good, bad : arrays of shape (n, width), width at least 2

    Notes
    -----
    On the rows it was fitted to, the first coordinate separates pure noise: show rows that it was not fitted to.
    """
    direction = difference_of_means(good, bad)
    length = np.linalg.norm(direction)
    if len(direction) < 2 or length == 0:
        raise HandscopeError(
            f"A plane needs a width of at least 2 and classes whose means differ; the width is {len(direction)} "
            f"and the means are {length:g} apart."
        )
    direction /= length
    x = np.concatenate([np.asarray(good, np.float64), np.asarray(bad, np.float64)])
    mean = x.mean(0)
    x = x - mean
    x -= np.outer(x @ direction, direction)
    # The smaller Gram matrix: its leading eigenvector gives the first right singular vector of x.
    second = np.linalg.eigh(x.T @ x)[1][:, -1] if x.shape[1] <= len(x) else x.T @ np.linalg.eigh(x @ x.T)[1][:, -1]
    second -= direction * (direction @ second)
    second /= np.linalg.norm(second)
    return Plane(mean, np.stack([direction, second * np.sign(second[np.abs(second).argmax()])]))


def massive_channels(x: ArrayLike, ratio: float = 10.0) -> NDArray[np.intp]:
    """Channels whose root mean square is more than `ratio` times the median channel's, ascending.

    Parameters
    ----------
    x : array of shape (n, width)

    Notes
    -----
    A few channels of a transformer's residual stream are tens to thousands of times larger than the rest whatever the
    input (Sun et al. 2024, https://arxiv.org/abs/2402.17762); one of them decides a mean, a principal component or a
    cosine alone. No label is looked at.
    """
    size = np.sqrt(np.square(np.asarray(x, np.float64)).mean(0))
    return np.flatnonzero(size > ratio * np.median(size))
