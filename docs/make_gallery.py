"""Draw every public figure on real results, into docs/gallery and docs/gallery.md.

    python docs/make_gallery.py

The results are those in tests/figures/results, cut down from runs of the embedded organisms by
docs/make_gallery_results.py. The page shows the code that drew each picture: the same text is run.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from handscope import figures
from matplotlib.figure import Figure
from PIL import Image

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "tests" / "figures" / "results"
PAGE, FOLDER = DOCS / "gallery.md", DOCS / "gallery"
DPI = 110
ALIKE = {"text.hinting": "none"}
"""Letters as they are outlined: how they are fitted to pixels differs between versions of freetype."""


@dataclass(frozen=True)
class Plate:
    """A picture of the gallery.

    Attributes
    ----------
    name : str, of its file
    caption : str
    reads : str, where what it reads comes from
    code : str, which draws into `ax` and finds results below the folder `RUNS`
    size : inches
    panels : rows and columns of Axes, where the code draws into several, `panels`
    """

    name: str
    caption: str
    reads: str
    code: str
    size: tuple[float, float] = (6.0, 3.6)
    panels: tuple[int, int] | None = None


GRID, LINES, MATRIX = (6.4, 3.6), (6.4, 3.8), (6.0, 4.8)
PLATES = (
    Plate(
        "grid", "A number a cell; hatched and thin where chance is not excluded.", "`analysis/probes.csv` of `probe`",
        """
table = pd.read_csv(RUNS / "demo/probes.csv")
figures.grid(table, "within_auc", "within_q", ax, label="AUC within prompts")
""", GRID,
    ),
    Plate(
        "survey_map", "Many cells as colours alone; pale where chance is not excluded, the highest of the rest ringed.",
        "`analysis/pairs.csv` of a paired run's `analyze`; a survey's `analysis/survey.csv` is drawn alike",
        """
table = pd.read_csv(RUNS / "paired/pairs.csv")
figures.survey_map(table, "dz", "q", ax, label="difference of held-out pairs over its spread (d_z)")
""", GRID,
    ),
    Plate(
        "curves", "A block beside what needs no look inside; the grey band is permuted verdicts.",
        "`analysis/probes.csv` and `analysis/baselines.csv` of `probe`",
        """
probes, baselines = (pd.read_csv(RUNS / f"demo/{name}.csv") for name in ("probes", "baselines"))
probes, baselines = (table[table["subset"] == "sure"] for table in (probes, baselines))
block = probes.groupby("block")["within_auc"].mean().idxmax()
lines = {block: probes[probes["block"] == block]}
lines |= {name: baselines[baselines["baseline"] == name] for name in ("x0", "image", "position")}
figures.curves(lines, "within_", ax, band=[block])
ax.set_ylabel("AUC within prompts")
ax.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, 1.3))
""", LINES,
    ),
    Plate(
        "series", "Lines of any kind over steps: here the direction of two scopes of faults in one block.",
        "`analysis/contrasts.csv` of `analyze`",
        """
table = pd.read_csv(RUNS / "demo/contrasts.csv").dropna(subset=["dom_auc"])
table = table[table["block"] == table.groupby("block")["dom_auc"].mean().idxmax()]
figures.series({name: rows for name, rows in table.groupby("contrast")}, ax, prefix="dom_", value="auc")
ax.set_ylabel("held-out AUC")
ax.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, 1.14))
""", LINES,
    ),
    Plate(
        "forest", "What a block's probe adds to each baseline, step by step.", "`analysis/added.csv` of `probe`",
        """
table = pd.read_csv(RUNS / "demo/added.csv")
table = table[(table["block"] == "single.3") & table["baseline"].isin(["x0", "image"])]
figures.forest(table, ax)
""", (6.0, 4.6),
    ),
    Plate(
        "rates", "How often pictures are bad, by what their prompts state.",
        "`analysis/rates.csv`: `rates_by` of the verdicts, as in the report",
        """
table = pd.read_csv(RUNS / "demo/rates.csv")
figures.rates(table, np.average(table["rate"], weights=table["n"]), ax)
""", (6.4, 4.6),
    ),
    Plate(
        "cosines", "Whether cells have one direction: each from its own half of the prompts.",
        "`analysis/cosines.csv` of `analyze`",
        """
figures.cosines(pd.read_csv(RUNS / "demo/cosines.csv"), ax)
""", MATRIX,
    ),
    Plate(
        "transfer", "Whether the direction of one cell separates another.", "`analysis/transfer.csv` of `analyze`",
        """
figures.transfer(pd.read_csv(RUNS / "demo/transfer.csv"), ax)
""", MATRIX,
    ),
    Plate(
        "scatter", "Samples on a plane whose first axis is the direction, held out: bad ones filled, good ones open.",
        "`analysis/cells.safetensors` and `analysis/samples.csv` of `analyze`",
        """
