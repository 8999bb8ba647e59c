"""One cell of activations the fast way and the plain way: seconds, peak memory, and how far from the floor.

    python bench/speed/bench_cell.py                        16,000 tokens of width 3,072, 40 alphas, 1,000 permutations
    python bench/speed/bench_cell.py --tokens 2000 --width 512 --repeats 1
    python bench/speed/bench_cell.py --against contrastive  the sweep alone, beside the PyPI package

The plain way is what a careful user of numpy, scipy and scikit-learn writes: the cell as one float32 array, np.cov,
scikit-learn's PCA, scipy's eigh for the leading eigenvectors alone, a loop over labellings. Where it takes minutes, a
part of it is measured and scaled, and the line says so. Both ways run in processes of their own, in turn, and their
results are compared. The package is measured twice: as it comes (channels standardised, a randomised PCA to 1,000, so
that its subspaces at large alphas are its own), and, one alpha scaled to all, without that reduction, where both ways
have the same subspaces.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

PARTS = ("read", "moments", "direction", "plane", "PCA", "contrastive PCA", "distance", "permutations", "bootstrap")
ROWS = 4096
BOOTSTRAPS = 500


def write_cell(path: Path, tokens: int, width: int, samples: int, seed: int = 0) -> None:
    """Tokens as they come in images: alike within a sample, with a decaying spectrum, half the samples bad."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(width, width)).astype(np.float32))[0]
    spectrum = np.sqrt(1 / np.arange(1, width + 1) + 0.02).astype(np.float32)
    with h5py.File(path, "w") as file:
        bits = file.create_dataset("x", (tokens, width), np.uint16)
        sample = np.arange(tokens) * samples // tokens
        file["sample"], file["bad"] = sample, np.arange(samples) % 2
        for one in range(samples):
            rows = np.flatnonzero(sample == one)
            z = np.sqrt(0.3) * rng.normal(size=(1, width)) + np.sqrt(0.7) * rng.normal(size=(len(rows), width))
            if one % 2:
                z *= 1 + 0.15 * np.sin(np.arange(width) / 7)
                z[:, 5] += 1
            x = (z.astype(np.float32) * spectrum) @ turn
            bits[rows[0] : rows[-1] + 1] = (x.view(np.uint32) >> 16).astype(np.uint16)


def as_float(bits: np.ndarray) -> np.ndarray:
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


