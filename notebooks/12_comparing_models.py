# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,kernelspec,-jupytext.text_representation.jupytext_version
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12. Comparing models
#
# Is what one model shows true of another? This notebook makes the same small study with a smaller organism, at the
# same noises, and compares: where each tells bad hands, how alike their streams are, and whether a probe of one can
# be carried to the other.

# %%
import tempfile
from pathlib import Path

import handscope as hs
import matplotlib.pyplot as plt
from handscope import figures
from handscope.comparison import compare
from handscope.tutorial import TUTORIAL, tutorial_run

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
folder = Path(tempfile.mkdtemp())
tutorial = tutorial_run()

# %% [markdown]
# ## The same study, another model line
#
# Eight noises of each prompt, three blocks and two of the steps, to keep it short.

# %%
changed = {"run": str(folder / "small"), "model": "organism-small", "seeds": {"first": 0, "count": 8}}
changed |= {"blocks": ["double.1", "single.1", "single.3"], "read_steps": [14, 2]}
changed |= {"permutations": 50, "probe_permutations": 50}
study = hs.Study.from_yaml(TUTORIAL, changed)
list(study.stages(until="probe"))  # the page is not needed here
small = hs.Run(study.folder)

# %% [markdown]
# The same noise makes alike pictures in both: above the organism's, below those of the small one.

# %%
pairs = tutorial.samples().merge(small.samples(), on=["prompt", "seed", "noise_sha256"]).iloc[::9].head(8)
fig, axes = plt.subplots(2, len(pairs), figsize=(11, 3), layout="constrained")
for column, row in zip(axes.T, pairs.itertuples()):
    for ax, run, sample in zip(column, (tutorial, small), (row.sample_x, row.sample_y)):
        ax.imshow(run.image(sample))
        ax.set_axis_off()
plt.show()

# %% [markdown]
# ## Compare
#
# Depth is relative and time is the noise level, since blocks and schedules differ between models. Intervals are over
# prompts, the same draws for both runs.

# %%
found = compare([tutorial, small], folder / "compared", pairings=19, permutations=50)
cells = found.tables["cells"]
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for ax, (_, part) in zip(axes, cells.groupby("run", sort=False)):
    figures.depth_map(part, ax, label="AUC")
    ax.set_title(part["model"].iloc[0])
plt.show()
found.tables["summary"].round(2)

# %% [markdown]
# Hatched cells are not told from chance in their own run. A map without any says that the run was too small, not that
# the model knows nothing.
#
# ## How alike are the streams?
#
# Linear CKA of the means over hand tokens, each block beside each, with pairs of pictures of one prompt shuffled for
# a null; bold where it exceeds that.

# %%
streams = found.tables["streams"]
last = streams[streams["sigma"] == streams["sigma"].min()]
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
figures.block_matrix(last, "cka", ax, called="cka_p", label="CKA")
ax.set(xlabel="the small organism", ylabel="the organism")
plt.show()

# %% [markdown]
# ## Differences, with their intervals
#
# The question "do they differ?" needs the interval of the difference; that one is separable from chance and the other
# is not says nothing of it.

# %%
found.tables["differences"].round(2)

# %% [markdown]
# `handscope compare RUN RUN --out FOLDER` writes this as a page, and `handscope replicate STUDY.yaml --models …`
# makes the runs first (`docs/compare.md`). The yardstick of likeness is another training seed of the same size:
# `organism-1` beside `organism`.
