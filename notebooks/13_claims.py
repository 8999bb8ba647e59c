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
# # 13. The sources' claims
#
# Much is said of why generated hands go wrong. Which of it can be asked here, and what comes out? This notebook lists
# the claims, recomputes a published table, and asks two of the others with small numbers.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import pandas as pd
from handscope import figures
from handscope.claims import CLAIMS, draw
from handscope.claims.counting import counting
from handscope.claims.loss import blindness
from handscope.claims.tables import read_published, rederive

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
pd.set_option("display.max_colwidth", 90)
pd.DataFrame([{"claim": name, "says": one.says, "does not show": one.cannot} for name, one in CLAIMS.items()])

# %% [markdown]
# ## A published table
#
# Every number that the table implies, beside what was printed of it. A cross is a printed number that does not follow
# from its own table.

# %%
table = rederive(read_published())
fig, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
draw.table(table, ax)
plt.show()
printed = table[table["printed"] != ""]
print(f"{(printed['agrees'] == False).sum()} of {len(printed)} printed numbers do not follow")  # noqa: E712
printed[["quantity", "value", "lo", "hi", "printed", "agrees"]].round(2)

# %% [markdown]
# ## What a pixel loss sees of a sixth finger
#
# Each hand is rendered twice, with and without one, and the background of the sound one is moved until that costs as
# much. The x axis has that shift, twice it and four times it.

# %%
found = blindness(6)
fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
draw.loss(found, ax)
plt.show()
for wider, middle, low, high in found.shifts():
    print(f"picture {wider} times as wide: a shift by {middle:.1f} of 255 levels (quartiles {low:.1f} to {high:.1f})")
print(f"n = {len(found.shift)} pairs of one renderer; it does not show {CLAIMS['loss'].cannot}")

# %% [markdown]
# ## Do text encoders tell numbers?
#
# A linear probe reads the number word from the embedding of a prompt, judged on templates that it was not fitted to.
# The organism's encoders are random and frozen: that its words can be told apart is a property of any embedding, and
# a warning for those who find the same in a trained one.

# %%
told = counting(hs.load("organism"), permutations=199)
fig, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
draw.counting(told, ax)
plt.show()
for one in told:
    print(f"{one.embedding}: {one.accuracy:.0%} right, chance {one.chance:.0%}, p = {one.p:.3f} (n = {one.n} prompts)")

# %% [markdown]
# `handscope claims NAME` asks any of them with more pictures, or with your model; `docs/claims.md` says what was
# found.
