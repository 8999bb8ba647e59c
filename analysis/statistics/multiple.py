"""Many tests at once: the false discovery rate, the family-wise error, and whether a null is fine enough for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

LEVEL = 0.05
"""Share of false calls that is put up with."""


def resolvable(p_floor: float, family: int, level: float = LEVEL) -> bool:
    """Whether one test alone, among `family`, could be called by a null whose smallest p is `p_floor`.

    The smallest of m p values is called, by Bonferroni as by Benjamini and Hochberg, at `level` / m: so it takes about
    m / `level` labellings, 20 for each test at 0.05. Where this is False, that nothing was called says nothing. A p
    that is adjusted for its family already, as of `family_p`, stands in a family of 1.

    >>> resolvable(1 / 1001, family=48), resolvable(1 / 101, family=48)
    (True, False)
    """
    return bool(p_floor * family <= level * (1 + 1e-9))


def family_p(observed: ArrayLike, null: ArrayLike) -> NDArray[np.float64]:
    """p values of many one-sided tests, adjusted so that the chance of any false call is at most what is called by.

    Parameters
    ----------
    observed : array of shape (tests,), larger for what is looked for; NaN stays NaN and is not counted
    null : array of shape (permutations, tests), the same statistics under labellings that all tests share; a labelling
        without a value, NaN, in one of the tests is left out

    Returns
    -------
    array of shape (tests,), none smaller than the test's own p

    Notes
    -----
    The step-down maxT of Westfall and Young (1993), algorithm 4.1: the largest statistic is judged by the null of the
    largest of all, the next by that of the largest of the others, and so on. Tests that go together, as cells of one
    run do, cost little, and the smallest p is 1 / (permutations + 1) however many tests there are. Statistics are put
    on one scale first: less their mean over all labellings, the observed one counted in, over their standard deviation.
    """
    found = np.asarray(observed, np.float64)
    adjusted = np.full(found.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(found))
    labellings = np.asarray(null, np.float64)[:, tested]
    labellings = labellings[~np.isnan(labellings).any(1)]
    if not len(labellings) or not len(tested):
        return adjusted
    both = np.concatenate([found[None, tested], labellings])
    spread = both.std(0)
    both = (both - both.mean(0)) / np.where(spread > 0, spread, 1)
    order = np.argsort(-both[0], kind="stable")
    both = both[:, order]
    largest = np.maximum.accumulate(both[1:, ::-1], axis=1)[:, ::-1]
    stepped = (1 + (largest >= both[0]).sum(0)) / (1 + len(labellings))
    adjusted[tested[order]] = np.maximum.accumulate(stepped)
    return adjusted


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """False discovery rate at which each hypothesis would be called, of the same shape.

    NaN stays NaN and is not counted.

    Notes
    -----
    Benjamini and Hochberg (1995), as in ``scipy.stats.false_discovery_control``. It holds for independent tests and for
    ones that depend positively (Benjamini and Yekutieli 2001, https://doi.org/10.1214/aos/1013699998): cells of one run
    are read from the same samples, so that what makes one cell's statistic large by chance makes its neighbours' large
    too, and every test is one-sided. bench/validity/false_positives.py counts what it lets through.
    """
    p = np.asarray(p, np.float64)
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p values adjusted so that the chance of any false call is at most what is called by, of the same shape.

    NaN stays NaN and is not counted.

    Notes
    -----
    Holm (1979): the smallest of m counts m times, the next m - 1 times, and so on, none less than the one before. It
    holds whatever the tests have to do with each other.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
