"""Fit the organism's judge to the shipped hand labels: ``python -m handscope.organism.study.fit_judge``."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...analysis.statistics.folds import grouped_folds
from ..judge import Judge, choose_band, evaluate, fit, out_of_fold
from ..shape import features
from .shipped import ShippedLabels


def majority(table: pd.DataFrame) -> np.ndarray:
    """The side most looks at each picture took, 1 for bad, also of pictures whose verdict is unsure: (n,)."""
    looks = table[["look_1", "look_2", "look_3"]].fillna("").to_numpy(str)
    return (np.char.startswith(looks, "bad").sum(1) > np.char.startswith(looks, "good").sum(1)).astype(int)


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the judge learns from: features (n, n_features) of the shipped pictures, verdicts, prompts, clear ones."""

    names: list[str]
    x: np.ndarray
    bad: np.ndarray
    groups: np.ndarray
    clear: np.ndarray

    @classmethod
    def load(cls) -> Lessons:
        shipped = ShippedLabels.load()
        table = shipped.table
        rows = [features(shipped.reference(sample), prompt) for sample, prompt in table.prompt.items()]
        names = sorted(rows[0])
        x = np.array([[row[name] for name in names] for row in rows])
        return cls(names, x, majority(table), table.prompt.to_numpy(), (table.verdict != "unsure").to_numpy())


def judges_by_prompt(folds: int = 5) -> dict[str, Judge]:
    """For each shipped prompt a judge that has learnt from verdicts on other prompts alone.

    The judge that ships has seen them all, so that on these pictures it does better than it would on others.
    """
    lessons = Lessons.load()
    fold = grouped_folds(lessons.groups, folds)
    found: dict[str, Judge] = {}
    for one in range(folds):
        some = lessons.clear & (fold != one)
        judge = fit(lessons.x[some], lessons.bad[some], lessons.names, {}, (0.5, 0.5))
        found |= dict.fromkeys(np.unique(lessons.groups[fold == one]).tolist(), judge)
    return found


def main() -> None:
    """Fit the judge to the shipped labels, print how it does on unseen prompts, and write its card.

    It learns from the verdicts that are not unsure, and is tested on every picture: leaving the doubtful ones out of a
    test would flatter it.
    """
    lessons = Lessons.load()
    x, bad, groups, clear, names = lessons.x, lessons.bad, lessons.groups, lessons.clear, lessons.names
    p, decided = out_of_fold(x, bad, groups, clear, names)
    summary = evaluate(p, decided, bad, groups)
    fit(x[clear], bad[clear], names, summary, choose_band(p, bad)).save()
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
