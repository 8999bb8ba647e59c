"""How often the paired and the crossed analysis are right: ``python bench/validity/designs.py [--data 300]``.

Paired: pairs of normal vectors, of which the second member is shifted along one axis, or not; with several prompt pairs
a shift of each one's own is added. Counted are p <= 0.05 and how often an interval holds the mean of its estimates over
all data sets, which is what an analysis of so many pairs gives on average.

Crossed: labels with parts of the prompt and of the noise, a tenth of them missing, features with parts of both too, one
of which follows what the label follows, or none.
"""

import argparse

import numpy as np
from handscope.analysis.crossed import CrossedComparison
from handscope.analysis.paired import PairedComparison

PAIRED = (
    (8, 30, 0.0, 1, 0.0), (12, 30, 0.0, 1, 0.0), (32, 30, 0.0, 1, 0.0), (32, 300, 0.0, 1, 0.0), (64, 30, 0.0, 8, 0.7),
    (8, 30, 2.0, 1, 0.0), (12, 30, 2.0, 1, 0.0), (32, 30, 1.0, 1, 0.0), (32, 30, 2.0, 1, 0.0), (32, 30, 4.0, 1, 0.0),
    (32, 300, 2.0, 1, 0.0), (64, 30, 2.0, 8, 0.7), (64, 30, 2.0, 32, 0.7),
)  # fmt: skip
"""Pairs, width, shift, prompt pairs, and the standard deviation of a prompt pair's own shift."""


def paired(pairs: int, width: int, shift: float, prompts: int, between: float, data: int) -> str:
    """One line on simulated paired data."""
    rng, of = np.random.default_rng(0), np.arange(pairs) % prompts
    comparison = PairedComparison.of(of, flips=999)
    rows = []
    for _ in range(data):
        first = 2 * rng.normal(size=(pairs, width))
        second = first + rng.normal(size=(pairs, width)) + between * rng.normal(size=(prompts, width))[of]
        second[:, 0] += shift
        found = comparison.effect(first, second)
        estimates = (
            (found.mean, found.mean_interval), (found.dz, found.dz_interval),
            (found.within_auc, found.within_interval), (found.auc, found.interval),
        )  # fmt: skip
        rows.append([found.p, *(number for value, ends in estimates for number in (value, *ends))])
    table = np.array(rows)
    said = [f"p <= .05 in {(table[:, 0] <= 0.05).mean():5.1%}"]
    for place, name in ((1, "mean"), (4, "d_z"), (7, "within"), (10, "auc")):
        truth = table[:, place].mean()
        held = (table[:, place + 1] <= truth) & (truth <= table[:, place + 2])
        said.append(f"{name} {truth:5.2f} held {held.mean():5.1%}")
    return f"{pairs:3} pairs, width {width:3}, shift {shift:g}, {prompts:2} prompt pairs: {', '.join(said)}"


CROSSED = ((12, 12, 0.0), (8, 30, 0.0), (20, 10, 0.0), (12, 12, 0.5), (20, 20, 0.5), (20, 20, 1.0))
"""Prompts, noises, and how much one feature follows what the label follows."""


def crossed(prompts: int, noises: int, signal: float, data: int) -> str:
    """One line on simulated crossed data."""
    rng, rows = np.random.default_rng(0), []
    prompt, noise = (one.ravel() for one in np.indices((prompts, noises)))
    n = len(prompt)
    for seed in range(data):
        latent = 0.5 * rng.normal(size=prompts)[prompt] + rng.normal(size=noises)[noise] + rng.normal(size=n)
        y = np.where(rng.random(n) < 0.1, np.nan, latent > np.quantile(latent, 0.6))
        x = rng.normal(size=(n, 20)) + rng.normal(size=(prompts, 20))[prompt] + rng.normal(size=(noises, 20))[noise]
        x[:, 0] += signal * latent
        found = CrossedComparison.of(y, prompt, noise, 99, seed=seed, draws=200).score(x)
        estimates = ((found.auc, found.interval), (found.within_auc, found.within_interval))
        rows.append([found.p, found.within_p, *(number for value, ends in estimates for number in (value, *ends))])
    table = np.array(rows)
    said = [f"p <= .05 in {(table[:, place] <= 0.05).mean():5.1%} {name}" for place, name in ((0, ""), (1, "within"))]
    for place, name in ((2, "auc"), (5, "within")):
        truth = np.nanmean(table[:, place])
        held = (table[:, place + 1] <= truth) & (truth <= table[:, place + 2])
        said.append(f"{name} {truth:.2f} held {held.mean():5.1%}")
    return f"{prompts:2} prompts at {noises:2} noises, signal {signal:g}: {', '.join(said)}"


def main(data: int) -> None:
    for case in PAIRED:
        print(paired(*case, data), flush=True)
    for case in CROSSED:
        print(crossed(*case, data), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=300, help="data sets a case (default 300)")
    main(parser.parse_args().data)
