"""How often do intervals hold the truth, and tests call what is not there, with few prompts and clustered labels?

    python bench/validity/coverage.py [pairs gains ...] [--repeats 200] [--jobs 2]

Each experiment draws data sets of which the truth is known and prints a row a setting: the share of intervals that hold
it, or of tests with p ≤ 0.05, with Clopper and Pearson's 95% interval. `false_positives.py` does the same with whole
stores of tokens.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import Pool

import numpy as np
import pandas as pd
from handscope.analysis.statistics.folds import check_folds, grouped_folds
from handscope.analysis.statistics.verdicts import Counts, corrected_rate
from handscope.errors import HandscopeError
from handscope.probes import MassMeanProbe, cross_validate
from handscope.probes.between import pairs_of_cells
from scipy.stats import beta
from threadpoolctl import threadpool_limits

WIDTH = 16
Drawn = Iterator[tuple[str, bool]]
"""What is counted, and whether it happened."""


def labels_of(rng: np.random.Generator, prompts: int, each: int, icc: float = 0.2, bad: float = 0.4) -> tuple:
    """Labels, prompts and folds, with samples of each class in all training folds."""
    groups = np.repeat(np.arange(prompts), each)
    strength = 1 / icc - 1
    while True:
        rate = rng.beta(bad * strength, (1 - bad) * strength, prompts)
        y = (rng.random(len(groups)) < rate[groups]).astype(float)
        fold = grouped_folds(groups)
        try:
            check_folds(y, fold)
        except HandscopeError:
            continue
        if min(y.sum(), (1 - y).sum()) >= 5:
            return y, groups, fold


def clustered(rng: np.random.Generator, groups: np.ndarray, width: int = WIDTH, share: float = 0.4) -> np.ndarray:
    """Features of variance 1, of which this share is the prompt's."""
    of_prompt = rng.normal(size=(groups.max() + 1, width))[groups]
    return np.sqrt(share) * of_prompt + np.sqrt(1 - share) * rng.normal(size=(len(groups), width))


# Pairs of cells


def pairs(rng: np.random.Generator, prompts: int, each: int, shift: float) -> Drawn:
    """Four blocks at two steps that are equally good and half alike: is one called better?"""
    y, groups, _ = labels_of(rng, prompts, each)
    common = clustered(rng, groups)
    cells = {}
    for block in range(4):
        for step in (2, 1):
            x = np.sqrt(0.5) * (common + clustered(rng, groups))
            x[:, :4] += y[:, None] * shift / 2
            cells[_Key(f"double.{block}", step)] = cross_validate(
                MassMeanProbe(), x, y, groups, permutations=49, bootstraps=2
            )
    table = pairs_of_cells(cells, y, groups)
    steps = table["block_a"] == table["block_b"]
    for prefix in ("", "within_"):
        p = table[f"{prefix}p"]
        for name, rows in (("steps", steps), ("blocks", ~steps)):
            for one in p[rows].dropna():
                yield f"{prefix}{name} called", one <= 0.05


class _Key(tuple):
    """A cell that needs no plan: block and step."""

    def __new__(cls, block: str, step: int) -> "_Key":
        return super().__new__(cls, (block, step))

    block = property(lambda self: self[0])
    step = property(lambda self: self[1])


# Corrected rates


def corrected(rng: np.random.Generator, groups: int, each: int, se: float, sp: float, rate: float) -> Drawn:
    """Sensitivity and specificity of labelled groups, and new ones, all of which differ (ICC 0.1, of bad ones 0.2)."""

    def of(mean: float, icc: float) -> np.ndarray:
        return rng.beta(mean * (1 / icc - 1), (1 - mean) * (1 / icc - 1), groups)

    group = np.repeat(np.arange(groups), each)

    def flags(bad: np.ndarray) -> np.ndarray:
        return np.where(bad, rng.random(len(bad)) < of(se, 0.1)[group], rng.random(len(bad)) > of(sp, 0.1)[group])

    known = rng.random(len(group)) < of(0.3, 0.1)[group]
    counts = Counts.of(flags(known), known, group)
    value, low, high = corrected_rate(flags(rng.random(len(group)) < of(rate, 0.2)[group]), group, counts)
    if not np.isnan(value):
        yield "covers", low <= rate <= high


EXPERIMENTS: dict[str, tuple[Callable[..., Drawn], dict[str, tuple]]] = {
    "pairs": (
        pairs,
        {
            "8 prompts of 16, AUC .7": (8, 16, 1.2),
            "12 prompts of 12, AUC .7": (12, 12, 1.2),
            "32 prompts of 10, AUC .7": (32, 10, 1.2),
            "32 prompts of 10, AUC .5": (32, 10, 0.0),
            "32 prompts of 10, AUC .9": (32, 10, 2.4),
        },
    ),
    "corrected": (
        corrected,
        {
            "8 groups of 20, rate .3": (8, 20, 0.8, 0.9, 0.3),
            "12 groups of 20, rate .3": (12, 20, 0.8, 0.9, 0.3),
            "32 groups of 10, rate .3": (32, 10, 0.8, 0.9, 0.3),
            "8 groups of 20, rate .1": (8, 20, 0.95, 0.95, 0.1),
        },
    ),
}


def drawn(experiment: str, setting: tuple, seed: int) -> list[tuple[str, bool]]:
    """What happened in one data set."""
    return list(EXPERIMENTS[experiment][0](np.random.default_rng([seed, 23]), *setting))


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """The exact 95% interval of a share."""
    return (beta.ppf(0.025, k, n - k + 1) if k else 0.0, beta.ppf(0.975, k + 1, n - k) if k < n else 1.0)


def shares(happened: list[tuple[str, bool]], repeats: int) -> list[dict]:
    """A row for each thing that is counted; where a data set holds several, its interval is that of so many sets."""
    table = pd.DataFrame(happened, columns=["what", "yes"])
    rows = []
    for what, part in table.groupby("what", sort=False)["yes"]:
        share = part.mean()
        low, high = clopper_pearson(round(share * min(len(part), repeats)), min(len(part), repeats))
        rows.append({"what": what, "share": share, "lo": low, "hi": high, "of": len(part)})
    return rows


@threadpool_limits.wrap(limits=1)
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with Pool(arguments.jobs, threadpool_limits, (1,)) as pool:
        for name in arguments.experiments or EXPERIMENTS:
            for label, setting in EXPERIMENTS[name][1].items():
                sets = pool.map(partial(drawn, name, setting), range(arguments.repeats))
                for row in shares([one for some in sets for one in some], arguments.repeats):
                    said = "{what} {share:.1%} ({lo:.1%} to {hi:.1%}), {of}".format(**row)
                    print(f"{name} | {label} | {said}", flush=True)


if __name__ == "__main__":
    main()
