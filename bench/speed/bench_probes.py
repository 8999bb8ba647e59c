"""A 5-fold grouped logistic probe over 8 penalties: all 40 fits at once, against scikit-learn's one by one.

    python bench/speed/bench_probes.py [--tokens 16000] [--width 3072] [--repeats 3] [--spectrum 1.0] [--threads 1]

scikit-learn has the features standardised in float32 once a fold (timed, as handscope's own standardising is), its
quickest solver for this shape (lbfgs), a warm start from the next larger penalty, and for each fit the loosest
tolerance of 1e-4 to 1e-8 that comes within 1e-6 of handscope's objective; only that fit's time counts. CPU seconds of
one thread, so that neighbours on the machine count little; or wall seconds of several threads, the same for both. The
floor is what 40 fits cost at its matrix rate if each took `FLOOR_ROUNDS` rounds of two products.
"""

import argparse
import resource
import statistics
import time

import numpy as np
from handscope.probes.linear import even_weights
from handscope.probes.nested import GRID
from handscope.probes.solver import logistic
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

FOLDS, SAMPLES, ICC, FLOOR_ROUNDS = 5, 200, 0.3, 10
TOLERANCE = 1e-6  # that of the fits behind every cross-validation
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def planted(tokens: int, width: int, spectrum: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens (float32), labels and samples: variances falling as a power, a part of them shared within a sample, one
    massive channel, and a faint difference between the classes along the 200 largest axes.
    """
    rng = np.random.default_rng(seed)
    sample = np.repeat(np.arange(SAMPLES), tokens // SAMPLES)
    y = (sample % 2).astype(float)
    turn = np.linalg.qr(rng.normal(size=(width, width)).astype(np.float32))[0]
    z = rng.normal(size=(len(sample), width)).astype(np.float32) * np.float32(np.sqrt(1 - ICC))
    z += (np.sqrt(ICC) * rng.normal(size=(SAMPLES, width))).astype(np.float32)[sample]
    z[:, :200] += 0.2 * y[:, None].astype(np.float32)
    z *= np.arange(1, width + 1, dtype=np.float32) ** np.float32(-spectrum / 2)
    x = z @ turn
    x *= rng.lognormal(size=width).astype(np.float32)
    x[:, 7] = 3000 + 1000 * x[:, 7]
    return x, y, sample


def objective(z: np.ndarray, y: np.ndarray, a: np.ndarray, l2: float, w: np.ndarray, b: float) -> float:
    """At weights of the standardised features `z`, with sums in float64."""
    margin = (2 * y - 1) * ((z @ w.astype(np.float32)).astype(np.float64) + b)
    return float((a * np.logaddexp(0, -margin)).sum() + l2 / 2 * np.square(w).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16000)
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--spectrum", type=float, default=1.0, help="variances fall as rank to this power; 0 is white")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    now = time.process_time if options.threads == 1 else time.perf_counter
    x, y, sample = planted(options.tokens, options.width, options.spectrum)
    train = np.stack([sample % FOLDS != k for k in range(FOLDS)])
    weights = train * even_weights(sample)
    grid = np.sort(GRID)[::-1]
    l2, design = np.tile(grid, FOLDS), np.repeat(np.arange(FOLDS), len(grid))
    with threadpool_limits(limits=options.threads):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ours = []
        for _ in range(options.repeats):
            begin = now()
            w, b = logistic(x, np.broadcast_to(y, (len(l2), len(y))), weights, l2, design, TOLERANCE)
            ours.append(now() - begin)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"handscope: {[round(s, 2) for s in ours]} s; peak {peak / 2**20:.2f} GB, {before / 2**20:.2f} before it")
        theirs = np.zeros((options.repeats, FOLDS, len(grid)))
        worst = 0.0
        for fold in range(FOLDS):
            rows = train[fold]
            part, label, a = x[rows], y[rows], weights[fold, rows]
            begin = now()
            mean, scale = part.mean(0, dtype=np.float64), part.std(0, dtype=np.float64)
            part -= mean.astype(np.float32)
            part /= scale.astype(np.float32)
            theirs[:, fold, 0] = now() - begin
            start: LogisticRegression | None = None
            for place, one in enumerate(grid):
                k = fold * len(grid) + place
                mine = objective(part, label, a, one, w[k] * scale, b[k] + w[k] @ mean)
                for tolerance in TOLERANCES:
                    times = []
                    for _ in range(options.repeats):
                        fit = LogisticRegression(C=1 / one, tol=tolerance, max_iter=5000, warm_start=True)
                        if start is not None:
                            fit.classes_, fit.coef_, fit.intercept_ = start.classes_, start.coef_, start.intercept_
                        begin = now()
                        fit.fit(part, label, a)
                        times.append(now() - begin)
                    found = objective(part, label, a, one, fit.coef_[0].astype(np.float64), float(fit.intercept_[0]))
                    if found <= mine * (1 + 1e-6):
                        break
                theirs[:, fold, place] += times
                worst = max(worst, mine / found - 1)
                start = fit
                if fold == 0:
                    print(
                        f"  l2 {one:g}: objective {mine:.9g}, scikit-learn {found / mine - 1:+.1e} in "
                        f"{fit.n_iter_[0]} iterations at tolerance {tolerance:g}, {statistics.median(times):.2f} s"
                    )
        a = np.ones((1024, 2048), np.float32)
        rate = 0.0
        for _ in range(5):
            begin = time.perf_counter()
            a @ a.T
            rate = max(rate, 2 * 1024 * 2048 * 1024 / (time.perf_counter() - begin))
    mine_s, theirs_s = statistics.median(ours), statistics.median(theirs.sum((1, 2)).tolist())
    floor = FLOOR_ROUNDS * 4 * len(l2) * train.mean() * x.size / rate
    print(
        f"{len(l2)} fits of {options.tokens} x {options.width}: {mine_s:.2f} s, scikit-learn {theirs_s:.2f} s, "
        f"ratio {theirs_s / mine_s:.1f}; largest excess of handscope's objective {worst:.1e}; "
        f"{mine_s / floor:.1f} times the floor of {floor:.2f} s at {rate / 1e9:.0f} GFLOP/s"
    )


if __name__ == "__main__":
    main()
