"""How often are the tests fooled, do the intervals cover, and is the power as predicted?

    python bench/validity/false_positives.py null  [--stores 200] [--world samples prompts] [--jobs 2] [--out FOLDER]
    python bench/validity/false_positives.py often [--stores 200] [--world samples prompts] [--jobs 2] [--out FOLDER]
    python bench/validity/false_positives.py cover [--stores 200] [--world samples prompts] [--jobs 2] [--out FOLDER]

Stores are drawn in which nothing tells bad hands from good ones (`null`; `often` draws sample means and asks the
difference of means only, so that thousands can be drawn), or one direction does (`cover`), and go through the functions
that analyze and probe use. Tokens of a sample are alike (ICC 0.3: that share of a channel's variance is the sample's),
and in some worlds samples of a prompt are too, and so are their labels. Results are printed and kept as CSV.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pandas as pd
from handscope.analysis import auc, benjamini_hochberg, bootstrap_auc, grouped_folds
from handscope.analysis.class_parts import CellSums
from handscope.analysis.comparison import Comparison
from handscope.analysis.directions import held_out_projections
from handscope.analysis.moments import Moments
from handscope.analysis.statistics.effects import auc_of_d
from handscope.analysis.statistics.folds import check_folds
from handscope.analysis.statistics.nulls import p_value, permuted_labels
from handscope.analysis.statistics.power import design_effect, power
from handscope.errors import HandscopeError
from handscope.probes import LogisticProbe, compare, cross_validate, held_out_scores
from scipy.stats import beta
from threadpoolctl import threadpool_limits

L2 = 100.0
FOLDS, TOKENS, ICC = 5, 80, 0.3


@dataclass(frozen=True)
class World:
    """Where stores are drawn from.

    Attributes
    ----------
    samples, width, bad : number of samples, width of the residual stream, share of bad samples
    prompts : number of prompts; None makes each sample its own
    prompt_share : share of the variance between samples that their prompts have
    label_icc : how much labels of one prompt are alike
    decay : channel k has standard deviation k ** -decay, in a basis of its own
    effect : distance of the class means in standard deviations of a channel, spread evenly over that basis
    cells : cells of a store, which share half the variance between samples
    """

    samples: int = 200
    width: int = 128
    bad: float = 0.5
    prompts: int | None = None
    prompt_share: float = 0.0
    label_icc: float = 0.0
    decay: float = 0.0
    effect: float = 0.0
    cells: int = 4


WORLDS = {
    "samples": World(),
    "prompts": World(prompts=40, prompt_share=0.5, label_icc=0.2, decay=0.5),
    "few": World(samples=120, width=64, bad=0.3, prompts=12, prompt_share=0.5, label_icc=0.2, decay=0.3),
    "wide": World(width=3072, decay=0.3, cells=2),
    "steep": World(decay=0.5),
}
EFFECTS = {"samples": (0.45, 0.8, 1.3), "prompts": (0.3, 0.7, 1.4), "few": (0.5, 0.9, 1.4), "steep": (1.7,)}


@dataclass(frozen=True)
class Store:
    """One draw: moments of each sample's tokens in each cell, labels, prompts, and the spread of the channels."""

    cells: list[Moments]
    y: np.ndarray
    groups: np.ndarray


