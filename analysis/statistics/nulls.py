"""What labels that mean nothing would give: permuted labellings, and p values against them.

Permuted labels keep the clustering that prompts give them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from .arrays import numbers
from .folds import codes, pictures

ALIKE = 1.25
"""Prompts change places with those that have at most so many times as many samples."""

AT_ONCE = 4e6
"""Numbers in an array of one row a labelling, as many as are worked on together."""


def permuted_labels(
    y: ArrayLike,
    groups: ArrayLike,
    permutations: int,
    seed: int = 0,
    fold: ArrayLike | None = None,
    within: bool = False,
) -> NDArray[np.float64]:
    """Labellings that would be as likely as the observed one if the labels had nothing to do with the samples.

    Parameters
    ----------
    y : array of shape (n,)
    groups : array of shape (n,), the prompt of each sample; or (n, 2), prompt and picture, where rows are instances
    fold : int array of shape (n,), optional; leave out labellings with only one class outside some fold, since nothing
        can be fitted to them
    within : permute inside each prompt only, so that a prompt keeps its rate; this is the null of a within-prompt AUC

    Returns
    -------
    float64 array of shape (permutations, n), or fewer rows where `fold` leaves some out; it is not to be written to

    Notes
    -----
    Unless `within`, labels are permuted inside prompts and then whole prompts change places, so that the labels stay as
    clustered as they were: permuting them freely would make the null too narrow wherever prompts differ in their rates.
    Prompts change places with those of about their size only, `ALIKE`, and what one has more than the other is dealt
    out among them, so that there are always as many bad samples as there were. A prompt that is like no other in size
    keeps its own labels, permuted inside. With prompts of 1 to 60 samples, a shift of 1.6 standard deviations is called
    by the Bhattacharyya distance in 93% of stores; it was in 15% while prompts of all sizes changed places, since the
    few labels of a small one, given to a large one, made a null of large distances (bench/validity/coverage.py).

    Instances of a picture are alike too: labels are permuted inside pictures, and pictures with as many instances
    change places as samples do.
    """
    y = numbers(y, "labels").astype(np.float64)
    group = codes(groups, len(y))
    if permutations < 0:
        raise HandscopeError(f"Expected a number of permutations of at least 0, found {permutations}.")
    unit = pictures(groups, len(y))
    folds = None if fold is None else np.asarray(fold, np.intp).tobytes()
    return _kept(y.tobytes(), group.tobytes(), unit.astype(np.intp).tobytes(), permutations, seed, folds, within)


@lru_cache(maxsize=8)
def _kept(
    labels: bytes, groups: bytes, units: bytes, permutations: int, seed: int, folds: bytes | None, within: bool
) -> NDArray[np.float64]:
    """As `permuted_labels`. Every cell and baseline of a run asks for the same labellings, so the last few are kept."""
    y, group, unit = np.frombuffer(labels), np.frombuffer(groups, np.intp), np.frombuffer(units, np.intp)
    rng = np.random.default_rng([seed, int(within)])
    out = np.empty((permutations, len(y)))
    rows = max(1, int(AT_ONCE / len(y)))
    for start in range(0, permutations, rows):
        some = out[start : start + rows]
        some[:] = _permuted(y, group, unit, len(some), within, rng)
    if folds is not None:
        fold = np.frombuffer(folds, np.intp)
        outside = np.stack([out[:, fold != one].mean(1) for one in np.unique(fold)])
        out = out[((outside > 0) & (outside < 1)).all(0)]
    out.setflags(write=False)
    return out


def _permuted(
    y: NDArray[np.float64], group: NDArray[np.intp], unit: NDArray[np.intp], many: int, within: bool, rng: Generator
) -> NDArray[np.float64]:
    """`many` labellings of rows whose pictures `unit`, 0, 1, ..., change places inside prompts and with them."""
    instances = np.bincount(unit)
    of = np.empty(len(instances), np.intp)
    of[unit] = group
    giver = _given(of, codes(instances), many, within, rng)
    shuffled = _shuffled(unit, many, rng)
    first = np.cumsum(instances) - instances
    return y[np.take_along_axis(shuffled, first[giver[:, unit]] + _rank(unit), 1)]


def _given(
    group: NDArray[np.intp], kind: NDArray[np.intp], many: int, within: bool, rng: Generator
) -> NDArray[np.intp]:
    """Whose labels each picture gets, int array of shape (many, pictures): of its kind, and of an alike prompt."""
    size = np.bincount(group)
    block = np.arange(len(size)) if within else _alike(size)
    to, come = _exchanged(block, many, rng)
    count = np.zeros((len(size), kind.max() + 1), np.intp)
    np.add.at(count, (group, kind), 1)
    # Pictures of a prompt go to the places of another, in an order of chance; those that it has no place for, and the
    # places that are left over, find each other among the prompts that are alike.
    order = _ranked(group * (kind.max() + 1) + kind, many, rng)
    goes, comes = to[:, group], come[:, group]
    kinds = kind.max() + 1
    rest = len(size) * kinds + block[group] * kinds + kind
    left = np.where(order < count[goes, kind], goes * kinds + kind, rest)
    open_ = np.where(_ranked(group * kinds + kind, many, rng) < count[comes, kind], group * kinds + kind, rest)
    giver = np.empty(left.shape, np.intp)
    np.put_along_axis(giver, _by(open_, rng), _by(left, rng), 1)
    return giver


def _alike(size: NDArray[np.intp]) -> NDArray[np.intp]:
    """A number for each prompt, the same for those that may change places."""
    block, first, number = np.empty(len(size), np.intp), 0, -1
    for one in np.argsort(size, kind="stable"):
        if number < 0 or size[one] > ALIKE * first:
            number, first = number + 1, size[one]
        block[one] = number
    return block


def _exchanged(block: NDArray[np.intp], many: int, rng: Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each prompt's labels go, and whose come: two int arrays of shape (many, prompts)."""
    to = np.empty((many, len(block)), np.intp)
    to[:, np.argsort(block, kind="stable")] = _shuffled(block, many, rng)
    come = np.empty_like(to)
    np.put_along_axis(come, to, np.broadcast_to(np.arange(len(block)), to.shape), 1)
    return to, come


