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
# # 3. Directions, planes, and why plots of what was fitted lie
#
# Which direction of the activations leads from good hands to bad ones? The difference of the two means is one answer,
# and the plane through it makes a picture. Drawn of the very pictures that it was fitted to, such a picture flatters,
# and one of a direction that was fitted harder separates **any** two groups, shuffled ones too. This notebook shows
# it, and what to draw instead.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
from handscope import figures
from handscope.analysis import PCA, auc, grouped_folds, permuted_labels, plane
from handscope.analysis.directions import held_out_projections
from handscope.analysis.held_out import on_planes
from handscope.analysis.subject_tokens import SubjectTokens
from handscope.probes import LogisticProbe
from handscope.report.results import Results
from handscope.tutorial import tutorial_run

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
run = tutorial_run()
results, store = Results.read(run), hs.ActivationStore(run.activations_dir)

# %% [markdown]
# ## The unit is the picture
#
# Tokens of one picture are alike: counted one by one they would pretend to be many. So each picture is one row, the
# mean of its hand tokens.

# %%
sure = results.samples[results.samples["sure"]]
hands = SubjectTokens(store, sure["sample"].tolist())
sure = sure.set_index("sample").loc[hands.samples]
bad, prompts = sure["bad"].to_numpy(int), sure["prompt"].to_numpy()
cell = store.plan.cell(f"{store.plan.blocks[-1]}/{store.plan.steps[1]}")
x = hands.read(cell)[0].mean
print(
    f"{cell}: {len(hands.tokens)} tokens of {len(x)} pictures, width {x.shape[1]}; "
    f"{(bad == 0).sum()} good and {bad.sum()} bad"
)

# %% [markdown]
# ## The lie
#
# Left the real verdicts, right shuffled ones. Both planes were fitted to the points that they show, and both have an
# AUC above one half: a difference of means is never zero, and it is judged here on the pictures that made it.

# %%
shuffled = np.random.default_rng(0).permutation(bad)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, labels, title in zip(axes, (bad, shuffled), ("real verdicts", "shuffled verdicts")):
    fitted = plane(x[labels == 0], x[labels == 1])
    xy = fitted.transform(x)
    worth = float(auc(xy[:, 0], labels))
    figures.scatter(xy, labels, ax, note=f"in-sample AUC {max(worth, 1 - worth):.2f}")
    ax.set_title(title)
figures.label_legend(axes[0], loc="lower left")
plt.show()

# %% [markdown]
# ## A bigger lie
#
# There are about as many channels as pictures, so some direction separates whatever was called bad. A linear probe
# finds it: across is its log-odds for the pictures that it was fitted to, up the direction of most variance.

# %%
up = PCA(1).set_output(transform="default").fit_transform(x)[:, 0]
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, labels, title in zip(axes, (bad, shuffled), ("real verdicts", "shuffled verdicts")):
    across = LogisticProbe(l2=0.1).fit(x, labels).decision_function(x)
    figures.scatter(np.column_stack([across, up]), labels, ax, note=f"in-sample AUC {float(auc(across, labels)):.2f}")
    ax.set_title(title)
plt.show()

# %% [markdown]
# ## The same, held out
#
# Each picture is put into a plane that was fitted to other prompts. Nothing of the shuffled verdicts should be left;
# what is left of the real ones can be believed.

# %%
fold = grouped_folds(prompts, 5)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, labels, title in zip(axes, (bad, shuffled), ("real verdicts", "shuffled verdicts")):
    worth = float(auc(held_out_projections(x, labels, fold), labels, fold))
    figures.scatter(on_planes(x, labels, fold), labels, ax, note=f"held-out AUC {worth:.2f}")
    ax.set_title(title)
plt.show()

# %% [markdown]
# ## How often would chance do that?
#
# One shuffle is an anecdote. Many give the null: a p value is the share of shuffles that do as well. Held out, the
# null is centred near one half, but it is *wide*: with few prompts an AUC that looks like something can be nothing.

# %%
labellings = permuted_labels(bad, prompts, 500, 0)
observed = float(auc(held_out_projections(x, bad, fold), bad, fold))
null = np.array(
    [float(auc(scores, labels, fold)) for scores, labels in zip(held_out_projections(x, labellings, fold), labellings)]
)
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.hist(null, bins=30, color="#BBBBBB")
ax.axvline(observed, color=figures.style.BAD, linewidth=2)
ax.set(xlabel="held-out AUC", ylabel="shuffled verdicts")
plt.show()
p = (1 + (null >= observed).sum()) / (1 + len(null))
print(f"observed {observed:.2f}; shuffled {null.mean():.2f} ± {null.std():.2f}; p = {p:.3f}")
print(f"one cell, n = {len(x)} of {len(set(prompts))} prompts")

# %% [markdown]
# ## Does one direction serve all cells?
#
# A cosine between two directions of the same pictures is flattered by noise that they share. Here each direction
# comes from its own half of the prompts: values near 1 would say that a cell's direction is that of the others.

# %%
fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
figures.cosines(results.cosines, ax)
plt.show()

# %% [markdown]
# `handscope analyze RUN` does all this for every cell and corrects for having looked at many: `analysis/cells.csv`.
