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
# # 6. Probes, controls, and watching one picture
#
# Can a linear probe tell a bad hand from the activations, and would it have found as much in labels that mean
# nothing? This notebook fits one, holds it against its controls, says what the run could have seen at all, and then
# reads the probe on every token while a picture is being drawn.

# %%
import tempfile
from pathlib import Path

import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
from handscope import figures
from handscope.analysis.statistics.power import detectable, power_table
from handscope.analysis.subject_tokens import SubjectTokens
from handscope.probes import LogisticProbe, cross_validate
from handscope.probes.choose import saved_probes
from handscope.probes.selectivity import selectivity
from handscope.probes.watch import watch
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
# ## One probe, held out by prompt
#
# Folds hold whole prompts out, and the null repeats the entire fit with shuffled verdicts. *Within prompts* compares
# only hands of one prompt, so that neither gesture nor skin nor background can explain the answer.

# %%
cell = store.plan.cell(f"{results.best_block}/{store.plan.steps[1]}")
x = hands.read(cell)[0].mean
found = cross_validate(LogisticProbe(l2=100), x, bad, groups=prompts, permutations=50)
for name, value, (low, high), null in (
    ("all pairs", found.auc, found.interval, found.null),
    ("within prompts", found.within_auc, found.within_interval, found.within_null),
):
    print(f"{cell}, {name}: AUC {value:.2f} ({low:.2f} to {high:.2f}); shuffled {null.mean():.2f} ± {null.std():.2f}")
print(f"n = {len(x)} of {len(set(prompts))} prompts; the block was chosen on these same pictures, which flatters it")

# %% [markdown]
# ## A control task
#
# Each prompt gets a random label, which can only be had by remembering prompts. A probe that does well at this could
# have learnt the verdicts prompt by prompt too, wherever the same prompts stand in the fit and in the test. This is
# why folds hold prompts out.

# %%
control = selectivity(LogisticProbe(l2=100), x, bad, prompts)
print(f"control task, prompts seen in the fit: AUC {control.control:.2f} ± {control.control_sd:.2f}")
print(f"verdicts, prompts seen: {control.auc_seen:.2f}; prompts held out: {control.auc:.2f}")

# %% [markdown]
# ## What simpler things tell
#
# The same probe on what needs no look inside, at the same step. If one of these does as well, the block is not shown
# to know more.

# %%
table = results.baselines.query("subset == 'sure' and (step == @cell.step or step != step)")
table[["baseline", "auc", "lo", "hi", "p", "within_auc", "within_lo", "within_hi"]].round(2)

# %% [markdown]
# ## What could have been seen
#
# A run of this size is a lesson and not a study. The least AUC that it would show four times in five, for one cell
# that was named beforehand, follows from the width of its own null; after a correction over all cells it is larger
# still.

# %%
print(f"one cell: an expected AUC of {detectable(float(found.null.std())):.2f} or more")
power_table(results.tested, 0.65, 0.8)[
    ["test", "n_good", "n_bad", "needed", "needed_first", "power", "power_first"]
].round(2)

# %% [markdown]
# ## Watch one picture
#
# The saved probes are laid over the clean picture that the model predicts at each step: orange speaks for a bad hand,
# purple for a good one. Each step is read by the probe that was fitted nearest to it. The probe was judged on the
# *mean* of a hand's tokens; what it says of a single token nobody has tested.

# %%
model = hs.load(run.settings["provenance"]["name"])
generation = run.settings["generation"]
settings = {key: generation[key] for key in ("steps", "guidance", "height", "width")}
seen = watch(model, saved_probes(run.probes_dir), run.samples()["prompt"][0], 12345, **settings)
steps = len(seen.steps)
fig, ax = plt.subplots(figsize=(14, 4.6), layout="constrained")
seen.strip(ax, steps=[seen.steps[i] for i in np.unique(np.linspace(0, steps - 1, 8).round().astype(int))])
plt.show()

# %% [markdown]
# In a live notebook `watch(..., see=Live())` redraws this after every step.
#
# ## One number a step
#
# The mean over the tokens of the finished hand is the probe's log-odds for that hand. It is one picture: whether such
# curves tell anything is what the held-out AUC says.

# %%
from handscope.organism.silhouette import hand_tokens, silhouette

hand = hand_tokens(silhouette(seen.image), *seen.scores.shape[2:]) > 0
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for block, line in zip(seen.blocks, seen.mean(hand)):
    ax.plot(seen.steps, line, marker="o", label=block)
ax.axhline(0, color="#888888", linewidth=0.8)
ax.invert_xaxis()
ax.set(xlabel=figures.style.STEPS_LABEL, ylabel="log-odds of bad")
ax.legend()
plt.show()

# %% [markdown]
# `seen.gif(PATH)` keeps the frames as an animation, `figures.save` the strip. On the command line: `handscope watch
# RUN --prompt TEXT --seed 7`.

# %%
folder = Path(tempfile.mkdtemp())
seen.gif(folder / "hand.gif")
figures.save(seen.figure(), folder, "hand")
sorted(path.name for path in folder.iterdir())