def labels_of(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels and prompts of the samples."""
    if world.prompts is None:
        y = np.zeros(world.samples, int)
        y[rng.permutation(world.samples)[: round(world.samples * world.bad)]] = 1
        return y, np.arange(world.samples)
    groups = np.arange(world.samples) % world.prompts
    strength = 1 / world.label_icc - 1
    rate = rng.beta(world.bad * strength, (1 - world.bad) * strength, world.prompts)
    return (rng.random(world.samples) < rate[groups]).astype(int), groups


def sample_effects(world: World, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the tokens of a sample share, of shape (samples, width), with variance 1 in each channel."""
    own = rng.normal(size=(len(groups), world.width))
    prompt = rng.normal(size=(groups.max() + 1, world.width))[groups]
    return np.sqrt(1 - world.prompt_share) * own + np.sqrt(world.prompt_share) * prompt


def spread_of(world: World) -> np.ndarray:
    """Standard deviation of each channel, of root mean square 1."""
    spread = np.arange(1, world.width + 1) ** -world.decay
    return spread / np.sqrt(np.square(spread).mean())


def shift_of(world: World) -> np.ndarray:
    """How far the mean of bad samples is from that of good ones."""
    return np.full(world.width, world.effect / np.sqrt(world.width))


def draw(world: World, seed: int) -> Store:
    """A store, with folds that can be fitted to."""
    rng = np.random.default_rng([seed, 11])
    while True:
        y, groups = labels_of(world, rng)
        try:
            check_folds(y, grouped_folds(groups, FOLDS, seed))
            break
        except HandscopeError:  # analyze would refuse these labels too
            continue
    common = sample_effects(world, groups, rng)
    sample = np.repeat(np.arange(world.samples), TOKENS)
    cells = []
    for _ in range(world.cells):
        shared = np.sqrt(0.5) * common + np.sqrt(0.5) * sample_effects(world, groups, rng)
        tokens = rng.standard_normal((world.samples * TOKENS, world.width), np.float32) * np.float32(np.sqrt(1 - ICC))
        tokens += (np.sqrt(ICC) * shared)[sample].astype(np.float32)
        tokens *= spread_of(world).astype(np.float32)
        tokens += (y[:, None] * shift_of(world))[sample].astype(np.float32)
        cells.append(Moments.by(tokens, sample, world.samples))
    return Store(cells, y, groups)


def compared(store: Store, fold: np.ndarray, permutations: int, seed: int) -> Comparison:
    """The comparison of bad with good that analyze makes of a store."""
    every, y = np.arange(len(store.y)), store.y.astype(float)
    groups = np.stack([store.groups, every], 1)
    return Comparison(
        rows=every, y=y, groups=groups, fold=fold,
        labellings=permuted_labels(y, groups, permutations, seed, fold),
    )


def sums_of(moments: Moments) -> CellSums:
    """A cell as analyze reads it; no covariance is needed here."""
    return CellSums(moments, None, np.array([], int), np.array([], int))


# How often are the tests fooled?


def fooled(world: World, permutations: int, seed: int) -> list[dict]:
    """The p values of every test in every cell of one store that holds nothing to find."""
    store = draw(world, seed)
    y, groups = store.y, store.groups
    fold = grouped_folds(groups, FOLDS, seed)
    comparison = compared(store, fold, permutations, seed)
    # A baseline that knows something, to which no cell adds anything.
    known = y[:, None] * 0.7 + np.random.default_rng([seed, 12]).normal(size=(len(y), 4))
    before = held_out_scores(LogisticProbe(L2), known, y[None], fold)[0]
    rows = []
    for number, moments in enumerate(store.cells):
        x, sums = moments.mean, sums_of(moments)
        probe = cross_validate(LogisticProbe(L2), x, y, groups, permutations=permutations, seed=seed)
        after = held_out_scores(LogisticProbe(L2), np.hstack([known, x]), y[None], fold)[0]
        found = {
            "direction": comparison.direction(sums, seed)[0]["dom_p"],
            "distance": comparison.distance(sums, seed)[0]["db_p"],
            "classifier": comparison.classifier(sums, seed)[0]["c2st_p"],
            "probe": probe.p,
            "probe within prompts": probe.within_p,
            "gain over a baseline": compare(before, after, y, groups, fold).p,
        }
        rows += [{"store": seed, "cell": number, "test": name, "p": p} for name, p in found.items()]
    return rows


def false_positives(table: pd.DataFrame) -> pd.DataFrame:
    """Share of cells with p ≤ 0.05, and of stores with a cell of q ≤ 0.05, with 95% intervals.

    The interval of the first comes from drawing stores, since cells of a store are alike; Clopper and Pearson's is the
    second's.
    """
    table = table.dropna(subset=["p"])
    rows = []
    for (world, test), part in table.groupby(["world", "test"], sort=False):
        by_store = part.assign(hit=part["p"] <= 0.05).groupby("store")["hit"].mean().to_numpy()
        drawn = np.random.default_rng(0).choice(by_store, (4000, len(by_store))).mean(1)
        q = part.groupby("store")["p"].transform(lambda p: benjamini_hochberg(p))
        called = int((q <= 0.05).groupby(part["store"]).any().sum())
        rows.append({
            "world": world, "test": test, "stores": len(by_store), "cells": len(part), "rate": by_store.mean(),
            "lo": np.quantile(drawn, 0.025), "hi": np.quantile(drawn, 0.975), "called": called / len(by_store),
            **dict(zip(("called_lo", "called_hi"), clopper_pearson(called, len(by_store)), strict=True)),
        })
    return pd.DataFrame(rows)


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """The exact 95% interval of a share."""
    return (beta.ppf(0.025, k, n - k + 1) if k else 0.0, beta.ppf(0.975, k + 1, n - k) if k < n else 1.0)


# Do intervals cover, and is the power as predicted?


def direction(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of the difference of means, from good to bad."""
    return x[y == 1].mean(0) - x[y == 0].mean(0)


def logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of a probe."""
    return LogisticProbe(L2).fit(x, y).coef_


FITS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"direction": direction, "probe": logistic}


def covered(world: World, permutations: int, seed: int) -> list[dict]:
    """Held-out AUCs of one store with their intervals, and the AUC that its fits have on endless new samples."""
    store = draw(replace(world, cells=1), seed)
    y, groups = store.y, store.groups
    fold = grouped_folds(groups, FOLDS, seed)
    x = store.cells[0].mean
    found = compared(store, fold, permutations, seed).direction(sums_of(store.cells[0]), seed)[0]
    scores = held_out_projections(x, y[None].astype(float), fold)[0]
    probe = cross_validate(LogisticProbe(L2), x, y, groups, folds=FOLDS, permutations=permutations, seed=seed)
    columns = ("auc", "lo", "hi", "p", "null_sd")
    rows = []
    for name, score, values in (
        ("direction", scores, [found[f"dom_{column}"] for column in columns]),
        ("probe", probe.scores, [probe.auc, *probe.interval, probe.p, probe.null.std()]),
    ):
        row = {"store": seed, "test": name, **dict(zip(columns, values, strict=True))}
        row |= dict(zip(("lo_plain", "hi_plain"), bootstrap_auc(score, y, groups, fold, seed=seed), strict=True))
        row |= {"n_bad": int(y.sum()), "n_good": int((1 - y).sum())}
        rows.append(row | {"fitted": truth_of_fits(world, FITS[name], x, y, fold)})
    return rows


def truth_of_fits(world: World, fit: Callable, x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """AUC on endless new samples of the fits that the folds were scored by, each with its share of the pairs."""
    variance = (ICC + (1 - ICC) / TOKENS) * np.square(spread_of(world))
    values, pairs = [], []
    for one in np.unique(fold):
        w = fit(x[fold != one], y[fold != one])
        values.append(auc_of_d(w @ shift_of(world) / np.sqrt(np.square(w) @ variance)))
        pairs.append((y[fold == one] == 1).sum() * (y[fold == one] == 0).sum())
    return float(np.average(values, weights=pairs))


def means_of(world: World, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sample vectors, labels, prompts and folds of a store of one cell, as `draw` makes them, without any token."""
    rng = np.random.default_rng([seed, 13])
    while True:
        y, groups = labels_of(world, rng)
        fold = grouped_folds(groups, FOLDS, seed)
        try:
            check_folds(y, fold)
            break
        except HandscopeError:
            continue
    # A mean of tokens is normal with this variance.
    x = np.sqrt(ICC) * sample_effects(world, groups, rng)
    x += rng.normal(size=x.shape) * np.sqrt((1 - ICC) / TOKENS)
    return x * spread_of(world) + y[:, None] * shift_of(world), y, groups, fold


def fooled_often(world: World, permutations: int, seed: int) -> list[dict]:
    """The p value of the difference of means alone: so many stores can be drawn that the rate is known well."""
    x, y, groups, fold = means_of(world, seed)
    labels = np.concatenate([y[None], permuted_labels(y, groups, permutations, seed, fold)])
    values = auc(held_out_projections(x, labels, fold), labels, fold)
    return [{"store": seed, "cell": 0, "test": "direction", "p": p_value(values[0], values[1:])}]


def expected(world: World, seed: int) -> list[dict]:
    """Held-out AUCs of one store and nothing else: many of these give the AUC to be expected."""
    x, y, _, fold = means_of(world, seed)
    rows = []
    for name, fit in FITS.items():
        scores = np.empty(len(y))
        for one in np.unique(fold):
            scores[fold == one] = x[fold == one] @ fit(x[fold != one], y[fold != one])
        rows.append({"test": name, "auc": float(auc(scores, y, fold))})
    return rows


def coverage(table: pd.DataFrame, truths: pd.DataFrame) -> pd.DataFrame:
    """Share of intervals that hold the truth, and of stores with p ≤ 0.05 beside the power that was predicted."""
    rows = []
    for (world, effect, test), part in table.groupby(["world", "effect", "test"], sort=False):
        same = (truths["world"] == world) & (truths["effect"] == effect) & (truths["test"] == test)
        truth = truths.loc[same, "auc"].mean()
        row = {"world": world, "effect": effect, "test": test, "stores": len(part), "truth": truth,
               "sd": part["auc"].std(), "width": (part["hi"] - part["lo"]).mean()}
        for name, value, suffix in (
            ("expected", truth, ""), ("fitted", part["fitted"], ""), ("fitted_plain", part["fitted"], "_plain")
        ):
            held = int(((part[f"lo{suffix}"] <= value) & (value <= part[f"hi{suffix}"])).sum())
            row |= {f"cover_{name}": held / len(part)}
            row |= dict(zip((f"cover_{name}_lo", f"cover_{name}_hi"), clopper_pearson(held, len(part)), strict=True))
        hits = int((part["p"] <= 0.05).sum())
        design = design_effect(part["null_sd"], part["n_bad"], part["n_good"], FOLDS)
        row |= {"design": np.median(design), "power": hits / len(part)}
        row |= dict(zip(("power_lo", "power_hi"), clopper_pearson(hits, len(part)), strict=True))
        predicted = power(truth, part["n_bad"], part["n_good"], np.median(design), folds=FOLDS)
        row |= {"predicted": float(np.mean(predicted))}
        rows.append(row)
    return pd.DataFrame(rows)


# The command


@threadpool_limits.wrap(limits=1)  # a process a core gains more here than threads
def main() -> None:
    arguments = parsed()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Pool(arguments.jobs, threadpool_limits, (1,)) as pool:
        if arguments.what in ("null", "often"):
            test = fooled if arguments.what == "null" else fooled_often
            tables = []
            for name in arguments.world:
                one = partial(test, WORLDS[name], arguments.permutations)
                tables.append(table_of(pool, one, arguments.stores).assign(world=name))
            raw = pd.concat(tables)
            summary = false_positives(raw)
        else:
            tables, truths = [], []
            for name in arguments.world:
                for effect in EFFECTS[name]:
                    world, key = replace(WORLDS[name], effect=effect), {"world": name, "effect": effect}
                    made = partial(covered, world, arguments.permutations)
                    tables.append(table_of(pool, made, arguments.stores).assign(**key))
                    truths.append(table_of(pool, partial(expected, world), arguments.truth).assign(**key))
            raw = pd.concat(tables)
            summary = coverage(raw, pd.concat(truths))
    raw.to_csv(arguments.out / f"{arguments.what}_{'_'.join(arguments.world)}.csv", index=False)
    summary.to_csv(arguments.out / f"{arguments.what}_{'_'.join(arguments.world)}_summary.csv", index=False)
    print(summary.round(4).to_string(index=False))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("null", "often", "cover"))
    parser.add_argument("--world", nargs="+", choices=WORLDS, default=["samples", "prompts", "few"])
    parser.add_argument("--stores", type=int, default=200)
    parser.add_argument("--permutations", type=int, default=99)
    parser.add_argument("--truth", type=int, default=2000, help="stores whose mean AUC is the one to be expected")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/false_positives"))
    return parser.parse_args()


def table_of(pool, one: Callable[[int], list[dict]], stores: int) -> pd.DataFrame:
    """The rows of every store."""
    return pd.DataFrame([row for rows in pool.imap(one, range(stores)) for row in rows])


if __name__ == "__main__":
    main()
