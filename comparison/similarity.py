"""How alike two streams are on the same samples: CKA and the orthogonal Procrustes distance.

A stream is an array of shape (n, positions, width): the tokens of n samples, sample i of one stream drawn from the same
prompt and noise as sample i of the other. The unit is the sample; positions are the same places of the grid in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from ..analysis.directions import massive_channels

Array = NDArray[np.float64]
Single = NDArray[np.float32]

AXES = 256
"""Streams wider than this are turned and mapped along so many of their principal axes."""


def u_centred(gram: Array) -> Array:
    """Gram matrices as the unbiased estimate of their products wants them: shape (..., n, n) to (..., n, n).

    Notes
    -----
    Székely and Rizzo (2014), https://doi.org/10.1214/14-AOS1255. The mean product of two of these over the n (n - 3)
    places off the diagonal is the unbiased estimate of HSIC of Song et al. (2012), their equation 5, which no shift of
    the features changes.
    """
    n = gram.shape[-1]
    off = ~np.eye(n, dtype=bool)
    k = gram * off
    rows = k.sum(-1)
    total = rows.sum(-1)[..., None, None] / ((n - 1) * (n - 2))
    out: Array = (k - (rows[..., :, None] + rows[..., None, :]) / (n - 2) + total) * off
    return out


def cka(a: Array, b: Array) -> Array:
    """Linear CKA of each of some streams with each of others, from their Gram matrices.

    Parameters
    ----------
    a, b : arrays of shape (A, n, n) and (B, n, n), as of `u_centred`

    Returns
    -------
    array of shape (A, B); NaN where a stream does not vary

    Notes
    -----
    Kornblith et al. (2019), https://arxiv.org/abs/1905.00414, with the unbiased estimate of HSIC in place of the plain
    one: with more channels than samples the plain one calls noise alike, which this gives 0 in the mean (Nguyen,
    Raghu and Kornblith 2021, https://arxiv.org/abs/2010.15327). So it can be a little below 0.
    """
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    size = [np.einsum("ij,ij->i", one, one) for one in (a, b)]
    scale = np.sqrt(size[0][:, None] * size[1])
    return np.divide(a @ b.T, scale, out=np.full(scale.shape, np.nan), where=scale > 0)


@dataclass(frozen=True, eq=False)
class Stream:
    """One block's tokens of n samples at one step.

    Attributes
    ----------
    x : float32 array of shape (n, positions, width), channels much larger than the rest set to 0
    massive : int array, those channels
    """

    x: Single
    massive: NDArray[np.intp]

    @classmethod
    def of(cls, x: Single) -> Stream:
        """Take the massive channels out of `x`, in place."""
        massive = massive_channels(x.reshape(-1, x.shape[-1]))
        x[..., massive] = 0
        return cls(x, massive)

    @property
    def gram(self) -> Array:
        """Inner products of whole samples, all positions together: shape (n, n).

        So a shift of a channel at a position, the same in all samples, is no part of what `cka` compares.
        """
        flat = (self.x - self.x.mean(0)).reshape(len(self.x), -1)
        return (flat @ flat.T).astype(np.float64)

    @property
    def axes(self) -> tuple[Single, float]:
        """Tokens in the coordinates that are mapped, (n, positions, k), and the share of variance that they keep.

        All of the width, centred at each position; along the leading `AXES` principal axes where there are more
        channels, or as many as there are tokens where these are fewer.
        """
        away = self.x - self.x.mean(0)
        n, positions, width = away.shape
        most = min(AXES, n * positions)
        if width <= most:
            return away, 1.0
        rows = away.reshape(-1, width)
        turned = rows @ randomized_svd(rows, most, random_state=0)[2].T
        kept = np.square(turned).sum(dtype=np.float64) / np.square(rows).sum(dtype=np.float64)
        return turned.reshape(n, positions, -1), float(kept)


def nuclear(cross: Array) -> Array:
    """Sum of singular values: shape (..., p, q) to (...)."""
    small = cross if cross.shape[-2] <= cross.shape[-1] else np.swapaxes(cross, -1, -2)
    values = np.linalg.eigvalsh(small @ np.swapaxes(small, -1, -2))
    return np.sqrt(np.maximum(values, 0)).sum(-1)


def procrustes(cross: Array, size_x: Array | float, size_y: Array | float) -> Array:
    """Squared distance of two streams of length 1 after the best rotation of one onto the other, from 0 to 2.

    Parameters
    ----------
    cross : array of shape (..., p, q), the sum over tokens of products of both streams' channels
    size_x, size_y : their squared lengths

    Notes
    -----
    2 - 2 |X'Y|_* / (|X| |Y|)  (Schönemann 1966; Ding, Denain and Steinhardt 2021, https://arxiv.org/abs/2108.01661).
    Streams of different width are compared as if the narrower one had channels of 0. With few tokens a rotation fits
    noise too: it is to be read beside its null.
    """
    out: Array = np.maximum(0.0, 2 - 2 * nuclear(cross) / np.sqrt(np.asarray(size_x) * size_y))
    return out
