"""How often the paired and the crossed analysis are right: ``python bench/validity/designs.py [--data 300]``.

Paired: pairs of normal vectors, of which the second member is shifted along one axis, or not; with several prompt pairs
a shift of each one's own is added. Counted are p <= 0.05 and how often an interval holds the mean of its estimates over
all data sets, which is what an analysis of so many pairs gives on average.
"""

import argparse

import numpy as np
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


def main(data: int) -> None:
    for case in PAIRED:
        print(paired(*case, data), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=300, help="data sets a case (default 300)")
    main(parser.parse_args().data)
