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


class Dependence:
    """The unbiased estimate of HSIC between kernels, over samples of which those of one prompt are alike.

    Parameters
    ----------
    groups : int array of shape (n,), the prompt of each sample, 0, 1, ...; at least four

    Notes
    -----
    The mean of K_ij L_ij, plus that of K_ij L_qr, less twice that of K_ij L_iq, each over all samples i, j, q, r of
    different prompts: with a sample a prompt that of Song et al. (2012), https://jmlr.org/papers/v13/song12a.html.
    Samples of one prompt are alike in any two models: taken as independent, 16 prompts of 8 samples gave intervals that
    held the CKA of the models in 0 to 85 of 100 data sets, and this gives ones that do in 96 to 98
    (bench/validity/comparing.py). No shift of the features changes it.
    """

    def __init__(self, groups: NDArray[np.intp]) -> None:
        self.apart = (groups[:, None] != groups).astype(np.float64)
        self.member = np.eye(groups.max() + 1)[groups]
        self.weights = self._weights()

    def parts(self, gram: Array) -> Array:
        """Gram matrices of shape (..., n, n) as rows (..., m), whose products, weighted, are the estimate."""
        k = gram * self.apart
        beside = k @ self.member
        blocks = np.swapaxes(beside, -1, -2) @ self.member
        sums = (k, beside, beside.sum(-1), blocks, blocks.sum(-1), blocks.sum((-1, -2))[..., None])
        return np.concatenate([one.reshape(*gram.shape[:-2], -1) for one in sums], axis=-1)

    def _weights(self) -> Array:
        """Of each of `parts`: sums over pairs, triples and fours are each over their number."""
        n, groups = self.member.shape
        size, ones = (n * n, n * groups, n, groups * groups, groups, 1), self.parts(np.ones((n, n)))
        pairs = np.repeat([1.0, 0, 0, 0, 0, 0], size)
        triples = np.repeat([0, -1.0, 1, 0, 0, 0], size)
        fours = np.repeat([0, 0, 0, 2.0, -4, 1], size)
        counts = [np.square(ones) @ one for one in (pairs, triples, fours)]
        weights: Array = pairs / counts[0] - 2 * triples / counts[1] + fours / counts[2]
        return weights

    def cka(self, a: Array, b: Array) -> Array:
        """Linear CKA of each of some streams with each of others.

        Parameters
        ----------
        a, b : arrays of shape (A, m) and (B, m), as of `parts`

        Returns
        -------
        array of shape (A, B); NaN where a stream does not vary

        Notes
        -----
        Kornblith et al. (2019), https://arxiv.org/abs/1905.00414, with this estimate in place of the plain one, which
        calls noise alike where there are as many channels as samples (Nguyen, Raghu and Kornblith 2021,
        https://arxiv.org/abs/2010.15327). It can be a little below 0, and above 1.
        """
        size = [np.einsum("ij,ij,j->i", one, one, self.weights) for one in (a, b)]
        squared = np.maximum(size[0][:, None], 0) * np.maximum(size[1], 0)
        out = (a * self.weights) @ b.T
        return np.divide(out, np.sqrt(squared), out=np.full(out.shape, np.nan), where=squared > 0)


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
