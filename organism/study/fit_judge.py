"""Fit a judge to an organism's shipped labels, or check on them the one that was fitted to another's.

    python -m handscope.organism.study.fit_judge [NAME]

Which of the two is done is for the table of organisms to say (`models.embedded`).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ...analysis.statistics.folds import grouped_folds
from ...analysis.statistics.paired import paired_rates
from ...analysis.statistics.verdicts import Counts
from ...files import atomic
from ...models.embedded import NAME, ORGANISMS
from ..judge import CHECKS, Judge, card_of, choose_band, decided_elsewhere, evaluate, fit, out_of_fold
from ..shape import features
from .shipped import ShippedLabels, labels_folder


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
    def load(cls, name: str = NAME) -> Lessons:
        shipped = ShippedLabels.load(labels_folder(name))
        table = shipped.table
        rows = [features(shipped.reference(sample), prompt) for sample, prompt in table.prompt.items()]
        names = sorted(rows[0])
        x = np.array([[row[name] for name in names] for row in rows])
        return cls(names, x, majority(table), table.prompt.to_numpy(), (table.verdict != "unsure").to_numpy())


def judges_by_prompt(name: str = NAME, folds: int = 5) -> dict[str, Judge]:
    """For each shipped prompt a judge that has learnt from verdicts on other prompts alone.

    The judge that ships has seen them all, so that on these pictures it does better than it would on others.
    """
    lessons = Lessons.load(name)
    fold = grouped_folds(lessons.groups, folds)
    found: dict[str, Judge] = {}
    for one in range(folds):
        some = lessons.clear & (fold != one)
        judge = fit(lessons.x[some], lessons.bad[some], lessons.names, {}, (0.5, 0.5))
        found |= dict.fromkeys(np.unique(lessons.groups[fold == one]).tolist(), judge)
    return found


def fit_to(name: str) -> dict[str, Any]:
    """Fit a judge to an organism's labels and write its card; returns how it does on unseen prompts.

    It learns from the verdicts that are not unsure, and is tested on every picture: leaving the doubtful ones out of a
    test would flatter it.
    """
    lessons = Lessons.load(name)
    x, bad, groups, clear, names = lessons.x, lessons.bad, lessons.groups, lessons.clear, lessons.names
    p, decided = out_of_fold(x, bad, groups, clear, names)
    summary = evaluate(p, decided, bad, groups)
    counts = tuple(Counts.of(p > 0.5, bad, groups).table.astype(int).tolist())
    replace(fit(x[clear], bad[clear], names, summary, choose_band(p, bad)), counts=counts).save(card_of(name))
    return summary


def check_on(name: str) -> dict[str, Any]:
    """Try the judge of an organism that was fitted to another one's labels on its own, and write what came out.

    Its weights stay; the band in which it abstains is chosen anew, held out as in `out_of_fold`. Besides `evaluate`'s
    summary: the rate of bad that it finds where it decides, less the looks' rate there, and its 95% interval over
    prompts.
    """
    lessons, judge = Lessons.load(name), Judge.load(card_of(ORGANISMS[name].judge))
    p = judge.probability(lessons.x)
    decided = decided_elsewhere(p, lessons.bad, lessons.groups)
    summary = evaluate(p, decided, lessons.bad, lessons.groups)
    summary["band"] = list(choose_band(p, lessons.bad))
    if decided.any():
        said = paired_rates(lessons.bad, np.where(decided, p > 0.5, np.nan), lessons.groups)
        bias = {"rate_bias": round(said.difference, 3), "rate_bias_interval": [round(said.low, 3), round(said.high, 3)]}
        summary |= bias
    checks = json.loads(CHECKS.read_text(encoding="utf-8")) if CHECKS.exists() else {}
    with atomic(CHECKS) as temporary:
        temporary.write_text(json.dumps(dict(sorted({**checks, name: summary}.items())), indent=1) + "\n")
    return summary


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m handscope.organism.study.fit_judge", description=__doc__)
    parser.add_argument("name", nargs="?", default=NAME, choices=ORGANISMS, metavar="NAME", help="which organism")
    name = parser.parse_args(arguments).name
    print(json.dumps(fit_to(name) if ORGANISMS[name].judge == name else check_on(name), indent=1))


if __name__ == "__main__":
    main()
