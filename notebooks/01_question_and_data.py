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
# # 1. The question and the data
#
# Does a diffusion transformer know, while it draws, that the hand it draws is going wrong? In which block, and at
# which step? This notebook makes the pictures, looks at their labels and at what was read of the model, and draws the
# map that answers the question.
#
# The model is the organism that ships with handscope: a real FLUX pipeline, small enough for a CPU. What holds for it
# is a hypothesis about FLUX. All notebooks share one run, `tutorial/`, which the first of them makes in about a
# minute of computing; `HANDSCOPE_RUN` names another.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import pandas as pd
from handscope import figures
from handscope.report import findings
from handscope.report.results import Results
from handscope.tutorial import tutorial_run
from IPython.display import display

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
run = tutorial_run()
results = Results.read(run)
print(f"{results.generated} pictures of {results.samples['prompt'].nunique()} prompts")

# %% [markdown]
# ## A study is a file
#
# These are all the settings that the run was made with. `handscope study FILE.yaml` runs it, and the same command
# again does only what is missing.

# %%
from handscope.tutorial import TUTORIAL

print(TUTORIAL.read_text(encoding="utf-8"))

# %% [markdown]
# ## The labels
#
# Every picture has a verdict: *good*, *bad*, leaning (*good?*, *bad?*) or *unsure*. The outlined tokens count as
# hand, and only these are read: a token is what the transformer works on, here a square of eight pixels a side.

# %%
display(results.samples["verdict"].value_counts().to_frame())
chosen = pd.concat([results.samples.query("verdict == @verdict").head(8) for verdict in ("good", "bad")])["sample"]
fig, ax = plt.subplots(figsize=(11, 3))
pictures, annotations = [run.image(sample) for sample in chosen], [results.annotations[sample] for sample in chosen]
figures.contact_sheet(pictures, annotations, ax, columns=8)
plt.show()

# %% [markdown]
# Every prompt has noises of its own. Two prompts that share a noise get alike hands, so that a probe which learnt the
# noise would look as if it had learnt hands; a run that shares them is refused unless its design says so.

# %%
samples = run.samples()
print(f"{len(samples)} pictures from {samples['noise_sha256'].nunique()} different noises")

# %% [markdown]
# ## The activations
#
# A *cell* is one block at one step. Steps count what remains: the first and noisiest has the highest number, the last
# is 1. `read` gives the residual stream at the hand tokens of one cell, and a table that says which sample and which
# place each row is.

# %%
store = hs.ActivationStore(run.activations_dir)
print(
    f"blocks {', '.join(map(str, store.plan.blocks))}; steps {', '.join(map(str, store.plan.steps))} of {store.plan.of}"
)
x, tokens = store.read(store.plan.blocks[-1], store.plan.steps[-1])
print(f"{x.shape[0]} tokens of width {x.shape[1]}")
tokens.head()

# %% [markdown]
# ## Where and when
#
# One probe a cell, judged on prompts that it was not fitted to. Blocks run downwards in the order in which the model
# runs them. A hatched cell is *not separable from chance*: shuffled verdicts do as well, once it is allowed for how
# many cells were looked at.

# %%
prefix = results.prefix
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
label = "AUC within prompts" if prefix else "AUC"
figures.grid(results.probe_of("sure"), prefix + "auc", prefix + "q", ax, centre=0.5, label=label)
plt.show()

# %% [markdown]
# ## Beyond the predicted picture?
#
# At every step the model also predicts the finished picture. If that picture's latents (x0_flat) or plain statistics
# such as contrast (image) tell the bad hand as well, a probe of a block has found nothing that cannot be seen. Open
# markers are not separable from chance.

# %%
lines = {results.best_block: results.probe_of("sure").query("block == @results.best_block")}
lines |= {name: results.baseline(name) for name in ("x0_flat", "image")}
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
figures.curves(lines, prefix, ax, band=[results.best_block, "x0_flat"])
ax.set_ylabel(label)
ax.legend(ncols=2)
plt.show()

# %% [markdown]
# ## In words
#
# These sentences are composed from the tables of `analysis/`; `handscope report RUN` makes a page of all. Where one
# says that something was not told from chance, eight prompts may be too few: notebook 6 says what they could have
# shown. `make demo` runs the same study on four times as many.

# %%
for finding in findings.findings(results)[:4]:
    print(f"{finding.question}\n    {finding.brief} {finding.detail}\n")
