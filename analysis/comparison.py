"""Bad against good instances in one cell after another: labellings are made once, and every cell is asked alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..brief import brief
from .class_parts import CellSums
from .directions import difference_of_means, held_out_projections
from .distance import bhattacharyya_test
from .moments import Moments
from .statistics.auc import auc
from .statistics.intervals import bootstrap_auc
from .statistics.nulls import p_floor, p_value, permuted_labels
from .statistics.studentised import studentised_auc
from .subject_tokens import groups_of
from .two_sample import classifier_two_sample_test

Array = NDArray[np.float64]

Answered = tuple[dict[str, float], dict[str, Array]]
"""Columns of a cell, and by the name of each test its statistics, the observed one first and then the null: arrays of
shape (1 + permutations,). The labellings are those of every cell, so that p can be adjusted for all of them."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The good and bad instances of one question, with the labellings of its nulls.

    Attributes
    ----------
    rows : int array of shape (n,), rows of the table of instances
    y, fold : arrays of shape (n,)
    groups : array of shape (n, 2), the prompt and the sample of each instance
    labellings : array of shape (permutations, n)
    """

    rows: NDArray[np.intp]
    y: Array
    groups: NDArray[np.object_]
    fold: NDArray[np.intp]
    labellings: Array

    __repr__ = brief

    @classmethod
    def of(cls, table: pd.DataFrame, rows: NDArray[np.intp], permutations: int, seed: int) -> Comparison:
        """Compare the instances in `rows` of a table of instances, with bad, prompt, fold and sample."""
        table = table.iloc[rows]
        y, groups, fold = table["bad"].to_numpy(np.float64), groups_of(table), table["fold"].to_numpy()
        return cls(
            rows=rows,
            y=y,
            groups=groups,
            fold=fold,
            labellings=permuted_labels(y, groups, permutations, seed, fold),
        )

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of good and bad instances, and of prompts."""
        return {
            "n_good": int((self.y == 0).sum()), "n_bad": int(self.y.sum()), "n_prompts": len(set(self.groups[:, 0]))
        }  # fmt: skip

    def direction(self, sums: CellSums, seed: int) -> Answered:
        """Held-out AUC of the difference of means of sample vectors, with its null and interval."""
        x = sums.vectors[self.rows]
        labels = np.concatenate([self.y[None], self.labellings])
        scores = held_out_projections(x, labels, self.fold)
        values, student = auc(scores, labels, self.fold), studentised_auc(scores, labels, self.fold)
        low, high = bootstrap_auc(scores[0], self.y, self.groups, self.fold, seed=seed, null=values[1:])
        row = {
            "dom_auc": float(values[0]),
            "dom_lo": low,
            "dom_hi": high,
            "dom_null_mean": float(np.nanmean(values[1:])),
            "dom_null_sd": float(np.nanstd(values[1:])),
            "dom_p": p_value(values[0], values[1:]),
            "dom_p_floor": p_floor(self.y, self.labellings, values[1:]),
            "dom_student_p": p_value(student[0], student[1:]),
            "dom_student_p_floor": p_floor(self.y, self.labellings, student[1:]),
            "dom_auc_in_sample": float(auc(x @ difference_of_means(x[self.y == 1], x[self.y == 0]), self.y)),
            "dom_within_auc": float(auc(scores[0], self.y, self.groups)),
        }
        return row, {"dom": values, "dom_student": student}

    def distance(self, sums: CellSums, seed: int) -> Answered:
        """The Bhattacharyya distance of tokens beside its null.

        Raises
        ------
        HandscopeError
            A class has fewer than two tokens, or a channel does not vary in one class.
        """
        moments = Moments(sums.parts.count[self.rows], sums.parts.mean[self.rows], sums.parts.m2[self.rows])
        test = bhattacharyya_test(moments, self.y, self.groups, self.labellings, seed=seed)
        return test.columns, {"db": np.append(test.observed.distance, test.null)}

    def classifier(self, sums: CellSums, seed: int) -> Answered:
        """The classifier two-sample test of sample vectors."""
        test = classifier_two_sample_test(
            sums.vectors[self.rows], self.y, self.groups, permutations=self.labellings, seed=seed, fold=self.fold
        )
        row = {
            "c2st_auc": test.auc,
            "c2st_lo": test.interval[0],
            "c2st_hi": test.interval[1],
            "c2st_accuracy": test.accuracy,
            "c2st_null_mean": float(np.nanmean(test.null)),
            "c2st_null_sd": float(np.nanstd(test.null)),
            "c2st_p": test.p,
            "c2st_p_floor": p_floor(self.y, self.labellings, test.null),
        }
        return row, {"c2st": np.append(test.auc, test.null)}
