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
# # 2. Capture from any pipeline
#
# How are activations read out of a diffusers pipeline that you call yourself? `hs.capture` stands around any call: no
# run folder, no labels. This notebook reads a few cells, keeps only some tokens, and checks that reading changes
# nothing and that the numbers are those of the block.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
import torch
from handscope import figures

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
model = hs.load("organism")
pipe = model.pipe
pipe.set_progress_bar_config(disable=True)
print(type(pipe).__name__, "with blocks", ", ".join(map(str, model.blocks)))


def draw() -> np.ndarray:
    prompt = "a left hand, palm view, two fingers raised, tan skin, teal background"
    settings = {"height": model.height, "width": model.width, "max_sequence_length": model.max_sequence_length}
    noise = torch.Generator().manual_seed(3)
    return pipe(prompt, num_inference_steps=20, generator=noise, output_type="np", **settings).images[0]


# %% [markdown]
# ## A plan names cells
#
# `double.1` is `transformer_blocks[1]` in diffusers, `single.3` is `single_transformer_blocks[3]`. Steps count what
# remains, so of 20 the first is 20.

# %%
plan = hs.Plan(["double.1", "single.3"], [20, 12, 3], of=20)
with hs.capture(pipe.transformer, plan) as seen:
    picture = draw()
for block in plan.blocks:
    print(block, "at step 12:", tuple(seen[block, 12].shape), "images, tokens, width;", seen[block, 12].dtype)

# %% [markdown]
# ## Reading changes nothing
#
# The same call without the hooks gives the same picture, bit for bit, and the hooks are gone.

# %%
assert np.array_equal(picture, draw())
assert not any(module._forward_hooks for module in pipe.transformer.modules())

# %% [markdown]
# ## The numbers are the block's own
#
# A hook of torch itself, put on the same block, sees the same at its last call. A single block's output has the text
# first, which `capture` leaves out; `stream="text"` reads that.

# %%
last = {}
block = pipe.transformer.single_transformer_blocks[3]
handle = block.register_forward_hook(lambda module, args, output: last.update(output=output))
with hs.capture(pipe.transformer, hs.Plan(["single.3"], [1], of=20)) as seen_last:
    draw()
handle.remove()
stream = last["output"][1] if isinstance(last["output"], tuple) else last["output"]
mine = seen_last["single.3", 1]
assert torch.equal(mine, stream[:, -mine.shape[1] :].cpu())

# %% [markdown]
# ## Some tokens, or what you make of them
#
# A mask keeps the tokens of one place; `reduce` is called on the device before anything is copied, so that a large
# model leaves only what is needed.

# %%
rows, columns = model.grid(model.height, model.width)
mask = np.zeros((rows, columns), bool)
mask[rows // 3 : 2 * rows // 3, columns // 3 : 2 * columns // 3] = True
with hs.capture(pipe.transformer, plan, tokens=mask, reduce=lambda tokens: tokens.mean(1)) as middle:
    draw()
print("mean of", mask.sum(), "tokens:", tuple(middle["single.3", 12].shape))

# %% [markdown]
# ## What one picture looks like inside
#
# The length of every token's activation, on the token grid, with the scale of each map its own. It follows the
# picture; that does not say what the block knows of it.

# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 2.7), layout="constrained")
axes[0].imshow(picture)
axes[0].set_title("the picture")
for ax, step in zip(axes[1:], plan.steps):
    ax.imshow(seen["single.3", step][0].float().norm(dim=-1).reshape(rows, columns))
    ax.set_title(f"single.3, step {step}")
for ax in axes:
    ax.set_axis_off()
plt.show()

# %% [markdown]
# ## Another pipeline
#
# The same lines read FLUX.2, Stable Diffusion 3.5, Qwen-Image and others: `handscope models` lists the families, and
# `handscope models check FOLDER` tests one model. Where the number of steps does not fit the plan, `capture` says so
# instead of naming steps wrongly:

# %%
try:
    with hs.capture(pipe.transformer, hs.Plan(["single.3"], [12], of=28)):
        draw()
except hs.HandscopeError as error:
    print(error)
