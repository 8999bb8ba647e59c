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
# # 4. Contrastive PCA
#
# What varies among bad hands that does not vary among good ones? Plain PCA shows what varies most, which is the same
# in both: colours, gestures, places. Contrastive PCA (Abid and others, 2018) takes the variance of a background away
# first. This notebook shows it where the truth is known, then asks it of hands, held out.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
from handscope import figures
from handscope.analysis import auc, contrastive_sweep, grouped_folds, permuted_labels
from handscope.analysis.held_out import contrastive
from handscope.analysis.subject_tokens import SubjectTokens
from handscope.report.results import Results
from handscope.tutorial import tutorial_run

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})

# %% [markdown]
# ## Where the truth is known
#
# Both sets vary widely along ten channels. The foreground alone has two groups, apart along a channel of little
# variance. Alpha says how much of the background's variance is taken away: 0 is plain PCA. Few alphas are chosen,
# each for a cluster of alphas that show the same.

# %%
rng = np.random.default_rng(0)
spread = np.r_[np.full(10, 5.0), np.full(20, 0.5)]
background = rng.normal(size=(300, 30)) * spread
foreground = rng.normal(size=(300, 30)) * spread
group = rng.integers(0, 2, 300)
foreground[:, 15] += 4 * (group - 0.5)
sweep = contrastive_sweep(foreground, background)
fig, axes = plt.subplots(1, len(sweep.chosen), figsize=(12, 3), layout="constrained")
for ax, alpha in zip(axes, sweep.chosen):
    figures.scatter(sweep.transform(foreground, alpha), group, ax)
    ax.set_title(f"alpha {alpha:.2g}")
plt.show()

# %% [markdown]
# ## Hands
#
# Bad hands are the foreground, good ones the background. The picture on the left is alpha 0.

# %%
run = tutorial_run()
results, store = Results.read(run), hs.ActivationStore(run.activations_dir)
sure = results.samples[results.samples["sure"]]
hands = SubjectTokens(store, sure["sample"].tolist())
sure = sure.set_index("sample").loc[hands.samples]
bad, prompts = sure["bad"].to_numpy(int), sure["prompt"].to_numpy()
cell = store.plan.cell(f"{store.plan.blocks[-1]}/{store.plan.steps[1]}")
x = hands.read(cell)[0].mean.astype(np.float64)
sweep = contrastive_sweep(x[bad == 1], x[bad == 0], reduce=20)
fig, axes = plt.subplots(1, len(sweep.chosen), figsize=(12, 3), layout="constrained")
for ax, alpha in zip(axes, sweep.chosen):
    figures.scatter(sweep.transform(x, alpha), bad, ax)
    ax.set_title(f"alpha {alpha:.2g}")
figures.label_legend(axes[0], loc="lower left")
plt.show()
print(f"{cell}: {(bad == 1).sum()} bad and {(bad == 0).sum()} good hands of {len(set(prompts))} prompts")

# %% [markdown]
# ## Believe none of these before they are held out
#
# A contrastive component was chosen because bad hands spread along it, so bad hands spread along it. Below, each hand
# is put on components that were fitted to other prompts, and the question is whether bad ones still lie further out
# than good ones. Shuffled verdicts go the same way.

# %%
fold, alpha = grouped_folds(prompts, 5), float(sweep.chosen[-1])


def further_out(labels: np.ndarray) -> float:
    xy = contrastive(x, labels, fold, alpha)
    return float(auc(np.square(xy).sum(1), labels, fold))


own = sweep.transform(x, alpha)
inside = float(auc(np.square(own).sum(1), bad))
observed = further_out(bad)
null = np.array([further_out(labels) for labels in permuted_labels(bad, prompts, 50, 0).astype(int)])
p = (1 + (null >= observed).sum()) / (1 + len(null))
print(
    f"in-sample AUC {inside:.2f}; held out {observed:.2f}; shuffled {null.mean():.2f} ± {null.std():.2f}; p = {p:.2f}"
)
fig, ax = plt.subplots(figsize=(4, 3.6), layout="constrained")
figures.scatter(contrastive(x, bad, fold, alpha), bad, ax, note=f"held out, AUC {observed:.2f}")
figures.label_legend(ax, loc="lower left")
plt.show()

# %% [markdown]
# Where the held-out number is not above the shuffled ones, the pictures above showed the fit and nothing else. With
# few bad hands and many channels that is what to expect: contrastive PCA needs many more pictures than directions.
# `handscope analyze` writes these coordinates for every cell, always held out.
