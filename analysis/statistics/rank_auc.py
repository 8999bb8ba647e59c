"""AUCs of many scores under many labellings at once: with ranks they are sums, and so products of matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from .arrays import binary, numbers
from .folds import check_folds, codes, grouped_folds
from .intervals import bootstrap_auc
from .multiple import benjamini_hochberg, family_p
from .nulls import p_floor, p_value, permuted_labels

Array = NDArray[np.float64]


def auc_table(scores: ArrayLike, labels: ArrayLike, strata: ArrayLike | None = None) -> Array:
    """`auc` of each row of scores under each labelling.

    Parameters
    ----------
    scores : array of shape (rows, n)
    labels : array of shape (labellings, n) of 0 and 1
    strata : array of shape (n,), as for `auc`

    Returns
    -------
    array of shape (rows, labellings); NaN where there is no pair to compare

    Notes
    -----
    The sum of the ranks of bad samples, ties at their mean rank, less the smallest that it can be, over the pairs: a
    thousand rows under a thousand labellings of 500 samples take a second, where `auc` takes minutes.
    """
    scores, labels = numbers(scores, "scores"), np.asarray(labels, np.float64)
    stratum = np.zeros(scores.shape[1], np.intp) if strata is None else codes(strata, scores.shape[1])
    ranks = np.empty(scores.shape)
    member = np.eye(stratum.max() + 1)[stratum]
    for one in range(member.shape[1]):
        ranks[:, stratum == one] = rankdata(scores[:, stratum == one], axis=1)
    bad, size = labels @ member, member.sum(0)
    pairs = (bad * (size - bad)).sum(1)
    wins = ranks @ labels.T - (bad * (bad + 1) / 2).sum(1)
    return np.divide(wins, pairs, out=np.full(wins.shape, np.nan), where=pairs > 0)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What scores are compared with.

    Attributes
    ----------
    y : float array of shape (n,), 1 bad and 0 good
    groups : array of shape (n,), the prompt of each sample
    fold : int array of shape (n,)
    free, inside : arrays of shape (permutations, n), labels permuted between samples, and inside prompts
    """

    y: Array
    groups: NDArray[np.object_]
    fold: NDArray[np.intp]
    free: Array
    inside: Array
    seed: int

    @classmethod
    def of(cls, y: ArrayLike, groups: ArrayLike, permutations: int = 1000, folds: int = 5, seed: int = 0) -> Verdicts:
        """The same labellings and folds for every score of a run."""
        y, groups = binary(y), np.asarray(groups, object)
        fold = grouped_folds(groups, folds, seed)
        check_folds(y, fold)
        free = permuted_labels(y, groups, permutations, seed, fold)
        inside = permuted_labels(y, groups, permutations, seed, fold, within=True)
        return cls(y, groups, fold, free, inside, seed)

    def table(self, scores: ArrayLike, directed: bool = True) -> pd.DataFrame:
        """How well each row of scores tells bad from good.

        Parameters
        ----------
        scores : array of shape (rows, n), one for each sample
        directed : whether larger means bad. Else the direction of a fold is the one that the other folds show, and
            the same is done under each permuted labelling.

        Returns
        -------
        DataFrame with a row a score, `direction` 1 where larger means bad and -1 where it means good, and the columns
        of `handscope.stages.SCORE`: `q` and `p_family` are over its rows.
        """
        scores = numbers(scores, "scores").astype(np.float64)
        parts = [{"direction": self._directions(scores, self.y[None], None)[:, 0].astype(int)}]
        parts += [self._half(scores, directed, within) for within in (False, True)]
        return pd.DataFrame(parts[0] | parts[1] | parts[2])

    def _half(self, scores: Array, directed: bool, within: bool) -> dict[str, Array]:
        null_labels = self.inside if within else self.free
        labels = np.concatenate([self.y[None], null_labels])
        strata = self.groups if within else None if directed else self.fold
        if directed:
            values, seen = auc_table(scores, labels, strata), scores
        else:
            values, seen = self._held_out(scores, labels, within)
        prefix = "within_" if within else ""
        null = values[:, 1:]
        rows = []
        for one, own, drawn in zip(seen, values[:, 0], null, strict=True):
            low, high = bootstrap_auc(
                one, self.y, self.groups, None if within else strata, seed=self.seed, within=within,
                null=None if directed else drawn,
            )  # fmt: skip
            floor = p_floor(self.y, null_labels, drawn)
            known = drawn[~np.isnan(drawn)]
            centre, spread = (float(known.mean()), float(known.std())) if len(known) else (np.nan, np.nan)
            rows.append((own, low, high, centre, spread, p_value(own, drawn), floor))
        names = ("auc", "lo", "hi", "null_mean", "null_sd", "p", "p_floor")
        found = {prefix + name: np.array(column) for name, column in zip(names, zip(*rows))}
        found[prefix + "p_family"] = family_p(values[:, 0], null.T)
        found[prefix + "q"] = benjamini_hochberg(found[prefix + "p"])
        return found

    def _held_out(self, scores: Array, labels: Array, within: bool) -> tuple[Array, Array]:
        """AUCs (rows, labellings) with directions from the other folds; and scores (rows, n) turned so, as observed.

        Pairs are of one fold, or of one prompt, which lies in one fold. So the AUC over all is that of each fold,
        turned by its sign, weighted by its pairs.
        """
        wins, pairs = np.zeros((len(scores), len(labels))), np.zeros(len(labels))
        turned = np.empty_like(scores)
        for one in np.unique(self.fold):
            test = self.fold == one
            sign = self._directions(scores[:, ~test], labels[:, ~test], self.groups[~test] if within else None)
            strata = self.groups[test] if within else None
            value = auc_table(scores[:, test], labels[:, test], strata)
            count = _pairs(labels[:, test], strata)
            wins += np.nan_to_num(0.5 + sign * (value - 0.5)) * count
            pairs += count
            turned[:, test] = sign[:, :1] * scores[:, test]
        return np.divide(wins, pairs, out=np.full(wins.shape, np.nan), where=pairs > 0), turned

    @staticmethod
    def _directions(scores: Array, labels: Array, strata: ArrayLike | None) -> Array:
        """1 where larger means bad or nothing tells, else -1: (rows, labellings)."""
        return np.where(np.nan_to_num(auc_table(scores, labels, strata), nan=0.5) >= 0.5, 1.0, -1.0)


def _pairs(labels: Array, strata: ArrayLike | None) -> Array:
    stratum = np.zeros(labels.shape[1], np.intp) if strata is None else codes(strata, labels.shape[1])
    member = np.eye(stratum.max() + 1)[stratum]
    bad = labels @ member
    return (bad * (member.sum(0) - bad)).sum(1)


