"""All statistics of an evaluation of 100,000 scored instances and 20 arms, beside scipy's odds ratio of one table.

    python bench/speed/bench_evaluation.py [--instances 100000] [--arms 20] [--repeats 3]

Prints medians over repeats, in CPU seconds of one thread. scipy makes a distribution anew for each number that its odds
ratio tries; `conditional_odds` has the table's own numbers at hand.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from handscope.analysis.statistics.two_rates import conditional_odds
from handscope.evaluation.evaluate import Plan, compare
from handscope.evaluation.recipe import Recipe
from handscope.evaluation.scored import COLUMNS, Scored
from scipy.stats import fisher_exact
from scipy.stats.contingency import odds_ratio

KINDS = ("count", "joint", "proportion", "fused", "missing", "other")


def scored(instances: int, arms: int, prompts: int, seed: int = 0) -> Scored:
    """Arms of as many pictures, half of which have two instances and a twentieth none; half of the arms are pairs."""
    random = np.random.default_rng(seed)
    each = round(instances / arms / 1.45)
    of_each = np.arange(each) % prompts
    hard = random.beta(2, 5, prompts)
    pictures, rows = [], []
    for arm in range(arms):
        names = [f"{prompt:08x}-{number:05d}" for number, prompt in enumerate(of_each)]
        noise = [f"F {name}" for name in names] if arm % 2 == 0 else [f"F {arm} {name}" for name in names]
        said = {"arm": f"arm {arm}", "sample": names, "prompt": of_each.astype(str), "noise": noise}
        pictures.append(pd.DataFrame({**said, "asked": True, "path": names}))
        found = random.choice([0, 1, 2], p=[0.05, 0.45, 0.5], size=each)
        place = np.repeat(np.arange(each), np.maximum(found, 1))
        number = np.concatenate([np.arange(1, n + 1) if n else [0] for n in found])
        bad = random.random(len(place)) < hard[of_each[place]]
        outcome = np.where(number == 0, "undetected", np.where(bad, "implausible", "plausible"))
        outcome = np.where((number > 0) & (random.random(len(place)) < 0.05), "cannot tell", outcome)
        fault = np.where(outcome == "implausible", random.choice(KINDS, len(place)), "")
        seen = {"arm": f"arm {arm}", "sample": np.array(names)[place], "instance": number, "outcome": outcome}
        rows.append(pd.DataFrame({**seen, "faults": fault, "score": random.random(len(place))}))
    errors = random.multinomial(8, [0.2, 0.1, 0.05, 0.65], size=40).astype(float)
    return Scored(pd.concat(rows)[list(COLUMNS)], pd.concat(pictures, ignore_index=True), "made", errors)


def median(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--arms", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    made = scored(asked.instances, asked.arms, asked.prompts)
    names = list(dict.fromkeys(made.pictures["arm"]))
    controls = {names[2]: names[-2:]}
    arms = {name: Recipe(name=name, model="organism", controls=controls.get(name, ())) for name in names}
    plan = Plan(Path("nowhere"), [("a", 0)], arms, {}, names[0])
    print(f"{len(made.instances):,} rows, {asked.arms} arms, {asked.prompts} prompts")
    print(f"all statistics      {median(lambda: compare(plan, made), asked.repeats):8.2f} s")
    table = [[1500, 3500], [1700, 3300]]
    ours = median(lambda: conditional_odds(table), 5 * asked.repeats)
    theirs = median(lambda: (odds_ratio(table).confidence_interval(), fisher_exact(table)), asked.repeats)
    print(f"odds of one table   {ours:8.4f} s, scipy {theirs:.2f} s: {theirs / ours:.0f} times as fast")


if __name__ == "__main__":
    main()
