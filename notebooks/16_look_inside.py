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
# # 16. Look inside the blocks
#
# What would the model draw if it stopped at a block? What do its heads look at, and which tokens stand for which
# word? What is a token made of? Three looks at the model that ships with handscope, on a few hands that are drawn
# here; a minute or two on a laptop.
#
# `handscope lens RUN`, `handscope heads RUN` and `handscope features RUN` do the same for hundreds of labelled
# pictures, with tests and controls, and write them into the report (docs/inside.md). A few pictures show what is
# done, and say nothing of what is wrong with a hand.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
import torch
from handscope import figures
from handscope.inside.attention import GROUPS, Groups, reading_attention
from handscope.inside.concepts import concept_maps, mean_map
from handscope.inside.lens import BlockLens
from handscope.inside.sparse import train
from handscope.inside.translate import TranslatorSums, fitted
from handscope.models.sampling import Sampling
from handscope.organism.silhouette import foreground

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
model = hs.load("organism")
sampling = Sampling(model, steps=20)
prompt = "a left hand, palm view, five fingers raised, light skin, blue background"
prompts = [prompt] * 6
noisy = [sampling.noise(range(6))]
for index in range(20):
    noisy.append(sampling.step(noisy[-1], prompts, index)[0])
pictures = sampling.images(noisy[-1])
grid = model.grid(sampling.height, sampling.width)
hand = np.stack([foreground(picture, *grid).flatten() for picture in pictures])
print(hand.sum(1), "tokens of", hand.shape[1], "are of the hand")

# %% [markdown]
# ## The lens
#
# The model's own output layer, norm and projection, turns the stream behind the last block into a velocity. Here it
# is given the stream behind each block: a row a block, a column a step, of the first hand. Below, the same through an
# affine translator from each block's stream to the last one's, which was fitted to the other five hands.

# %%
lens, steps = BlockLens(sampling), [20, 16, 12, 8, 4]
own, translated = [], []
for step in steps:
    said = lens.read(noisy[20 - step], prompts, 20 - step)
    own.append([sampling.images(said.clean(block))[0] for block in lens.blocks])
    column = []
    for block in lens.blocks:
        stream, last = said.streams(block)[0], said.streams(lens.last)[0]
        sums = TranslatorSums(stream[1:].mean((0, 1)))
        sums.add(stream[1:], last[1:])
        column.append(sampling.images(said.clean(block, fitted([sums])))[0])
    translated.append(column)

fig, axes = plt.subplots(2, 1, figsize=(6, 13), layout="constrained")
for ax, columns, title in zip(axes, (own, translated), ("the model's own output layer", "through a fitted translator")):
    rows = np.stack([np.stack(column) for column in columns], axis=1)
    figures.mosaic(rows, lens.blocks, [str(step) for step in steps], ax)
    ax.set_title(title)
plt.show()

# %% [markdown]
# ## What heads look at
#
# The attention of hand tokens, in the mean over them, to the text, to other hand tokens and to the rest of the
# picture, head by head. It is read from the queries and keys that torch's own attention is given, for these tokens
# alone, and only sums over the groups are kept.

# %%
step = 12
text = torch.ones(6, model.max_sequence_length, dtype=torch.bool)
groups = Groups(torch.as_tensor(hand), {"text": text})
plan = hs.Plan(model.blocks, [step], of=20)
with reading_attention(model.transformer, plan, groups, [step]) as seen:
    sampling.step(noisy[20 - step], prompts, 20 - step)

fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
names = [f"{block} {head}" for block in model.blocks for head in range(seen[model.blocks[0], step]["text"].shape[1])]
below = np.zeros(len(names))
for group in ("text", *GROUPS, "self"):
    values = np.concatenate([seen[block, step][group].mean(0).numpy() for block in model.blocks])
    ax.bar(names, values, bottom=below, label=group)
    below += values
ax.tick_params(axis="x", rotation=90)
ax.set_ylabel("share of attention")
ax.legend()
plt.show()
assert np.allclose(below, 1, atol=1e-4)

# %% [markdown]
# ## Which tokens stand for which word
#
# After ConceptAttention: words go through the double blocks beside the prompt, attend to the picture, and are
# attended to by nothing. What attention gives them, times what it gives each token of the picture, makes maps by a
# softmax over the words. This model knows the words of its captions alone, and its maps follow the hand's outline
# without naming it: what stands for the hand here goes by "background" as often. Models that were taught a language
# do better.

# %%
words = ["hand", "background", "skin"]
with concept_maps(model, words, hs.Plan(["double.0", "double.1"], [1], of=1)) as seen:
    sampling.step(noisy[20 - step], prompts, 20 - step)
maps = mean_map(seen)[0].reshape(len(words), *grid)

fig, axes = plt.subplots(1, 1 + len(words), figsize=(11, 3), layout="constrained")
axes[0].imshow(pictures[0])
axes[0].set_title("the picture")
for ax, word, values in zip(axes[1:], words, maps):
    ax.imshow(values, vmin=0, vmax=1)
    ax.set_title(word)
plt.show()

# %% [markdown]
# ## What a token is made of
#
# A sparse autoencoder of the hand tokens of one block: of many features, each token has a few. Fitted to five hands
# and judged on the sixth, at all steps; so few tokens make poor features, and the share explained says how poor. The
# files that `save` writes are read by SAELens.

# %%
block = "single.1"
tokens = []
for step in range(20, 0, -1):
    with hs.capture(model.transformer, hs.Plan([block], [1], of=1)) as seen:
        sampling.step(noisy[20 - step], prompts, 20 - step)
    tokens.append(seen[block, 1].float())
tokens = torch.stack(tokens, 1)
fitted_to, held = (torch.cat([tokens[i][:, hand[i]].flatten(0, 1) for i in some]) for some in (range(1, 6), [0]))
coder = train(fitted_to, features=256, k=8, passes=10, batch=256)
explained = 1 - (coder(held) - held).square().sum() / (held - fitted_to.mean(0)).square().sum()
print(f"{len(fitted_to):,} tokens fitted to; {float(explained):.0%} of the variance of {len(held):,} others explained")

activities = coder.encode(tokens[0])[:, torch.as_tensor(hand[0])]
strongest = activities.mean((0, 1)).topk(6).indices
fig, axes = plt.subplots(1, 7, figsize=(13, 2.4), layout="constrained")
axes[0].imshow(pictures[0])
axes[0].set_title("the picture")
for ax, feature in zip(axes[1:], strongest.tolist()):
    values = np.full(hand.shape[1], np.nan)
    values[hand[0]] = activities[8, :, feature].numpy()
    ax.imshow(values.reshape(grid))
    ax.set_title(f"feature {feature}")
plt.show()
