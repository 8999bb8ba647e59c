"""Draw the pictures of docs/concepts: one from a finished run of the demo, the others from noise and from formulas.

    python docs/make_pictures.py runs/demo
"""

import argparse
import re
from pathlib import Path

import handscope as hs
import numpy as np
import pandas as pd
from handscope import figures
from handscope.analysis import difference_of_means
from handscope.analysis.statistics.power import power
from handscope.evaluation.commitment import predicted_pictures
from matplotlib import rc_context

HERE = Path(__file__).parent
PLACE = HERE / "concepts"
SEEN = [20, 18, 14, 10, 6, 3, 1]


def cells(run: hs.Run) -> None:
    """What the model predicts at some steps of one sample, above what a direction tells in every cell."""
    table = pd.read_csv(run.analysis_dir / "cells.csv")
    sample = next(iter(run.metadata()))
    model = hs.load("organism")
    pictures = predicted_pictures(model, run.trajectory(sample), model.height, model.width)
    steps = len(pictures)
    with rc_context(figures.STYLE):
        drawn = figures.figure(8.0, 4.8)
        above, below = drawn.subplots(2, 1, height_ratios=[1.1, 3])
        figures.filmstrip(pictures[[steps - step for step in SEEN]], [np.empty((0, 2))] * len(SEEN), SEEN, above)
        above.set_title("One generation: the clean picture predicted at each step")
        figures.grid(table, "dom_auc", "dom_q", ax=below, label="held-out AUC of a direction")
        save(drawn, "cells")


def held_out() -> None:
    """Noise alone, 3,072 channels: two directions judged on the samples they were fitted to, and on others."""
    generator = np.random.default_rng(0)
    x, bad = generator.normal(size=(400, 3072)), np.arange(400) % 2
    fitted, other = slice(0, 200), slice(200, 400)
    direction = difference_of_means(x[fitted][bad[fitted] == 0], x[fitted][bad[fitted] == 1])
    across = generator.normal(size=3072)
    with rc_context(figures.STYLE):
        drawn = figures.figure(7.0, 3.2)
        for ax, part, title in zip(drawn.subplots(1, 2), (fitted, other), ("fitted to these samples", "other samples")):
            xy = np.stack([x[part] @ direction / np.linalg.norm(direction), x[part] @ across / 55], 1)
            figures.scatter(xy, bad[part], ax)
            ax.set_title(title)
        figures.label_legend(ax, loc="lower right")
        save(drawn, "held_out")


def noise() -> None:
    """The table of docs/statistics.md on noises that prompts share, as intervals."""
    text = (HERE / "statistics.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| single.3 with its places, step")]
    rows = [line.replace("*", "").strip("| ").split(" | ") for line in lines]
    read = re.compile(r"(\.\d\d) \((\.\d\d)–(\.\d\d)\)")
    names = ("shared noises, held out by prompt", "held out by prompt and noise", "own noises, held out by prompt")
    measured = {}
    for name, column in zip(names, (1, 3, 4)):
        values = [(int(row[0].split()[-1]), *map(float, read.match(row[column]).groups())) for row in rows]
        measured[name] = pd.DataFrame(values, columns=["step", "auc", "lo", "hi"]).assign(q=0.0)
    with rc_context(figures.STYLE):
        drawn = figures.figure(6.0, 3.2)
        ax = figures.series(measured, drawn.subplots())
        ax.set_ylim(0.35, 1.12)
        ax.set_ylabel("AUC within prompts")
        ax.legend(loc="upper center", ncols=1, fontsize=7)
        save(drawn, "noise")


def nulls() -> None:
    """How many samples it takes to see an AUC."""
    sizes = np.unique(np.geomspace(20, 2000, 40).astype(int) // 2 * 2)
    table = pd.concat(
        pd.DataFrame({"auc": auc, "n": sizes, "power": power(auc, sizes // 2, sizes // 2)}) for auc in (0.55, 0.6, 0.7)
    )
    with rc_context(figures.STYLE):
        drawn = figures.figure(6.0, 3.2)
        figures.power_curve(table, drawn.subplots())
        save(drawn, "nulls")


def save(drawn, name: str) -> None:
    PLACE.mkdir(exist_ok=True)
    drawn.savefig(PLACE / f"{name}.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a finished run of datasets/demo.yaml")
    run = hs.Run(parser.parse_args().run)
    for draw in (held_out, noise, nulls):
        draw()
    cells(run)
