"""Groups of samples, and folds that keep a group whole.

The unit is the sample; samples of one prompt share a group, so that no fit sees the prompt that it is judged on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from ...run.prompts import check_seeds
from .arrays import group_names


def codes(groups: ArrayLike, count: int | None = None) -> NDArray[np.intp]:
    """Number the distinct groups 0, 1, ... in sorted order: shape (n,) to (n,).

    Where rows are instances, of which a picture may have several, groups may have the shape (n, 2): prompt and picture.
    Prompts are what folds hold out and what is drawn; `pictures` are what keeps labels together when they are permuted.

    Raises
    ------
    HandscopeError
        A sample has no group, or there are not `count` of them.
    """
    return np.unique(group_names(groups, count), return_inverse=True)[1].ravel()


def pictures(groups: ArrayLike, count: int | None = None) -> NDArray[np.intp]:
    """Number the pictures of groups of shape (n, 2); of shape (n,), each row is a picture of its own.

    Raises
    ------
    HandscopeError
        A picture is under two prompts.
    """
    group = codes(groups, count)
    if np.ndim(groups) < 2 or np.shape(groups)[1] < 2:
        return np.arange(len(group))
    picture = np.unique(group_names(groups, count, 1), return_inverse=True)[1].ravel()
    prompt = np.empty(picture.max(initial=-1) + 1, np.intp)
    prompt[picture] = group
    if (prompt[picture] != group).any():
        raise HandscopeError("Expected the instances of one picture to have one prompt, found a picture under two.")
    return picture


def grouped_folds(groups: ArrayLike, folds: int = 5, seed: int = 0) -> NDArray[np.intp]:
    """Deal samples into folds of about equal size, all samples of a group into one fold. Labels are not looked at.

    Parameters
    ----------
    groups : array of shape (n,), the prompt of each sample; distinct values where prompts do not repeat

    Returns
    -------
    int array of shape (n,), the fold of each sample, in 0..folds-1

    Raises
    ------
    HandscopeError
        There are fewer groups than folds, or the seed is none.
    """
    check_seeds([seed])
    group = codes(groups)
    size = np.bincount(group)
    if folds < 2 or len(size) < folds:
        raise HandscopeError(
            f"{folds} folds need at least 2 folds and as many prompts as folds, and there are {len(size)} prompts; "
            "ask for fewer folds, or generate more prompts."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    fold_of, load = np.empty(len(size), np.intp), np.zeros(folds)
    for one in order:
        fold_of[one] = load.argmin()
        load[fold_of[one]] += size[one]
    return fold_of[group]


def two_way_folds(
    rows: ArrayLike, columns: ArrayLike, folds: int = 5, seed: int = 0
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Splits of samples that cross two groupings, such as every prompt at every noise, holding both out at once.

    Parameters
    ----------
    rows, columns : arrays of shape (n,), the two groups of each sample
    folds : of the rows and of the columns each, or as many as there are rows, or columns, where these are fewer

    Returns
    -------
    list of (train, test), bool arrays of shape (n,). Every sample is tested once, by a fit to samples that share
    neither its row nor its column: about (1 - 1 / folds) squared of all.

    Raises
    ------
    HandscopeError
        There is one row or one column.
    """
    row, column = (grouped_folds(one, min(folds, codes(one).max() + 1), seed) for one in (rows, columns))
    blocks = np.unique(np.stack([row, column]), axis=1).T
    return [((row != f) & (column != g), (row == f) & (column == g)) for f, g in blocks]


def check_folds(y: NDArray[np.float64], fold: NDArray[np.intp]) -> None:
    """Refuse folds of which one leaves only good, or only bad, samples to fit to."""
    for one in np.unique(fold):
        left = y[fold != one]
        if left.min() == left.max():
            raise HandscopeError(
                f"All {len(left)} samples outside fold {one} are {'bad' if left[0] else 'good'} ({int(y.sum())} of "
                f"{len(y)} samples are bad), so nothing can be fitted; label more samples, or spread them over more "
                "prompts."
            )
