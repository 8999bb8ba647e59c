"""Reading hands on one CPU thread: hands a second of the two networks, and of LiteRT where its files are.

    python bench/speed/bench_anatomy_networks.py                     batch 1 and 16, full and lite, medians of 7
    python bench/speed/bench_anatomy_networks.py --gradient          and with a backward pass to the picture
    python bench/speed/bench_anatomy_networks.py --tflite FOLDER   and LiteRT's (XNNPACK), from mediapipe's tflite files

A row is a batch of the project's renders, 256 pixels, one hand each: "palms" is letterbox, palm network and its
decoding, "landmarks" cropping, landmark network and projection, "detect" all of it with search="plain". The rows take
turns; processor seconds, so that another program on the machine costs little.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from handscope.anatomy.read.detect import detect, read
from handscope.anatomy.read.networks import load_landmarks, load_palm
from handscope.anatomy.read.palm import find_palms
from handscope.organism.render import render_dataset

TFLITE = {
    "palms": {"full": "palm_detection_full.tflite", "lite": "palm_detection_lite.tflite"},
    "landmarks": {"full": "hand_landmark_full.tflite", "lite": "hand_landmark_lite.tflite"},
}


def rows(batches: list[int], gradient: bool, tflite: Path | None) -> dict[str, tuple[int, Callable[[], object]]]:
    """What is timed: a name, how many hands it reads, and the call."""
    drawn = render_dataset(64, seed=7, size=256).images.float() / 255
    # Pictures in which a hand is found, so that every row reads as many hands as it says.
    seen = detect(drawn, search="plain", max_hands=1)
    pictures, region = drawn[seen.image], seen.region
    timed: dict[str, tuple[int, Callable[[], object]]] = {}
    for size in ("full", "lite"):
        palm, landmarks = load_palm(size), load_landmarks(size)
        for n in batches:
            images, where = pictures[:n], region[:n]
            timed[f"palms, {size}, batch {n}"] = n, without_gradient(find_palms, list(images), palm)
            timed[f"landmarks, {size}, batch {n}"] = n, without_gradient(read, images, where, landmarks)
            timed[f"detect, {size}, batch {n}"] = n, without_gradient(detect, images, networks=size, search="plain")
            if gradient:
                timed[f"landmarks and gradient, {size}, batch {n}"] = n, backward(images, where, landmarks)
    for part, files in TFLITE.items() if tflite else ():
        for size, file in files.items():
            (path,) = tflite.rglob(file)
            timed[f"{part}, {size}, LiteRT's network alone, batch 1"] = 1, litert(path)
    return timed


def without_gradient(call: Callable, *arguments, **options) -> Callable[[], object]:
    def timed() -> object:
        with torch.no_grad():
            return call(*arguments, **options)

    return timed


def backward(images, region, network) -> Callable[[], object]:
    def timed() -> object:
        moved = images.clone().requires_grad_()
        hands = read(moved, region, network)
        return torch.autograd.grad(hands.world.square().sum() + hands.presence.sum(), moved)

    return timed


def litert(path: Path) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (wanted,) = interpreter.get_input_details()
    interpreter.set_tensor(wanted["index"], torch.rand(tuple(wanted["shape"])).numpy())
    return interpreter.invoke


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--gradient", action="store_true")
    parser.add_argument("--tflite", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timed = rows(arguments.batches, arguments.gradient, arguments.tflite)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(arguments.repeats + 1):
        for name, (_, call) in timed.items():
            start = time.process_time()
            call()
            if repeat:  # the first is for warming up
                seconds[name].append(time.process_time() - start)
    print(f"{'':50} {'ms a hand':>10} {'hands/s':>8}")
    for name, (n, _) in timed.items():
        each = statistics.median(seconds[name]) / n
        print(f"{name:50} {1000 * each:10.1f} {1 / each:8.1f}")


if __name__ == "__main__":
    main()
