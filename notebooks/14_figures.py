# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14. Figures for a paper
#
# How does a table on disk become a figure of a column's width, with fonts embedded and names of one's own? Every
# figure of the report is a function of a table as it lies in `analysis/`: none of them computes anything, so a figure
# can be drawn anew without running a stage.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from handscope import figures
from handscope.tutorial import tutorial_run
from IPython.display import Image, display

run = tutorial_run()
folder = Path(tempfile.mkdtemp())
probes = pd.read_csv(run.analysis_dir / "probes.csv").query("subset == 'sure'")
baselines = pd.read_csv(run.analysis_dir / "baselines.csv").query("subset == 'sure'")

# %% [markdown]
# ## A column
#
# `figures.paper` opens an Axes of the width of a venue's column (`neurips`, `icml`, `cvpr`), in type that is legible
# in print. `save` writes PNG, SVG and PDF; text in the PDF stays text.

# %%
with figures.paper("cvpr") as ax:
    figures.grid(probes, "within_auc", "within_q", ax=ax, centre=0.5, label="AUC within prompts")
    figures.save(ax.figure, folder, "map")
print(sorted(path.name for path in folder.iterdir()))
display(Image(folder / "map.png", width=420))

# %% [markdown]
# ## Names of one's own
#
# `labels` maps what would be drawn to what shall stand there; `title` gives a title. Colours of good and bad are
# those of Okabe and Ito, and lines differ by their markers too.

# %%
best = probes.groupby("block")["within_auc"].mean().idxmax()
lines = {best: probes.query("block == @best")}
lines |= {name: baselines.query("baseline == @name") for name in ("x0_flat", "image")}
with figures.paper("icml", height=2.2) as ax:
    names = {best: "residual stream", "x0_flat": "predicted latents", "image": "picture statistics"}
    figures.curves(lines, "within_", ax=ax, band=[best], labels=names)
    ax.set_ylabel("AUC within prompts")
    ax.legend()
    figures.save(ax.figure, folder, "curves")
display(Image(folder / "curves.png", width=420))

# %% [markdown]
# ## Without a paper
#
# Called without an Axes a function makes one, in the style of the report.

# %%
ax = figures.grid(probes, "auc", "q", title="All pairs of pictures", label="AUC")
figures.save(ax.figure, folder, "all_pairs")
display(Image(folder / "all_pairs.png", width=420))

# %% [markdown]
# ## Several panels
#
# `figures.STYLE` and `figures.COLUMN` are settings of matplotlib, so any figure of matplotlib's can hold these
# drawings beside your own.

# %%
with plt.rc_context(figures.COLUMN):
    drawn = figures.figure(6.75, 2.2)
    left, right = drawn.subplots(1, 2)
    figures.grid(probes, "within_auc", "within_q", left, centre=0.5, label="AUC")
    bins = {"bins": 24, "range": (0.2, 0.8)}
    right.hist(probes["within_null_mean"], **bins, color="#BBBBBB", label="means of the nulls")
    right.hist(probes["within_auc"], **bins, color=figures.style.GOOD, alpha=0.6, label="held-out AUC")
    right.set(xlabel="AUC within prompts", ylabel="cells")
    right.legend()
    figures.save(drawn, folder, "panels")
display(Image(folder / "panels.png", width=640))

# %% [markdown]
# ## What must stand under it
#
# Three numbers belong into every caption: how many pictures of how many prompts, what the interval is over, and how
# large the family of tests was. The table has them.

# %%
n = int(probes["n_good"].iloc[0] + probes["n_bad"].iloc[0])
prompts = pd.read_csv(run.analysis_dir / "samples.csv")["prompt"].nunique()
print(
    f"Held-out AUC within prompts, n = {n} of {prompts} prompts; 95% intervals over prompts; "
    f"hatched: q > .05 in a family of {len(probes)} cells."
)

# %% [markdown]
# Which function draws which table: `docs/tables.md` and the docstrings of `handscope.figures`.
