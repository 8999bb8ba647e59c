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
# # 11. Steering, guidance, interchange
#
# A probe says what a model *knows*. What do its activations *do*? This notebook pushes them along a direction,
# follows the gradient of a probe, and exchanges them between two pictures, each beside the control without which it
# would say nothing.

# %%
import handscope as hs
import matplotlib.pyplot as plt
import numpy as np
import torch
from handscope import figures
from handscope.analysis import difference_of_means
from handscope.analysis.subject_tokens import SubjectTokens
from handscope.guidance import ProbeLoss, guide, random_directions, steer
from handscope.guidance.attribution import attributed, exact
from handscope.guidance.interchange import Interchange, share_of_way
from handscope.organism.judge import Judge
from handscope.organism.silhouette import foreground
from handscope.probes import LogisticProbe
from handscope.report.results import Results
from handscope.tutorial import tutorial_run

plt.rcParams.update(figures.STYLE | {"figure.dpi": 60})
run = tutorial_run()
results, store = Results.read(run), hs.ActivationStore(run.activations_dir)
model = hs.load("organism")
model.pipe.set_progress_bar_config(disable=True)
judge = Judge.of("organism")
prompt = "a left hand, palm view, five fingers raised, light skin, blue background"

# %% [markdown]
# ## A direction
#
# From bad to good, in one cell. It was fitted to this run's pictures; those below have new noises.

# %%
sure = results.samples[results.samples["sure"]]
hands = SubjectTokens(store, sure["sample"].tolist())
bad = sure.set_index("sample").loc[hands.samples, "bad"].to_numpy(int)
cell = store.plan.cell(f"{store.plan.blocks[-1]}/{store.plan.steps[1]}")
x = hands.read(cell)[0].mean
block = str(cell.block)
direction = difference_of_means(x[bad == 0], x[bad == 1])
noises = range(1000, 1008)


def draw() -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in noises]
    settings = {"height": model.height, "width": model.width, "max_sequence_length": model.max_sequence_length}
    made = model.pipe(
        [prompt] * len(generators), num_inference_steps=20, generator=generators, output_type="np", **settings
    )
    return (255 * made.images).round().astype(np.uint8)


def said(pictures: np.ndarray) -> str:
    verdicts = [judge.verdict(picture, prompt)[0] for picture in pictures]
    return ", ".join(f"{verdicts.count(name)} {name}" for name in ("good", "bad", "unsure"))


# %% [markdown]
# ## Steering, and a push that means nothing
#
# The same strength along a random direction is the control. A push strong enough to change a verdict usually changes
# the picture; what counts is whether *this* direction does more than any other.

# %%
window = range(18, 9, -1)
made = {"as drawn": draw()}
for name, along in (("towards good", {block: direction}), ("at random", random_directions({block: direction}, 0))):
    with steer(model.pipe.transformer, along, 0.2, steps=window, of=20):
        made[name] = draw()

# %% [markdown]
# ## Guidance
#
# The velocity is corrected by the gradient of the probe's log-odds. `relative` makes the correction a share of the
# velocity's length.

# %%
probe = LogisticProbe(l2=100.0).fit(x, bad)
with guide(model.pipe, ProbeLoss({block: probe}), 0.1, steps=window, of=20, relative=True) as trace:
    made["guided"] = draw()
first, last = (float(np.mean(one.loss)) for one in (trace[0], trace[-1]))
print(f"the probe's log-odds of bad, mean over the pictures: {first:.2f} when guidance begins, {last:.2f} when it ends")

# %%
fig, ax = plt.subplots(figsize=(10, 5), layout="constrained")
figures.mosaic(np.stack(list(made.values())), list(made), [str(seed) for seed in noises], ax, label="noise")
plt.show()
for name, pictures in made.items():
    change = np.abs(pictures.astype(float) - made["as drawn"]).mean()
    print(f"{name:13} {said(pictures)}; mean change of a pixel {change:.1f} of 255")

# %% [markdown]
# Eight pictures cannot tell arms apart; they show what is done. `handscope mend RUN` compares arms on hundreds of
# pairs, with directions of shuffled labels for controls (`docs/mending.md`).
#
# ## Interchange
#
# Two pictures of one prompt are drawn from different noises. Then the first is drawn on from a step with the
# activations of the second put in at the tokens of the hand. Its own activations put in change no bit, so what
# follows is due to the donor's.

# %%
interchange = Interchange(model, steps=20)
prompts = [prompt] * 2
recipients, donors = (interchange.drawn(prompts, interchange.sampling.noise(seeds)) for seeds in ([1, 2], [3, 4]))
before, goal = (interchange.sampling.images(drawn.final) for drawn in (recipients, donors))
grid = model.grid(*before.shape[1:3])
masks = np.stack([(foreground(a, *grid) | foreground(b, *grid)).flatten() for a, b in zip(before, goal)])
own = interchange.values(recipients, hs.Plan(["single.1"], [12], of=20), masks)
assert torch.equal(interchange.patched(recipients, 12, masks, own), recipients.final)

# %% [markdown]
# Left the recipient, right the donor. Between them one block at one step, then at every step from there on, and last
# the donor's noisy latents of the same tokens, which needs no look inside.

# %%
step, patched = 16, "single.1"
values = interchange.values(donors, hs.Plan([patched], range(step, 0, -1), of=20), masks)
one = {at: rows for at, rows in values.items() if at.step == step}
finals = {
    "recipient": recipients.final,
    f"{patched} at step {step}": interchange.patched(recipients, step, masks, one),
    "and at all later ones": interchange.patched(recipients, step, masks, values),
    "latents at that step": interchange.patched(recipients, step, masks, latents=donors.at(step)),
    "donor": donors.final,
}
fig, axes = plt.subplots(2, len(finals), figsize=(2.4 * len(finals), 5), layout="constrained")
for column, (name, final) in zip(axes.T, finals.items()):
    way = share_of_way(final, recipients.final, donors.final, masks)
    for ax, picture, share in zip(column, interchange.sampling.images(final), way):
        ax.imshow(picture, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"{share:.0%} of the way")
    column[0].set_title(name, fontsize=10)
plt.show()

# %% [markdown]
# ## Every block, measured and to first order
#
# What each block's output at that step does to the clean picture predicted there, as a share of the way to the
# donor's: measured with one forward a block, and estimated for all of them from one backward pass.

# %%
measured = exact(interchange, recipients, donors, model.blocks, step, masks)
estimated = attributed(interchange, recipients, donors, model.blocks, step, masks)
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for label, found, marker in (("measured", measured, "o"), ("first order", estimated, "x")):
    ax.plot([str(at.block) for at in found], [rows.mean() for rows in found.values()], marker, label=label)
ax.set_ylabel("share of the way")
ax.legend()
plt.show()

# %% [markdown]
# Two pairs say nothing of what causes a fault: that takes many pairs, donors of the recipient's own class beside
# those of the other, and a judge. `handscope patch RUN` does it (`docs/interchange.md`).
