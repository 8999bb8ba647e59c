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
# # 8. Another subject
#
# Nothing but a file says that handscope studies hands. This notebook asks another question of the same pictures: *is
# the shape a large one?* The label is computed, so no rater is needed, and the answer is known beforehand. That makes
# it a lesson in baselines: the activations tell it well, and so does nearly everything else.

# %%
import shutil
import tempfile
from pathlib import Path

import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from handscope import figures
from handscope.labeling.subject import load_subject, set_subject
from handscope.organism.silhouette import silhouette
from handscope.report.results import Results
from handscope.tutorial import TUTORIAL, tutorial_run

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
tutorial = tutorial_run()

# %% [markdown]
# ## The subject
#
# *Good* and *bad* are only the two sides of a question; the subject gives them words, which the page, the report and
# the figures then use.

# %%
folder = Path(tempfile.mkdtemp())
(folder / "size.yaml").write_text("""\
name: size
noun: silhouette
plural: silhouettes
kinds:
  large: {scope: global, meaning: It covers more than most of its prompt do}
verdicts: {good: small, "good?": rather small, "bad?": rather large, bad: large, unsure: unsure}
""")

# %% [markdown]
# ## The same pictures, another run
#
# A run has one subject, so the pictures and their trajectories are copied into a new one. Nothing has to be drawn
# again.

# %%
run = hs.Run(folder / "run")
for part in ("samples", "trajectories"):
    shutil.copytree(tutorial.path / part, run.path / part)
shutil.copy(tutorial.path / "run.yaml", run.path / "run.yaml")
set_subject(run, load_subject(folder / "size.yaml"))

# %% [markdown]
# ## The labels
#
# A silhouette is large if it covers more pixels than the median of its prompt. So every prompt has as many large as
# small ones, and the words of a prompt can tell nothing.

# %%
masks = {sample: silhouette(run.image(sample)) for sample in run.metadata()}
table = run.samples().set_index("sample")
table["pixels"] = pd.Series({sample: int(mask.sum()) for sample, mask in masks.items()})
table["large"] = table["pixels"] > table.groupby("prompt")["pixels"].transform("median")
before = hs.Labels(tutorial.labels_path).current()
annotations = []
for sample, row in table.iterrows():
    shape = (before[sample].instances > 0).astype(np.uint8)
    verdict, value, kinds = ("bad", 3, ("large",)) if row["large"] else ("good", 2, ())
    labels = np.where(shape > 0, value, 1).astype(np.uint8)
    annotations.append(hs.Annotation(sample, row["image_sha256"], labels, shape, verdict, kinds, author="pixels"))
hs.Labels(run.labels_path).add(annotations)
print(table.groupby("large")["pixels"].describe()[["count", "min", "50%", "max"]])

# %% [markdown]
# ## The study
#
# The tutorial's own file with some keys changed, and only four cells, to keep it short. `labels: existing` takes
# those that are there.

# %%
changed = {"run": str(run.path), "subject": str(folder / "size.yaml"), "labels": "existing"}
changed |= {"blocks": ["double.1", "single.3"], "read_steps": [20, 8], "permutations": 100}
for result in hs.Study.from_yaml(TUTORIAL, changed).stages(until="probe"):
    print(result.stage, "ran" if result.ran else "was complete")
results = Results.read(run)

# %% [markdown]
# ## The answer

# %%
prefix = results.prefix
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
figures.grid(results.probe_of("sure"), prefix + "auc", prefix + "q", ax, centre=0.5, label="AUC within prompts")
plt.show()

# %% [markdown]
# ## And what it is worth
#
# The table has the best block beside the baselines. Which tokens are read follows from the finished shape, so even in
# pure noise their mean can depend on how many there are and where: the outline alone (*position*) knows the answer by
# construction, and so does the finished picture. None of it says that the model represents size as such.

# %%
rows = results.baselines.query("subset == 'sure'").groupby("baseline", sort=False)[[prefix + "auc"]].max()
rows.loc[results.best_block] = results.probe_of("sure").query("block == @results.best_block")[prefix + "auc"].max()
rows.rename(columns={prefix + "auc": "largest AUC over steps"}).round(2)

# %% [markdown]
# `docs/subject.md` goes through two more subjects, one with a label of several values; `handscope init FILE.yaml
# --subject SUBJECT.yaml` begins yours.
