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
# # 15. From the organism to FLUX on a server
#
# What has to change for FLUX.1-dev, and what would it cost? A study is the same file with another model line; its
# cost follows from one measured step. This notebook writes that file, checks it, plans it and prepares the jobs of a
# cluster. It draws nothing with FLUX: no run of the full model stands behind it.

# %%
import tempfile
from pathlib import Path

import handscope as hs
from handscope.cluster.plan import measure, plan, shown, warnings_of
from handscope.cluster.slurm import jobs
from handscope.tutorial import TUTORIAL

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## What a study costs
#
# One step of one batch is measured with the model itself. Here with the organism on this machine; on the server the
# same lines, or `handscope plan STUDY.yaml --gpus 8`, measure FLUX there.

# %%
study = hs.Study.from_yaml(TUTORIAL, {"run": str(folder / "organism")})
measured = measure(study)
table = plan(study, measured, workers=8, kept=0.3)
print(shown(table, measured, 8))

# %% [markdown]
# ## The file for FLUX
#
# A model line, sizes of its own, and a choice of cells: all blocks at all steps would be terabytes. `labels:
# existing` since automatic labels know the organism's pictures only: the study stops after the pictures, and goes on
# when they are labelled.

# %%
file = folder / "flux.yaml"
file.write_text("""\
run: runs/flux
model: black-forest-labs/FLUX.1-dev
device: cuda
prompts:
  - a photograph of an open hand, palm to the camera
  - a photograph of a waving child
  - a pianist's hands on the keys
  - two people shaking hands
  - a hand holding a cup of tea
seeds: {first: 0, count: 50}
steps: 20
height: 1024
width: 1024
batch_size: 1
labels: existing
blocks: [double.6, double.12, double.18, single.8, single.18, single.28]
read_steps: [20, 16, 12, 8, 4, 1]
also: [survey]
""")
flux = hs.Study.from_yaml(file)
for stage, missing in flux.left():
    print(f"{stage.name:9} {'to do' if missing else 'complete'}")

# %% [markdown]
# A key that does not exist is refused before anything is loaded:

# %%
try:
    hs.Study.from_yaml(file, {"stepz": 20})
except hs.HandscopeError as error:
    print(str(error).replace(str(folder), "FOLDER"))

# %% [markdown]
# ## If a step took a quarter of a second
#
# The arithmetic of the same table with FLUX's shapes. The seconds are an assumption, replaced by a measurement on the
# server; bytes and calls are not.

# %%
from dataclasses import replace

assumed = replace(
    measured, device="an assumed GPU", step=0.25, batch=1, load=120.0, encode=0.1, other=0.3, memory=None, blocks=57,
    width=3072, tokens=4096, channels=64, itemsize=2, height=1024, width_pixels=1024, write=1e9,
)  # fmt: skip
costs = plan(flux, assumed, workers=8, kept=0.02)
print(shown(costs, assumed, 8))
for warning in warnings_of(flux, costs, assumed):
    print(warning.replace(str(folder), "FOLDER"))

# %% [markdown]
# ## On a cluster
#
# Stages that can be divided are arrays, what lies between them single jobs that wait. `handscope submit flux.yaml
# --slurm --parts 16 --sbatch=--gres=gpu:1` writes the scripts; `--go` hands them in. Every job can be killed and goes
# on.

# %%
for job in jobs(flux, file, parts=16):
    array = f"array of {job.parts}" if job.divided else "one job"
    print(f"{job.name:12} {array:12} after {', '.join(job.after) or 'nothing'}")

# %% [markdown]
# ## The first hour on the server
#
# - First `handscope models check black-forest-labs/FLUX.1-dev --device cuda`: it holds what is said of the blocks
#   against what they compute.
# - Then one prompt with two seeds, and `handscope label RUN`: is the subject in the pictures, and how often is it bad?
# - When some are labelled, `handscope power RUN --auc 0.6`: how many are needed?
# - Then `handscope survey RUN --zoom 48`: which cells are worth storing.
#
# Memory, offload and quantised weights: `docs/flux.md`. Several machines: `docs/scale.md`.
