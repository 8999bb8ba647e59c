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
# # 7. Given pictures and my own labels
#
# What if the pictures are not the model's, and the labels are mine? This notebook draws rings, of which some have a
# gap, writes their labels into a table, and asks whether the model's blocks tell closed rings from broken ones. Only
# two files describe it all: a subject and a study.

# %%
import tempfile
from pathlib import Path

import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from handscope import figures
from handscope.report.results import Results
from PIL import Image, ImageDraw

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
folder = Path(tempfile.mkdtemp())
pictures = folder / "rings"
pictures.mkdir()

# %% [markdown]
# ## Pictures and a table
#
# Sizes, places, colours and the place of the gap are random. A table says the verdict of each file, in words of its
# own, and where the ring is.

# %%
rng = np.random.default_rng(0)
rows = []
for number in range(60):
    picture = Image.new("RGB", (96, 96), tuple(rng.integers(150, 256, 3).tolist()))
    radius, colour = int(rng.integers(20, 34)), tuple(rng.integers(0, 110, 3).tolist())
    left, top = (int(rng.integers(4, 92 - 2 * radius)) for _ in range(2))
    box, start, broken = (
        (left, top, left + 2 * radius, top + 2 * radius),
        int(rng.integers(0, 360)),
        bool(rng.random() < 0.5),
    )
    ImageDraw.Draw(picture).arc(box, start, start + (310 if broken else 360), colour, width=7)
    picture.save(pictures / f"{number:02d}.png")
    place = {"x": left, "y": top, "width": 2 * radius, "height": 2 * radius}
    rows.append({"file": f"{number:02d}.png", "label": "broken" if broken else "closed"} | place)
pd.DataFrame(rows).to_csv(pictures / "labels.csv", index=False)
pd.DataFrame(rows).head(3)

# %% [markdown]
# ## Two files
#
# The subject says what the thing is called; the study says where the pictures are and which words mean good and bad.

# %%
(folder / "ring.yaml").write_text("""\
name: ring
noun: ring
plural: rings
kinds:
  gap: {scope: local, meaning: A part of the ring is missing}
verdicts: {good: closed, "good?": rather closed, "bad?": rather broken, bad: broken, unsure: unsure}
""")
(folder / "study.yaml").write_text(f"""\
run: {folder / "run"}
model: organism
subject: ring.yaml
pictures: {{folder: rings/labels.csv, good: [closed], bad: [broken]}}
read_steps: [18, 10, 3]
permutations: 100
probe_permutations: 100
""")
study = hs.Study.from_yaml(folder / "study.yaml")
list(study.stages(until="probe"))  # the page is not needed here
run = hs.Run(study.folder)
results = Results.read(run)

# %% [markdown]
# Each picture was encoded, noise was put on it, and one forward read at each step; a token counts as ring where the
# box covers half of it.

# %%
shown = results.samples["sample"].head(10)
fig, ax = plt.subplots(figsize=(11, 2.6))
annotations = [results.annotations[sample] for sample in shown]
figures.contact_sheet([run.image(sample) for sample in shown], annotations, ax, columns=10)
plt.show()

# %% [markdown]
# ## Does a block tell them?
#
# Each picture is its own group, as no two share a prompt or a source. A picture that was given has noise that knows
# nothing of it: near pure noise, on the left, nothing can be told, and that is a control that costs nothing.

# %%
probes = results.probe_of("sure")
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
figures.grid(probes, "auc", "q", ax, centre=0.5, label="held-out AUC")
plt.show()
print(results.n(""))

# %% [markdown]
# ## Or do simpler things tell it as well?
#
# Plain statistics of the predicted picture see that a broken ring covers less. A block that does no better is not
# shown to know of gaps.

# %%
lines = {results.best_block: probes.query("block == @results.best_block")}
lines |= {name: results.baseline(name) for name in ("image", "x0")}
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
figures.curves(lines, "", ax, band=[results.best_block])
ax.set_ylabel("held-out AUC")
ax.legend()
plt.show()

# %% [markdown]
# Sixty pictures are few: intervals are wide, and a cell that is hatched may only have had too few. Labels that come
# later are brought in by `handscope labels import`, painted ones by `handscope label`; see `docs/given.md` and
# `docs/labeling.md`.
