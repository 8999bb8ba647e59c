"""The labelling page in a real Chromium: the next picture, the frames of a stroke, and a run of 10,000 pictures.

    python bench/speed/bench_labeling_page.py                1024 x 1024 pixels on 64 x 64 tokens, 10,000 samples
    python bench/speed/bench_labeling_page.py --samples 500 --repeats 10

The server is ``handscope label`` as a process of its own, the browser has no window and draws without a GPU. The next
picture is timed from the key to the frame after it was drawn, with the neighbour fetched ahead as the page does it, and
without. Frames are timed over a stroke that goes on while 50 strokes lie in the history, beside the same stroke with
the whole canvas drawn anew in every frame, in turn. Medians of the repeats, and the slowest twentieth.
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from handscope.run.folder import COLUMNS, Run, sample_id
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from labeling_browser import Desk, Server, Tab, chromium  # noqa: E402

NEXT = """async ([step, ahead]) => {
  const { app } = await import("/page/app.js");
  const target = app.items[app.index + step].sample;
  if (ahead) await app.samples.open(target);
  const begun = performance.now();
  await app.act("travel", step);
  if (app.doc.sample !== target) throw new Error("another picture is shown");
  const shown = performance.now();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [performance.now() - begun, shown - begun];
}"""
FRAMES = """async ([frames, whole]) => {
  const { app } = await import("/page/app.js");
  const { painter } = app;
  const { surface } = painter;
  const redraw = surface.redraw;
  if (whole) surface.redraw = () => redraw.call(surface);
  const gaps = [], work = [];
  const at = (i) => [32 + 28 * Math.sin(i / 9), 32 + 28 * Math.cos(i / 13)];
  let last = null;
  const next = () => new Promise(requestAnimationFrame);
  await next();
  painter.begin(at(0));
  for (let i = 1; i <= frames; i++) {
    const begun = performance.now();
    for (let j = 0; j < 4; j++) painter.strokeTo(at(i + j / 4));
    painter.hoverAt(at(i));
    const spent = performance.now() - begun;
    const now = await next();
    // This callback comes after the surface's own, so the work of the frame lies between its time stamp and now.
    work.push(spent + performance.now() - now);
    if (last !== null) gaps.push(now - last);
    last = now;
  }
  painter.finish();
  painter.undo();
  delete surface.redraw;
  return [gaps, work];
}"""


def make_run(folder: Path, samples: int, side: int) -> Run:
    """`samples` entries whose pictures are one of 8, linked, with about as much detail as a photograph."""
    run, rows = Run(folder), {}
    run.samples_dir.mkdir()
    pictures = []
    for i in range(8):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
        coarse = coarse.resize((side, side), Image.Resampling.BICUBIC)
        pixels = np.clip(np.asarray(coarse) + rng.normal(0, 3, (side, side, 3)), 0, 255).astype(np.uint8)
        path = folder / f"picture_{i}.png"
        Image.fromarray(pixels).save(path)
        pictures.append((path, hashlib.sha256(pixels.tobytes()).hexdigest()))
    for i in range(samples):
        prompt, seed = f"a hand, number {i // 20}", i % 20
        sample = sample_id(prompt, seed)
        path, digest = pictures[i % 8]
        os.link(path, run.image_path(sample))
        known = {"sample": sample, "prompt": prompt, "seed": seed, "file_name": f"{sample}.png", "height": side}
        known |= {"image_sha256": digest, "noise_sha256": "0", "width": side}
        rows[sample] = {column: known.get(column, 1) for column in COLUMNS}
    run.write_metadata(rows)
    return run


def summary(values: list[float]) -> str:
    late = sorted(values)[math.ceil(0.95 * (len(values) - 1))]
    return f"{statistics.median(values):8.1f} {late:8.1f} {max(values):8.1f}   n = {len(values)}"


def measure(server: Server, tab: Tab, repeats: int, frames: int) -> dict[str, list[float]]:
    """Milliseconds of each thing measured."""
    found: dict[str, list[float]] = {}

    def add(name: str, values: list[float]) -> None:
        found.setdefault(name, []).extend(values)

    for _ in range(repeats):
        add("next picture, fetched ahead", [tab.page.evaluate(NEXT, [1, True])[0]])
        add("next picture, not fetched ahead", [tab.page.evaluate(NEXT, [40, False])[0]])
    rng = np.random.default_rng(0)
    for _ in range(50):
        tab.drag(tuple(rng.uniform(5, 58, 2)), tuple(rng.uniform(5, 58, 2)))
    tab.status("saved")
    assert tab.ask("app.painter.history.place") == 50
    for _ in range(max(2, repeats // 5)):
        for name, whole in (("", False), (", all drawn anew", True)):
            gaps, work = tab.page.evaluate(FRAMES, [frames, whole])
            add(f"frame to frame{name}", gaps)
            add(f"work in a frame{name}", work)
            tab.status("saved")
    for _ in range(max(2, repeats // 5)):
        begun = time.perf_counter()
        tab.page.reload()
        tab.page.wait_for_selector("#classes button")
        while not tab.page.input_value("#number"):
            time.sleep(0.005)
        add("page opened to first picture", [1000 * (time.perf_counter() - begun)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=1024, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--frames", type=int, default=180)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        begun = time.perf_counter()
        server = Server(make_run(Path(folder) / "run", given.samples, given.side))
        print(f"{given.samples} pictures of {given.side} pixels, served after {time.perf_counter() - begun:.0f} s")
        try:
            desk = Desk(browser, server, "bench")
            found = measure(server, desk.tab(), given.repeats, given.frames)
            desk.close()
        finally:
            server.stop()
    print(f"{'milliseconds':36} {'median':>8} {'95th':>8} {'max':>8}")
    for name, values in found.items():
        print(f"{name:36} {summary(values)}")
    late = found["frame to frame"]
    print(f"frames later than 1/50 s: {sum(gap > 20 for gap in late)} of {len(late)}")
    if given.json:
        given.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
