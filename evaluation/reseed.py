"""What triage would have come to on samples that were drawn and labelled already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import bootstrap_weights, interval
from ..errors import HandscopeError
from ..guidance.triage import calls_of

ORDERS = 500
"""Orders in which the seeds of a prompt are tried, at random: their mean is taken."""


@dataclass(frozen=True)
class Outcome:
    """Rates are of the pictures that are taken; calls are of the transformer.

    Attributes
    ----------
    rate, low, high : float, malformed, with its 95% interval (draws of prompts)
    calls, begun : float, calls and seeds for each picture that is taken
    calls_per_good : float, calls for each picture that is taken and good
    """

    rate: float
    low: float
    high: float
    calls: float
    begun: float
    calls_per_good: float


def reseed(
    scores: ArrayLike,
    bad: ArrayLike,
    groups: ArrayLike,
    step: int,
    steps: int,
    attempts: int,
    threshold: ArrayLike | None,
    seed: int = 0,
    draws: int = 2000,
) -> Outcome:
    """Try the samples of each prompt in random orders, as `handscope.guidance.triage` tries seeds.

    Parameters
    ----------
    scores : array of shape (n,)
        Held-out: of a selector that has not seen the sample's prompt. Higher is worse.
    bad : array of shape (n,), 0 or 1
    groups : array of shape (n,), the prompt of each sample
    step, steps : int
        Steps that remain at the look, 0 at the end, and of the generation.
    attempts : int
        Seeds tried at most; a prompt with fewer samples tries those it has.
    threshold : float, or array of shape (n,) with that of each sample's prompt; None begins all and takes the best

    Raises
    ------
    HandscopeError
        The shapes differ, or a score is not finite.
    """
    score, y, group = np.asarray(scores, np.float64), np.asarray(bad, np.float64), codes(groups)
    if not (score.shape == y.shape == group.shape) or score.ndim != 1 or not np.isfinite(score).all():
        raise HandscopeError(
            f"Expected finite scores, labels and prompts of one shape (n,), found {score.shape}, {y.shape} and "
            f"{group.shape}."
        )
    limit = np.broadcast_to(-np.inf if threshold is None else np.asarray(threshold, np.float64), score.shape)
    random = np.random.default_rng(seed)
    rate, begun = np.zeros(group.max() + 1), np.zeros(group.max() + 1)
    for one in range(len(rate)):
        taken, tried = _tried(score[group == one], limit[group == one], attempts, random)
        rate[one], begun[one] = y[group == one][taken].mean(), tried.mean()
    weights = bootstrap_weights(np.arange(len(rate)), draws, seed)
    low, high = interval(weights @ rate / weights.sum(1))
    calls = float(calls_of(begun, step, steps).mean())
    good = 1 - float(rate.mean())
    return Outcome(
        rate=float(rate.mean()),
        low=low,
        high=high,
        calls=calls,
        begun=float(begun.mean()),
        calls_per_good=calls / good if good else float("inf"),
    )


def _tried(
    scores: NDArray[np.float64], limit: NDArray[np.float64], attempts: int, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which sample is taken in each order, and how many were begun: (ORDERS,) both."""
    order = random.permuted(np.tile(np.arange(len(scores)), (ORDERS, 1)), axis=1)[:, :attempts]
    seen = scores[order]
    passed = seen < limit[order]
    first = np.where(passed.any(1), passed.argmax(1), seen.argmin(1))
    tried = np.where(passed.any(1), passed.argmax(1) + 1, seen.shape[1])
    return order[np.arange(ORDERS), first], tried
