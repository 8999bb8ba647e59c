"""A permutation null of the ridge probe with its penalty chosen for every labelling: as it was, and as it is.

    python bench/speed/bench_nulls.py [--samples 509] [--width 128] [--permutations 1000] [--slow 100]

As it was: every labelling and penalty is solved for, its weights are formed, and scores are ranked by scipy. As it is:
the rows left out are solved for, once for each penalty, and scores are ranked by one sort that carries labels. Both in
this process, on `--slow` of the labellings, whose AUCs must be the same; the new one on all of them too. The floor is
what its products alone would take at this machine's matrix rate. CPU seconds of one thread.
"""

import argparse
import time

import numpy as np
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.folds import grouped_folds
from handscope.probes.crossval import labellings
from handscope.probes.linear import Scorer
from handscope.probes.nested import GRID, nested_scores
from handscope.probes.ridge import RidgeProbe
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

FOLDS, PROMPTS = 5, 32


def ranked(scores: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """AUCs inside folds by mean ranks: shape (..., n) to (...)."""
    wins = pairs = 0.0
    for one in np.unique(fold):
        bad = labels[..., fold == one]
        n_bad = bad.sum(-1)
        wins = wins + (rankdata(scores[..., fold == one], axis=-1) * bad).sum(-1) - n_bad * (n_bad + 1) / 2
        pairs = pairs + n_bad * (bad.shape[-1] - n_bad)
    return wins / pairs


def before(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """AUCs of all labellings, each with penalties chosen inside the folds, by fits whose weights are formed."""
    grid, probe = np.sort(GRID)[::-1], RidgeProbe()
    scores = np.empty(labels.shape)
    for one in np.unique(fold):
        kept, test = np.flatnonzero(fold != one), fold == one
        within = grouped_folds(groups[kept], FOLDS)
        inner = np.empty((len(labels), len(grid), len(kept)), np.float32)
        for other in np.unique(within):
            train, left = kept[within != other], kept[within == other]
            scorer = Scorer(probe, x[train], np.ones(len(train)), x[left])
            inner[:, :, within == other] = scorer.scores(labels[:, train], np.tile(grid, (len(labels), 1)))
        best = grid[ranked(inner, labels[:, None, kept], within).argmax(1)]
        scorer = Scorer(probe, x[kept], np.ones(len(kept)), x[test])
        scores[:, test] = scorer.scores(labels[:, kept], best[:, None])[:, 0]
    return ranked(scores, labels, fold)


def after(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, fold: np.ndarray) -> np.ndarray:
    return auc(nested_scores(RidgeProbe(), x, labels, groups, fold, GRID).scores, labels, fold)


def timed(work, *arguments: np.ndarray) -> tuple[float, np.ndarray]:
    begin = time.process_time()
    found = work(*arguments)
    return time.process_time() - begin, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=509)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=100)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    n, width = options.samples, options.width
    groups = np.arange(n) % PROMPTS
    y = (rng.random(n) < 0.37).astype(float)
    x = (rng.normal(size=(n, width)) + 0.2 * y[:, None]).astype(np.float32)
    fold = grouped_folds(groups, FOLDS)
    labels = np.concatenate([y[None], *labellings(y, groups, fold, options.permutations, 0)])
    few = labels[: options.slow]
    with threadpool_limits(limits=1, user_api="blas"):
        a = np.ones((1024, 1024), np.float32)
        rate = max(2 * 1024**3 / timed(lambda: a @ a)[0] for _ in range(5))
        old, expected = timed(before, x, few, groups, fold)
        new, found = timed(after, x, few, groups, fold)
        whole, _ = timed(after, x, labels, groups, fold)
    train, left, k = n * (1 - 1 / FOLDS) ** 2, n * (1 - 1 / FOLDS) / FOLDS, min(width, n * (1 - 1 / FOLDS) ** 2)
    narrow = train * width if width <= train else 0
    floor = 2 * len(labels) * FOLDS**2 * (narrow + k * left * len(GRID)) / rate
    print(
        f"{n} samples x {width}, {FOLDS} x {FOLDS} folds, {len(GRID)} penalties\n"
        f"  {len(few)} labellings: as it was {old:.2f} s, as it is {new:.2f} s, {old / new:.1f} times as fast; largest "
        f"difference of an AUC {np.abs(expected - found).max():.1e}\n"
        f"  {len(labels)} labellings: {whole:.2f} s, {old / len(few) * len(labels) / whole:.0f} times as fast as they "
        f"would have been; {whole / floor:.1f} times the floor of {floor:.2f} s at {rate / 1e9:.0f} GFLOP/s"
    )


if __name__ == "__main__":
    main()
