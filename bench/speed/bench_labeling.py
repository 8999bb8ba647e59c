"""The labelling server on a run of many samples: how long it takes to open, to show the next picture, to store strokes.

    python bench/speed/bench_labeling.py [--samples 10000] [--strokes 100] [--repeats 5] [--folder FOLDER]

The real command in a process of its own, asked over loopback by clients in this one. Pictures are 1024 x 1024, of a
token grid of 64 x 64; every sample has the same one, by links: noise as large as a generated picture. The run is
opened without labels, and with two annotators' labels on every sample. Strokes are whole grids, as the page sends them;
one and four annotators take turns, and so do 4 kB written and flushed to the same disk (fsync).
"""

import argparse
import base64
import hashlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
from handscope.labeling.database.labels import Annotation, Labels
from handscope.run.folder import COLUMNS, Run
from PIL import Image

SIDE, GRID = 1024, 64


def make_run(folder: Path, n: int) -> Run:
    """A run of `n` samples that share one picture."""
    run = Run(folder)
    run.samples_dir.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (SIDE // 2, SIDE // 2, 3), np.uint8)
    pixels = np.kron(coarse, np.ones((2, 2, 1), np.uint8))
    Image.fromarray(pixels).save(folder / "picture.png")
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    rows = {}
    for i in range(n):
        sample = f"{i // 10:08x}-{i % 10:05d}"
        os.link(folder / "picture.png", run.image_path(sample))
        known = {"sample": sample, "prompt": f"a photo of a hand, number {i // 10}", "seed": i % 10, "height": SIDE}
        known |= {"file_name": f"{sample}.png", "image_sha256": digest, "noise_sha256": "0", "width": SIDE}
        rows[sample] = {column: known.get(column, 1) for column in COLUMNS}
    run.write_metadata(rows)
    return run


def label_all(run: Run) -> None:
    """Two annotators' labels on every sample."""
    hands = np.zeros((GRID, GRID), np.uint8)
    hands[20:40, 20:40] = 1
    annotations = [
        Annotation(sample, row["image_sha256"], np.where(hands, 2, 1), hands, "good", author=name, source="hand")
        for sample, row in run.metadata().items()
        for name in ("Ann", "Bob")
    ]
    Labels(run.labels_path).add(annotations)


@contextmanager
def served(run: Run) -> Iterator[tuple[str, str, float]]:
    """The address and token of the command, and the seconds from its start until it could be asked."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "handscope", "label", str(run.path), "--port", "0", "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = None
        while found is None:
            said = server.stdout.readline()
            assert said, "the server ended"
            found = re.search(r"(http://\S+)/\?token=(\S+)", said)
        yield found[1], found[2], time.perf_counter() - started
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def browser(address: str, token: str, name: str) -> httpx.Client:
    """A client with both cookies."""
    client = httpx.Client(base_url=address, timeout=60)
    client.get("/", params={"token": token})
    client.post("/api/annotator", json={"name": name})
    return client


def timed(client: httpx.Client, path: str) -> float:
    """Seconds of one request, the answer read."""
    started = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - started


def opened(run: Run) -> dict[str, float]:
    """Seconds of each step of opening a run."""
    with served(run) as (address, token, seconds):
        client = browser(address, token, "Ann")
        found = {"command to address": seconds, "session": timed(client, "/api/session")}
        found["queue"] = timed(client, "/api/queue")
        found["in all"] = sum(found.values())
        return found | {
            "queue again": timed(client, "/api/queue"),
            "queue of a rating": timed(client, "/api/queue?mode=rate"),
            "progress": timed(client, "/api/progress"),
        }


def shown(client: httpx.Client, names: list[str]) -> tuple[list[float], list[float]]:
    """Seconds to get each of some samples with its picture: for the first time, and again."""
    paths = [(f"/api/samples/{name}", f"/api/samples/{name}/image") for name in names]
    first, again = ([timed(client, sample) + timed(client, image) for sample, image in paths] for _ in range(2))
    return first, again


def painted(address: str, token: str, names: list[str], annotators: int, strokes: int, turn: int) -> list[float]:
    """Seconds of every stroke, of so many annotators at once."""

    def paint(number: int) -> list[float]:
        random, name, seconds = np.random.default_rng(number), f"painter {number}", []
        with closing(browser(address, token, name)) as client:
            sample = client.get(f"/api/samples/{names[turn]}").json()
            base = sample["revision"]
            for i in range(strokes):
                grid = np.sort(random.integers(1, 3, (GRID, GRID)).astype(np.uint8), 1)
                body = {
                    "uid": f"stroke-{annotators}-{turn}-{number}-{i}",
                    "annotator": name,
                    "image_sha256": sample["image_sha256"],
                    "base": base,
                    "labels": base64.b64encode(grid.tobytes()).decode(),
                    "instances": base64.b64encode((grid == 2).tobytes()).decode(),
                    "faults": {},
                    "verdict": None,
                    "done": False,
                    "seconds": 1.0,
                }
                started = time.perf_counter()
                answer = client.post(f"/api/samples/{names[turn]}/strokes", json=body)
                seconds.append(time.perf_counter() - started)
                assert answer.status_code == 201, answer.text
                base = answer.json()["revision"]
        return seconds

    with ThreadPoolExecutor(annotators) as pool:
        return [seconds for each in pool.map(paint, range(annotators)) for seconds in each]


def flushed(folder: Path, n: int) -> list[float]:
    """Seconds to append a page to a file and flush it, `n` times: what the disk asks for a durable write."""
    seconds = []
    with open(folder / "flushed", "ab", 0) as file:
        for _ in range(n):
            started = time.perf_counter()
            file.write(os.urandom(4096))
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return seconds


def line(name: str, seconds: list[float]) -> None:
    """A line of the table, in milliseconds."""
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    figures = (statistics.median(ordered), late, ordered[-1])
    print(f"{name:44s}", *(f"{1000 * figure:9.1f}" for figure in figures), flush=True)


def main() -> None:
    """Print medians, 95th percentiles and worst cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--strokes", type=int, default=100, help="of each annotator in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on which disk (default: that of temporary files)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        runs = {name: make_run(Path(folder) / name, given.samples) for name in ("no labels", "two annotators")}
        label_all(runs["two annotators"])
        steps: dict[str, dict[str, list[float]]] = {name: {} for name in runs}
        for _ in range(given.repeats):
            for name, run in runs.items():
                for step, seconds in opened(run).items():
                    steps[name].setdefault(step, []).append(seconds)
        print(f"{given.samples} samples of {SIDE} x {SIDE} pixels; milliseconds    median       95%     worst")
        for name, found in steps.items():
            for step, seconds in found.items():
                line(f"{name}: {step}", seconds)
        run = runs["two annotators"]
        with served(run) as (address, token, _):
            names = list(run.metadata())
            with closing(browser(address, token, "Ann")) as client:
                first, again = shown(client, names[:: max(1, len(names) // 100)])
            line("next picture, first time (its hash checked)", first)
            line("next picture again", again)
            strokes: dict[int, list[float]] = {1: [], 4: []}
            disk: list[float] = []
            for turn in range(given.repeats):
                for annotators in strokes:
                    strokes[annotators] += painted(address, token, names, annotators, given.strokes, turn)
                disk += flushed(Path(folder), given.strokes)
        for annotators, seconds in strokes.items():
            line(f"a stroke, {annotators} at once", seconds)
        line("4 kB appended and flushed, alone", disk)


if __name__ == "__main__":
    main()
