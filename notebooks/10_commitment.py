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
# # 10. Commitment
#
# At which step is a hand decided? The model predicts the finished picture at every step, and from some step on the
# hand in it no longer changes. This notebook watches that happen, takes the step of many pictures, and asks whether
# bad hands are decided later than good ones.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from handscope import figures
from handscope.evaluation.commitment import commit, predicted_pictures
from handscope.evaluation.decided import decided
from handscope.organism.study.regions import regions_of
from handscope.tutorial import tutorial_run
from IPython.display import display

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
run = tutorial_run()
model = hs.load(run.settings["provenance"]["name"])

# %% [markdown]
# ## One picture
#
# Predicted from the saved latents, without running the transformer again: a Euler step solved for its velocity.

# %%
sample = next(iter(run.metadata()))
row = run.metadata()[sample]
pictures = predicted_pictures(model, run.trajectory(sample), row["height"], row["width"])
outline = next(region for region in regions_of(run) if region.name == "outline")
places = np.unique(np.linspace(0, len(pictures) - 1, 10).round().astype(int))
fig, ax = plt.subplots(figsize=(12, 1.8), layout="constrained")
steps = [len(pictures) - int(place) for place in places]
figures.filmstrip(pictures[places], outline.shapes(pictures[places]), steps, ax)
plt.show()

# %% [markdown]
# ## A definition
#
# A shape is *committed* at a step if at every later step too it is within a tolerance of the last one (Hausdorff
# distance, in pixels), and this is the noisiest such step. Shapes that change to the end are censored there, not
# dropped. The outline and the background's colour are followed here; the full command follows the skeleton too.

# %%
regions = [region for region in regions_of(run) if region.name != "hand"]
rows, summary = commit(model, run, regions, samples=80)
own = pd.concat([rows[(rows["region"] == r.name) & np.isclose(rows["tolerance"], r.tolerance)] for r in regions])
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
total = int(rows["steps"].iloc[0])
figures.decided_share({r.name: decided(own[own["region"] == r.name]) for r in regions}, total, axes[0])
groups = {name: own[(own["region"] == "outline") & (own["bad"] == value)] for name, value in (("good", 0), ("bad", 1))}
figures.decided_share({name: decided(part) for name, part in groups.items()}, total, axes[1])
axes[0].set_title("Regions of the picture")
axes[1].set_title("Outlines of good and bad hands")
plt.show()

# %% [markdown]
# ## Later, or not told
#
# The difference compares hands of one prompt, with an interval over prompts and a permutation of verdicts inside
# them. A few prompts give a wide interval.

# %%
at = summary[(summary["region"] == "outline") & np.isclose(summary["tolerance"], outline.tolerance)]
display(at[["group", "n", "missing", "undecided", "median_step", "steps_lo", "steps_hi", "snr_db"]].round(1))
bad = at[at["group"] == "bad"].iloc[0]
low, high = bad["difference_lo"], bad["difference_hi"]
print(f"bad outlines were decided {bad['difference']:+.1f} steps later ({low:+.1f} to {high:+.1f}), p = {bad['p']:.2f}")

# %% [markdown]
# ## How much the tolerance decides
#
# A wider tolerance commits earlier, always. A finding that holds at one tolerance alone is one about the tolerance.

# %%
summary.query("region == 'outline' and group == 'all'")[["tolerance", "median_step", "steps_lo", "steps_hi"]].round(1)

# %% [markdown]
# That a shape no longer changes does not say that the model *knows* it then; the probe's AUC over steps is another
# curve. `handscope commit RUN` writes both, and `docs/mending.md` has what a larger run found.
