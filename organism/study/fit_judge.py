"""Fit the organism's judge to the shipped hand labels: ``python -m handscope.organism.study.fit_judge``."""

import json

import numpy as np
import pandas as pd

from ..judge import choose_band, evaluate, fit, out_of_fold
from ..shape import features
from .shipped import ShippedLabels


def majority(table: pd.DataFrame) -> np.ndarray:
    """The side most looks at each picture took, 1 for bad, also of pictures whose verdict is unsure: (n,)."""
    looks = table[["look_1", "look_2", "look_3"]].fillna("").to_numpy(str)
    return (np.char.startswith(looks, "bad").sum(1) > np.char.startswith(looks, "good").sum(1)).astype(int)


def main() -> None:
    """Fit the judge to the shipped labels, print how it does on unseen prompts, and write its card.

    It learns from the verdicts that are not unsure, and is tested on every picture: leaving the doubtful ones out of a
    test would flatter it.
    """
    shipped = ShippedLabels.load()
    table = shipped.table
    rows = [features(shipped.reference(sample), prompt) for sample, prompt in table.prompt.items()]
    names = sorted(rows[0])
    x = np.array([[row[name] for name in names] for row in rows])
    bad, groups, clear = majority(table), table.prompt.to_numpy(), (table.verdict != "unsure").to_numpy()
    p, decided = out_of_fold(x, bad, groups, clear, names)
    summary = evaluate(p, decided, bad, groups)
    fit(x[clear], bad[clear], names, summary, choose_band(p, bad)).save()
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