xy, bad = np.load(RUNS / "demo/plane.npz")["xy"], np.load(RUNS / "demo/plane.npz")["bad"]
figures.scatter(xy, bad, ax)
figures.label_legend(ax, loc="upper left", bbox_to_anchor=(0, 0), ncols=2)
""", (4.2, 4.0),
    ),
    Plate(
        "reliability", "Whether a probe's probabilities mean what they say.", "`analysis/reliability.csv` of `probe`",
        """
table = pd.read_csv(RUNS / "demo/reliability.csv")
table = table[(table["block"] == "single.3") & (table["step"] == 4) & (table["log_odds"] == "platt")]
figures.reliability(table, ax)
""", (4.6, 4.6),
    ),
    Plate(
        "power_curve", "How many labelled samples it takes to see an AUC.",
        "computed: `handscope.analysis.statistics.power`",
        """
from handscope.analysis.statistics.power import power
counts = np.unique(np.geomspace(30, 3000, 40).round())
rows = [(auc, n, float(power(auc, 0.36 * n, 0.64 * n))) for auc in (0.55, 0.6, 0.65, 0.7) for n in counts]
figures.power_curve(pd.DataFrame(rows, columns=["auc", "n", "power"]), ax, at=[256])
""", LINES,
    ),
    Plate(
        "confusion", "A label of several values: what samples show, and what probes say.",
        "`analysis/value_confusion.csv` of `values`",
        """
table = pd.read_csv(RUNS / "demo/value_confusion.csv")
table = table[(table["block"] == "single.3") & (table["step"] == 14)]
figures.confusion(table, ["good", "between", "bad"], ax)
""", (4.8, 4.0),
    ),
    Plate(
        "decided_share", "When regions of the picture stop changing.", "`analysis/commitment.csv` of `commit`",
        """
from handscope.evaluation.decided import decided
table = pd.read_csv(RUNS / "demo/commitment.csv").fillna({"reason": ""})
table = table[table["tolerance"] == table["region"].map({"hand": 3, "outline": 3, "background": 5})]
figures.decided_share({name: decided(rows) for name, rows in table.groupby("region")}, 20, ax)
""", LINES,
    ),
    Plate(
        "effects", "How far apart two prompts are in every cell, at the same noises.",
        "`analysis/pairs.csv` of a paired run's `analyze`",
        """
table = pd.read_csv(RUNS / "paired/pairs.csv")
figures.effects(table, "dz", ax, label="Difference of held-out pairs over its spread (d_z)")
""", (7.2, 5.0),
    ),
    Plate(
        "following", "Which score follows what people said of pictures.", "`analysis/ratings.csv` of `ratings`",
        """
figures.following(pd.read_csv(RUNS / "demo/ratings.csv"), ax)
""", (6.4, 3.4),
    ),
    Plate(
        "depth_map", "One model by relative depth and noise level, for models beside each other.",
        "`cells.csv` of `compare`",
        """
table = pd.read_csv(RUNS / "comparison/cells.csv")
figures.depth_map(table[table["run"] == "organism"], ax)
""", (5.4, 3.8),
    ),
    Plate(
        "profiles", "Models over relative depth.", "`profiles.csv` of `compare`",
        """
table = pd.read_csv(RUNS / "comparison/profiles.csv")
table = table[table["over"] == "depth"].rename(columns={"at": "depth"})
figures.profiles({name: rows for name, rows in table.groupby("run", sort=False)}, ax)
ax.set_ylabel("AUC")
""", LINES,
    ),
    Plate(
        "block_matrix", "Blocks of two models: how alike their streams are, on shared noises.",
        "`streams.csv` of `compare`",
        """
table = pd.read_csv(RUNS / "comparison/streams.csv")
table = table.groupby(["block_a", "block_b"], sort=False).agg({"cka": "mean", "cka_p_family": "min"}).reset_index()
figures.block_matrix(table, "cka", ax, called="cka_p_family", label="CKA")
""", (5.4, 3.8),
    ),
    Plate(
        "replicated", "One finding in several models, and its mean.", "`each.csv` and `over.csv` of `replicate`",
        """
each, over = (pd.read_csv(RUNS / f"replication/{name}.csv") for name in ("each", "over"))
mine, mean = (table[table["quantity"] == "level"] for table in (each, over))
rows = pd.concat([mine, mean.assign(model="mean", value=mean["mean"])])
figures.replicated(rows[["model", "value", "lo", "hi"]], ax, null=0.5, label="AUC")
""", (6.0, 2.4),
    ),
    Plate(
        "arms_forest", "Arms of an evaluation beside the baseline.", "`contrasts.csv` of `evaluate`",
        """
table = pd.read_csv(RUNS / "evaluate/contrasts.csv")
table = table[(table["unit"] == "picture") & (table["measure"] == "implausible")]
figures.arms_forest(table, ax, baseline="plain", measure="implausible pictures")
""", (7.2, 3.6),
    ),
    Plate(
        "dose_response", "A rate over a number that was swept.", "`rates.csv` of `evaluate`",
        """
