"""How often do the intervals of a comparison of models hold the truth, and its tests call what is not there?

    python bench/validity/comparing.py [cka maps carried] [--repeats 200]

Data sets are drawn of which the truth is known; a row a setting says the share of intervals that hold it, or of tests
with p ≤ 0.05, with Clopper and Pearson's 95% interval.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from handscope.analysis import family_p, permuted_labels
from handscope.analysis.statistics.auc import PairWins
from handscope.analysis.statistics.intervals import drawn_groups, interval, jackknife_interval
from handscope.analysis.statistics.rank_auc import auc_table
from handscope.comparison.carried import Receiver, carry
from handscope.comparison.maps import QUANTITIES, Map, _threshold
from handscope.comparison.similarity import Dependence
from handscope.comparison.streams import pairings_of
from scipy.stats import beta

PROMPTS, EACH = 16, 8
GROUPS = np.repeat(np.arange(PROMPTS), EACH)
Drawn = Iterator[tuple[str, bool]]


def of_prompts(rng: np.random.Generator, width: int, share: float = 0.4) -> np.ndarray:
    """Features of variance 1, of which this share is the prompt's."""
    own = rng.normal(size=(len(GROUPS), width))
    return np.sqrt(share) * rng.normal(size=(PROMPTS, width))[GROUPS] + np.sqrt(1 - share) * own


def cka_intervals(rng: np.random.Generator) -> Drawn:
    """y = x A + noise, of 40 channels: the truth is that of the covariances."""
    mix = np.random.default_rng(9).normal(size=(40, 40)) / np.sqrt(40)
    scale = np.geomspace(2, 0.2, 40)
    for noise in (0.3, 1.0, 3.0):
        x = of_prompts(rng, 40) * scale
        y = x @ mix + noise * of_prompts(rng, 40)
        s = np.diag(scale**2)
        truth = np.square(s @ mix).sum() / (
            np.linalg.norm(s) * np.linalg.norm(mix.T @ s @ mix + noise**2 * np.eye(40))
        )
        grams = [one @ one.T for one in (x, y)]

        def of(kept: np.ndarray, grams: list[np.ndarray] = grams) -> float:
            estimate = Dependence(np.unique(GROUPS[kept], return_inverse=True)[1])
            return float(estimate.cka(*(estimate.parts(gram[np.ix_(kept, kept)][None]) for gram in grams))[0, 0])

        value = of(np.arange(len(GROUPS)))
        low, high = jackknife_interval(value, [of(np.flatnonzero(k != GROUPS)) for k in range(PROMPTS)], (-1.5, 1.5))
        yield f"CKA of {truth:.2f}: interval holds it", low <= truth <= high


def made_map(rng: np.random.Generator, signal: np.ndarray, weights: np.ndarray) -> Map:
    """A map of 3 blocks and 4 noise levels whose scores differ by `signal` between good and bad."""
    y = (rng.random(len(GROUPS)) < 0.4).astype(float)
    scores = signal[:, None] * y + rng.normal(size=(12, len(GROUPS))) + 0.5 * rng.normal(size=len(GROUPS))
    labels = permuted_labels(y, GROUPS, 199, int(rng.integers(2**31)), within=True)
    values = auc_table(scores, np.concatenate([y[None], labels]), GROUPS)
    null = values[:, 1:]
    cells = pd.DataFrame(
        {
            "depth": np.repeat([1 / 3, 2 / 3, 1], 4), "sigma": np.tile([1.0, 0.8, 0.5, 0.2], 3), "auc": values[:, 0],
            "null_mean": null.mean(1), "null_sd": null.std(1), "called": family_p(values[:, 0], null.T) <= 0.05,
        }
    )  # fmt: skip
    cells["z"] = (cells["auc"] - cells["null_mean"]) / cells["null_sd"]
    drawn = np.stack([PairWins.of(one, y, GROUPS).within_auc(weights) for one in scores], axis=1)
    return Map(cells, _threshold(cells), drawn, PROMPTS)


def map_intervals(rng: np.random.Generator) -> Drawn:
    """Two runs of one truth: no quantity differs."""
    weights = drawn_groups(PROMPTS, 500, rng)
    for name, strength in (("no signal", 0.0), ("a weak signal", 0.6), ("a strong signal", 1.5)):
        signal = strength * np.outer([0.4, 0.7, 1.0], [0.0, 0.5, 1.0, 1.0]).ravel()
        first, second = (made_map(rng, signal, weights) for _ in range(2))
        drawn, other = first.draws(), second.draws()
        for quantity in QUANTITIES:
            low, high = interval(other[quantity] - drawn[quantity])
            yield f"difference of {quantity}, {name}: interval holds 0", low <= 0 <= high


def carried_tests(rng: np.random.Generator) -> Drawn:
    """Streams that have nothing to do with each other, and streams that have, of verdicts that do not agree."""
    for name, shared in (("independent streams", 0.0), ("alike streams, other verdicts", 1.0)):
        a = of_prompts(rng, 12)
        b = shared * a + of_prompts(rng, 12)
        verdicts = [(one + rng.normal(size=len(GROUPS)) > 0.8).astype(float) for one in (a[:, 0], rng.normal(size=128))]
        receiver = Receiver.of(verdicts[1], GROUPS, GROUPS % 4, 199, int(rng.integers(2**31)))
        try:
            table, _ = carry([a.astype(np.float32)], verdicts[0], [b.astype(np.float32)], receiver,
                             pairings_of(GROUPS, 39, int(rng.integers(2**31))))  # fmt: skip
        except ValueError:  # a fold without both classes
            continue
        yield f"carried probe, {name}: p ≤ 0.05", bool(table["p"][0] <= 0.05)
        yield f"carried probe, {name}: p of shuffled pairs ≤ 0.05", bool(table["shuffled_p"][0] <= 0.05)


EXPERIMENTS = {"cka": cka_intervals, "maps": map_intervals, "carried": carried_tests}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS), help="cka, maps or carried")
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    for name in arguments.experiments:
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for repeat in range(arguments.repeats):
            for what, happened in EXPERIMENTS[name](np.random.default_rng([repeat, 5])):
                counts[what][0] += happened
                counts[what][1] += 1
        for what, (held, of) in counts.items():
            low, high = beta.ppf(0.025, held, of - held + 1), beta.ppf(0.975, held + 1, of - held)
            ends = f"{np.nan_to_num(low):.3f} to {1.0 if held == of else high:.3f}"
            print(f"{what}: {held / of:.3f} ({ends}; n = {of})", flush=True)


if __name__ == "__main__":
    main()
