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
# # 9. The anatomy score and its limits
#
# Can a program say whether a hand is plausible? HandAnat finds hands, reads their joints, counts fingers and answers
# *plausible*, *implausible* or *cannot tell*, with reasons. This notebook asks it of labelled pictures, and shows
# that "not called implausible" is far from "good".

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from handscope import figures
from handscope.analysis.statistics.rates import wilson
from handscope.anatomy.judge.scoring import examine, judge
from handscope.labeling.table import sample_table
from handscope.tutorial import tutorial_run

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
run = tutorial_run()
samples = sample_table(run)
chosen = pd.concat([samples[samples["verdict"] == verdict].head(12) for verdict in ("good", "bad")], ignore_index=True)

# %% [markdown]
# ## Read once, judge by each method
#
# Reading is what costs; verdicts are made of what was read. Three methods stand side by side: `calibrated` weighs all
# the evidence, `any-violation` counts anything out of its range, and `paper` is the published formula.

# %%
read = examine([run.image(sample).copy() for sample in chosen["sample"]])
outcomes = {method: judge(read, method, None).outcomes() for method in ("calibrated", "any-violation", "paper")}
for method, said in outcomes.items():
    print(f"{method}\n{pd.crosstab(chosen['verdict'], pd.Series(said, name='outcome'))}\n")

# %% [markdown]
# ## How often is a bad hand called implausible?
#
# With Wilson's 95% intervals. A hand that was not found, or of which it cannot tell, is not called: these outcomes
# are no verdicts, and leaving them out would flatter every rate.

# %%
for method, said in outcomes.items():
    called = np.array([outcome == "implausible" for outcome in said])
    for verdict in ("bad", "good"):
        part = called[(chosen["verdict"] == verdict).to_numpy()]
        low, high = wilson(part.sum(), len(part))
        print(f"{method:13} calls {part.sum():2d} of {len(part)} {verdict} hands implausible ({low:.0%} to {high:.0%})")

# %% [markdown]
# ## Why

# %%
table = judge(read, "calibrated", None).table()
table["label"] = chosen["verdict"].to_numpy()[table["image"]]
table[["label", "outcome", "score", "count", "size", "reasons"]].sort_values("score").head(8).round(2)

# %%
fig, axes = plt.subplots(2, 6, figsize=(10, 4.2), layout="constrained")
for ax, image in zip(axes.flat, np.linspace(0, len(chosen) - 1, 12).round().astype(int)):
    ax.imshow(run.image(chosen["sample"][image]))
    ax.set_title(f"{chosen['verdict'][image]}: {outcomes['calibrated'][image]}", fontsize=9)
    ax.set_axis_off()
plt.show()

# %% [markdown]
# ## What follows
#
# These pictures are small renders of a small model, and the score was made for photographs: it must be calibrated for
# a generator, on labelled pictures, before its rate means anything (`handscope anatomy calibrate RUN --out FOLDER`).
# On pictures from outside it does not find most faults either; `docs/anatomy.md` has the numbers.