table = pd.read_csv(RUNS / "evaluate/rates.csv")
table = table[(table["unit"] == "picture") & (table["measure"] == "implausible")].set_index("arm")
rows = table.loc[[name for name in table.index if name.startswith("steps")]]
rows = rows.assign(series="steps", dose=[float(name.rpartition(" ")[2]) for name in rows.index])
figures.dose_response(rows, ax, dose="steps", reference=table["rate"]["plain"], label="implausible, %")
""", (5.4, 3.4),
    ),
    Plate(
        "rate_against_cost", "What each arm makes of the rate, over the calls that a good picture costs.",
        "`costs.csv` of `evaluate`",
        """
table = pd.read_csv(RUNS / "evaluate/costs.csv")
figures.rate_against_cost(table, ax, baseline="plain", label="implausible pictures, %")
""", (6.0, 3.6),
    ),
    Plate(
        "contact_sheet", "Pictures, their token labels outlined by verdict.", "`samples/` and `labels.sqlite` of a run",
        """
from handscope.labeling.database.annotation import Annotation
seen = np.load(RUNS / "demo/sheet.npz")
annotations = [
    Annotation(str(name), "", labels, instances, str(verdict))
    for name, labels, instances, verdict in zip(*(seen[key] for key in ("samples", "labels", "instances", "verdicts")))
]
figures.contact_sheet(list(seen["images"]), annotations, ax, columns=4, notes=[str(one) for one in seen["verdicts"]])
""", (5.6, 3.4),
    ),
    Plate(
        "filmstrip", "The predicted clean picture over steps, with the shape found in it; framed once it is decided.",
        "`trajectories/` of a run, as `commit` reads them",
        """
seen = np.load(RUNS / "demo/film.npz")
shapes = [shape[np.isfinite(shape).all(1)] for shape in seen["shapes"]]
figures.filmstrip(seen["pictures"], shapes, seen["steps"].tolist(), ax, decided=int(seen["decided"]))
""", (8.0, 1.6),
    ),
    Plate(
        "watch_strip", "A probe's value on every token while a picture is drawn; with `score_limit`.",
        "`handscope.probes.watch`: `.x0`, `.scores`, `.steps`, `.blocks`",
        """
seen = np.load(RUNS / "demo/watch.npz")
limit = figures.score_limit(seen["scores"])
figures.watch_strip(seen["x0"], seen["scores"], seen["steps"].tolist(), seen["blocks"].tolist(), ax, limit=limit)
""", (8.0, 3.6),
    ),
    Plate(
        "watch_frame", "One step of it, a frame of the animation.", "as `watch_strip`",
        """
seen = np.load(RUNS / "demo/watch.npz")
titles = [f"step {seen['steps'][3]}", *seen["blocks"].tolist()]
limit = figures.score_limit(seen["scores"])
figures.watch_frame(seen["x0"][3], seen["scores"][:, 3], titles, panels, limit=limit)
""", (6.4, 2.4), (1, 3),
    ),
    Plate(
        "mosaic", "What each block would draw if the model stopped there.",
        "`analysis/lens.safetensors` of `lens`",
        """
seen = np.load(RUNS / "demo/lens.npz")
figures.mosaic(seen["pictures"], seen["blocks"].tolist(), [str(step) for step in seen["steps"]], ax)
""", (3.2, 5.2),
    ),
)  # fmt: skip


def drawn(plate: Plate, results: Path = RESULTS) -> Figure:
    """The figure of a plate, from the results in a folder."""
    with mpl.rc_context(figures.STYLE | ALIKE):
        figure = figures.figure(*plate.size)
        axes = figure.subplots(*(plate.panels or (1, 1)), squeeze=False).ravel()
        names = {"RUNS": results, "pd": pd, "np": np, "figures": figures, "ax": axes[0], "panels": axes}
        exec(compile(plate.code, f"<{plate.name}>", "exec"), names)
    return figure


def picture(figure: Figure) -> Image.Image:
    """A figure as it stands in the gallery."""
    with mpl.rc_context(figures.STYLE | ALIKE), BytesIO() as file:
        figure.savefig(file, dpi=DPI, format="png")
        return Image.open(file).convert("RGB")


def page() -> str:
    """The text of the page."""
    parts = [
        "# Gallery\n\nEvery figure function, on small results of the embedded organisms: they show figures and are no "
        "findings.\n`python docs/make_gallery.py` draws them all from the tables in tests/figures/results, which\n"
        "`python docs/make_gallery_results.py` makes from runs. `RUNS` is a folder of runs, and `ax` an Axes; most "
        "functions\nmake one of their own when they get none.\n"
    ]
    for plate in PLATES:
        names = sorted({name for name in dir(figures) if f"figures.{name}(" in plate.code})
        parts.append(f"## {', '.join(f'`{name}`' for name in names)}\n\n{plate.caption} Reads {plate.reads}.\n")
        shown = f"![{plate.caption}](gallery/{plate.name}.webp)"
        parts.append(f"{shown}\n\n<!-- not run: drawn by its own test -->\n```python\n{plate.code.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for plate in PLATES:
        picture(drawn(plate)).save(FOLDER / f"{plate.name}.webp", lossless=True, method=6)
    PAGE.write_text(page(), encoding="utf-8")
