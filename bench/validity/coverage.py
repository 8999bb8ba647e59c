"""How often do intervals hold the truth, and tests call what is not there, with few prompts and clustered labels?

    python bench/validity/coverage.py [pairs gains ...] [--repeats 200] [--jobs 2]

Each experiment draws data sets of which the truth is known and prints a row a setting: the share of intervals that hold
it, or of tests with p ≤ 0.05, with Clopper and Pearson's 95% interval. `false_positives.py` does the same with whole
stores of tokens.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import cache, partial
from multiprocessing import Pool

import numpy as np
import pandas as pd
from handscope.analysis import Moments, auc, bhattacharyya_test, grouped_folds, p_value, permuted_labels
from handscope.analysis.directions import held_out_projections
from handscope.analysis.statistics.folds import check_folds
from handscope.analysis.statistics.studentised import studentised_auc
from handscope.analysis.statistics.verdicts import Counts, corrected_rate
from handscope.errors import HandscopeError
from handscope.probes import (
    MassMeanProbe,
    RidgeProbe,
    calibration,
    compare,
    cross_validate,
    cross_validate_tokens,
    held_out_scores,
    pairs_of_cells,
)
from scipy.special import logit
from scipy.stats import beta, norm
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


# Gains


def gains(rng: np.random.Generator, prompts: int, each: int, known: float, more: float) -> Drawn:
    """What 16 channels add to 4 that are known, beside the gain to be expected of such fits."""
    truth = _expected_gain(prompts, each, known, more)
    y, groups, fold = labels_of(rng, prompts, each)
    for within, prefix in ((False, ""), (True, "within ")):
        found = compare(*_fits(rng.spawn(1)[0], y, groups, fold, known, more), y, groups, fold, within=within)
        if not np.isnan(found.p):
            yield f"{prefix}covers", found.interval[0] <= truth[within] <= found.interval[1]
            yield f"{prefix}called", found.p <= 0.05


def _fits(rng: np.random.Generator, y: np.ndarray, groups: np.ndarray, fold: np.ndarray, *shifts: float) -> list:
    """Held-out scores of the channels that are known, and of all."""
    x = clustered(rng, groups, WIDTH + 4, 0.3).astype(np.float32)
    x += y[:, None].astype(np.float32) * np.repeat([shifts[0] / 2, shifts[1] / 4], [4, WIDTH]).astype(np.float32)
    return [held_out_scores(RidgeProbe(30.0), part, y[None], fold)[0] for part in (x[:, :4], x)]


@cache
def _expected_gain(prompts: int, each: int, known: float, more: float) -> dict[bool, float]:
    """Mean gains of 400 other data sets, over all pairs and within prompts."""
    rng, sums = np.random.default_rng(99), []
    for _ in range(400):
        y, groups, fold = labels_of(rng, prompts, each)
        before, both = _fits(rng, y, groups, fold, known, more)
        sums.append([float(auc(both, y, by) - auc(before, y, by)) for by in (fold, groups)])
    mean = np.nanmean(sums, 0)
    return {False: mean[0], True: mean[1]}


# Calibration


def calibrated(rng: np.random.Generator, prompts: int, each: int, icc: float) -> Drawn:
    """Probabilities that are right, of labels whose prompts share what nothing predicts."""
    groups = np.repeat(np.arange(prompts), each)
    shown = clustered(rng, groups, 1, 0.5)[:, 0]
    chance = norm.cdf(-0.4 + 0.6 * shown)
    y = (-0.4 + 0.6 * shown + clustered(rng, groups, 1, icc)[:, 0] > 0).astype(float)
    seed = int(rng.integers(1000))
    yield "called, prompts as groups", calibration(logit(chance), y, groups, seed=seed).p <= 0.05
    yield "called, samples as independent", calibration(logit(chance), y, seed=seed).p <= 0.05


def mended(rng: np.random.Generator, prompts: int, each: int, icc: float) -> Drawn:
    """Log-odds that are calibrated inside the training folds."""
    y, groups, _ = labels_of(rng, prompts, each, icc)
    x = clustered(rng, groups, share=0.5)
    x[:, 0] += 0.8 * y
    found = cross_validate(RidgeProbe(10.0), x, y, groups, permutations=0, bootstraps=2)
    seed = int(rng.integers(1000))
    yield "called, prompts as groups", calibration(found.log_odds, y, groups, seed=seed).p <= 0.05
    yield "called, samples as independent", calibration(found.log_odds, y, seed=seed).p <= 0.05


# Directions and distances


def spread(rng: np.random.Generator, n: int, n_bad: int, times: float, shift: float) -> Drawn:
    """Bad samples have so many times the spread of good ones."""
    y = (np.arange(n) < n_bad).astype(float)
    x = rng.normal(size=(n, 32)) * np.where(y, times, 1.0)[:, None]
    x[:, :4] += shift / 2 * y[:, None]
    seed = int(rng.integers(1000))
    fold = grouped_folds(np.arange(n), 5, seed)
    labels = np.concatenate([y[None], permuted_labels(y, np.arange(n), 99, seed, fold)])
    scores = held_out_projections(x, labels, fold)
    for name, test in (("AUC", auc), ("studentised", studentised_auc)):
        values = test(scores, labels, fold)
        yield f"called, {name}", p_value(values[0], values[1:]) <= 0.05


SIZES = {
    "twelve": [1, 1, 2, 3, 4, 6, 8, 10, 14, 20, 30, 60],
    "six": [4, 6, 10, 20, 30, 60],
    "forty": np.maximum(1, np.exp(np.random.default_rng(0).normal(1.2, 1.0, 40)).round()).astype(int).tolist(),
}


def unequal(rng: np.random.Generator, sizes: str, shift: float) -> Drawn:
    """The distance of tokens where prompts have very different numbers of samples."""
    groups = np.repeat(np.arange(len(SIZES[sizes])), SIZES[sizes])
    while True:
        y = (rng.random(len(groups)) < rng.beta(0.75, 0.75, groups.max() + 1)[groups]).astype(int)
        if 5 <= y.sum() <= len(y) - 5:
            break
    sample = np.repeat(np.arange(len(y)), 8)
    means = clustered(rng, groups, share=0.5) + shift / 4 * y[:, None]
    moments = Moments.by(means[sample] + 1.5 * rng.normal(size=(len(sample), WIDTH)), sample, len(y))
    yield "called", bhattacharyya_test(moments, y, groups, 99, 5, int(rng.integers(1000))).p <= 0.05


def hands(rng: np.random.Generator, same: float) -> Drawn:
    """Two hands a picture that are alike, with labels that agree so much beyond chance, and nothing to find."""
    picture = np.repeat(np.arange(96), 2)
    first, second = rng.random((2, 96)) < 0.4
    second = np.where(rng.random(96) < same, first, second)
    y, prompt = np.stack([first, second], 1).ravel().astype(float), picture // 6
    x = np.sqrt(0.6) * rng.normal(size=(96, 12))[picture] + np.sqrt(0.4) * rng.normal(size=(192, 12))
    seed = int(rng.integers(1000))
    for name, groups in (("prompts", prompt), ("prompts and pictures", np.stack([prompt, picture], 1))):
        found = cross_validate_tokens(
            RidgeProbe(10.0), x, y, np.arange(192), groups, permutations=39, bootstraps=2, seed=seed
        )
        yield f"called, groups of {name}", found.p <= 0.05


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
    "gains": (
        gains,
        {
            "8 prompts of 16, gain .04": (8, 16, 0.8, 0.8),
            "12 prompts of 12, gain .03": (12, 12, 0.8, 0.8),
            "32 prompts of 12, no gain": (32, 12, 0.8, 0.5),
            "32 prompts of 12, gain .03": (32, 12, 0.8, 0.8),
        },
    ),
    "calibrated": (
        calibrated,
        {
            "8 prompts of 20, ICC .3": (8, 20, 0.3),
            "12 prompts of 20, ICC .3": (12, 20, 0.3),
            "32 prompts of 16, ICC .3": (32, 16, 0.3),
            "32 prompts of 16, ICC 0": (32, 16, 0.0),
        },
    ),
    "mended": (mended, {"32 prompts of 16, ICC .2": (32, 16, 0.2), "12 prompts of 20, ICC .2": (12, 20, 0.2)}),
    "spread": (
        spread,
        {
            "190 bad of 509, twice the spread": (509, 190, 2.0, 0.0),
            "20 bad of 200, twice the spread": (200, 20, 2.0, 0.0),
            "60 bad of 200, the same spread": (200, 60, 1.0, 0.0),
            "60 bad of 200, the same spread, means .8 apart": (200, 60, 1.0, 0.8),
        },
    ),
    "unequal": (
        unequal,
        {
            "12 prompts of 1 to 60, nothing": ("twelve", 0.0),
            "12 prompts of 1 to 60, means .8 apart": ("twelve", 0.8),
            "12 prompts of 1 to 60, means 1.6 apart": ("twelve", 1.6),
            "6 prompts of 4 to 60, nothing": ("six", 0.0),
            "6 prompts of 4 to 60, means 1.6 apart": ("six", 1.6),
            "40 prompts of log-normal sizes, nothing": ("forty", 0.0),
        },
    ),
    "hands": (
        hands,
        {"labels agree by chance": (0.0,), "labels agree in .6 beyond chance": (0.6,), "labels agree": (1.0,)},
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
