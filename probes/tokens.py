"""Probes of single tokens, judged by tokens and by instances: the token is never the unit of statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..analysis.statistics.arrays import binary, group_names
from ..analysis.statistics.auc import PairWins, auc
from ..analysis.statistics.folds import check_folds, codes, grouped_folds
from ..analysis.statistics.intervals import bootstrap_auc, bootstrap_weights, interval
from ..analysis.statistics.nulls import p_value, permuted_labels
from ..brief import brief
from ..errors import HandscopeError
from .crossval import judge
from .linear import LinearProbe, features
from .nested import nested_scores, unit_means

Array = NDArray[Any]


@dataclass(frozen=True)
class TokenCrossValidation:
    """What a probe of tokens does on instances of prompts that it was not fitted to.

    Attributes
    ----------
    instances : array of shape (instances,), the distinct values of `instance`, in the order of the arrays below
    scores : array of shape (instances,), the mean held-out log-odds of an instance's tokens
    auc, interval, null : of the instances' scores, as in `CrossValidation`; labels are permuted between instances
    token_auc : how often a token of a bad instance scores above one of a good instance, each pair of instances of a
        fold counting the same however many tokens they have
    token_interval, token_null : likewise; the interval draws prompts
    balanced_accuracy : of instances, with thresholds set inside the training folds
    log_odds : array of shape (instances,), calibrated inside the training folds
    token_scores : array of shape (n_tokens,), held-out log-odds
    fold : int array of shape (instances,)
    l2 : array of shape (folds,), penalties chosen inside the training folds; NaN where none was chosen
    """

    instances: Array
    scores: Array
    auc: float
    interval: tuple[float, float]
    null: Array
    token_auc: float
    token_interval: tuple[float, float]
    token_null: Array
    balanced_accuracy: float
    log_odds: Array
    token_scores: Array
    fold: NDArray[np.intp]
    l2: Array

    __repr__ = brief

    @property
    def p(self) -> float:
        return p_value(self.auc, self.null)

    @property
    def token_p(self) -> float:
        return p_value(self.token_auc, self.token_null)


def cross_validate_tokens(
    probe: LinearProbe,
    x: ArrayLike,
    y: ArrayLike,
    instance: ArrayLike,
    groups: ArrayLike,
    *,
    l2: Sequence[float] | None = None,
    folds: int = 5,
    permutations: int = 20,
    bootstraps: int = 2000,
    seed: int = 0,
) -> TokenCrossValidation:
    """Fit a probe to tokens, each instance counting 1, and judge it on the instances of other prompts.

    Parameters
    ----------
    x : array of shape (n_tokens, width)
    y : array of shape (n_tokens,), 1 for tokens of bad instances and 0 for those of good ones
    instance : array of shape (n_tokens,), the instance (or sample) of each token
    groups : array of shape (n_tokens,), the prompt of each token; where pictures have several instances, of shape
        (n_tokens, 2), prompt and picture: labels of a picture's instances are then permuted together. With two
        instances a picture that are alike, and their labels too, a test at 5% called 9.5 of 100 without it
    l2 : penalties to choose from inside the training folds, by the AUC of instances; left out, the probe's own

    Raises
    ------
    HandscopeError
        The tokens of one instance differ in label or prompt, or there are too few prompts or instances.
    """
    x, y = features(x), binary(y)
    probe.check(x, y)
    instance = group_names(instance, len(y))
    names, first, unit = np.unique(instance, return_index=True, return_inverse=True)
    group = codes(groups, len(y))
    picture = np.unique(np.asarray(groups), axis=0, return_inverse=True)[1].ravel()
    mixed = (y != y[first][unit]) | (group != group[first][unit]) | (picture != picture[first][unit])
    if mixed.any():
        raise HandscopeError(
            f"The tokens of one instance share its label and its prompt; those of {len(np.unique(unit[mixed]))} "
            f"instances, {names[unit[mixed][0]]} among them, do not. Give each instance of an image a name of its own."
        )
    y, groups = y[first], np.asarray(groups)[first]
    group = codes(groups)
    fold = grouped_folds(group, folds, seed)
    check_folds(y, fold)
    labels = np.concatenate([y[None], permuted_labels(y, groups, permutations, seed, fold)])
    nested = nested_scores(probe, x, labels, group, fold, l2, unit, seed)
    tokens, means = nested.scores, unit_means(nested.scores, unit)
    named, log_odds = judge(means[0] - nested.centre, y, fold, nested.inner)
    null = auc(means[1:], labels[1:], fold)
    weights = bootstrap_weights(group, bootstraps, seed)
    whole = np.ones((1, weights.shape[1]))
    pairs = token_wins(tokens[0], y, unit, group, fold)
    return TokenCrossValidation(
        instances=names,
        scores=means[0],
        auc=float(auc(means[0], y, fold)),
        interval=bootstrap_auc(means[0], y, group, fold, bootstraps, seed, null=null),
        null=null,
        token_auc=float(pairs.auc(whole)[0]),
        token_interval=interval(pairs.auc(weights)),
        token_null=np.array(
            [
                token_wins(scores, one, unit, group, fold).auc(whole)[0]
                for scores, one in zip(tokens[1:], labels[1:], strict=True)
            ]
        ),
        balanced_accuracy=float(0.5 * sum((named[y == k] == k).mean() for k in (0, 1))),
        log_odds=log_odds,
        token_scores=tokens[0],
        fold=fold,
        l2=nested.chosen[0],
    )


def token_wins(scores: ArrayLike, y: ArrayLike, unit: NDArray[np.intp], groups: ArrayLike, fold: ArrayLike) -> PairWins:
    """Pairs of a bad instance and a good one of the same fold, won in part: by the share of their pairs of tokens.

    Parameters
    ----------
    scores : array of shape (n_tokens,); unit : int array of shape (n_tokens,), the instance 0, 1, ... of each token
    y, groups, fold : arrays of shape (instances,)
    """
    scores, y, group, fold = np.asarray(scores, np.float64), np.asarray(y), codes(groups), np.asarray(fold)
    n, count = group.max() + 1, np.bincount(unit)
    wins, pairs = np.zeros((n, n)), np.zeros((n, n))
    for one in np.unique(fold):
        bad, good = np.flatnonzero((fold == one) & (y == 1)), np.flatnonzero((fold == one) & (y == 0))
        if not len(bad) or not len(good):
            continue
        mine = np.isin(unit, bad)
        high, owner = scores[mine], np.searchsorted(bad, unit[mine])
        won = np.zeros((len(bad), len(good)))
        for place, other in enumerate(good):
            low = np.sort(scores[unit == other])
            below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
            won[:, place] = np.bincount(owner, below, len(bad)) / (2 * count[bad] * count[other])
        at = np.ix_(group[bad], group[good])
        np.add.at(wins, at, won)
        np.add.at(pairs, at, 1.0)
    return PairWins(wins, pairs)
