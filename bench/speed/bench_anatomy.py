"""How many hands a second the plausibility score takes in: 16 pictures at once, one thread, no gradients.

    python bench/speed/bench_anatomy.py [--repeats 7] [--side 256]

The whole score, from pictures to verdicts with reasons: renders with one hand each, in which the plain pass finds one
(those in which it does not are looked at up to 30 times more, which is timed apart). Full and lite networks take turns;
medians of wall-clock seconds, and beside them where the time goes. What the lite networks cost: how far verdicts,
probabilities and angles differ from those of the full ones.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from handscope.anatomy.judge.scoring import judge, score
from handscope.anatomy.measure.count import count_fingers, count_region
from handscope.anatomy.measure.evidence import evidence
from handscope.anatomy.measure.examine import CROP, examine
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.regions import crop
from handscope.organism.render import render_dataset
from threadpoolctl import threadpool_limits

BATCH = 16


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def parts(images: torch.Tensor, networks: str) -> dict[str, Callable[[], object]]:
    """The score and its parts, each to be timed alone."""
    hands = detect(images, networks=networks, search="plain")
    read = examine(images, networks=networks, search="plain")
    crops = crop(images, count_region(hands.region), CROP, hands.image)
    return {
        "the whole score": lambda: score(images, networks=networks, search="plain"),
        "finding hands and landmarks": lambda: detect(images, networks=networks, search="plain"),
        "evidence from landmarks and silhouette": lambda: evidence(images, hands),
        "counting fingers": lambda: count_fingers(crops),
        "verdict and reasons": lambda: judge(read, "calibrated"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--side", type=int, default=256, help="pixels of the pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = render_dataset(64, 990_001, options.side).images.float() / 255
    with threadpool_limits(limits=1), torch.no_grad():
        found = {n: set(detect(pictures, networks=n, search="plain").image.tolist()) for n in ("full", "lite")}
        both = sorted(found["full"] & found["lite"])[:BATCH]
        images = pictures[both]
        work = {networks: parts(images, networks) for networks in ("full", "lite")}
        for of_one in work.values():
            of_one["the whole score"]()  # loads the weights
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.repeats):
            for name in work["full"]:
                for networks in ("full", "lite"):
                    times.setdefault((name, networks), []).append(seconds(work[networks][name]))
        hands = {networks: len(detect(images, networks=networks, search="plain")) for networks in work}
        print(f"{len(images)} pictures of {options.side} pixels, medians of {options.repeats}\n")
        print("| | full, hands/s | lite, hands/s | full, ms a hand | lite, ms a hand |\n|---|---|---|---|---|")
        for name in work["full"]:
            full, lite = (statistics.median(times[name, networks]) / hands[networks] for networks in ("full", "lite"))
            print(f"| {name} | {1 / full:.1f} | {1 / lite:.1f} | {1000 * full:.1f} | {1000 * lite:.1f} |")
        missed = pictures[sorted(set(range(64)) - found["full"])[:4]]
        if len(missed):
            slow = seconds(lambda: detect(missed)) / len(missed)
            print(f"\nA picture in which the plain pass finds nothing: {1000 * slow:.0f} ms with the thorough search.")
        differences(pictures[sorted(found["full"] & found["lite"])])


def differences(images: torch.Tensor) -> None:
    """What reading with the lite networks changes."""
    full, lite = (score(images, networks=networks, search="plain", max_hands=1) for networks in ("full", "lite"))
    p, q = (np.array([verdict.score for verdict in one.verdicts]) for one in (full, lite))
    verdicts = [[verdict.plausible for verdict in one.verdicts] for one in (full, lite)]
    angles = (full.examined.angles - lite.examined.angles).abs()
    same = np.mean(np.array(verdicts[0]) == np.array(verdicts[1]))
    print(
        f"\nLite against full on {len(images)} renders: the same verdict on {same:.0%}; probabilities differ by "
        f"{np.median(abs(p - q)):.3f} in the median ({np.quantile(abs(p - q), 0.95):.3f} at the 95th percentile), "
        f"angles by {float(angles.median()):.1f}° ({float(angles.quantile(0.95)):.1f}°)."
    )


if __name__ == "__main__":
    main()
