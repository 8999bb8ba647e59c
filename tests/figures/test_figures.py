"""Figures draw what they are given, can be read in a column of a paper, and are written in three formats."""

import inspect

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from handscope import figures
from handscope.analysis.statistics.power import power
from handscope.errors import HandscopeError
from handscope.figures.style import SMALLEST
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

BLOCKS, STEPS = ("double.0", "double.1", "single.0", "single.3"), (20, 18, 15, 12, 8, 3)
FLUX = [f"double.{i}" for i in range(19)] + [f"single.{i}" for i in range(38)]
NOTE = "Fitted to means over hand tokens: a single token is not what the probe was fitted to or judged on."


def cells(blocks=BLOCKS, steps=STEPS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame([{"block": block, "step": step} for block in blocks for step in steps])
    table["auc"] = 0.5 + 0.3 * rng.random(len(table)) * (1 - table["step"] / 22)
    return table.assign(q=np.where(table["auc"] > 0.58, 0.01, 0.4))


def line(gain: float) -> pd.DataFrame:
    table = pd.DataFrame({"step": STEPS, "null_mean": 0.5, "null_sd": 0.03})
    table["auc"] = 0.5 + gain * (1 - table["step"] / 22)
    return table.assign(lo=table["auc"] - 0.06, hi=table["auc"] + 0.06, q=np.where(table["auc"] > 0.58, 0.01, 0.3))


def pairs(value: str) -> pd.DataFrame:
    rows = [(a, s, b, t, 0.5 + 0.3 * (a == b)) for a in BLOCKS for s in STEPS for b in BLOCKS for t in STEPS]
    return pd.DataFrame(rows, columns=["block_a", "step_a", "block_b", "step_b", value])


def gains() -> pd.DataFrame:
    rows = [(name, step, 0.03, -0.02, 0.09, q) for name in ("x0", "image") for step, q in ((20, 0.4), (3, 0.01))]
    return pd.DataFrame(rows, columns=["baseline", "step", "added", "lo", "hi", "q"])


def shares() -> pd.DataFrame:
    rows = [("side", "left", 0.2, 0.1, 0.3, 8), ("side", "right", 0.3, 0.2, 0.4, 8), ("view", "palm", 0.5, 0.4, 0.6, 9)]
    return pd.DataFrame(rows, columns=["factor", "level", "rate", "lo", "hi", "n"])


def bins() -> pd.DataFrame:
    at = np.linspace(0.05, 0.95, 8)
    return pd.DataFrame({"predicted": at, "observed": at, "lo": at - 0.05, "hi": at + 0.05, "n": range(10, 90, 10)})


def chances() -> pd.DataFrame:
    rows = [(auc, n, float(power(auc, n / 2, n / 2))) for auc in (0.55, 0.6, 0.7) for n in (30, 100, 300, 1000, 3000)]
    return pd.DataFrame(rows, columns=["auc", "n", "power"])


def followed():
    rows = [("clip-score", 0.1, 0.4), ("classifier of landmark", 0.42, 0.001), ("kid witness", -0.3, 0.9)]
    made = [{"metric": name, "n": 480, "tau": tau, "within": tau / 2, "p_family": p} for name, tau, p in rows]
    table = pd.DataFrame(made)
    for name, half in (("tau", 0.1), ("within", 0.15)):
        table[f"{name}_lo"], table[f"{name}_hi"] = table[name] - half, table[name] + half
    return table


def strip(ax):
    rng = np.random.default_rng(0)
    x0, scores = rng.integers(0, 255, (5, 24, 24, 3), dtype=np.uint8), rng.normal(size=(2, 5, 3, 3))
    return figures.watch_strip(x0, scores, (20, 15, 10, 5, 1), BLOCKS[:2], ax, limit=2, note=NOTE)


def clouds(ax):
    xy = np.random.default_rng(0).normal(size=(60, 2))
    return figures.label_legend(figures.scatter(xy, np.arange(60) % 2, ax, note="α = 2.1"), loc="lower left")


def with_legend(ax):
    ax.legend()
    return ax


def places() -> pd.DataFrame:
    table = cells()
    depth = {block: (place + 1) / len(BLOCKS) for place, block in enumerate(BLOCKS)}
    return table.assign(depth=table["block"].map(depth), sigma=table["step"] / 20, called=table["q"] <= 0.05)


def profile(gain: float) -> pd.DataFrame:
    depth = np.linspace(0.1, 1, 8)
    table = pd.DataFrame({"depth": depth, "value": 0.5 + gain * depth})
    return table.assign(lo=table["value"] - 0.05, hi=table["value"] + 0.05)


def two_blocks() -> pd.DataFrame:
    rows = [(a, b, 0.3 + 0.5 * (a == b), 0.01 if a == b else 0.3) for a in BLOCKS for b in (*BLOCKS, "single.4")]
    return pd.DataFrame(rows, columns=["block_a", "block_b", "cka", "p"])


def models() -> pd.DataFrame:
    rows = [("organism", 0.7, 0.6, 0.8), ("organism-small", 0.6, 0.45, 0.75), ("mean", 0.65, 0.1, 1.2)]
    return pd.DataFrame(rows, columns=["model", "value", "lo", "hi"])


DRAWN = {
    "depth_map": (2.6, lambda ax: figures.depth_map(places(), ax)),
    "profiles": (2.4, lambda ax: figures.profiles({"small": profile(0.3), "large": profile(0.1)}, ax)),
    "block_matrix": (2.7, lambda ax: figures.block_matrix(two_blocks(), "cka", ax, called="p", label="CKA")),
    "replicated": (1.6, lambda ax: figures.replicated(models(), ax, null=0.5, label="AUC")),
    "grid": (2.6, lambda ax: figures.grid(cells(), "auc", "q", ax, centre=0.5, label="AUC")),
    "description": (2.6, lambda ax: figures.grid(cells(), "auc", None, ax, label="excess kurtosis", digits=1)),
    "survey_map": (4.2, lambda ax: figures.survey_map(cells(FLUX, range(20, 0, -1)), "auc", "q", ax, centre=0.5)),
    "curves": (2.4, lambda ax: with_legend(figures.curves({"single.3": line(0.3), "x0": line(0.2)}, "", ax))),
    "series": (2.4, lambda ax: with_legend(figures.series({"local": line(0.3), "global": line(0.1)}, ax))),
    "forest": (2.8, lambda ax: figures.forest(gains(), ax)),
    "following": (2.6, lambda ax: figures.following(followed(), ax)),
    "rates": (2.0, lambda ax: figures.rates(shares(), 0.3, ax)),
    "cosines": (2.7, lambda ax: figures.cosines(pairs("cosine_split"), ax)),
    "transfer": (2.7, lambda ax: figures.transfer(pairs("auc"), ax)),
    "reliability": (3.0, lambda ax: figures.reliability(bins(), ax, note="calibration error 0.07\n(n = 360)")),
    "power_curve": (2.4, lambda ax: figures.power_curve(chances(), ax, at=[320])),
    "scatter": (2.6, clouds),
    "watch_strip": (2.3, strip),
}


def written(canvas: FigureCanvasAgg, monkeypatch) -> list[Text]:
    """The texts that drawing a canvas writes: ticks out of view are artists too, and are not among them."""
    texts, draw_text = [], Text.draw

    def draw(self, renderer) -> None:
        if self.get_visible() and self.get_text().strip():
            texts.append(self)
        draw_text(self, renderer)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        canvas.draw()
    return texts


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_can_be_read_in_a_column(name, monkeypatch):
    height, draw = DRAWN[name]
    with mpl.rc_context(figures.COLUMN):
        drawn = figures.figure(3.3, height)
        ax = drawn.subplots()
        assert draw(ax) is ax
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        texts = written(canvas, monkeypatch)
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    assert texts and min(text.get_fontsize() for text in texts) >= SMALLEST
    whole = drawn.bbox.padded(1)
    corners = [(box.x0, box.y0, box.x1, box.y1) for box in boxes]
    assert not [
        text.get_text()
        for text, (left, low, right, high) in zip(texts, corners)
        if not (whole.x0 <= left and right <= whole.x1 and whole.y0 <= low and high <= whole.y1)
    ]
    crossed = [
        (texts[i].get_text(), texts[j].get_text())
        for i in range(len(texts))
        for j in range(i)
        if boxes[i].padded(-1).overlaps(boxes[j].padded(-1)) and texts[i].get_text() != texts[j].get_text()
    ]
    assert not crossed


def test_a_map_over_depth_reaches_from_the_first_block_to_the_last_and_hatches_what_is_not_called():
    table = places()
    ax = figures.depth_map(table)
    assert ax.get_ylim() == (1, 0) and len(ax.get_xticks()) == len(STEPS)
    assert len([patch for patch in ax.patches if patch.get_hatch()]) == (~table["called"]).sum()


def test_the_mean_over_models_stands_below_them():
    ax = figures.replicated(models(), null=0.5)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["organism", "organism-small", "mean of 2"]


def test_a_survey_map_rings_the_largest_cell_that_can_be_told_from_chance():
    table = cells(FLUX, range(20, 0, -1))
    table.loc[7, ["auc", "q"]] = 0.99, 0.2  # larger, and by chance
    table.loc[30 * 20 + 4, ["auc", "q"]] = 0.95, 0.01
    ax = figures.survey_map(table, "auc", "q", Figure().subplots(), centre=0.5)
    assert ax.patches[0].get_xy() == (3.5, 29.5)
    assert "single.11, step 16: 0.95" in [text.get_text() for text in ax.texts]
    shades = ax.images[0].get_array()
    assert shades.shape == (57, 20, 4)
    assert shades[30, 4, :3].mean() < 0.6 < shades[0, 7, :3].mean()  # pale, though as large
    nothing = figures.survey_map(table.assign(q=0.3), "auc", "q", Figure().subplots(), centre=0.5)
    assert not nothing.patches and not nothing.texts


def test_a_transfer_matrix_has_the_cell_that_was_fitted_in_its_rows():
    table = pairs("auc").sample(frac=1, random_state=0)
    table.loc[table.eval("block_a == 'double.0' and step_a == 20 and block_b == 'single.3'"), "auc"] = 0.9
    drawn = figures.transfer(table, Figure().subplots())
    matrix = drawn.images[0].get_array()
    order = list(dict.fromkeys(table["block_a"]))
    row, columns = order.index("double.0") * len(STEPS), order.index("single.3") * len(STEPS)
    np.testing.assert_allclose(matrix[row, columns : columns + len(STEPS)], 0.9)
    assert (matrix == 0.9).sum() == len(STEPS)


def test_series_are_open_where_chance_is_not_excluded():
    ax = figures.series({"local": line(0.3)}, Figure().subplots())
    faces = ax.collections[-1].get_facecolors()
    known = line(0.3)["q"].to_numpy() <= 0.05
    assert ((faces[:, :3] < 1).any(1) == known).all() and known.any() and not known.all()


def test_a_strip_shows_scores_below_the_images_and_says_what_they_are_not():
    ax = strip(Figure().subplots())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["predicted", *BLOCKS[:2]]
    assert len(ax.images) == 5 * (1 + 2 * 2)  # an image, and for each block a grey one with tints over it
    assert " ".join(ax.get_xlabel().split()) == NOTE


def test_the_colours_end_where_nearly_all_scores_do():
    scores = np.concatenate([np.linspace(-1, 1, 1001), [50.0, np.nan]])
    assert figures.score_limit(scores) == pytest.approx(0.98, abs=0.01)
    assert figures.score_limit(np.full(3, np.nan)) == 1


def test_a_figure_is_written_as_png_svg_and_pdf_with_real_letters(tmp_path):
    def draw() -> Figure:
        with mpl.rc_context(figures.STYLE):
            drawn = figures.figure(4, 3)
            figures.series({"local": line(0.3)}, drawn.subplots())
        return drawn

    path = figures.save(draw(), tmp_path, "series")
    assert {one.name for one in tmp_path.iterdir()} == {"series.png", "series.svg", "series.pdf"}
    with Image.open(path) as image:
        assert image.size == (600, 450)
    assert ">steps that remain" in path.with_suffix(".svg").read_text(encoding="utf-8")
    pdf = path.with_suffix(".pdf").read_bytes()
    assert b"/CIDFontType2" in pdf and b"/Type3" not in pdf  # TrueType (42), which editors can edit
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    figures.save(draw(), tmp_path, "series")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def on_disk() -> pd.DataFrame:
    """As probes.csv is: every cell twice, of sure samples and of all."""
    sure = cells().assign(subset="sure", n_good=30)
    return pd.concat([sure, cells().assign(subset="all", auc=0.99, n_good=40)], ignore_index=True)


def test_a_table_is_drawn_as_it_is_on_disk():
    ax = figures.grid(on_disk())
    alone = figures.grid(cells(), ax=Figure().subplots())
    np.testing.assert_allclose(ax.images[0].get_array(), alone.images[0].get_array())
    assert ax.images[0].norm.vcenter == 0.5
    assert figures.survey_map(on_disk()).images[0].get_array().shape == (4, 6, 4)


@pytest.mark.parametrize(("table", "words"), [
    (pd.concat([cells().assign(baseline="x0"), cells().assign(baseline="image")]), r"\['baseline'\] == 'x0'"),
    (cells().drop(columns="step"), "it lacks step"),
    (pd.concat([cells(), cells()]), "one row for each of block and step, found 48"),
])  # fmt: skip
def test_a_table_with_several_rows_of_a_cell_is_refused_with_a_choice(table, words):
    with pytest.raises(HandscopeError, match=words):
        figures.grid(table)


def test_a_title_other_names_and_other_colours():
    names = {"double.0": "D0", "steps that remain: noisiest → last": "step", "AUC": "score"}
    ax = figures.grid(cells(), q=None, label="AUC", title="Where", labels=names, cmap="magma")
    assert ax.get_title() == "Where" or ax.get_title(loc="left") == "Where"
    assert [text.get_text() for text in ax.get_yticklabels()][:2] == ["D0", "double.1"]
    assert ax.get_xlabel() == "step" and ax.images[0].get_cmap().name == "magma"
    assert [one.get_ylabel() for one in ax.figure.axes if one is not ax] == ["score"]
    lines = figures.series({"local": line(0.3)}, labels={"local": "one finger"})
    assert [text.get_text() for text in lines.legend().get_texts()] == ["one finger"]
    assert {"title", "labels", "ax", "cmap"} <= set(inspect.signature(figures.grid).parameters)


@pytest.mark.parametrize(
    ("venue", "wide", "inches"), [("icml", False, 3.25), ("neurips", False, 5.5), ("cvpr", True, 6.875)]
)
def test_a_figure_for_a_paper_has_its_width_and_its_letters(tmp_path, venue, wide, inches):
    with figures.paper(venue, height=2.4, wide=wide) as ax:
        figures.grid(cells(), ax=ax)
        figures.save(ax.figure, tmp_path, "map")
    with Image.open(tmp_path / "map.png") as image:
        assert image.size == (int(150 * inches), 360)
    assert min(text.get_fontsize() for text in ax.texts) >= SMALLEST
    with pytest.raises(HandscopeError, match="neurips, icml, cvpr"), figures.paper("nature"):
        pass


def test_a_power_that_is_not_known_draws_no_line_and_no_error():
    ax = figures.power_curve(chances().assign(power=np.nan))
    ax.figure.canvas.draw()
    assert len(ax.get_legend().get_texts()) == chances()["auc"].nunique()