class Clock:
    """Wall seconds of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, part: str, work: Callable[[], Any], scale: float = 1.0) -> Any:
        begin = time.perf_counter()
        result = work()
        self.seconds[part] = self.seconds.get(part, 0.0) + scale * (time.perf_counter() - begin)
        return result


def fast(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    from handscope.analysis import PCA, bhattacharyya_test, contrastive_sweep, difference_of_means, plane
    from handscope.analysis.scatter import stream_moments

    with h5py.File(options.cell) as file:
        sample, bad = file["sample"][:], file["bad"][:]

        def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(sample), ROWS):
                x = clock("read", lambda start=start: as_float(file["x"][start : start + ROWS]))
                yield x, np.arange(start, start + len(x))

        moments, scatter = clock("moments", lambda: stream_moments(chunks(), sample, len(bad), bad[sample]))
    clock.seconds["moments"] -= clock.seconds["read"]
    direction = clock("direction", lambda: difference_of_means(scatter[0], scatter[1]))
    axes = clock("plane", lambda: plane(scatter[0], scatter[1]).axes)
    components = clock("PCA", lambda: PCA(2).fit_scatter(scatter[0] + scatter[1]).components_)
    alphas = np.logspace(-1, 3, options.alphas)
    sweep = clock("contrastive PCA", lambda: contrastive_sweep(scatter[1], scatter[0], alphas))
    groups = np.arange(len(bad))
    test = clock("distance", lambda: bhattacharyya_test(moments, bad, groups, options.permutations, BOOTSTRAPS))
    return {
        "direction": direction, "plane": axes, "pca": components, "cpca": sweep.components[1:], "gap": sweep.gap[1:],
        "distance": test.observed.distance, "null": test.null.mean(), "excess": test.excess,
    }  # fmt: skip


def plain(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    from scipy.linalg import eigh
    from sklearn.decomposition import PCA

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        m1, m2, v1, v2 = first.mean(0), second.mean(0), first.var(0), second.var(0)
        return float((np.square(m1 - m2) / (v1 + v2) / 4 + np.log((v1 + v2) / (2 * np.sqrt(v1 * v2))) / 2).sum())

    with h5py.File(options.cell) as file:
        sample, bad = file["sample"][:], file["bad"][:]
        x = clock("read", lambda: as_float(file["x"][:]))
    of_bad = bad[sample] == 1
    means = clock("moments", lambda: [(x[of_bad == one].mean(0), x[of_bad == one].var(0)) for one in (False, True)])
    direction = means[0][0] - means[1][0]

    def second_axis() -> np.ndarray:
        unit = direction / np.linalg.norm(direction)
        rest = x - x.mean(0)
        rest -= np.outer(rest @ unit, unit)
        return np.stack([unit, PCA(1, random_state=0).fit(rest).components_[0]])

    axes = clock("plane", second_axis)
    components = clock("PCA", lambda: PCA(2, random_state=0).fit(x).components_)
    pair = clock("contrastive PCA", lambda: [np.cov(x[of_bad == one], rowvar=False) for one in (True, False)])
    alphas = np.logspace(-1, 3, options.alphas)
    measured = np.linspace(0, options.alphas - 1, min(options.plain_alphas, options.alphas)).round().astype(int)
    width = x.shape[1]
    found = [
        clock(
            "contrastive PCA",
            lambda alpha=alpha: eigh(pair[0] - alpha * pair[1], subset_by_index=[width - 2, width - 1])[1].T,
            options.alphas / len(measured),
        )
        for alpha in alphas[measured]
    ]
    pair.clear()
    observed = clock("distance", lambda: distance(x[~of_bad], x[of_bad]))
    rng = np.random.default_rng(0)

    def permuted() -> float:
        mask = rng.permutation(bad)[sample] == 1
        return distance(x[~mask], x[mask])

    rows_of = [np.flatnonzero(sample == one) for one in range(len(bad))]

    def drawn() -> float:
        rows = np.concatenate([rows_of[one] for one in rng.integers(0, len(bad), len(bad))])
        resampled = x[rows]
        return distance(resampled[~of_bad[rows]], resampled[of_bad[rows]])

    draws = options.plain_draws
    null = [clock("permutations", permuted, options.permutations / draws) for _ in range(draws)]
    for _ in range(draws):
        clock("bootstrap", drawn, BOOTSTRAPS / draws)
    return {
        "direction": direction, "plane": axes, "pca": components, "cpca": np.stack(found), "measured": measured,
        "distance": observed, "null": np.mean(null),
    }  # fmt: skip


def two_sets(options: argparse.Namespace, clock: Clock) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(options.cell) as file:
        of_bad = file["bad"][:][file["sample"][:]] == 1
        x = clock("read", lambda: as_float(file["x"][:]))
    return x[of_bad], x[~of_bad]


def sweep(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    from handscope.analysis import Scatter, contrastive_sweep

    foreground, background = two_sets(options, clock)
    settings: dict[str, Any] = {"standardise": True, "reduce": None if options.full else options.reduce}
    scatters = clock("fit", lambda: [Scatter.of(part) for part in (foreground, background)])
    found = clock("alphas", lambda: contrastive_sweep(*scatters, np.logspace(-1, 3, options.alphas), **settings))
    flat = found.components.reshape(-1, foreground.shape[1]).T / found.scale[:, None]
    spans = ((foreground - found.mean) @ flat).reshape(len(foreground), -1, 2)
    return {"spans": spans.transpose(1, 0, 2), "chosen": found.chosen, "gap": found.gap / found.contrast[:, 0]}


def package(options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    from contrastive import CPCA

    foreground, background = two_sets(options, clock)
    model = CPCA()
    clock("fit", lambda: model.fit(foreground, background, foreground.shape[1] if options.full else options.reduce))
    if options.full:
        alpha = np.logspace(-1, 3, options.alphas)[options.alphas // 4]
        one = clock("alphas", lambda: model.cpca_alpha(model.fg, alpha), options.alphas + 1)
        return {"spans": one[None], "numbers": [options.alphas // 4 + 1]}
    chosen = clock("alphas", lambda: model.find_spectral_alphas(options.alphas, 3, 4)[0])
    spans = [model.cpca_alpha(model.fg, alpha) for alpha in [0, *np.logspace(-1, 3, options.alphas)]]
    return {"spans": np.stack(spans), "chosen": np.concatenate([[0], chosen]), "numbers": range(len(spans))}


WAYS = {"fast": fast, "plain": plain, "sweep": sweep, "package": package}


def child(options: argparse.Namespace) -> None:
    """Run one way in this process; leave its arrays in a file and print its seconds and peak."""
    clock = Clock()
    found = WAYS[options.way](options, clock)
    np.savez(options.out, **{name: np.asarray(value) for name, value in found.items()})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": clock.seconds, "peak": peak}))


def run(way: str, folder: Path, arguments: list[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    out = folder / f"{way}.npz"
    command = [sys.executable, __file__, *arguments, "--way", way, "--cell", str(folder / "cell.h5"), "--out", str(out)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    with np.load(out) as arrays:
        return json.loads(said), dict(arrays)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """Sine of the largest angle between the spans of two sets of columns."""
    q, r = np.linalg.qr(first)[0], np.linalg.qr(second)[0]
    return float(np.linalg.norm(q - r @ (r.T @ q), 2))


def rates(width: int) -> dict[str, float]:
    """What this machine does at best, in this process: GFLOP/s of products and of Cholesky, GB/s of reading memory."""
    from scipy.linalg import cholesky

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2048, width)).astype(np.float32)
    matrix = (x.T @ x).astype(np.float64) + width * np.eye(width)
    block = np.zeros(2**27, np.float32)
    return {
        "float32": 2 * 2048 * width**2 / best(lambda: x.T @ np.flip(x, 1)) / 1e9,
        "cholesky": width**3 / 3 / best(lambda: cholesky(matrix, lower=True, check_finite=False)) / 1e9,
        "memory": block.nbytes / best(lambda: block.sum()) / 1e9,
    }


def best(work: Callable[[], Any], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def against_plain(options: argparse.Namespace, folder: Path, arguments: list[str]) -> None:
    said: dict[str, list[dict[str, Any]]] = {"fast": [], "plain": []}
    for _ in range(options.repeats):
        for way in said:
            told, found = run(way, folder, arguments)
            said[way].append(told)
            if way == "fast":
                ours = found
            else:
                theirs = found
    medians = {
        way: {
            part: statistics.median(told["seconds"].get(part, 0.0) for told in all_told) for part in PARTS
        } for way, all_told in said.items()
    }  # fmt: skip
    print(f"{'seconds, medians':<18}{'plain':>9}{'fast':>9}{'ratio':>8}")
    for part in PARTS:
        old, new = medians["plain"][part], medians["fast"][part]
        if part in ("permutations", "bootstrap"):
            print(f"{part:<18}{old:>9.2f}{'':>9}        (fast: in distance)")
        else:
            print(f"{part:<18}{old:>9.2f}{new:>9.2f}{old / max(new, 1e-4):>8.1f}")
    totals = {way: statistics.median(sum(told["seconds"].values()) for told in said[way]) for way in said}
    ratios = [
        sum(one["seconds"].values()) / sum(other["seconds"].values())
        for one, other in zip(said["plain"], said["fast"], strict=True)
    ]
    print(f"{'all':<18}{totals['plain']:>9.2f}{totals['fast']:>9.2f}{statistics.median(ratios):>8.1f}   target 8")
    print(
        f"plain: {min(options.plain_alphas, options.alphas)} of {options.alphas} alphas, {options.plain_draws} of "
        f"{options.permutations} permutations and of {BOOTSTRAPS} bootstrap draws were measured, and scaled"
    )
    for way, target in (("plain", ""), ("fast", ", target 700")):
        print(f"peak of the {way} process: {max(told['peak'] for told in said[way]):.0f} MB{target}")
    machine = rates(options.width)
    gram = 2 * options.tokens * options.width**2 / 1e9 / machine["float32"]
    factors = (options.alphas - 1) * options.width**3 / 3 / 1e9 / machine["cholesky"]
    reading = options.tokens * options.width * 2 / 1e9 / machine["memory"]
    print(
        f"floor: {reading:.2f} s to read the cell at {machine['memory']:.0f} GB/s, {gram:.2f} s for the covariances at "
        f"{machine['float32']:.0f} GFLOP/s float32, {factors:.2f} s for the factorisations at "
        f"{machine['cholesky']:.0f} GFLOP/s float64, {gram + factors + reading:.2f} s in all"
    )
    clear = [
        apart(ours["cpca"][number].T, rows.T)
        for number, rows in zip(theirs["measured"], theirs["cpca"], strict=True)
    ]  # fmt: skip
    print(
        f"agreement: direction {apart(ours['direction'][:, None], theirs['direction'][:, None]):.1e}, plane "
        f"{apart(ours['plane'].T, theirs['plane'].T):.1e}, PCA {apart(ours['pca'].T, theirs['pca'].T):.1e}, "
        f"contrastive PCA {max(clear):.1e} (gaps from {(ours['gap'][theirs['measured']]).min():.2g}), distance "
        f"{abs(float(ours['distance'] / theirs['distance']) - 1):.1e}, null mean {float(ours['null']):.3f} and "
        f"{float(theirs['null']):.3f}"
    )


def against_contrastive(options: argparse.Namespace, folder: Path, arguments: list[str]) -> None:
    for full in (False, True):
        more = [*arguments, *(["--full"] if full else [])]
        ratios, totals, itself = [], [], []
        package_found: dict[str, np.ndarray] = {}
        for _ in range(options.repeats):
            before = package_found.get("spans", [])
            theirs, package_found = run("package", folder, more)
            itself += [apart(old, new) for old, new in zip(before, package_found["spans"])]
            ours, sweep_found = run("sweep", folder, more)
            pair = [told["seconds"]["fit"] + told["seconds"]["alphas"] for told in (theirs, ours)]
            totals.append(pair)
            ratios.append(pair[0] / pair[1])
        width = f"no reduction, 1 of {options.alphas + 1} alphas measured and scaled" if full else (
            f"as it comes, reduced to {options.reduce}"
        )  # fmt: skip
        angles = [
            apart(sweep_found["spans"][number], span)
            for number, span in zip(package_found["numbers"], package_found["spans"], strict=True)
        ]
        print(
            f"{width}: contrastive {statistics.median(t[0] for t in totals):.1f} s ({theirs['seconds']['fit']:.1f} to "
            f"fit), sweep {statistics.median(t[1] for t in totals):.1f} s ({ours['seconds']['fit']:.1f} to fit), ratio "
            f"{statistics.median(ratios):.1f}, target 10; peaks {theirs['peak']:.0f} and {ours['peak']:.0f} MB; "
            f"subspaces apart by {np.median(angles):.1e} (median), {max(angles):.1e} (largest)"
        )
        if not full:
            if itself:
                print(
                    "  the package differs from itself, run again, by "
                    f"{np.median(itself):.1e} (median), {max(itself):.1e} (largest): its reduction is randomised"
                )
            print(f"  chosen: contrastive {package_found['chosen'].round(2)}, sweep {sweep_found['chosen'].round(2)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=("plain", "contrastive"), default="plain")
    parser.add_argument("--tokens", type=int, default=16_000)
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--alphas", type=int, default=40)
    parser.add_argument("--reduce", type=int, default=1000, help="components that the package keeps")
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-alphas", type=int, default=5, help="alphas that the plain way measures")
    parser.add_argument("--plain-draws", type=int, default=10, help="permutations and draws that it measures")
    for hidden in ("--way", "--cell", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        child(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_cell(Path(folder) / "cell.h5", options.tokens, options.width, options.samples)
        threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
        print(f"{options.tokens} tokens of width {options.width}, {options.samples} samples, {threads} threads")
        compare = against_plain if options.against == "plain" else against_contrastive
        compare(options, Path(folder), sys.argv[1:])


if __name__ == "__main__":
    main()
