"""Finding the hands of pictures beside mediapipe's own: milliseconds a picture, and where handscope's go.

    python bench/speed/bench_anatomy_mediapipe.py PICTURES... [--repeats 5]

Needs mediapipe 0.10.21 in an environment beside this one. Both get pictures that are read already, at most 1,280 pixels
a side, one after the other, and both look for two hands with the full networks: `detect` with search="plain", and
mp.solutions.hands with static_image_mode. They take turns; processor seconds of all threads, and wall-clock seconds.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.networks import LANDMARK_INPUT, PALM_INPUT, load_landmarks, load_palm
from handscope.anatomy.read.palm import find_palms, whole
from handscope.anatomy.read.pictures import Picture, find_pictures, read_picture
from handscope.anatomy.read.regions import crop

LONGEST = 1280


def mediapipe() -> Callable[[torch.Tensor], int]:
    """From a picture (3, h, w) to how many hands mediapipe finds."""
    import mediapipe

    hands = mediapipe.solutions.hands.Hands(static_image_mode=True, max_num_hands=2, model_complexity=1)

    def find(image: torch.Tensor) -> int:
        pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        return len(hands.process(pixels).multi_hand_landmarks or [])

    return find


def parts(image: torch.Tensor) -> dict[str, Callable[[], object]]:
    """What a picture with one hand costs, each to be timed alone."""
    palm, landmarks = load_palm(), load_landmarks()
    square = whole(image)[None]
    region = detect([image], search="plain", max_hands=1).region
    seen, hand = crop([image], square, PALM_INPUT), crop([image], region, LANDMARK_INPUT)
    timed: dict[str, Callable[[], object]] = {
        "cut out the square for the palm network": lambda: crop([image], square, PALM_INPUT),
        "palm network": lambda: palm(seen),
        "palms, all of it": lambda: find_palms([image], palm),
    }
    if len(region):
        timed["cut out a hand"] = lambda: crop([image], region, LANDMARK_INPUT)
        timed["landmark network"] = lambda: landmarks(hand)
    timed["detect, all of it"] = lambda: detect([image], search="plain", max_hands=1)
    return timed


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall-clock milliseconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return 1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most", type=int, default=40, help="pictures at most, spread evenly")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = find_pictures(options.pictures).pictures
    read = [read_picture(path) for path in paths[:: max(1, len(paths) // options.most)][: options.most]]
    images = [smaller(one.tensor()) for one in read if isinstance(one, Picture)]
    theirs = mediapipe()
    with torch.inference_mode():
        times: dict[str, list[tuple[float, float]]] = defaultdict(list)
        found: dict[str, int] = defaultdict(int)
        for image in images:
            for turn in range(options.repeats + 1):
                both = {
                    "handscope": lambda image=image: len(detect([image], search="plain")),
                    "mediapipe": lambda image=image: theirs(image),
                }
                for name, work in both.items():
                    took = clocked(work)
                    if turn:  # the first is for warming up
                        times[name].append(took)
            for name, work in both.items():
                found[name] += work()
        print(f"{len(images)} pictures, medians of {options.repeats} of each\n\n| | hands | processor ms | wall ms |")
        print("|---|---|---|---|")
        for name, took in times.items():
            cpu, wall = (statistics.median(column) for column in zip(*took, strict=True))
            print(f"| {name} | {found[name]} | {cpu:.1f} | {wall:.1f} |")
        print("\n| part of handscope's | processor ms |\n|---|---|")
        of_part: dict[str, list[float]] = defaultdict(list)
        for image in images[:: max(1, len(images) // 10)]:
            for name, work in parts(image).items():
                work()
                of_part[name] += [clocked(work)[0] for _ in range(options.repeats)]
        for name, took in of_part.items():
            print(f"| {name} | {statistics.median(took):.1f} |")


def smaller(image: torch.Tensor) -> torch.Tensor:
    scale = LONGEST / max(image.shape[1:])
    if scale >= 1:
        return image
    return torch.nn.functional.interpolate(image[None], scale_factor=scale, mode="bilinear", antialias=True)[0]


if __name__ == "__main__":
    main()