def _shuffled(label: NDArray[np.intp], many: int, rng: Generator) -> NDArray[np.intp]:
    """Indices sorted by their label 0, 1, ..., in an order of chance inside each: shape (n,) to (many, n)."""
    return _by(np.broadcast_to(label, (many, len(label))), rng)


def _by(label: NDArray[np.intp], rng: Generator) -> NDArray[np.intp]:
    return np.argsort(label + rng.random(label.shape), axis=1)


def _ranked(label: NDArray[np.intp], many: int, rng: Generator) -> NDArray[np.intp]:
    """The place of each index among those of its label, by chance: shape (n,) to (many, n)."""
    count = np.bincount(label)
    start = np.cumsum(count) - count
    rank = np.empty((many, len(label)), np.intp)
    order = _shuffled(label, many, rng)
    np.put_along_axis(rank, order, np.arange(len(label)) - start[np.sort(label)] + np.zeros((many, 1), np.intp), 1)
    return rank


def _rank(label: NDArray[np.intp]) -> NDArray[np.intp]:
    """The place of each index among those of its label, in order: shape (n,) to (n,)."""
    order = np.argsort(label, kind="stable")
    count = np.bincount(label)
    rank = np.empty(len(label), np.intp)
    rank[order] = np.arange(len(label)) - np.repeat(np.cumsum(count) - count, count)
    return rank


def p_value(observed: float, null: ArrayLike) -> float:
    """One-sided permutation p value: the share of the null, the observed value counted in, that is at least as large.

    Phipson and Smyth (2010): it is never 0. NaN when the observed value is.
    """
    values = np.asarray(null, np.float64)
    values = values[~np.isnan(values)]
    if np.isnan(observed) or len(values) == 0:
        return float("nan")
    return float((1 + (values >= observed).sum()) / (1 + len(values)))


def p_floor(observed: ArrayLike, labellings: ArrayLike, null: ArrayLike) -> float:
    """The smallest p that a null could have given: the share of labellings, the observed one among them, that are it.

    Parameters
    ----------
    observed : array of shape (n,)
    labellings : array of shape (permutations, n)
    null : array of shape (permutations,); labellings without a value, NaN, are left out

    Returns
    -------
    float; 1 where nothing can be permuted, NaN where there is no null

    >>> p_floor([0, 1, 1], [[1, 0, 1], [0, 1, 1], [1, 1, 0]], [0.4, 0.6, 0.5])
    0.5
    """
    valued = ~np.isnan(np.asarray(null, np.float64))
    if not valued.any():
        return float("nan")
    same = (np.asarray(labellings)[valued] == np.asarray(observed)).all(1)
    return float((1 + same.sum()) / (1 + valued.sum()))


def p_values(observed: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `p_value`, for many at once without NaN: shape (...) and a null of shape (permutations, ...) to (...)."""
    return (1 + (null >= observed).sum(0)) / (1 + len(null))
