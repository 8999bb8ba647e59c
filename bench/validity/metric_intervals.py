"""How often the 95% intervals of distances between pictures cover what they are of.

python bench/validity/metric_intervals.py

Features are made: prompts have means of their own (intraclass correlation 1/2), four pictures each, in 16 dimensions.
The reference has 400 rows and stays. What an interval is of is the mean of the statistic over as many new prompts.
"""

import numpy as np
from handscope.evaluation.metrics.frechet import frechet
from handscope.evaluation.metrics.kernels import kid, mmd

WIDTH, EACH, REPEATS = 16, 4, 300


def drawn(prompts: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and the prompt of each."""
    group = np.repeat(np.arange(prompts), EACH)
    return 0.3 + (random.normal(size=(prompts, WIDTH))[group] + random.normal(size=(len(group), WIDTH))) / 2**0.5, group


def main() -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(400, WIDTH))
    print(f"covered of {REPEATS}, by prompts; in brackets the mean half width over the standard deviation")
    for name, distance in (("kid", kid), ("mmd", mmd), ("frechet", frechet)):
        said = []
        for prompts in (6, 12, 40):
            found = [distance(*_sides(drawn(prompts, random), reference)) for _ in range(REPEATS)]
            values = np.array([one.value for one in found])
            covered = np.mean([one.lo <= values.mean() <= one.hi for one in found])
            half = np.mean([one.hi - one.lo for one in found]) / 2
            said.append(f"{prompts}: {covered:.0%} [{half / values.std():.2f}]")
        print(f"{name:8} {'   '.join(said)}", flush=True)


def _sides(some: tuple[np.ndarray, np.ndarray], reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return some[0], reference, some[1]


if __name__ == "__main__":
    main()
