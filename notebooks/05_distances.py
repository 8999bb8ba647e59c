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
# # 5. Distances with their null
#
# How far apart are the activations of good and bad hands? The Bhattacharyya distance of two Gaussians is a usual
# answer, and it is never zero: two random halves of one cloud have one too. A distance says something only beside
# what shuffled verdicts give.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
from handscope import figures
from handscope.analysis import bhattacharyya, bhattacharyya_test
from handscope.analysis.subject_tokens import SubjectTokens
from handscope.report.results import Results
from handscope.tutorial import tutorial_run

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
run = tutorial_run()
results, store = Results.read(run), hs.ActivationStore(run.activations_dir)
sure = results.samples[results.samples["sure"]]
hands = SubjectTokens(store, sure["sample"].tolist())
sure = sure.set_index("sample").loc[hands.samples]
bad, prompts = sure["bad"].to_numpy(int), sure["prompt"].to_numpy()

# %% [markdown]
# ## Nothing has a distance, too
#
# Two draws from one and the same Gaussian of the store's width. The fewer rows, the larger the "distance": it is the
# error of the means and variances.

# %%
rng, width = np.random.default_rng(0), store.read(store.plan.blocks[0], store.plan.steps[0])[0].shape[1]
for n in (20, 80, 320, 1280):
    found = bhattacharyya(rng.normal(size=(n, width)), rng.normal(size=(n, width)))
    print(f"{n:5d} rows each: {found.distance:.2f} nats, where the truth is 0")

# %% [markdown]
# ## One cell with its null
#
# Verdicts are shuffled over whole pictures, since tokens of a picture belong together, and keep what prompts they
# stand in. What may be reported is the *excess* over the mean of the null, with its interval from draws of prompts.

# %%
cell = store.plan.cell(f"{store.plan.blocks[-1]}/{store.plan.steps[1]}")
moments = hands.read(cell)[0]
test = bhattacharyya_test(moments, bad, prompts, permutations=500)
low, high = test.interval
fig, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.hist(test.null, bins=30, color="#BBBBBB", label="shuffled verdicts")
ax.axvline(test.observed.distance, color=figures.style.BAD, linewidth=2, label="real verdicts")
ax.set(xlabel=f"Bhattacharyya distance of {cell}, nats", ylabel="shuffles")
ax.legend()
plt.show()
print(f"distance {test.observed.distance:.3f}, of which the null explains {test.null.mean():.3f}")
print(f"excess {test.excess:.3f} ({low:.3f} to {high:.3f}) nats")
print(f"p = {test.p:.3f}, where the least possible is {test.p_floor:.3f}")
print(f"n = {len(bad)} of {len(set(prompts))} prompts")

# %% [markdown]
# ## Means or variances?
#
# The distance has two parts: how far the means are apart, and how the variances differ.

# %%
print(f"means {test.observed.mean_term:.3f}, variances {test.observed.variance_term:.3f} nats")

# %% [markdown]
# ## Every cell
#
# The excess of each cell; hatched where it is not told from the null after a correction over all cells.

# %%
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
figures.grid(results.cells, "db_excess", "db_q", ax, label="excess over the null, nats", digits=3)
plt.show()

# %% [markdown]
# ## What the number assumes
#
# The formula treats channels as independent and Gaussian. They are correlated, so the bound on the error of a
# classifier that textbooks derive from the distance does not hold here: it is printed to show how far it is from what
# a held-out probe achieves.

# %%
least, most = test.observed.bayes_error
probes = results.probe_of("sure")
row = probes[(probes["block"] == str(cell.block)) & (probes["step"] == cell.step)].iloc[0]
print(f"'least error' by the formula: {least:.2f} to {most:.2f}")
print(f"held-out AUC of a probe of the same cell: {row['auc']:.2f} ({row['lo']:.2f} to {row['hi']:.2f})")

# %% [markdown]
# `docs/statistics.md` has the formulas, other distances (full covariance, shrunk, low rank) and how often these tests
# were right in simulation.
